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
                        channels: Union[int, Tensor, None] = None) -> Tensor:
    """Distance of a layer's batch statistics from those of training (feature term of eq. 2).

    ``rms((mean - m) / sqrt(v + eps)) + rms((var - v) / (v + eps))``, root mean squares over channels. The published
    form is ``|mean - m| + |var - v|``; in units of the running statistics neither wide layers nor channels of large
    variance drown the rest.

    Args:
        mean, var: (..., C) of the batch, biased variance; a row for each layer, narrow layers filled up with what
            ``running_mean`` and ``running_var`` have in their place.
        running_mean, running_var: (..., C) of training.
        eps: of the layer, added to the running variance.
        channels: (...) of each layer; by default C.
    Returns:
        (...), a scalar for one layer.
    """
    scale = running_var + eps
    # By norms, whose gradient at 0 is 0; that of a square root is not a number.
    distance = ((mean - running_mean) / scale.sqrt()).norm(dim=-1) + ((var - running_var) / scale).norm(dim=-1)
    return distance / (mean.shape[-1] if channels is None else channels)**0.5


@dataclass(frozen=True)
class Perturbation:
    """A roll and perhaps a mirroring of a batch.

    Args:
        shifts: pixels by which rows and columns are rolled.
        mirrored: left and right are exchanged afterwards.
    """
    shifts: tuple[int, int]
    mirrored: bool

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) perturbed images."""
        images = images.roll(self.shifts, dims=(2, 3))
        return images.flip(3) if self.mirrored else images

    def undo(self, images: Tensor) -> Tensor:
        """The inverse; takes the gradient by perturbed images to that by the images."""
        images = images.flip(3) if self.mirrored else images
        return images.roll([-shift for shift in self.shifts], dims=(2, 3))


def draw_perturbation(size: tuple[int, int], jitter: float, flip: bool, rng: np.random.Generator) -> Perturbation:
    """Draw one.

    Args:
        size: (height, width) of the images.
        jitter: largest roll, as a share of the side.
        flip: mirror with probability one half.
        rng: source of randomness.
    """
    vertical, horizontal = (round(jitter * side) for side in size)
    shifts = int(rng.integers(-vertical, vertical + 1)), int(rng.integers(-horizontal, horizontal + 1))
    return Perturbation(shifts, flip and bool(rng.random() < 0.5))


# Iterations whose losses are read together: to read makes the host wait for an accelerator.
_EVERY = 16


class RunningLosses:
    """Checks and reports the losses of each iteration, up to 15 iterations late.

    Args:
        request: what is being synthesised; named in errors.
        on_iteration: called with the losses of each iteration.
        at_once: read the losses of every iteration as it ends.
    Attributes:
        last: losses of the latest iteration that was read.
    """

    def __init__(self, request: FakeRequest, on_iteration: Optional[Callable[[dict], None]], at_once: bool) -> None:
        self.request = request
        self.on_iteration = on_iteration
        self.every = 1 if at_once else _EVERY
        self.last: dict[str, float] = {}
        self._unread: list[tuple[int, list[str], Tensor]] = []

    def add(self, iteration: int, terms: Mapping[str, Tensor], total: Tensor, gradient: Tensor) -> None:
        """Keep an iteration's scalars.

        Args:
            iteration: of the stage.
            terms: of the objective.
            total: weighted sum of the terms.
            gradient: sum over the gradient of the images, which is finite only if all of it is.
        """
        values = torch.stack([term.detach() for term in (*terms.values(), total, gradient)])
        self._unread.append((iteration, list(terms), values))
        if len(self._unread) >= self.every:
            self.read()

    def read(self) -> None:
        """Check and report what has been kept.

        Raises:
            UserError: a loss or a gradient is not finite; names batch, classes and iteration.
        """
        unread, self._unread = self._unread, []
        values = torch.stack([scalars for _, _, scalars in unread]).tolist() if unread else []
        for (iteration, names, _), (*terms, total, gradient) in zip(unread, values):
            losses = dict(zip(names, terms))
            where = f'at iteration {iteration} of the batch with seed {self.request.seed}'
            if not math.isfinite(total):
                raise UserError(f'SegInversion: the loss is not finite {where} and classes '
                                         f'{list(self.request.classes)}: {losses}. Lower lr, or switch amp off.')
            if not math.isfinite(gradient):
                raise UserError(f'SegInversion: the gradient is not finite {where}. Lower lr, or switch amp '
                                         'off.')
            self.last = losses
            if self.on_iteration is not None:
                self.on_iteration(losses)
