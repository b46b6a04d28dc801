"""Checks of a run's config that need neither its data nor its networks."""
from __future__ import annotations

import difflib
from typing import Any, Iterator, Mapping, Optional

from mmengine.config import Config

from .checkpoint import load_weights
from .datasets.class_names import check_dataset_names, check_scenario_names
from .methods import IncrementalSegmentor
from .options import check_types
from .replay.step_statistics import statistics_options
from .step_config import OWN_KEYS, effective_config, method_class, plain_config, replay_options
from .unsupported import refuse_unsupported

# The plain mmseg config must hold these.
_NEEDED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
# How alike a top-level key must be to one of ours to be taken for a slip of the pen.
_ALIKE = 0.8


def check_config(cfg: Config) -> None:
    """Check what is ours, and what of mmseg's every learning step needs.

    Raises:
        ValueError: a key that is missing, misspelt, or has a value of the wrong type; names it.
    """
    for key in cfg:
        near = difflib.get_close_matches(key, OWN_KEYS, n=1, cutoff=_ALIKE)
        if near and key not in OWN_KEYS:
            raise ValueError(f'The config has the key {key!r}, which nothing reads: did you mean {near[0]!r}?')
    for key in ('scenario', 'method'):
        if not isinstance(cfg.get(key), dict):
            raise ValueError(f'The config has no {key}=dict(...): take one from configs/_base_/methods or see '
                             'docs/get_started.md.')
    _check_plain(cfg)
    types = dict(only_step=Optional[int], channels_last=Optional[bool], first_step_from=Optional[str])
    check_types('config', {key: cfg.get(key) for key in types}, types)
    check_types('randomness', cfg.get('randomness') or {}, dict(seed=Optional[int]))
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None and not 0 <= seed < 2**31:
        raise ValueError(f'randomness.seed={seed} (--seed) must lie within 0 and 2**31 - 1.')
    check_names_of_classes(cfg)
    _check_overrides(cfg)
    method = method_class(cfg)
    if cfg.get('first_step_from') is not None:
        _check_first_step(cfg, method)
    replay = replay_options(cfg)
    if replay is not None:
        statistics_options(replay)
    refuse_unsupported(plain_config(cfg), replay is not None)
    if cfg.get('incremental_overrides'):
        overridden = effective_config(cfg, 1)
        try:
            _check_plain(overridden)
            _check_same_data(cfg, overridden)
            refuse_unsupported(overridden, replay is not None)
        except ValueError as error:
            raise ValueError(f'With incremental_overrides, from step 1 on: {error}') from error


def _check_plain(cfg: Config) -> None:
    """Check the plain mmseg config that holds at a step."""
    for key in _NEEDED:
        if not isinstance(cfg.get(key), dict):
            raise ValueError(f'The config has no {key}=dict(...), so it is not a whole mmseg config: take one from '
                             'configs/_base_ or from mmseg.')
    _check_evaluation(cfg)
    check_types('train_dataloader', cfg.train_dataloader, dict(batch_size=int, num_workers=int, dataset=dict))
    for key in ('batch_size', 'dataset'):
        if key not in cfg.train_dataloader:
            raise ValueError(f'train_dataloader has no {key}.')
    if cfg.train_dataloader.batch_size < 1:
        raise ValueError(f'train_dataloader.batch_size={cfg.train_dataloader.batch_size} must be at least 1.')
    _check_length(cfg)


def check_names_of_classes(cfg: Config) -> None:
    """Raise ``ValueError`` for a list of class names, or of their colours, that is none."""
    check_scenario_names(cfg.scenario)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if isinstance(loader, Mapping):
            check_dataset_names(loader.get('dataset'), name)


def _check_first_step(cfg: Config, method: type[IncrementalSegmentor]) -> None:
    given = cfg.first_step_from
    if not method.shares_first_step:
        raise ValueError(f'first_step_from={given!r}: {method.__name__} trains a step 0 of its own, which no other '
                         'training stands in for: leave it out.')
    if cfg.get('load_from'):
        raise ValueError(f'first_step_from={given!r} is step 0, so nothing starts from load_from={cfg.load_from!r}: '
                         'leave one of them out.')
    if is_elsewhere(given):
        raise ValueError(f'first_step_from={given!r} must be a local file: fetch it first.')


