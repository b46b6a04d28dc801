"""Feature statistics of layers that keep none of their own, taken from a pass over images."""
from __future__ import annotations

import fnmatch
from typing import Any, Iterable, Optional, Sequence

import torch
from mmcv.cnn import is_norm
from torch import Tensor, nn

from .feature_statistics import layer_input


def layers_to_record(model: nn.Module, patterns: Optional[Sequence[str]] = None) -> dict[str, nn.Module]:
    """The layers whose inputs are to be recorded.

    Args:
        model: network.
        patterns: shell patterns of module names, such as ``'backbone.layers.*'``. None: every norm layer without
            running statistics (layer norm, group norm, instance norm, and these under a subclass or as "LayerNorm2d").
    Raises:
        ValueError: a pattern that no module's name matches.
    """
    if patterns is None:
        return {name: layer for name, layer in model.named_modules() if _keeps_no_statistics(layer)}
    chosen = {}
    for pattern in patterns:
        found = {name: layer for name, layer in model.named_modules() if name and fnmatch.fnmatchcase(name, pattern)}
        if not found:
            raise ValueError(f'replay.feature_statistics.layers={pattern!r} matches no module of the network.')
        chosen.update(found)
    return chosen


def _keeps_no_statistics(layer: nn.Module) -> bool:
    # mmseg's LayerNorm2d and others' RMSNorm derive from no norm of torch.
    named_norm = type(layer).__name__.endswith(('LayerNorm', 'LayerNorm2d', 'RMSNorm'))
    return (is_norm(layer) or named_norm) and getattr(layer, 'running_mean', None) is None


class _Moments:
    """Running mean and mean square per channel, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Any = 0.0
        self.square: Any = 0.0

    def add(self, features: Tensor) -> None:
        features = features.double()
        self.count += len(features)
        self.total = self.total + features.sum(0)
        self.square = self.square + features.square().sum(0)

    def result(self) -> dict[str, Tensor]:
        mean = self.total / self.count
        var = (self.square / self.count - mean.square()).clamp(min=0)
        return dict(mean=mean.float().cpu(), var=var.float().cpu())


@torch.no_grad()
def record_statistics(model: nn.Module, layers: dict[str, nn.Module],
                      batches: Iterable[Tensor]) -> dict[str, dict[str, Tensor]]:
    """Mean and biased variance per channel of the layers' inputs, over all positions of all images.

    Args:
        model: segmentor, in eval mode.
        layers: by module name; those that do not run are left out of the result.
        batches: (N, 3, H, W) inputs, normalised as the network takes them.
    Returns:
        ``{name: {'mean': (C,), 'var': (C,)}}``, float32 on the CPU.
    """
    moments: dict[str, _Moments] = {}

    def hook(name):

        def add(layer, inputs, options):
            moments.setdefault(name, _Moments()).add(layer_input(layer, inputs, options))

        return add

    handles = [layer.register_forward_pre_hook(hook(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        for batch in batches:
            shape = batch.shape[2:]
            metas = [dict(ori_shape=shape, img_shape=shape, pad_shape=shape, padding_size=[0] * 4)] * len(batch)
            model.encode_decode(batch, metas)
    finally:
        for handle in handles:
            handle.remove()
    return {name: held.result() for name, held in moments.items()}
