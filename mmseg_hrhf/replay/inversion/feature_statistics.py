"""Feature-statistics regulariser: distance between a batch's layer inputs and their statistics in training."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pad_sequence

from ...utils.compat import BatchNorm, InstanceNorm
from ...utils.errors import UserError
from .base import RecordedStatistics
from .objective import statistics_distance

_DEFAULT_EPS = 1e-5
# Layers whose backward pass returns a new tensor.
_OWN_GRADIENT = (BatchNorm.forward, nn.SyncBatchNorm.forward, nn.LayerNorm.forward, nn.GroupNorm.forward)
_CHANNELS_SECOND = (nn.GroupNorm, BatchNorm, InstanceNorm)


def channel_dim(layer: nn.Module, ndim: int, data_format: Optional[str] = None) -> int:
    """Channel dimension of a norm layer's input.

    Args:
        layer: norm layer. Channels are last for layer norms (tokens, N x L x C, or N x H x W x C), and second for "2d"
            layer norms and batch, group and instance norms (N x C x H x W). For other norms, a three-dimensional input
            is treated as tokens.
        ndim: number of dimensions of the input.
        data_format: argument of mmpretrain's LayerNorm2d; ``'channel_last'`` in ConvNeXt blocks.
    """
    if type(layer).__name__.endswith('2d'):
        return ndim - 1 if data_format == 'channel_last' else 1
    if hasattr(layer, 'normalized_shape'):
        return ndim - len(layer.normalized_shape)
    return 2 if ndim == 3 and not isinstance(layer, _CHANNELS_SECOND) else 1


def layer_input(layer: nn.Module, inputs: tuple, options: dict) -> Tensor:
    """(positions, C) float32 view of a layer's input; positions run over images and space."""
    features = inputs[0].float()
    features = features.movedim(channel_dim(layer, features.ndim, options.get('data_format')), -1)
    return features.reshape(-1, features.shape[-1])


@dataclass(frozen=True)
class FeatureTarget:
    """Target statistics of a layer's input: (C,) mean and variance per channel."""
    layer: nn.Module
    mean: Tensor
    var: Tensor
    eps: float


def feature_targets(model: nn.Module, recorded: Optional[RecordedStatistics] = None) -> list[FeatureTarget]:
    """Targets of all layers with known statistics; recorded statistics take precedence over running ones.

    Args:
        model: network in eval mode.
        recorded: from the checkpoint of ``model``; None without.
    Raises:
        UserError: ``recorded`` belongs to another network.
    """
    recorded = dict(recorded or {})
    targets = []
    for name, layer in model.named_modules():
        eps = float(getattr(layer, 'eps', _DEFAULT_EPS))
        if name in recorded:
            mean, var = (recorded[name][key] for key in ('mean', 'var'))
            del recorded[name]
        elif isinstance(layer, BatchNorm) and layer.running_mean is not None:
            mean, var = layer.running_mean, layer.running_var
        else:
            continue
        device = next(model.parameters()).device
        targets.append(FeatureTarget(layer, mean.float().to(device), var.float().to(device), eps))
    if recorded:
        raise UserError(f'feature_statistics of the checkpoint has the layer {sorted(recorded)[0]!r}, which the '
                        'network does not have: use the checkpoint of this network.')
    return targets


class FeatureStatistics:
    """Measures the distance of layer inputs from their targets while active.

    Use it as a context manager around forward passes. ``loss`` averages over the layers that ran since its last call.

    Args:
        targets: see ``feature_targets``.
    """

    def __init__(self, targets: list[FeatureTarget]) -> None:
        self.targets = targets
        self._ran: list[int] = []
        self._moments: list[tuple[Tensor, Tensor]] = []
        self._rows: dict[tuple[int, ...], TargetRows] = {}
        self._handles: list = []

    def __enter__(self) -> FeatureStatistics:
        self._ran, self._moments = [], []
        self._handles = [
            target.layer.register_forward_pre_hook(self._watch(number), with_kwargs=True)
            for number, target in enumerate(self.targets)
        ]
        return self

    def __exit__(self, *exc_info) -> None:
        for handle in self._handles:
            handle.remove()

    def _watch(self, number: int) -> Callable:
        layer = self.targets[number].layer
        in_place = type(layer).forward in _OWN_GRADIENT

        def watch(layer: nn.Module, inputs: tuple, options: dict) -> tuple:
            # A module that runs twice in one pass (shared norms) counts twice, as in training.
            self._ran.append(number)
            dim = channel_dim(layer, inputs[0].ndim, options.get('data_format'))
            features, *moments = watched(inputs[0], dim, in_place)
            self._moments.append(tuple(moments))
            return (features, *inputs[1:]), options

        return watch

    def loss(self) -> Optional[Tensor]:
        """Distance since the last call, averaged over layers; None if no layer ran."""
        ran, moments = tuple(self._ran), self._moments
        self._ran, self._moments = [], []
        if not ran:
            return None
        if ran not in self._rows:
            self._rows[ran] = TargetRows([self.targets[number] for number in ran])
        return self._rows[ran].distances(moments).sum() / len(ran)


