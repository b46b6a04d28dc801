"""The inversion objective: classification loss, image prior, feature statistics (eq. 2)."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Mapping, Optional, Union

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...utils.errors import UserError
from .base import FakeRequest


def classification_loss(scores: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of aggregated scores against the requested classes (first term of eq. 2).

    Args:
        scores: (N, K) aggregated logits.
        target: (N, K) distribution over classes; rows sum to 1 (one-hot for a single class).
    Returns:
        (N,) nats.
    """
    return -(target * scores.log_softmax(1)).sum(1)


def total_variation(images: Tensor) -> Tensor:
    """Sum of the mean absolute differences between vertical and between horizontal neighbours.

    Args:
        images: (N, C, H, W).
    Returns:
        (N,) in the unit of the images.
    """
    vertical = (images[:, :, 1:] - images[:, :, :-1]).abs().mean((1, 2, 3))
    horizontal = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean((1, 2, 3))
    return vertical + horizontal


def smoothness(images: Tensor) -> Tensor:
    """Mean squared difference between neighbours: the differentiable form of total variation ("TV-l2").

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
                        channels: Union[int, Tensor, None] = None) -> Tensor:
    """Distance between a layer's batch statistics and its training statistics (feature term of eq. 2).

    ``rms((mean - m) / sqrt(v + eps)) + rms((var - v) / (v + eps))``, with root mean squares over channels. The paper
    uses ``|mean - m| + |var - v|``. The normalisation keeps wide layers and high-variance channels from dominating.

    Args:
        mean, var: (..., C) mean and biased variance of the batch, one row per layer. Narrow layers are padded
            with the same values as in ``running_mean`` and ``running_var``.
        running_mean, running_var: (..., C) training statistics.
        eps: of the layer, added to the running variance.
        channels: (...) number of channels of each layer; default: C.
    Returns:
        (...), a scalar for one layer.
    """
    scale = running_var + eps
    # The gradient of a norm is 0 at 0; that of a square root is NaN.
    distance = ((mean - running_mean) / scale.sqrt()).norm(dim=-1) + ((var - running_var) / scale).norm(dim=-1)
    return distance / (mean.shape[-1] if channels is None else channels)**0.5


@dataclass(frozen=True)
class Perturbation:
    """A roll and an optional horizontal flip of a batch.

    Args:
        shifts: roll of rows and columns in pixels.
        mirrored: flip left and right after the roll.
    """
    shifts: tuple[int, int]
    mirrored: bool

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) perturbed images."""
        images = images.roll(self.shifts, dims=(2, 3))
        return images.flip(3) if self.mirrored else images

    def undo(self, images: Tensor) -> Tensor:
        """Inverse; maps the gradient of perturbed images to that of the original images."""
        images = images.flip(3) if self.mirrored else images
        return images.roll([-shift for shift in self.shifts], dims=(2, 3))


def draw_perturbation(size: tuple[int, int], jitter: float, flip: bool, rng: np.random.Generator) -> Perturbation:
    """Draw a random perturbation.

    Args:
        size: (height, width) of the images.
        jitter: maximum roll, as a fraction of the side.
        flip: flip horizontally with probability 0.5.
        rng: random generator.
    """
    vertical, horizontal = (round(jitter * side) for side in size)
    shifts = int(rng.integers(-vertical, vertical + 1)), int(rng.integers(-horizontal, horizontal + 1))
    return Perturbation(shifts, flip and bool(rng.random() < 0.5))


# Losses of this many iterations are read together, since reading synchronises host and accelerator.
_EVERY = 16


class RunningLosses:
    """Checks and reports the losses of each iteration, up to 15 iterations late.

    Args:
        request: the current request, for error messages.
        on_iteration: called with the losses of each iteration.
        at_once: read the losses after every iteration.
    Attributes:
        last: losses of the last iteration that was read.
    """

    def __init__(self, request: FakeRequest, on_iteration: Optional[Callable[[dict], None]], at_once: bool) -> None:
        self.request = request
        self.on_iteration = on_iteration
        self.every = 1 if at_once else _EVERY
        self.last: dict[str, float] = {}
        self._unread: list[tuple[int, list[str], Tensor]] = []

    def add(self, iteration: int, terms: Mapping[str, Tensor], total: Tensor, gradient: Tensor) -> None:
        """Add the scalars of an iteration.

        Args:
            iteration: index within the stage.
            terms: terms of the objective.
            total: weighted sum of the terms.
            gradient: sum of the images' gradient, which is finite only if all its elements are.
        """
        values = torch.stack([term.detach() for term in (*terms.values(), total, gradient)])
        self._unread.append((iteration, list(terms), values))
        if len(self._unread) >= self.every:
            self.read()

    def read(self) -> None:
        """Check and report the losses that were added.

        Raises:
            UserError: a loss or a gradient is NaN or Inf; names batch, classes and iteration.
        """
        unread, self._unread = self._unread, []
        values = torch.stack([scalars for _, _, scalars in unread]).tolist() if unread else []
        for (iteration, names, _), (*terms, total, gradient) in zip(unread, values):
            losses = dict(zip(names, terms))
            where = f'at iteration {iteration} of the batch with seed {self.request.seed}'
            if not math.isfinite(total):
                raise UserError(f'SegInversion: the loss is NaN or Inf {where} and classes '
                                f'{list(self.request.classes)}: {losses}. Lower replay.inversion.lr or set amp=None.')
            if not math.isfinite(gradient):
                raise UserError(f'SegInversion: the gradient is NaN or Inf {where}. Lower replay.inversion.lr or set '
                                'amp=None.')
            self.last = losses
            if self.on_iteration is not None:
                self.on_iteration(losses)
