"""Feature statistics as a regulariser: what a layer's input looked like in training, and how far a batch is from it."""
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
# Their backward pass makes a tensor of its own.
_OWN_GRADIENT = (BatchNorm.forward, nn.SyncBatchNorm.forward, nn.LayerNorm.forward, nn.GroupNorm.forward)
_CHANNELS_SECOND = (nn.GroupNorm, BatchNorm, InstanceNorm)


def channel_dim(layer: nn.Module, ndim: int, data_format: Optional[str] = None) -> int:
    """The dimension of a norm layer's input that holds its channels.

    Args:
        layer: what receives the input. Layer norms have channels last (tokens, N x L x C, or N x H x W x C), "2d" layer
            norms and batch, group and instance norms second (N x C x H x W). For a norm of another class, three
            dimensions are taken as tokens.
        ndim: dimensions of the input.
        data_format: what mmpretrain's LayerNorm2d is called with; ``'channel_last'`` in ConvNeXt's blocks.
    """
    if type(layer).__name__.endswith('2d'):
        return ndim - 1 if data_format == 'channel_last' else 1
    if hasattr(layer, 'normalized_shape'):
        return ndim - len(layer.normalized_shape)
    return 2 if ndim == 3 and not isinstance(layer, _CHANNELS_SECOND) else 1


def layer_input(layer: nn.Module, inputs: tuple, options: dict) -> Tensor:
    """(positions, C) float32 view of what a layer is called with, positions over images and space."""
    features = inputs[0].float()
    features = features.movedim(channel_dim(layer, features.ndim, options.get('data_format')), -1)
    return features.reshape(-1, features.shape[-1])


@dataclass(frozen=True)
class FeatureTarget:
    """What the input of a layer is to be like: (C,) mean and variance per channel."""
    layer: nn.Module
    mean: Tensor
    var: Tensor
    eps: float


def feature_targets(model: nn.Module, recorded: Optional[RecordedStatistics] = None) -> list[FeatureTarget]:
    """Targets for all layers of which something is known: running statistics, and recorded ones before these.

    Args:
        model: network in eval mode.
        recorded: from the checkpoint of ``model``; None where it has none.
    Raises:
        UserError: ``recorded`` is not of this network.
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
        raise UserError(f'feature_statistics of the checkpoint name {sorted(recorded)[0]!r}, which the network does '
                         'not have: it is the checkpoint of another network.')
    return targets


class FeatureStatistics:
    """Measures, while active, how far the inputs of layers are from their targets.

    Use as a context manager around forward passes; ``loss`` then combines the layers that ran since its last call.

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
            # A module that runs twice in one pass (shared norms) counts twice, as it does in training.
            self._ran.append(number)
            dim = channel_dim(layer, inputs[0].ndim, options.get('data_format'))
            features, *moments = watched(inputs[0], dim, in_place)
            self._moments.append(tuple(moments))
            return (features, *inputs[1:]), options

        return watch

    def loss(self) -> Optional[Tensor]:
        """Distance since the last call, mean over layers; None where no layer ran."""
        ran, moments = tuple(self._ran), self._moments
        self._ran, self._moments = [], []
        if not ran:
            return None
        if ran not in self._rows:
            self._rows[ran] = TargetRows([self.targets[number] for number in ran])
        return self._rows[ran].distances(moments).sum() / len(ran)


class TargetRows:
    """Targets as one matrix, a row for each layer, so that all are compared at once.

    Args:
        targets: in the order in which their layers run.
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
        """(L,) distance of each layer from its target (see ``statistics_distance``).

        Args:
            moments: (C,) mean and (C,) variance of each layer.
        """
        mean, var = (rows.flatten().index_copy(0, self.places, torch.cat(values).float()).view_as(rows)
                     for rows, values in zip((self.mean, self.var), zip(*moments)))
        return statistics_distance(mean, var, self.mean, self.var, self.eps, self.channels)


# Rows summed up in one go on a CPU: float32 sums of more lose digits.
_ROWS = 2**16


def channel_moments(features: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel over all other dimensions, in float32 at least; without a gradient.

    Args:
        features: any shape.
        dim: that of the channels.
    Returns:
        Two (C,).
    """
    last = features.movedim(dim, -1)
    if features.device.type == 'cpu':
        if not last.is_contiguous():
            # The mean along the memory of each channel is fast, one over rows of a copy is not.
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
    """By the kernel that a batch norm trains with, of (N, C, ...): many times as fast as ``torch.var_mean``."""
    # Running statistics of float32, which are not asked for, make it sum half precision in float32.
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    unused = torch.zeros(2, features.shape[1], dtype=dtype, device=features.device)
    return torch.batch_norm_update_stats(features, unused[0], unused[1], 0.0)


class _Watched(torch.autograd.Function):
    """The features themselves, and their moments; both gradients arrive in one backward step."""

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
            # A frozen batch norm on CUDA gives its gradient in the usual order, whatever that of its input: once for
            # all here, instead of in every convolution before it.
            grad = grad.contiguous(memory_format=torch.channels_last)
        if features.dtype != slope.dtype:  # half precision: the sum in float32
            return (grad + torch.addcmul(offset, features, slope)).to(grad.dtype), None, None
        grad = grad.addcmul_(features, slope) if ctx.in_place else torch.addcmul(grad, features, slope)
        return grad.add_(offset), None, None


def watched(features: Tensor, dim: int, in_place: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Features for a layer, and their mean and biased variance per channel, with gradients.

    Args:
        features: input of the layer.
        dim: that of the channels.
        in_place: the layer alone takes the returned features, and the gradient it gives back is nobody else's; then
            that of the moments is added to it without another tensor. So it is with a batch norm.
    Returns:
        The features, (C,) mean, (C,) variance.
    """
    return _Watched.apply(features, dim % features.ndim, in_place)