class TargetRows:
    """Targets as one matrix with a row per layer, so that all layers are compared at once.

    Args:
        targets: in execution order of their layers.
    """

    def __init__(self, targets: list[FeatureTarget]) -> None:
        device = targets[0].mean.device
        self.channels = torch.tensor([len(target.mean) for target in targets], device=device)
        self.mean = pad_sequence([target.mean for target in targets], batch_first=True)
        self.var = pad_sequence([target.var for target in targets], batch_first=True, padding_value=1.0)
        self.eps = torch.tensor([[target.eps] for target in targets], device=device)
        filled = torch.arange(self.mean.shape[1], device=device) < self.channels[:, None]
        self.places = filled.flatten().nonzero().flatten()

    def distances(self, moments: list[tuple[Tensor, Tensor]]) -> Tensor:
        """(L,) distance of each layer from its target, see ``statistics_distance``.

        Args:
            moments: (C,) mean and (C,) variance of each layer.
        """
        mean, var = (rows.flatten().index_copy(0, self.places, torch.cat(values).float()).view_as(rows)
                     for rows, values in zip((self.mean, self.var), zip(*moments)))
        return statistics_distance(mean, var, self.mean, self.var, self.eps, self.channels)


# Rows summed at once on a CPU: larger float32 sums lose precision.
_ROWS = 2**16


def channel_moments(features: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel over all other dimensions, in at least float32, without gradients.

    Args:
        features: any shape.
        dim: channel dimension.
    Returns:
        (C,) mean and (C,) variance.
    """
    last = features.movedim(dim, -1)
    if features.device.type == 'cpu':
        if not last.is_contiguous():
            # Averaging over contiguous memory of each channel is fast; averaging rows of a copy is slow.
            features = features if features.dtype == torch.float64 else features.float()
            dims = [d for d in range(features.ndim) if d != dim % features.ndim]
            mean = features.mean(dims, keepdim=True)
            return mean.flatten(), (features - mean).square_().mean(dims)
        parts = last.view(-1, last.shape[-1]).split(_ROWS)
        if len(parts) == 1:
            return _batch_norm_moments(parts[0])
        means, variances = map(torch.stack, zip(*(_batch_norm_moments(part) for part in parts)))
        share = means.new_tensor([len(part) for part in parts])[:, None] / sum(map(len, parts))
        mean = (share * means).sum(0)
        return mean, (share * (variances + (means - mean).square())).sum(0)
    if features.device.type == 'cuda':
        return _batch_norm_moments(last.reshape(-1, last.shape[-1]) if features.ndim < 3 or dim != 1 else features)
    var, mean = torch.var_mean(last.float().reshape(-1, last.shape[-1]), 0, unbiased=False)
    return mean, var


def _batch_norm_moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of (N, C, ...) by the training kernel of batch norm: many times faster than ``torch.var_mean``."""
    # Unused float32 running statistics make the kernel accumulate half precision in float32.
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    unused = torch.zeros(2, features.shape[1], dtype=dtype, device=features.device)
    return torch.batch_norm_update_stats(features, unused[0], unused[1], 0.0)


class _Watched(torch.autograd.Function):
    """Returns the features and their moments; both gradients are combined in one backward step."""

    @staticmethod
    def forward(ctx, features: Tensor, dim: int, in_place: bool):
        mean, var = channel_moments(features, dim)
        ctx.save_for_backward(features, mean)
        ctx.dim, ctx.in_place = dim, in_place
        ctx.set_materialize_grads(False)
        return features.view_as(features), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Optional[Tensor], grad_mean: Optional[Tensor], grad_var: Optional[Tensor]):
        features, mean = ctx.saved_tensors
        if grad_mean is None and grad_var is None:
            return grad, None, None
        count = features.numel() // len(mean)
        # d mean / dx = 1 / count; d var / dx = 2 (x - mean) / count.
        slope = torch.zeros_like(mean) if grad_var is None else grad_var * (2 / count)
        offset = -slope * mean if grad_mean is None else grad_mean / count - slope * mean
        shape = [1] * features.ndim
        shape[ctx.dim] = -1
        slope, offset = slope.view(shape), offset.view(shape)
        if grad is None:
            return torch.addcmul(offset, features, slope).to(features.dtype), None, None
        if features.ndim == 4 and features.is_contiguous(memory_format=torch.channels_last):
            # On CUDA, a frozen batch norm returns a contiguous gradient for any memory format of its input. Convert it
            # here once, instead of in every preceding convolution.
            grad = grad.contiguous(memory_format=torch.channels_last)
        if features.dtype != slope.dtype:  # half precision: add in float32
            return (grad + torch.addcmul(offset, features, slope)).to(grad.dtype), None, None
        grad = grad.addcmul_(features, slope) if ctx.in_place else torch.addcmul(grad, features, slope)
        return grad.add_(offset), None, None


def watched(features: Tensor, dim: int, in_place: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Features of a layer, and their mean and biased variance per channel, with gradients.

    Args:
        features: input of the layer.
        dim: channel dimension.
        in_place: add the gradient of the moments to that of the features in place. Requires that only the layer uses
            the returned features and that it returns a new gradient tensor, as batch norm does.
    Returns:
        The features, (C,) mean, (C,) variance.
    """
    return _Watched.apply(features, dim % features.ndim, in_place)
