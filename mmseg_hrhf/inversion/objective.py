"""The inversion objective: classification loss, image prior, feature statistics (eq. 2)."""
from __future__ import annotations

from typing import Union

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def classification_loss(scores: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of aggregated scores against the asked-for classes (first term of eq. 2).

    Args:
        scores: (N, K) aggregated logits.
        target: (N, K) distribution over classes; rows sum to 1 (one class: one-hot).
    Returns:
        (N,) nats.
    """
    return -(target * scores.log_softmax(1)).sum(1)


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of vertical and of horizontal neighbours, summed.

    Args:
        images: (N, C, H, W).
    Returns:
        (N,) in the unit of the images.
    """
    vertical = (images[:, :, 1:] - images[:, :, :-1]).abs().mean((1, 2, 3))
    horizontal = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean((1, 2, 3))
    return vertical + horizontal


def smoothness(images: Tensor) -> Tensor:
    """Mean squared difference of neighbours: the differentiable form of total variation used as a prior ("TV-l2").

    Args:
        images: (N, C, H, W).
    Returns:
        (N,).
    """
    return _Smoothness.apply(images)


class _Smoothness(torch.autograd.Function):

    @staticmethod
    def forward(ctx, images: Tensor) -> Tensor:
        vertical, horizontal = images[:, :, 1:] - images[:, :, :-1], images[:, :, :, 1:] - images[:, :, :, :-1]
        ctx.save_for_backward(vertical, horizontal)
        return vertical.square().mean((1, 2, 3)) + horizontal.square().mean((1, 2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        vertical, horizontal = ctx.saved_tensors
        grad = 2 * grad.view(-1, 1, 1, 1)
        of_vertical, of_horizontal = (grad / max(1, part[0].numel()) for part in (vertical, horizontal))
        result = vertical.new_zeros(horizontal.shape[:3] + vertical.shape[3:])
        result[:, :, 1:].addcmul_(vertical, of_vertical)
        result[:, :, :-1].addcmul_(vertical, of_vertical, value=-1)
        result[:, :, :, 1:].addcmul_(horizontal, of_horizontal)
        result[:, :, :, :-1].addcmul_(horizontal, of_horizontal, value=-1)
        return result


def statistics_distance(mean: Tensor, var: Tensor, running_mean: Tensor, running_var: Tensor, eps: Union[float, Tensor],
                        relative: bool, channels: Union[int, Tensor, None] = None) -> Tensor:
    """Distance of a layer's batch statistics from those of training (feature term of eq. 2).

    Args:
        mean, var: (..., C) of the batch, biased variance; a row for each layer, narrow layers filled up with what
            ``running_mean`` and ``running_var`` have in their place.
        running_mean, running_var: (..., C) of training.
        eps: of the layer, added to the running variance.
        relative: False: the published Euclidean norms ``|mean - m| + |var - v|``. True: root mean squares over channels
            in units of the running statistics, so that neither wide layers nor loud channels drown the rest.
        channels: (...) of each layer; by default C.
    Returns:
        (...), a scalar for one layer.
    """
    if not relative:
        return (mean - running_mean).norm(dim=-1) + (var - running_var).norm(dim=-1)
    scale = running_var + eps
    # By norms, whose gradient at 0 is 0; that of a square root is not a number.
    distance = ((mean - running_mean) / scale.sqrt()).norm(dim=-1) + ((var - running_var) / scale).norm(dim=-1)
    return distance / (mean.shape[-1] if channels is None else channels)**0.5
