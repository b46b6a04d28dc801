"""Parts of a plain mmseg config: classes, image size, files of weights; and the plain config within a run's config."""
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
# Top-level keys that are ours; what is left is a plain mmseg config.
OWN_KEYS = ('scenario', 'method', 'replay', 'incremental_overrides', 'runner_type', 'only_step', 'comparison',
            'channels_last', 'first_step_from')
# Of the plain config, too, some hold for the whole run.
_NOT_BY_STEP = (*OWN_KEYS, 'work_dir', 'launcher', 'load_from', 'resume', 'custom_imports', 'default_scope')
# Heads whose classes are not the data set's: boundary or not.
_CLASSES_OF_THEIR_OWN = ('STDCHead', )


def plain_config(cfg: Config) -> Config:
    """A copy of a run's config without what is ours.

    Its text is not laid out: mmengine asks for it four times as a training starts, and each layout takes as long as
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
        UserError: overrides of what holds for the whole run, or that cannot be merged.
    """
    unchangeable = sorted(set(overrides) & set(_NOT_BY_STEP))
    if unchangeable:
        raise UserError(f'incremental_overrides cannot set {unchangeable}: these hold for the whole run.')
    out = copy.deepcopy(plain)
    try:
        # A copy, since merging takes `_delete_` out in place.
        out.merge_from_dict(_flatten(copy.deepcopy(dict(overrides))))
    except (TypeError, KeyError, AttributeError, IndexError, AssertionError) as error:
        raise UserError(f'incremental_overrides={dict(overrides)} cannot be merged into the config: {error}. It must '
                        'have the structure of the config, with lists given as a whole.') from error
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
    """A copy of a segmentor's config with other classes wherever it had the main head's number of them.

    Heads, lists of heads, the parts of heads (K-Net) and the class weights of losses are renumbered; a text encoder
    (SAN) gets the names as its vocabulary.

    Args:
        model: config of any mmseg segmentor.
        names: of its new classes, background included, in the order of the channels.
    Raises:
        UserError: something that is bound to the old number and cannot be renumbered.
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
    """All dicts within dicts and lists, except heads with classes of their own."""
    if isinstance(config, (list, tuple)):
        for item in config:
            yield from _parts(item)
    elif isinstance(config, dict) and config.get('type') not in _CLASSES_OF_THEIR_OWN:
        yield config
        for item in config.values():
            yield from _parts(item)


def _renumber(head: dict, before: int, after: int) -> None:
    head['num_classes'] = after
    # In other heads (MaskFormer, K-Net's updates) out_channels counts features.
    if head.get('out_channels') is not None and _predicts_channels(head['type']):
        if head['out_channels'] != before:
            raise UserError(f'{head["type"]} has out_channels={head["out_channels"]} for {before} classes: '
                             'class-incremental training needs one channel per class; leave out_channels out.')
        head['out_channels'] = after
    for part in _parts([value for value in head.values() if isinstance(value, (dict, list, tuple))]):
        if part.get('class_weight') is not None:
            part['class_weight'] = _renumbered_weights(head['type'], part['class_weight'], before, after)


def _predicts_channels(kind) -> bool:
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, BaseDecodeHead)


def _renumbered_weights(head: str, weights, before: int, after: int) -> list:
    """One weight for all classes stays; the weight of no-object (query-based heads) comes after them."""
    if isinstance(weights, (list, tuple)) and len(weights) in (before, before + 1) and len(set(weights[:before])) == 1:
        return [weights[0]] * after + list(weights[before:])
    raise UserError(f'{head} has a loss with class_weight for {before} classes, which cannot be carried over to steps '
                     'of other classes: leave it out (class_weight=None).')


# As many pixels are optimised together as in the paper: 16 images of 512 x 512.
_PIXELS, _LARGEST_BATCH = 16 * 512 * 512, 16


def training_size(cfg: Config) -> Optional[tuple[int, int]]:
    """(height, width) to which training batches are padded, or else cropped; None where the config does not say.

    A transformer with position embeddings of a fixed size takes exactly this.
    """
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    return _pair(preprocessor.get('size')) or _crop(cfg.train_dataloader.dataset)


def inversion_batch(size: Any) -> int:
    """Images of ``size``, a side or (height, width), to optimise together: the paper's 16, or as many of its pixels."""
    try:
        height, width = image_size(size)
    except (TypeError, ValueError):  # refused with its name where the inversion is built
        return _LARGEST_BATCH
    return max(1, min(_LARGEST_BATCH, _PIXELS // (height * width)))


def _crop(dataset: dict) -> Optional[tuple[int, int]]:
    """Size of the last crop in the pipelines of a dataset and of what it wraps, outermost first."""
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


def as_list(value) -> list:
    """A config that may be one item, several or none, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


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


def choose_wrapper(out: Config) -> None:
    """Choose the DDP wrapper that works without a GPU, unless the config names one."""
    if is_distributed() and not torch.cuda.is_available() and out.get('model_wrapper_cfg') is None:
        out.model_wrapper_cfg = dict(
            type='IncrementalDataParallel', find_unused_parameters=out.get('find_unused_parameters', False))
