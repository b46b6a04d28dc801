"""From a plain mmseg config to the config of one learning step. The only code that edits a config."""
from __future__ import annotations

import copy
import difflib
import os.path as osp
from typing import Optional

from mmengine.config import Config
from mmseg.registry import MODELS

from .config_text import TextOnceConfig
from .head_classes import set_classes
from .input_size import inversion_batch, training_size
from .inversion import build_inversion
from .methods import IncrementalSegmentor
from .options import check_names, check_types, parameters
from .replay.sampler import split_batch
from .scenario import Scenario
from .step_evaluation import set_evaluation
from .step_files import StepFiles
from .step_schedule import set_schedule
from .step_train_data import set_train_data
from .unsupported import as_list, refuse_unsupported

# Top-level keys that are ours; what is left is a plain mmseg config.
OWN_KEYS = ('scenario', 'method', 'replay', 'incremental_overrides', 'runner_type', 'only_step', 'comparison',
            'channels_last', 'first_step_from')
# Of the plain config, too, some hold for the whole run.
_NOT_BY_STEP = (*OWN_KEYS, 'work_dir', 'launcher', 'load_from', 'resume', 'custom_imports', 'default_scope')
_REPLAY_OPTIONS = ('ratio', 'num_images', 'inversion', 'feature_statistics')
PACKAGE = 'mmseg_hrhf'


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
    set_here = {'student', 'teacher', 'teacher_checkpoint', 'channels_last'}
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
    """The ``replay`` options, checked; None where the method or the config wants no fake images.

    Where ``inversion`` gives no size, it is that of the training images; where it gives no batch size, that follows.
    """
    replay = cfg.get('replay')
    if replay is None or not method_class(cfg).uses_fake_images:
        return None
    if not isinstance(replay, dict):
        raise ValueError(f'replay={replay!r} must be a dict, or None to train without fake images.')
    check_names('replay', replay, _REPLAY_OPTIONS)
    split_batch(cfg.train_dataloader.batch_size, replay.get('ratio', '1:1'))
    inversion = replay.get('inversion')
    if isinstance(inversion, dict):
        inversion = _with_size(inversion, cfg)
    build_inversion(inversion)  # hours later, at step 1, is too late for a mistake in its options
    number = replay.get('num_images')
    if number is not None and (type(number) is not int or number < 1):
        raise ValueError(f'replay.num_images={number!r} must be a positive number, or None for the number of real '
                         'images of the step within 512 to 4096.')
    return dict(replay, inversion=inversion)


def _with_size(inversion: dict, cfg: Config) -> dict:
    """``inversion`` with the size of the training images, and as large a batch as fits it, unless it has its own."""
    inversion = dict(inversion)
    size = inversion.setdefault('size', training_size(cfg))
    if size is None:
        raise ValueError('replay.inversion.size is not given, and neither data_preprocessor.size nor a crop in the '
                         'training pipeline says on what size the network trains: give one.')
    inversion.setdefault('batch_size', inversion_batch(size))
    return inversion


def num_fake_images(cfg: Config, step: int, num_real: int) -> int:
    """Size of a step's buffer: declared, or as many as real images within [512, 4096]; 0 without replay."""
    replay = replay_options(cfg)
    if replay is None or step == 0:
        return 0
    declared = replay.get('num_images')
    return min(max(num_real, 512), 4096) if declared is None else int(declared)


def plain_config(cfg: Config) -> Config:
    """The config without what is ours."""
    plain = TextOnceConfig({key: copy.deepcopy(value) for key, value in cfg._cfg_dict.items() if key not in OWN_KEYS})
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


def effective_config(cfg: Config, step: int) -> Config:
    """The plain config that holds at a step: with ``incremental_overrides`` from step 1 on.

    Raises:
        ValueError: overrides of what holds for the whole run, or that cannot be merged.
    """
    out, overrides = plain_config(cfg), cfg.get('incremental_overrides') or {}
    unchangeable = sorted(set(overrides) & set(_NOT_BY_STEP))
    if unchangeable:
        raise ValueError(f'incremental_overrides cannot set {unchangeable}: these hold for the whole run.')
    if step > 0 and overrides and not method_class(cfg).joint:
        try:
            # A copy, since merging takes `_delete_` out in place.
            out.merge_from_dict(_flatten(copy.deepcopy(dict(overrides))))
        except (TypeError, KeyError, AttributeError, IndexError, AssertionError) as error:
            raise ValueError(f'incremental_overrides={dict(overrides)} cannot be merged into the config: {error}. It '
                             'must have the structure of the config, with lists given as a whole.') from error
    return out


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


def _flatten(overrides: dict, prefix: str = '') -> dict:
    """Nested overrides as the dotted keys of ``Config.merge_from_dict``."""
    flat = {}
    for key, value in overrides.items():
        if isinstance(value, dict) and not value.get('_delete_'):
            flat.update(_flatten(value, f'{prefix}{key}.'))
        else:
            flat[f'{prefix}{key}'] = value
    return flat
