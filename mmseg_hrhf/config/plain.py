"""The plain mmseg config within a run's config, and its parts: classes, image size, weight files."""
from __future__ import annotations

import copy
from typing import Any, Iterator, Mapping, Optional, Sequence

import torch
from mmengine.config import Config
from mmengine.dist import is_distributed
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS

from ..replay.inversion.pixels import image_size
from ..utils.errors import UserError

PACKAGE = 'mmseg_hrhf'
# Top-level keys that this package adds; the rest is a plain mmseg config.
OWN_KEYS = ('scenario', 'method', 'replay', 'incremental_overrides', 'runner_type', 'only_step', 'comparison',
            'channels_last', 'first_step_from')
# Keys that cannot change between steps.
_NOT_BY_STEP = (*OWN_KEYS, 'work_dir', 'launcher', 'load_from', 'resume', 'custom_imports', 'default_scope')
# Heads whose classes are not those of the dataset: boundary or not.
_HEADS_WITH_OWN_CLASSES = ('STDCHead', )


def plain_config(cfg: Config) -> Config:
    """A copy of a run's config without the keys of this package.

    Its text is not formatted: mmengine asks for it four times when training starts, and formatting takes as long as
    several iterations.
    """
    plain = Config({key: copy.deepcopy(value) for key, value in cfg.items() if key not in OWN_KEYS},
                   format_python_code=False)
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


def with_overrides(plain: Config, overrides: Mapping[str, Any]) -> Config:
    """A copy of a plain config, merged with a run's ``incremental_overrides``.

    Raises:
        UserError: an override cannot be merged, or is of a key that cannot change between steps.
    """
    constant = sorted(set(overrides) & set(_NOT_BY_STEP))
    if constant:
        raise UserError(f'incremental_overrides cannot set {constant}, which cannot change between steps: remove it.')
    out = copy.deepcopy(plain)
    try:
        # A copy, since merging removes `_delete_` in place.
        out.merge_from_dict(_flatten(copy.deepcopy(dict(overrides))))
    except (TypeError, KeyError, AttributeError, IndexError, AssertionError) as error:
        raise UserError(f'incremental_overrides={dict(overrides)} cannot be merged into the config: {error}. Use the '
                        'same structure as the config, and give lists in full.') from error
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


def set_classes(model: dict, names: Sequence[str]) -> dict:
    """A copy of a segmentor's config for other classes.

    Replaces the main head's number of classes in heads, lists of heads, parts of heads (K-Net) and the class weights of
    losses; a text encoder (SAN) gets the names as its vocabulary.

    Args:
        model: config of any mmseg segmentor.
        names: names of the new classes, including background, in channel order.
    Raises:
        UserError: an option depends on the old number of classes and cannot be adapted.
    """
    model = copy.deepcopy(model)
    heads = [model.get('decode_head'), model.get('auxiliary_head')]
    before = next((part['num_classes'] for part in _parts(heads[0]) if 'num_classes' in part), None)
    if before is None:
        raise UserError('model.decode_head.num_classes is missing: is `model` the config of an mmseg segmentor?')
    for head in _parts(heads):
        if head.get('num_classes') == before:
            _renumber(head, before, len(names))
    if model.get('text_encoder') is not None:
        model['text_encoder'].update(dataset_name=None, vocabulary=list(names))
    return model


def _parts(config) -> Iterator[dict]:
    """All nested dicts, except heads with their own classes."""
    if isinstance(config, (list, tuple)):
        for item in config:
            yield from _parts(item)
    elif isinstance(config, dict) and config.get('type') not in _HEADS_WITH_OWN_CLASSES:
        yield config
        for item in config.values():
            yield from _parts(item)


def _renumber(head: dict, before: int, after: int) -> None:
    head['num_classes'] = after
    # In other heads (MaskFormer, K-Net's updates) out_channels is the number of features.
    if head.get('out_channels') is not None and _predicts_channels(head['type']):
        if head['out_channels'] != before:
            raise UserError(f'{head["type"]} has out_channels={head["out_channels"]} for {before} classes: '
                            'class-incremental training needs one channel per class; remove out_channels.')
        head['out_channels'] = after
    for part in _parts([value for value in head.values() if isinstance(value, (dict, list, tuple))]):
        if part.get('class_weight') is not None:
            part['class_weight'] = _renumbered_weights(head['type'], part['class_weight'], before, after)


