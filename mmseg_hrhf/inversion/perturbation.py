"""Rolls and mirrors images, so that no pixel can settle into a pattern that only works in its place."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


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
