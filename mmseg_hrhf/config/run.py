"""From a plain mmseg config to the config of one learning step. The only code that edits a config."""
from __future__ import annotations

import copy
import difflib
from typing import Optional

from mmengine.config import Config
from mmseg.registry import MODELS

from ..models.segmentors.base import IncrementalSegmentor
from ..replay.inversion.base import build_inversion
from ..replay.sampler import split_batch
from ..scenario import Scenario
from ..utils.errors import UserError
from ..utils.options import check_names, check_types, parameters
from .classes import inversion_batch, training_size
from .load import TextOnceConfig

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
        raise UserError(f'method.type={name!r} is no incremental method' +
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
        raise UserError(f'replay={replay!r} must be a dict, or None to train without fake images.')
    check_names('replay', replay, _REPLAY_OPTIONS)
    split_batch(cfg.train_dataloader.batch_size, replay.get('ratio', '1:1'))
    inversion = replay.get('inversion')
    if isinstance(inversion, dict):
        inversion = _with_size(inversion, cfg)
    build_inversion(inversion)  # hours later, at step 1, is too late for a mistake in its options
    number = replay.get('num_images')
    if number is not None and (type(number) is not int or number < 1):
        raise UserError(f'replay.num_images={number!r} must be a positive number, or None for the number of real '
                         'images of the step within 512 to 4096.')
    return dict(replay, inversion=inversion)


def _with_size(inversion: dict, cfg: Config) -> dict:
    """``inversion`` with the size of the training images, and as large a batch as fits it, unless it has its own."""
    inversion = dict(inversion)
    size = inversion.setdefault('size', training_size(cfg))
    if size is None:
        raise UserError('replay.inversion.size is not given, and neither data_preprocessor.size nor a crop in the '
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
        UserError: overrides of what holds for the whole run, or that cannot be merged.
    """
    out, overrides = plain_config(cfg), cfg.get('incremental_overrides') or {}
    unchangeable = sorted(set(overrides) & set(_NOT_BY_STEP))
    if unchangeable:
        raise UserError(f'incremental_overrides cannot set {unchangeable}: these hold for the whole run.')
    if step > 0 and overrides and not method_class(cfg).joint:
        try:
            # A copy, since merging takes `_delete_` out in place.
            out.merge_from_dict(_flatten(copy.deepcopy(dict(overrides))))
        except (TypeError, KeyError, AttributeError, IndexError, AssertionError) as error:
            raise UserError(f'incremental_overrides={dict(overrides)} cannot be merged into the config: {error}. It '
                             'must have the structure of the config, with lists given as a whole.') from error
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
