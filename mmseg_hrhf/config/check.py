"""Checks of a run's config that need neither data nor networks."""
from __future__ import annotations

from typing import Any, Iterable, Mapping, Optional

from mmengine.config import Config

from ..datasets.class_names import check_dataset_names, check_scenario_names
from ..datasets.source import split_mix, type_name, unwrap
from ..models.segmentors.base import IncrementalSegmentor
from ..scenario import IGNORE
from ..utils.errors import UserError
from ..utils.options import check_types, suggest
from ..work_dir.checkpoint import load_weights
from .plain import OWN_KEYS, as_list, is_remote, weight_files

_REQUIRED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
# Similarity to one of our keys from which a top-level key is taken for a typo.
_TYPO_SIMILARITY = 0.8


def check_keys(cfg: Config) -> None:
    """Check the keys that this package adds, each independently of the others.

    Raises:
        UserError: a key is missing, misspelt, or has a value of the wrong type.
    """
    for key in cfg:
        hint = suggest(key, OWN_KEYS, cutoff=_TYPO_SIMILARITY)
        if hint and key not in OWN_KEYS:
            raise UserError(f'The config has the unknown key {key!r}{hint}')
    for key in ('scenario', 'method'):
        if not isinstance(cfg.get(key), dict):
            raise UserError(f'The config has no {key}=dict(...): take one from configs/_base_/methods or see '
                            'docs/get_started.md.')
    types = dict(only_step=Optional[int], channels_last=Optional[bool], first_step_from=Optional[str])
    check_types('config', {key: cfg.get(key) for key in types}, types)
    check_types('randomness', cfg.get('randomness') or {}, dict(seed=Optional[int]))
    check_names_of_classes(cfg)
    _check_overrides(cfg)


def check_seed(seed: Optional[int]) -> int:
    """The seed of a run; 0 by default."""
    if seed is not None and not 0 <= seed < 2**31:
        raise UserError(f'randomness.seed={seed} (--seed) must be between 0 and 2**31 - 1.')
    return 0 if seed is None else seed


def check_overridden(cfg: Config, overridden: Config, uses_fake_images: bool) -> None:
    """Check the plain config from step 1 on, as ``check_plain`` does; all steps must use the same data."""
    try:
        check_plain(overridden)
        _check_same_data(cfg, overridden)
        refuse_unsupported(overridden, uses_fake_images)
    except ValueError as error:
        raise UserError(f'With incremental_overrides (from step 1 on): {error}') from error


def check_plain(cfg: Config) -> None:
    """Raise ``UserError`` if the plain mmseg config of a step lacks what every learning step needs."""
    for key in _REQUIRED:
        if not isinstance(cfg.get(key), dict):
            raise UserError(f'The config has no {key}=dict(...), so it is not a complete mmseg config: take one from '
                            'configs/_base_ or from mmseg.')
    _check_evaluation(cfg)
    check_types('train_dataloader', cfg.train_dataloader, dict(batch_size=int, num_workers=int, dataset=dict))
    for key in ('batch_size', 'dataset'):
        if key not in cfg.train_dataloader:
            raise UserError(f'train_dataloader has no {key}.')
    if cfg.train_dataloader.batch_size < 1:
        raise UserError(f'train_dataloader.batch_size={cfg.train_dataloader.batch_size} must be at least 1.')
    _check_length(cfg)


def check_names_of_classes(cfg: Config) -> None:
    """Raise ``UserError`` for an invalid list of class names or colours."""
    check_scenario_names(cfg.scenario)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if isinstance(loader, Mapping):
            check_dataset_names(loader.get('dataset'), name)


def check_first_step(cfg: Config, method: type[IncrementalSegmentor]) -> None:
    """Raise ``UserError`` if ``first_step_from`` cannot replace step 0."""
    given = cfg.first_step_from
    if not method.shares_first_step:
        raise UserError(f'first_step_from={given!r}: step 0 of {method.__name__} differs from plain training, so '
                        'another network cannot replace it: remove first_step_from.')
    if cfg.get('load_from'):
        raise UserError(f'first_step_from={given!r} replaces step 0, so load_from={cfg.load_from!r} would not be used: '
                        'remove one of them.')
    if is_remote(given):
        raise UserError(f'first_step_from={given!r} must be a local file: download it first.')


def _check_evaluation(cfg: Config) -> None:
    name = next((name for name in ('test', 'val') if cfg.get(f'{name}_dataloader') is not None), None)
    if name is None:
        raise UserError('The config has neither test_dataloader nor val_dataloader: a step cannot be evaluated.')
    if cfg.get(f'{name}_evaluator') is None:
        raise UserError(f"The config has {name}_dataloader, but no {name}_evaluator: set it to dict(type='IoUMetric', "
                        "iou_metrics=['mIoU']).")


def _check_length(cfg: Config) -> None:
    lengths = {key: cfg.train_cfg[key] for key in ('max_epochs', 'max_iters') if cfg.train_cfg.get(key) is not None}
    if len(lengths) != 1:
        raise UserError(f'train_cfg={dict(cfg.train_cfg)} must have exactly one of max_epochs and max_iters.')
    for key, value in lengths.items():
        if type(value) is not int or value < 1:
            raise UserError(f'train_cfg.{key}={value!r} must be a positive whole number.')


