"""Saves the state from which an interrupted training resumes exactly."""
from __future__ import annotations

import logging
import os.path as osp
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner.checkpoint import weights_to_cpu
from mmengine.utils import apply_to
from torch import nn

from ...models.segmentors.base import unwrapped
from ...utils.errors import UserError
from ...utils.io import atomic_write
from ...work_dir.layout import RESUME_FILE


@HOOKS.register_module()
class ResumeHook(Hook):
    """Atomically writes ``resume.pth`` into the step's training folder.

    It contains the same as mmengine's checkpoints, as plain data (without the history that smooths the log). The state
    is taken before an iteration, after the schedule, epoch end and validation of the previous one. It has no random
    state, because all draws depend only on the iteration. It is written every ``interval`` iterations and at the end;
    with gradient accumulation, after the next complete update.

    Args:
        interval: maximum number of iterations lost by an interruption.
    """
    priority = 'VERY_HIGH'

    def __init__(self, interval: int = 200) -> None:
        if not isinstance(interval, int) or interval < 1:
            raise UserError(f'ResumeHook.interval={interval!r} must be a positive number of iterations.')
        self.interval = interval
        self._last = 0

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        # Adam keeps its step counts on the CPU. mmengine loads them onto the GPU, where reading them, twice per
        # parameter and iteration, blocks the host.
        _counts_to_cpu(checkpoint.get('optimizer', {}))

    def before_train(self, runner) -> None:
        self._last = runner.iter
        if is_main_process():
            for leftover in Path(runner.work_dir).glob(f'.{RESUME_FILE}.*'):
                leftover.unlink()  # partial file of a killed process

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        done = runner.iter - self._last
        if done >= self.interval and not _accumulates(runner.optim_wrapper):
            self._write(runner)

    def after_train(self, runner) -> None:
        if runner.iter > self._last:
            self._write(runner)

    def _write(self, runner) -> None:
        self._last = runner.iter
        if is_main_process():
            model = unwrapped(runner.model)
            broken = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
            if broken:
                print_log(f'No resume point at iteration {runner.iter}: {broken[0]} is not finite. The last one is '
                          'kept.', logger='current', level=logging.WARNING)
                return
            state = _state(runner, model)
            # Other hooks add their state, such as weight averages.
            runner.call_hook('before_save_checkpoint', checkpoint=state)
            with atomic_write(osp.join(runner.work_dir, RESUME_FILE)) as file:
                torch.save(state, file)


def _state(runner, model: nn.Module) -> dict:
    """State for ``Runner.resume``. ``Runner.save_checkpoint`` would spend a second on formatting the config."""
    state = dict(
        meta=dict(
            epoch=runner.epoch,
            iter=runner.iter,
            seed=runner.seed,
            dataset_meta=runner.train_dataloader.dataset.metainfo,
            world_size=get_world_size()),
        state_dict=weights_to_cpu(model.state_dict()),
        message_hub=_message_hub(runner.message_hub.state_dict()),
        optimizer=apply_to(runner.optim_wrapper.state_dict(), lambda x: hasattr(x, 'cpu'), lambda x: x.cpu()))
    if runner.param_schedulers is not None:
        state['param_schedulers'] = [scheduler.state_dict() for scheduler in runner.param_schedulers]
    return state


def _counts_to_cpu(state: dict) -> None:
    for key, value in state.items():
        if key == 'step' and isinstance(value, torch.Tensor):
            state[key] = value.cpu()
        elif isinstance(value, dict):
            _counts_to_cpu(value)


def _message_hub(hub: dict) -> dict:
    """The hub's plain data: everything except the history that smooths the log."""
    info = {key: _plain(value) for key, value in hub['runtime_info'].items()}
    info = {key: value for key, value in info.items() if _is_plain(value)}
    kept = {key: value for key, value in hub['resumed_keys'].items() if key in info}
    return dict(log_scalars={}, runtime_info=info, resumed_keys=kept)


def _accumulates(optim_wrapper: OptimWrapper) -> bool:
    """Whether there are accumulated gradients that no update has used yet."""
    wrappers = optim_wrapper.values() if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]
    return not all(wrapper.should_update() for wrapper in wrappers)


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value.keys())) and all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float, bool, torch.Tensor))
