"""Mean and variance per channel of a layer's input, in one pass forward and one backward."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