def _check_overrides(cfg: Config) -> None:
    overrides = cfg.get('incremental_overrides') or {}
    if not isinstance(overrides, Mapping):
        raise UserError(f'incremental_overrides={overrides!r} must be a dict of settings merged from step 1 on, such '
                        'as dict(optim_wrapper=dict(optimizer=dict(lr=0.001))).')
    if '_delete_' in overrides:
        raise UserError("incremental_overrides has '_delete_' at its top level, where there is nothing to delete: put "
                        'it into the setting that it replaces, such as optim_wrapper=dict(_delete_=True, ...).')
    for key in overrides:
        hint = suggest(key, list(cfg), cutoff=_TYPO_SIMILARITY)
        if key not in cfg and hint:
            raise UserError(f'incremental_overrides has the key {key!r}, which the config does not have{hint}')


def _check_same_data(cfg: Config, overridden: Config) -> None:
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        before, after = (_without_pipelines((each.get(name) or {}).get('dataset')) for each in (cfg, overridden))
        if before != after:
            raise UserError(f'{name}.dataset differs, but all steps must use the same data: change nothing but its '
                            'pipeline.')


def _without_pipelines(dataset: Any) -> Any:
    if isinstance(dataset, Mapping):
        return {key: _without_pipelines(value) for key, value in dataset.items() if key != 'pipeline'}
    return [_without_pipelines(item) for item in dataset] if isinstance(dataset, (list, tuple)) else dataset


def check_weight_files(cfg: Config) -> None:
    """Raise ``UserError`` if a local weight file in the config is missing, damaged or contains code."""
    for name, path in weight_files(cfg):
        if not is_remote(path):
            load_weights(name, path)


# The samplers of mmseg's schedules; RealFakeSampler can replace both.
_SAMPLERS = ('DefaultSampler', 'InfiniteSampler')
# These hard-code one dataset's class indices, which change with each step, or do not measure classes.
_UNSUPPORTED_METRICS = ('CityscapesMetric', 'DepthMetric')


def refuse_unsupported(cfg: Config, uses_fake_images: bool) -> None:
    """Raise ``UserError`` for settings that incremental training does not support.

    Args:
        cfg: plain mmseg config.
        uses_fake_images: whether the method replays synthetic images.
    """
    if cfg.get('strategy'):
        raise UserError("strategy is an option of mmengine's FlexibleRunner, but each step is trained by its Runner: "
                        'remove it (model_wrapper_cfg chooses how the model is distributed).')
    _check_start(cfg)
    _check_heads(cfg.model)
    _check_train_data(cfg.train_dataloader)
    for name in ('val', 'test'):
        if cfg.get(f'{name}_dataloader'):
            _check_metrics(name, cfg[f'{name}_dataloader'], as_list(cfg.get(f'{name}_evaluator')))
    if uses_fake_images:
        _check_channels(cfg)


def _check_start(cfg: Config) -> None:
    start = cfg.get('load_from')
    if start and cfg.get('resume'):
        raise UserError(f'resume=True with load_from={start!r}: a run always resumes from its work_dir; set '
                        'resume=False to start step 0 from these weights.')


def _check_heads(model: dict) -> None:
    for key in ('decode_head', 'auxiliary_head'):
        for head in as_list(model.get(key)):
            value = head.get('ignore_index')
            if value not in (None, IGNORE):
                raise UserError(f'model.{key}.ignore_index={value} of {type_name(head)}: class indices change with '
                                f'each step, and ignored pixels are always {IGNORE}. Remove it, and leave that class '
                                'out of scenario.steps to ignore its pixels.')


def _check_train_data(loader: dict) -> None:
    unwrap(split_mix(loader['dataset'])[0])
    if loader.get('batch_sampler'):
        raise UserError(f'train_dataloader.batch_sampler={type_name(loader["batch_sampler"])} is not supported: real '
                        'and synthetic images are mixed in batches of a fixed size. Remove it.')
    sampler = loader.get('sampler') or {}
    if sampler and type_name(sampler) not in _SAMPLERS:
        raise UserError(f'train_dataloader.sampler.type={sampler["type"]!r} would be replaced by RealFakeSampler, '
                        'which mixes real and synthetic images and can be resumed: use one of '
                        f'{", ".join(_SAMPLERS)}.')


def _check_metrics(name: str, loader: dict, evaluators: Iterable[dict]) -> None:
    if type_name(loader['dataset']) in ('ConcatDataset', 'RepeatDataset', 'MultiImageMixDataset'):
        raise UserError(f'{name}_dataloader.dataset is a {type_name(loader["dataset"])}: a step must be evaluated on '
                        'one unwrapped dataset, so that mmseg alone can repeat the evaluation. Remove the wrapper.')
    for evaluator in evaluators:
        if type_name(evaluator) in _UNSUPPORTED_METRICS:
            raise UserError(f'{name}_evaluator {type_name(evaluator)} is not supported: it does not measure the '
                            'classes of a step. Use IoUMetric.')
        if evaluator.get('ignore_index', IGNORE) != IGNORE:
            raise UserError(f'{name}_evaluator.ignore_index={evaluator["ignore_index"]}: class indices change with '
                            f'each step, and ignored pixels are always {IGNORE}. Remove it, and leave that class out '
                            'of scenario.steps to ignore its pixels.')


def _check_channels(cfg: Config) -> None:
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    counts = dict(mean=len(as_list(preprocessor.get('mean'))) or 3)
    counts['in_channels'] = (cfg.model.get('backbone') or {}).get('in_channels', 3)
    for key, count in counts.items():
        if count != 3:
            place = 'model.data_preprocessor' if key == 'mean' else 'model.backbone'
            raise UserError(f'{place}.{key} is for {count} channels, but synthetic images are RGB: set replay=None, or '
                            'use a network with three input channels.')
