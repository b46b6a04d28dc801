"""The inversion objective: classification loss, image prior, feature statistics (eq. 2)."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
    vertical = (images[:, :, 1:] - images[:, :, :-1]).square().mean((1, 2, 3))
    horizontal = (images[:, :, :, 1:] - images[:, :, :, :-1]).square().mean((1, 2, 3))
    return vertical + horizontal


def statistics_distance(mean: Tensor, var: Tensor, running_mean: Tensor, running_var: Tensor, eps: float,
                        relative: bool) -> Tensor:
    """Distance of a layer's batch statistics from its running statistics (feature term of eq. 2).

    Args:
        mean, var: (C,) of the batch, biased variance.
        running_mean, running_var: (C,) of training.
        eps: of the layer, added to the running variance.
        relative: False: the published Euclidean norms ``|mean - m| + |var - v|``. True: root mean squares over channels
            in units of the running statistics, so that neither wide layers nor loud channels drown the rest.
    Returns:
        Scalar.
    """
    if not relative:
        return (mean - running_mean).norm() + (var - running_var).norm()
    scale = running_var + eps
    # By norms, whose gradient at 0 is 0; that of a square root is not a number.
    distance = ((mean - running_mean) / scale.sqrt()).norm() + ((var - running_var) / scale).norm()
    return distance / len(mean)**0.5


class BatchNormStatistics:
    """Records, while active, how far the input of every batch norm layer is from its running statistics.

    Use as a context manager around forward passes; :meth:`loss` then combines the layers that ran since its last call.

    Args:
        model: network in eval mode.
        relative: see :func:`statistics_distance`.
        first_layer_weight: factor on the first layer that runs (DeepInversion multiplies it by 10 in some runs).
    """

    def __init__(self, model: nn.Module, relative: bool = True, first_layer_weight: float = 1.0) -> None:
        self.layers = [
            module for module in model.modules()
            if isinstance(module, _BatchNorm) and module.running_mean is not None
        ]
        self.relative = relative
        self.first_layer_weight = first_layer_weight
        self._distances: list[Tensor] = []
        self._handles: list = []

    def __enter__(self) -> BatchNormStatistics:
        self._distances = []
        self._handles = [layer.register_forward_pre_hook(self._record) for layer in self.layers]
        return self

    def __exit__(self, *exc_info) -> None:
        for handle in self._handles:
            handle.remove()

    def _record(self, layer: _BatchNorm, inputs: tuple) -> None:
        # A module that runs twice in one pass (shared norms) counts twice, as it does in training.
        features = inputs[0].float()
        dims = [0] + list(range(2, features.ndim))
        var, mean = torch.var_mean(features, dims, unbiased=False)
        self._distances.append(
            statistics_distance(mean, var, layer.running_mean.float(), layer.running_var.float(), layer.eps,
                                self.relative))

    def loss(self) -> Optional[Tensor]:
        """Distance since the last call: mean over layers if relative, else their sum; None without batch norm."""
        distances, self._distances = self._distances, []
        if not distances:
            return None
        distances[0] = distances[0] * self.first_layer_weight
        total = torch.stack(distances)
        return total.mean() if self.relative else total.sum()
