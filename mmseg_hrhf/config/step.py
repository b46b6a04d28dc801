"""From a plain mmseg config to the config of one learning step. The only code that edits a config."""
from __future__ import annotations

import copy
import os.path as osp
from typing import Optional

from mmengine.config import Config

from ..datasets.source import split_mix, type_name
from ..replay.sampler import split_batch
from ..scenario import Scenario
from ..utils.errors import UserError
from ..utils.io import PathLike
from ..work_dir.layout import StepFiles
from .check import refuse_unsupported
from .classes import as_list, set_classes
from .run import OWN_KEYS, effective_config, method_class, num_fake_images, replay_options, training_scenario


def step_config(cfg: Config,
                scenario: Scenario,
                step: int,
                work_dir: str,
                num_real: int,
                seed: int,
                pixel_map: Optional[dict] = None) -> Config:
    """The config from which a stock mmengine Runner trains and tests one step.

    Args:
        cfg: plain mmseg config with ``scenario``, ``method`` and, optionally, ``replay``.
        scenario: built from ``cfg.scenario``.
        step: learning step.
        work_dir: of the whole run.
        num_real: training images of the step.
        seed: of the whole run.
        pixel_map: see ``SegInversionHook``.
    """
    files = StepFiles(work_dir, step)
    first = step == 0 or method_class(cfg).joint
    own = {key: copy.deepcopy(cfg.get(key)) for key in OWN_KEYS}
    own['replay'] = replay_options(cfg)
    out = effective_config(cfg, step)
    refuse_unsupported(out, own['replay'] is not None)
    segmentor = out.pop('model')
    preprocessor = out.pop('data_preprocessor', None)
    if preprocessor is not None:
        segmentor.setdefault('data_preprocessor', preprocessor)
    out.model = dict(own['method'], student=set_classes(segmentor, scenario.class_names(step)))
    if not first:
        out.model.teacher = set_classes(segmentor, scenario.class_names(step - 1))
        out.model.teacher_checkpoint = files.previous().checkpoint
    if own['channels_last']:
        out.model.channels_last = True
    _show_the_student(out)
    options, learnt = training_scenario(cfg, scenario, step)
    real = dict(scenario=options, step=learnt, cache_dir=osp.join(work_dir, 'class_index'))
    out.custom_hooks = as_list(out.get('custom_hooks')) + [dict(type=name) for name in method_class(cfg).hooks]
    num_fake = num_fake_images(cfg, step, num_real)
    set_train_data(out, real, own['replay'] if num_fake else None, num_fake, files.fakes, seed + step, pixel_map)
    set_evaluation(out, own, scenario, files)
    out.custom_hooks = [*out.custom_hooks, dict(type='PredictionGridHook')]
    set_schedule(out, seed + step)
    out.work_dir = files.train
    out.experiment_name = f'{out.get("experiment_name") or osp.basename(osp.normpath(work_dir))}_step_{step}'
    if out.get('visualizer'):
        # mmengine shares visualizers by name, and all steps would write into step 0's folder. Unnamed, each Runner
        # makes its own.
        out.visualizer.pop('name', None)
    out.randomness = dict(out.get('randomness') or {}, seed=seed + step)
    # The weights a user starts from are for step 0; a later step starts from its predecessor.
    out.load_from, out.resume = (out.get('load_from') if first else None), False
    out.custom_hooks = [*out.custom_hooks, dict(type='FiniteLossHook', step=step)]
    return out


def _show_the_student(out: Config) -> None:
    """A constructor walks down a network by its children, and must begin at the segmentor."""
    constructor = out.optim_wrapper.get('constructor')
    if constructor is not None or out.optim_wrapper.get('paramwise_cfg') is not None:
        out.optim_wrapper.update(
            constructor='StudentOptimWrapperConstructor',
            student_constructor=constructor or 'DefaultOptimWrapperConstructor')


def step_test_config(cfg: Config, scenario: Scenario, step: int) -> Config:
    """The config from which a stock mmengine Runner tests a step's plain checkpoint.

    Args:
        cfg: plain mmseg config with ``scenario``; its ``work_dir`` keeps the class index.
        scenario: built from ``cfg.scenario``.
        step: learning step.
    """
    out = effective_config(cfg, step)
    preprocessor = out.pop('data_preprocessor', None)
    out.model = set_classes(out.model, scenario.class_names(step))
    if preprocessor is not None:
        out.model.setdefault('data_preprocessor', preprocessor)
    set_evaluation(out, dict(scenario=cfg.scenario), scenario, StepFiles(cfg.work_dir, step))
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'val_dataloader', 'val_evaluator',
                'val_cfg'):
        out.pop(key, None)
    return out


_LOOPS = dict(EpochBasedTrainLoop='ResumableEpochLoop', IterBasedTrainLoop='ResumableIterLoop')


def is_epoch_based(cfg: Config) -> bool:
    """Whether the schedule counts epochs."""
    return bool(cfg.train_cfg.get('by_epoch', loop_type(cfg) == 'ResumableEpochLoop'))


