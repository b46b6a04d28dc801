"""From a plain mmseg config to the config of one learning step. The only code that edits a config."""
from __future__ import annotations

import copy
import difflib
import os.path as osp
from typing import Optional

from mmengine.config import Config
from mmseg.registry import MODELS

from .head_classes import set_classes
from .inversion import build_inversion
from .methods import IncrementalSegmentor
from .options import check_names, check_types, parameters
from .replay.sampler import split_batch
from .scenario import Scenario
from .step_files import StepFiles

# Top-level keys that are ours; what is left is a plain mmseg config.
OWN_KEYS = ('scenario', 'method', 'replay', 'incremental_overrides', 'runner_type', 'only_step', 'comparison')
_REPLAY_OPTIONS = ('ratio', 'num_images', 'inversion', 'feature_statistics')
PACKAGE = 'mmseg_hrhf'
_LOOPS = dict(EpochBasedTrainLoop='ResumableEpochLoop', IterBasedTrainLoop='ResumableIterLoop')
# What mmseg's schedules name; RealFakeSampler does either one's work.
_SAMPLERS = ('DefaultSampler', 'InfiniteSampler')


def method_class(cfg: Config) -> type[IncrementalSegmentor]:
    """The class that ``method.type`` names."""
    name = cfg.method.get('type') if isinstance(cfg.get('method'), dict) else None
    known = {key: value for key, value in MODELS.module_dict.items() if _is_method(value)}
    found = known.get(name) if isinstance(name, str) else name if _is_method(name) else None
    if found is None:
        near = difflib.get_close_matches(str(name), known, n=1)
        raise ValueError(f'method.type={name!r} is no incremental method' +
                         (f': did you mean {near[0]!r}?' if near else f'; there are {sorted(known)}.'))
    annotations = parameters(found, IncrementalSegmentor)
    set_here = {'student', 'teacher', 'teacher_checkpoint'}
    check_names(f'method {found.__name__}', cfg.method, set(annotations) - set_here | {'type'})
    check_types('method', cfg.method, annotations)
    return found


def _is_method(value) -> bool:
    return isinstance(value, type) and issubclass(value, IncrementalSegmentor) and value is not IncrementalSegmentor


def training_scenario(cfg: Config, scenario: Scenario, step: int) -> tuple[dict, int]:
    """Options of the scenario, and its step, that choose a step's training images and labels.

    For a joint method that is a scenario of one step, which learns all classes from all images that show any.
    """
    if not method_class(cfg).joint:
        return dict(cfg.scenario), step
    divided = ('task', 'steps', 'class_order', 'setting', 'image_lists')
    options = {key: value for key, value in cfg.scenario.items() if key not in divided}
    return dict(options, steps=[list(scenario.seen_classes(step))]), 0


def replay_options(cfg: Config) -> Optional[dict]:
    """The ``replay`` options, checked; None where the method or the config wants no fake images."""
    replay = cfg.get('replay')
    if replay is None or not method_class(cfg).uses_fake_images:
        return None
    if not isinstance(replay, dict):
        raise ValueError(f'replay={replay!r} must be a dict, or None to train without fake images.')
    check_names('replay', replay, _REPLAY_OPTIONS)
    split_batch(cfg.train_dataloader.batch_size, replay.get('ratio', '1:1'))
    build_inversion(replay.get('inversion'))  # hours later, at step 1, is too late for a mistake in its options
    number = replay.get('num_images')
    if number is not None and (type(number) is not int or number < 1):
        raise ValueError(f'replay.num_images={number!r} must be a positive number, or None for the number of real '
                         'images of the step within 512 to 4096.')
    return dict(replay)


def num_fake_images(cfg: Config, step: int, num_real: int) -> int:
    """Size of a step's buffer: declared, or as many as real images within [512, 4096]; 0 without replay."""
    replay = replay_options(cfg)
    if replay is None or step == 0:
        return 0
    declared = replay.get('num_images')
    return min(max(num_real, 512), 4096) if declared is None else int(declared)


def is_epoch_based(cfg: Config) -> bool:
    """Whether the schedule counts epochs."""
    return bool(cfg.train_cfg.get('by_epoch', _loop_type(cfg) == 'ResumableEpochLoop'))


