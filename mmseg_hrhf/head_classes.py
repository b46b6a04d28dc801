"""From a segmentor's config to the same segmentor for other classes."""
from __future__ import annotations

import copy
from typing import Iterator, Sequence

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS

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
        ValueError: something that is bound to the old number and cannot be renumbered.
    """
    model = copy.deepcopy(model)
    heads = [model.get('decode_head'), model.get('auxiliary_head')]
    before = next((part['num_classes'] for part in _parts(heads[0]) if 'num_classes' in part), None)
    if before is None:
        raise ValueError('model.decode_head.num_classes is missing: is `model` the config of an mmseg segmentor?')
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
            raise ValueError(f'{head["type"]} has out_channels={head["out_channels"]} for {before} classes: '
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
    raise ValueError(f'{head} has a loss with class_weight for {before} classes, which cannot be carried over to steps '
                     'of other classes: leave it out (class_weight=None).')