def _check_evaluation(cfg: Config) -> None:
    name = next((name for name in ('test', 'val') if cfg.get(f'{name}_dataloader') is not None), None)
    if name is None:
        raise ValueError('The config has neither test_dataloader nor val_dataloader: a step cannot be evaluated.')
    if cfg.get(f'{name}_evaluator') is None:
        raise ValueError(f"The config has {name}_dataloader, but no {name}_evaluator: give dict(type='IoUMetric', "
                         "iou_metrics=['mIoU']).")


def _check_length(cfg: Config) -> None:
    lengths = {key: cfg.train_cfg[key] for key in ('max_epochs', 'max_iters') if cfg.train_cfg.get(key) is not None}
    if len(lengths) != 1:
        raise ValueError(f'train_cfg={dict(cfg.train_cfg)} must have one of max_epochs and max_iters.')
    for key, value in lengths.items():
        if type(value) is not int or value < 1:
            raise ValueError(f'train_cfg.{key}={value!r} must be a positive whole number.')


def _check_overrides(cfg: Config) -> None:
    overrides = cfg.get('incremental_overrides') or {}
    if not isinstance(overrides, Mapping):
        raise ValueError(f'incremental_overrides={overrides!r} must be a dict of settings merged from step 1 on, such '
                         'as dict(optim_wrapper=dict(optimizer=dict(lr=0.001))).')
    if '_delete_' in overrides:
        raise ValueError("incremental_overrides has '_delete_' at its top, where there is nothing to delete: give it "
                         'within the setting that it replaces, such as optim_wrapper=dict(_delete_=True, ...).')
    for key in overrides:
        near = difflib.get_close_matches(key, list(cfg), n=1, cutoff=_ALIKE)
        if key not in cfg and near:
            raise ValueError(f'incremental_overrides has the key {key!r}, which the config does not have: did you '
                             f'mean {near[0]!r}?')


def _check_same_data(cfg: Config, overridden: Config) -> None:
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        before, after = (_without_pipelines((each.get(name) or {}).get('dataset')) for each in (cfg, overridden))
        if before != after:
            raise ValueError(f'{name}.dataset is another one: all steps divide the same data, of which only the '
                             'pipeline can change.')


def _without_pipelines(dataset: Any) -> Any:
    if isinstance(dataset, Mapping):
        return {key: _without_pipelines(value) for key, value in dataset.items() if key != 'pipeline'}
    return [_without_pipelines(item) for item in dataset] if isinstance(dataset, (list, tuple)) else dataset


def check_weight_files(cfg: Config) -> None:
    """Raise ``ValueError`` for a local file of weights in the config that is missing, damaged or holds code."""
    for name, path in weight_files(cfg):
        if not is_elsewhere(path):
            load_weights(name, path)


def weight_files(cfg: Config) -> list[tuple[str, str]]:
    """Option and path of every file of weights that a run starts from, such as ``load_from`` and ``init_cfg``."""
    found = [*((key, cfg.get(key)) for key in ('load_from', 'first_step_from')), *_weight_files('model', cfg.model)]
    return [(name, path) for name, path in found if isinstance(path, str)]


def is_elsewhere(path: str) -> bool:
    """Whether weights are fetched by mmengine rather than read from a local file."""
    return '://' in path


def _weight_files(name: str, options: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(options, Mapping):
        if options.get('type') == 'Pretrained':
            yield f'{name}.checkpoint', options.get('checkpoint')
        for key, value in options.items():
            yield from [(f'{name}.pretrained', value)] if key == 'pretrained' else _weight_files(f'{name}.{key}', value)
    elif isinstance(options, (list, tuple)):
        for i, value in enumerate(options):
            yield from _weight_files(f'{name}[{i}]', value)
