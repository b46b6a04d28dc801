"""The inversion objective: classification loss, image prior, feature statistics (eq. 2)."""
from __future__ import annotations

from torch import Tensor


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
    """Distance of a layer's batch statistics from those of training (feature term of eq. 2).

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
