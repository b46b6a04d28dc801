"""From a segmentor's config to the same segmentor for other classes."""
from __future__ import annotations

import copy
from typing import Any, Iterator, Mapping, Optional, Sequence

from mmengine.config import Config
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS

from ..replay.inversion.pixels import image_size
from ..utils.errors import UserError

# Heads whose classes are not the data set's: boundary or not.
_CLASSES_OF_THEIR_OWN = ('STDCHead', )


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