def _predicts_channels(kind) -> bool:
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, BaseDecodeHead)


def _renumbered_weights(head: str, weights, before: int, after: int) -> list:
    """Class weights for another number of classes, all equal; the no-object weight of query-based heads comes last."""
    if isinstance(weights, (list, tuple)) and len(weights) in (before, before + 1) and len(set(weights[:before])) == 1:
        return [weights[0]] * after + list(weights[before:])
    raise UserError(f'{head} has a loss with class_weight for {before} classes, which cannot be adapted to steps with '
                    'other classes: remove it (class_weight=None).')


# The paper optimises 16 images of 512 x 512 together.
_PIXELS, _LARGEST_BATCH = 16 * 512 * 512, 16


def training_size(cfg: Config) -> Optional[tuple[int, int]]:
    """(height, width) to which training batches are padded, or else cropped; None if the config does not set it.

    Transformers with position embeddings of a fixed size accept no other size.
    """
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    return _pair(preprocessor.get('size')) or _crop(cfg.train_dataloader.dataset)


def inversion_batch(size: Any) -> int:
    """Number of images to optimise together: the paper's 16, or fewer if that would be more pixels than in the paper.

    Args:
        size: side or (height, width) of the images.
    """
    try:
        height, width = image_size(size)
    except (TypeError, ValueError):  # build_inversion raises the error
        return _LARGEST_BATCH
    return max(1, min(_LARGEST_BATCH, _PIXELS // (height * width)))


def _crop(dataset: dict) -> Optional[tuple[int, int]]:
    """Size of the last crop in the pipelines of a dataset and of the datasets that it wraps, outermost first."""
    for transform in reversed(dataset.get('pipeline') or []):
        size = transform.get('crop_size') or ('Crop' in str(transform['type']) and transform.get('size'))
        if size:
            return _pair(size)
    inner = [dataset['dataset']] if dataset.get('dataset') else dataset.get('datasets') or []
    return next((size for size in map(_crop, inner) if size), None)


def _pair(size) -> Optional[tuple[int, int]]:
    if isinstance(size, int):
        return size, size
    return tuple(size) if size else None


def weight_files(cfg: Config) -> list[tuple[str, str]]:
    """Option and path of every weight file that a run starts from, such as those of ``load_from`` and ``init_cfg``."""
    found = [*((key, cfg.get(key)) for key in ('load_from', 'first_step_from')), *_weight_files('model', cfg.model)]
    return [(name, path) for name, path in found if isinstance(path, str)]


def is_remote(path: str) -> bool:
    """Whether mmengine downloads the weights rather than reading a local file."""
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


def as_list(value) -> list:
    """A config value that may be one item, a list or None, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


_LOOPS = dict(EpochBasedTrainLoop='ResumableEpochLoop', IterBasedTrainLoop='ResumableIterLoop')


def is_epoch_based(cfg: Config) -> bool:
    """Whether the schedule counts epochs."""
    return bool(cfg.train_cfg.get('by_epoch', loop_type(cfg) == 'ResumableEpochLoop'))


def loop_type(cfg: Config) -> str:
    """Name of the resumable loop that replaces the config's.

    Raises:
        UserError: the config's loop has no resumable counterpart.
    """
    if 'type' not in cfg.train_cfg:
        return 'ResumableEpochLoop' if cfg.train_cfg.get('by_epoch') else 'ResumableIterLoop'
    kind = getattr(cfg.train_cfg.type, '__name__', cfg.train_cfg.type)
    if kind in _LOOPS.values():
        return kind
    if kind not in _LOOPS:
        raise UserError(f'train_cfg.type={kind!r} cannot be resumed exactly: use one of {sorted(_LOOPS)}.')
    return _LOOPS[kind]


def choose_wrapper(out: Config) -> None:
    """Set the DDP wrapper that works without a GPU, unless the config sets one."""
    if is_distributed() and not torch.cuda.is_available() and out.get('model_wrapper_cfg') is None:
        out.model_wrapper_cfg = dict(
            type='IncrementalDataParallel', find_unused_parameters=out.get('find_unused_parameters', False))
