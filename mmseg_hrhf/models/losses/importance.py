"""How much each weight mattered to what was learnt, and what moving it costs (EWC, PI, RW).

All functions are elementwise on tensors of one parameter.
"""
from __future__ import annotations

import torch
from torch import Tensor


def running_fisher(fisher: Tensor, gradient: Tensor, new_share: float = 0.9) -> Tensor:
    """Moving average of squared gradients (the diagonal of Fisher's matrix); the newest one weighs ``new_share``."""
    return new_share * gradient.square() + (1 - new_share) * fisher


def path_contribution(gradient: Tensor, before: Tensor, now: Tensor) -> Tensor:
    """Loss that a weight's step from ``before`` to ``now`` took away, to first order (Zenke et al., eq. 3)."""
    return gradient * (before - now)


def path_importance(path: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Loss taken away per squared distance, where any was (Zenke et al., eq. 5).

    Args:
        path: sum of ``path_contribution`` since ``start``.
        start, end: the weight before and after the learning step.
    """
    return (path / ((end - start).square() + 1e-20)).clamp_min(0)


def riemannian_score(gradient: Tensor, before: Tensor, now: Tensor, fisher: Tensor) -> Tensor:
    """Loss taken away per distance in the space of outputs (Chaudhry et al., eq. 9)."""
    return path_contribution(gradient, before, now) / (0.5 * fisher * (now - before).square() + 1e-8)


def normalise_importance(importance: Tensor) -> Tensor:
    """From 0 for the least important element of a parameter to 1 for the most important one."""
    least, most = importance.min(), importance.max()
    return (importance - least) / (most - least + 1e-8)


def quadratic_penalty(weight: Tensor, anchor: Tensor, importance: Tensor) -> Tensor:
    """Scalar: sum of importance times squared distance from ``anchor``."""
    return (importance * (weight - anchor).square()).sum()


def restoring_force(weight: Tensor, anchor: Tensor, importance: Tensor, factor: float, max_stiffness: float) -> Tensor:
    """Gradient of ``factor`` times ``quadratic_penalty``, its slope limited.

    Gradient descent of rate lr on a slope above 2 / lr moves away from the anchor instead of towards it. Published
    settings stay below the limit 1 / lr; other learning rates must not end in NaN.

    Args:
        weight, anchor, importance: of one parameter.
        factor: of the penalty.
        max_stiffness: largest slope.
    """
    return torch.clamp(2 * factor * importance, max=max_stiffness) * (weight - anchor)
