"""Importance of weights for earlier steps, and the penalty for changing them (EWC, PI, RW).

Each function takes tensors of one parameter.
"""
from __future__ import annotations

import torch
from torch import Tensor


def running_fisher(fisher: Tensor, gradient: Tensor, new_share: float = 0.9) -> Tensor:
    """Moving average of squared gradients (diagonal of the Fisher matrix); ``new_share`` is the newest one's weight."""
    return new_share * gradient.square() + (1 - new_share) * fisher


def path_contribution(gradient: Tensor, before: Tensor, now: Tensor) -> Tensor:
    """First-order loss decrease due to a weight's change from ``before`` to ``now`` (Zenke et al., eq. 3)."""
    return gradient * (before - now)


def path_importance(path: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Loss decrease per squared distance, at least 0 (Zenke et al., eq. 5).

    Args:
        path: sum of ``path_contribution`` since ``start``.
        start, end: weight before and after the learning step.
    """
    return (path / ((end - start).square() + 1e-20)).clamp_min(0)


def riemannian_score(gradient: Tensor, before: Tensor, now: Tensor, fisher: Tensor) -> Tensor:
    """Loss decrease per distance in output space (Chaudhry et al., eq. 9)."""
    return path_contribution(gradient, before, now) / (0.5 * fisher * (now - before).square() + 1e-8)


def normalise_importance(importance: Tensor) -> Tensor:
    """Rescale to 0 for the least and 1 for the most important element of a parameter."""
    least, most = importance.min(), importance.max()
    return (importance - least) / (most - least + 1e-8)


def quadratic_penalty(weight: Tensor, anchor: Tensor, importance: Tensor) -> Tensor:
    """Scalar: sum of importance times squared distance from ``anchor``."""
    return (importance * (weight - anchor).square()).sum()


def restoring_force(weight: Tensor, anchor: Tensor, importance: Tensor, factor: float, max_stiffness: float) -> Tensor:
    """Gradient of ``factor`` times ``quadratic_penalty``, with limited stiffness.

    Gradient descent with learning rate lr diverges from the anchor if the stiffness exceeds 2 / lr. Published settings
    stay below the limit 1 / lr, which keeps other learning rates from ending in NaN.

    Args:
        weight, anchor, importance: of one parameter.
        factor: weight of the penalty.
        max_stiffness: upper limit of ``2 * factor * importance``.
    """
    return torch.clamp(2 * factor * importance, max=max_stiffness) * (weight - anchor)