def loop_type(cfg: Config) -> str:
    """Name of the resumable loop for the config's.

    Raises:
        UserError: a loop of another kind.
    """
    if 'type' not in cfg.train_cfg:
        return 'ResumableEpochLoop' if cfg.train_cfg.get('by_epoch') else 'ResumableIterLoop'
    kind = getattr(cfg.train_cfg.type, '__name__', cfg.train_cfg.type)
    if kind in _LOOPS.values():
        return kind
    if kind not in _LOOPS:
        raise UserError(f'train_cfg.type={kind!r} cannot be resumed exactly: use one of {sorted(_LOOPS)}.')
    return _LOOPS[kind]


def set_schedule(out: Config, seed: int) -> None:
    """Resumption at any iteration: loop, seeds and, unless the config has one of its own, a ResumeHook."""
    loop = loop_type(out)
    out.train_cfg.pop('by_epoch', None)
    out.train_cfg.type = loop
    hooks = as_list(out.get('custom_hooks'))
    hooks.append(dict(type='IterationSeedHook', seed=seed))
    chosen = [hook for hook in [*(out.get('default_hooks') or {}).values(), *hooks] if hook]
    if not any(hook.get('type') == 'ResumeHook' for hook in chosen):
        hooks.append(dict(type='ResumeHook'))
    out.custom_hooks = hooks


def set_train_data(out: Config, real: dict, replay: Optional[dict], num_fake: int, fake_folder: PathLike,
                   seed: int, pixel_map: Optional[dict] = None) -> None:
    """Let ``out`` train on a step's share of its dataset and, from step 1 on, on fake images.

    Args:
        out: config of the step, changed in place.
        real: options of ``IncrementalDataset`` besides the dataset.
        replay: options of replay; None: no fake images.
        num_fake: their number.
        fake_folder: of their buffer.
        seed: of the fake images.
        pixel_map: see ``SegInversionHook``.
    """
    loader = out.train_dataloader
    dataset, mix = split_mix(loader.dataset)
    if mix:
        mix['type'] = 'SeededMixDataset'
    real = dict(type='IncrementalDataset', dataset=dataset, **real)
    ratio = None if replay is None else replay.get('ratio', '1:1')
    # Whole batches, resumable at any. Half a batch will not do: batch norm of one pooled image is undefined.
    loader.sampler = dict(
        type='RealFakeSampler',
        batch_size=loader.batch_size,
        ratio=ratio,
        shuffle=(loader.get('sampler') or {}).get('shuffle', True),
        infinite=not is_epoch_based(out))
    if replay is None:
        loader.dataset = dict(mix, dataset=real) if mix else real
        return
    split_batch(loader.batch_size, str(ratio))
    loader.dataset = dict(type='RealFakeDataset', real=real, fake_folder=fake_folder, num_fake=num_fake)
    if mix:
        loader.dataset.mix = mix
    hook = dict(
        type='SegInversionHook', folder=fake_folder, num_images=num_fake, inversion=replay['inversion'], seed=seed)
    if pixel_map is not None:
        hook['pixel_map'] = pixel_map
    out.custom_hooks = as_list(out.get('custom_hooks')) + [hook]


def set_evaluation(out: Config, own: dict, scenario: Scenario, files: StepFiles) -> None:
    """Let ``out`` be evaluated on a step's images, labels and groups. ``own`` holds the user's ``scenario``.

    Raises:
        UserError: nothing to evaluate on, or no metric to make the groups from.
    """
    for name in ('val', 'test'):
        loader = out.get(f'{name}_dataloader')
        if loader is None:
            continue
        loader.dataset = dict(
            type='IncrementalDataset',
            dataset=loader.dataset,
            scenario=own['scenario'],
            step=files.step,
            test_mode=True,
            cache_dir=osp.join(files.work_dir, 'class_index'))
        out[f'{name}_evaluator'] = _evaluator(out[f'{name}_evaluator'], scenario, files.step)
    if out.get('test_dataloader') is None:
        if out.get('val_dataloader') is None:
            raise UserError('The config has neither test_dataloader nor val_dataloader: a step cannot be evaluated.')
        for name in ('dataloader', 'evaluator'):
            out[f'test_{name}'] = copy.deepcopy(out[f'val_{name}'])
        out.test_cfg = dict(type='TestLoop')
    evaluators = out.test_evaluator if isinstance(out.test_evaluator, (list, tuple)) else [out.test_evaluator]
    if not any(evaluator.get('type') == 'IncrementalIoUMetric' and not evaluator.get('prefix')
               and not evaluator.get('format_only') for evaluator in evaluators):
        raise UserError('test_evaluator must hold an IoUMetric without prefix and format_only: the mIoU of old, new '
                         'and all classes is made from it.')
    if out.get('train_cfg') is None:
        return
    # Each step ends in a test of its last weights; validation at the same moment would only repeat it.
    length = out.train_cfg.get('max_epochs' if is_epoch_based(out) else 'max_iters')
    if out.train_cfg.get('val_interval', 1 if is_epoch_based(out) else 1000) >= length:
        out.val_dataloader = out.val_evaluator = out.val_cfg = None


def _evaluator(evaluator, scenario: Scenario, step: int):
    """The evaluator with mmseg's IoUMetric replaced by the one that knows groups."""
    if isinstance(evaluator, (list, tuple)):
        return [_evaluator(item, scenario, step) for item in evaluator]
    if type_name(evaluator) != 'IoUMetric':
        return evaluator
    return dict(evaluator, type='IncrementalIoUMetric', groups=scenario.metric_groups(step))