def _loop_type(cfg: Config) -> str:
    """Name of the resumable loop for the config's.

    Raises:
        ValueError: a loop of another kind.
    """
    if 'type' not in cfg.train_cfg:
        return 'ResumableEpochLoop' if cfg.train_cfg.get('by_epoch') else 'ResumableIterLoop'
    kind = getattr(cfg.train_cfg.type, '__name__', cfg.train_cfg.type)
    if kind in _LOOPS.values():
        return kind
    if kind not in _LOOPS:
        raise ValueError(f'train_cfg.type={kind!r} cannot be resumed exactly: use one of {sorted(_LOOPS)}.')
    return _LOOPS[kind]


def plain_config(cfg: Config) -> Config:
    """The config without what is ours."""
    plain = Config({key: copy.deepcopy(value) for key, value in cfg._cfg_dict.items() if key not in OWN_KEYS})
    imports = plain.get('custom_imports')
    if imports:
        names = imports['imports']
        names = [names] if isinstance(names, str) else names
        kept = [name for name in names if name.split('.')[0] != PACKAGE]
        if kept:
            plain.custom_imports.imports = kept
        else:
            plain.pop('custom_imports')
    return plain


def step_config(cfg: Config, scenario: Scenario, step: int, work_dir: str, num_real: int, seed: int) -> Config:
    """The config from which a stock mmengine Runner trains and tests one step.

    Args:
        cfg: plain mmseg config with ``scenario``, ``method`` and, optionally, ``replay``.
        scenario: built from ``cfg.scenario``.
        step: learning step.
        work_dir: of the whole run.
        num_real: training images of the step.
        seed: of the whole run.
    """
    files = StepFiles(work_dir, step)
    first = step == 0 or method_class(cfg).joint
    own = {key: copy.deepcopy(cfg.get(key)) for key in OWN_KEYS}
    out = plain_config(cfg)
    unchangeable = sorted(set(own['incremental_overrides'] or {}) & set(OWN_KEYS))
    if unchangeable:
        raise ValueError(f'incremental_overrides cannot set {unchangeable}: these hold for the whole run.')
    if not first and own['incremental_overrides']:
        out.merge_from_dict(_flatten(own['incremental_overrides']))
    segmentor = out.pop('model')
    preprocessor = out.pop('data_preprocessor', None)
    if preprocessor is not None:
        segmentor.setdefault('data_preprocessor', preprocessor)
    out.model = dict(own['method'], student=set_classes(segmentor, scenario.class_names(step)))
    if not first:
        out.model.teacher = set_classes(segmentor, scenario.class_names(step - 1))
        out.model.teacher_checkpoint = files.previous().checkpoint
    constructor = out.optim_wrapper.get('constructor')
    if constructor is not None:
        out.optim_wrapper.update(constructor='StudentOptimWrapperConstructor', student_constructor=constructor)
    options, learnt = training_scenario(cfg, scenario, step)
    out.train_dataloader.dataset = dict(
        type='IncrementalDataset',
        dataset=out.train_dataloader.dataset,
        scenario=options,
        step=learnt,
        cache_dir=osp.join(work_dir, 'class_index'))
    hooks = [dict(type=name) for name in method_class(cfg).hooks]
    if hooks:
        out.custom_hooks = list(out.get('custom_hooks') or []) + hooks
    num_fake = num_fake_images(cfg, step, num_real)
    if num_fake:
        _add_fake_images(out, own, files, num_fake, seed + step)
    _fill_batches(out, own['replay'].get('ratio', '1:1') if num_fake else None)
    _set_evaluation(out, own, scenario, files)
    out.custom_hooks = [*(out.get('custom_hooks') or []), dict(type='PredictionGridHook')]
    _set_training(out, seed + step)
    out.work_dir = files.train
    out.experiment_name = f'{osp.basename(osp.normpath(work_dir))}_step_{step}'
    if out.get('visualizer'):
        # mmengine shares visualizers by name, and all steps would write into step 0's folder. Unnamed, each Runner
        # makes its own.
        out.visualizer.pop('name', None)
    out.randomness = dict(out.get('randomness') or {}, seed=seed + step)
    # mmseg's `load_from` is where a run starts; later steps start from the step before.
    out.load_from, out.resume = cfg.get('load_from') if step == 0 else None, False
    out.custom_hooks = list(out.get('custom_hooks') or []) + [dict(type='FiniteLossHook', step=step)]
    return out


def step_test_config(cfg: Config, scenario: Scenario, step: int) -> Config:
    """The config from which a stock mmengine Runner tests a step's plain checkpoint.

    Args:
        cfg: plain mmseg config with ``scenario``; its ``work_dir`` keeps the class index.
        scenario: built from ``cfg.scenario``.
        step: learning step.
    """
    out = plain_config(cfg)
    preprocessor = out.pop('data_preprocessor', None)
    out.model = set_classes(out.model, scenario.class_names(step))
    if preprocessor is not None:
        out.model.setdefault('data_preprocessor', preprocessor)
    _set_evaluation(out, dict(scenario=cfg.scenario), scenario, StepFiles(cfg.work_dir, step))
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'val_dataloader', 'val_evaluator',
                'val_cfg'):
        out.pop(key, None)
    return out


