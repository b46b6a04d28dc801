"""What a run is going to do: found, and refused where it cannot be done, before anything is trained."""
from __future__ import annotations

from typing import Optional

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmseg.registry import MODELS
from torch import nn

from .datasets.incremental import build_source, presence_of, scenario_of, select_images
from .datasets.source import split_mix
from .first_step import load_first_step
from .input_size import training_size
from .inversion.memory_format import fastest_memory_format
from .inversion.recording import layers_to_record
from .methods.classifier_growth import check_growth
from .methods.logits import check_head, main_head
from .replay.sampler import split_batch
from .replay.step_statistics import statistics_options
from .step_config import method_class, num_fake_images, replay_options, step_config, training_scenario
from .step_schedule import is_epoch_based

# (height, width) of images to try a network on where the config does not say what it trains on.
_TRIAL_SIZE = (64, 64)
# Channels of a block of oneDNN with AVX-512; 8 with AVX2, but a run may go on on another CPU.
_ONEDNN_BLOCK = 16


def iterations(cfg: Config, num_real: int) -> int:
    """Iterations that a step's config trains for.

    Args:
        cfg: of the step, from :func:`~.step_config.step_config`.
        num_real: its training images, as often as the data go through them.
    """
    if not is_epoch_based(cfg):
        return int(cfg.train_cfg.max_iters)
    loader, ranks = cfg.train_dataloader, get_world_size()
    sampler = loader.get('sampler') or {}
    if sampler.get('type') == 'RealFakeSampler':
        ratio = sampler.get('ratio')
        real = loader.batch_size if ratio is None else split_batch(loader.batch_size, ratio)[0]
        per_epoch = -(-num_real // (real * ranks))
    else:
        on_rank = -(-num_real // ranks)
        per_epoch = on_rank // loader.batch_size if loader.get('drop_last') else -(-on_rank // loader.batch_size)
    return int(cfg.train_cfg.max_epochs) * per_epoch


class RunPlan:
    """Scenario, data and config of every step of a run.

    Args:
        cfg: of the run, see :class:`~.incremental_runner.IncrementalRunner`.
        work_dir: absolute path; nothing is written into it but the class index.
        seed: of the run.
        cache_dir: folder of the class index; None: the masks are read and nothing is written.
    Raises:
        ValueError: what is wrong with config or data.
    """

    def __init__(self, cfg: Config, work_dir: str, seed: int, cache_dir: Optional[str]) -> None:
        self.cfg = cfg
        self.work_dir = work_dir
        self.train_source = build_source(split_mix(cfg.train_dataloader.dataset)[0])
        test_loader = cfg.get('test_dataloader') or cfg.val_dataloader
        self.test_source = build_source(test_loader.dataset, test_mode=True)
        self.scenario = scenario_of(self.train_source, cfg.scenario)
        if scenario_of(self.test_source, cfg.scenario) != self.scenario:
            raise ValueError('train_dataloader and test_dataloader have datasets of different classes or '
                             f'reduce_zero_label: {self.train_source.raw_labels.dataset} and '
                             f'{self.test_source.raw_labels.dataset} would not mean the same by a label.')
        self.method = method_class(cfg)
        last = self.scenario.num_steps - 1
        self.steps = [last] if self.method.joint else list(range(last + 1))
        presence = presence_of(self.train_source, self.scenario, cache_dir)
        self.train_positions = {t: self._training_images(t, presence) for t in self.steps}
        self.num_real = {t: len(positions) for t, positions in self.train_positions.items()}
        presence = presence_of(self.test_source, self.scenario, cache_dir)
        self.test_positions = {
            t: select_images(self.test_source, self.scenario, presence, t, True) for t in self.steps
        }
        # Every step's config is built now: what cannot be configured must not come to light hours later.
        self.configs = {t: step_config(cfg, self.scenario, t, work_dir, self.num_real[t], seed) for t in self.steps}

    def learns(self, step: int) -> tuple[str, ...]:
        """Names of the classes whose labels the step trains on."""
        return self.scenario.seen_classes(step) if self.method.joint else self.scenario.steps[step]

    def _training_images(self, step: int, presence: np.ndarray) -> np.ndarray:
        options, learnt = training_scenario(self.cfg, self.scenario, step)
        scenario = scenario_of(self.train_source, options)
        return select_images(self.train_source, scenario, presence, learnt, False)

    def check_model(self) -> None:
        """Build the networks of the first two steps: what cannot be distilled or grown must come to light now."""
        first = _build(self.configs[self.steps[0]].model).student
        if self.cfg.get('first_step_from') is not None:
            load_first_step(first, self.cfg.first_step_from, self.scenario, self.train_source.raw_labels.names)
        if self.cfg.get('channels_last'):
            _check_channels_last(first, training_size(self.cfg))
        if len(self.steps) > 1:
            second = _build(self.configs[1].model.student)
            check_growth(first, second)
            if self.method.needs_teacher:
                check_head(main_head(second))
            options = statistics_options(replay_options(self.cfg))
            if options is not None:
                layers_to_record(first, options.get('layers'))
            self.method.check_segmentor(second, training_size(self.cfg) or _TRIAL_SIZE)

    def describe(self) -> str:
        """One table of the plan."""
        lines = [
            f'{self.cfg.method["type"]}, {self.scenario.setting}, {self.scenario.label_protocol} labels, work dir '
            f'{self.work_dir}',
            f'{"step":>4} {"classes":>7} {"images":>7} {"fakes":>6} {"iterations":>10} {"test":>6}  learns',
        ]
        for t in self.steps:
            learns = ', '.join(self.learns(t))
            fakes = num_fake_images(self.cfg, t, self.num_real[t])
            drawn = len(self.train_source.repeated(self.train_positions[t]))
            lines.append(f'{t:>4} {self.scenario.num_classes(t):>7} {self.num_real[t]:>7} {fakes:>6} '
                         f'{iterations(self.configs[t], drawn):>10} {len(self.test_positions[t]):>6}  '
                         f'{learns if len(learns) < 70 else learns[:66] + " ..."}')
        for name, source in (('train', self.train_source), ('test', self.test_source)):
            if source.reduces_zero_label:
                lines.append(f'{name}_dataloader: reduce_zero_label of {source.raw_labels.dataset} is switched off: 0 '
                             'stays 0, the channel of background in training and void in evaluation.')
        return '\n'.join(lines)


def _check_channels_last(model: nn.Module, size: Optional[tuple[int, int]]) -> None:
    images = torch.zeros(2, 3, *(size or _TRIAL_SIZE))
    if fastest_memory_format(model.eval(), images) is not torch.channels_last:
        raise ValueError(f'channels_last=True: {type(model).__name__} with {type(main_head(model)).__name__} computes '
                         'in the usual order of memory only: leave channels_last out.')
    if get_device() == 'cpu':
        for name, layer in model.named_modules():
            if _overruns(layer):
                raise ValueError(f'channels_last=True: {name}, a 1x1 convolution of {layer.in_channels} channels with '
                                 f'stride {layer.stride}, makes oneDNN write beyond its memory on a CPU: it needs '
                                 f'{_ONEDNN_BLOCK} channels and more: leave channels_last out.')


def _overruns(layer: nn.Module) -> bool:
    """Whether oneDNN's gradient of the weights is wrong or crashes in channels last (its issue 6035)."""
    return (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and max(layer.stride) > 1
            and layer.in_channels // layer.groups < _ONEDNN_BLOCK and layer.weight.requires_grad)


def _build(model: dict) -> nn.Module:
    try:
        return MODELS.build(model)
    except (KeyError, TypeError, AttributeError, AssertionError, IndexError, NotImplementedError) as error:
        reason = error.args[0] if error.args else type(error).__name__
        raise ValueError(f'The model cannot be built from the config: {reason}') from error