def _flatten(overrides: dict, prefix: str = '') -> dict:
    """Nested overrides as the dotted keys of ``Config.merge_from_dict``."""
    flat = {}
    for key, value in overrides.items():
        if isinstance(value, dict) and not value.get('_delete_'):
            flat.update(_flatten(value, f'{prefix}{key}.'))
        else:
            flat[f'{prefix}{key}'] = value
    return flat


def _add_fake_images(out: Config, own: dict, files: StepFiles, num_fake: int, seed: int) -> None:
    loader, replay = out.train_dataloader, own['replay']
    split_batch(loader.batch_size, replay.get('ratio', '1:1'))
    loader.dataset = dict(
        type='RealFakeDataset', real=loader.dataset, fake_folder=files.fakes, num_fake=num_fake)
    hook = dict(
        type='SegInversionHook', folder=files.fakes, num_images=num_fake, inversion=replay['inversion'], seed=seed)
    out.custom_hooks = list(out.get('custom_hooks') or []) + [hook]


def _fill_batches(out: Config, ratio: Optional[str]) -> None:
    """Whole batches, resumable at any. Half a batch will not do: batch norm of one pooled image is undefined."""
    loader = out.train_dataloader
    sampler = loader.get('sampler') or {}
    if sampler.get('type', 'DefaultSampler') not in _SAMPLERS:
        raise ValueError(f'train_dataloader.sampler.type={sampler["type"]!r} would be replaced by RealFakeSampler, '
                         f'which mixes real and fake images and can be resumed: name one of {list(_SAMPLERS)}.')
    loader.pop('batch_sampler', None)
    loader.sampler = dict(
        type='RealFakeSampler',
        batch_size=loader.batch_size,
        ratio=ratio,
        shuffle=sampler.get('shuffle', True),
        infinite=not is_epoch_based(out))


def _set_training(out: Config, seed: int) -> None:
    """Resumption at any iteration: loop, seeds and, unless the config has one of its own, a ResumeHook."""
    loop = _loop_type(out)
    out.train_cfg.pop('by_epoch', None)
    out.train_cfg.type = loop
    hooks = list(out.get('custom_hooks') or [])
    hooks.append(dict(type='IterationSeedHook', seed=seed))
    chosen = [hook for hook in [*(out.get('default_hooks') or {}).values(), *hooks] if hook]
    if not any(hook.get('type') == 'ResumeHook' for hook in chosen):
        hooks.append(dict(type='ResumeHook'))
    out.custom_hooks = hooks


def _set_evaluation(out: Config, own: dict, scenario: Scenario, files: StepFiles) -> None:
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
            raise ValueError('The config has neither test_dataloader nor val_dataloader: a step cannot be evaluated.')
        for name in ('dataloader', 'evaluator'):
            out[f'test_{name}'] = copy.deepcopy(out[f'val_{name}'])
        out.test_cfg = dict(type='TestLoop')
    evaluators = out.test_evaluator if isinstance(out.test_evaluator, (list, tuple)) else [out.test_evaluator]
    if not any(evaluator.get('type') == 'IncrementalIoUMetric' and not evaluator.get('prefix')
               and not evaluator.get('format_only') for evaluator in evaluators):
        raise ValueError('test_evaluator must hold an IoUMetric without prefix and format_only: the mIoU of old, new '
                         'and all classes is made from it.')
    if out.get('train_cfg') is None:
        return
    # Each step ends in a test of its last weights; validation at the same moment would only repeat it.
    length = out.train_cfg.get('max_epochs' if is_epoch_based(out) else 'max_iters')
    if out.train_cfg.get('val_interval', 1) >= length:
        out.val_dataloader = out.val_evaluator = out.val_cfg = None


def _evaluator(evaluator, scenario: Scenario, step: int):
    """The evaluator with mmseg's IoUMetric replaced by the one that knows groups."""
    if isinstance(evaluator, (list, tuple)):
        return [_evaluator(item, scenario, step) for item in evaluator]
    if evaluator.get('type') not in ('IoUMetric', 'mmseg.IoUMetric'):
        return evaluator
    return dict(evaluator, type='IncrementalIoUMetric', groups=scenario.metric_groups(step))
