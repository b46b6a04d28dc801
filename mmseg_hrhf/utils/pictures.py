"""Image grids and mask overlays."""
from __future__ import annotations

from typing import Sequence

import numpy as np
from PIL import Image


def colour_mask(mask: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """(H, W) class indices as (H, W, 3) uint8 RGB; indices without a colour (255: ignored) are white."""
    table = np.full((256, 3), 255, dtype=np.uint8)
    table[:len(palette)] = palette
    return table[mask]


def overlay(image: np.ndarray, mask: np.ndarray, palette: Sequence[Sequence[int]], alpha: float = 0.5) -> np.ndarray:
    """Blend a mask over an image; background (class index 0) stays transparent.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 class indices.
        palette: RGB colour of each class index.
        alpha: weight of the colour, 0 to 1.
    Returns:
        (H, W, 3) uint8 RGB.
    """
    share = np.where(mask > 0, alpha, 0.0)[..., None]
    return np.round(image * (1 - share) + colour_mask(mask, palette) * share).astype(np.uint8)


def image_grid(images: Sequence[np.ndarray], columns: int, cell: tuple[int, int], gap: int = 2) -> np.ndarray:
    """Arrange images in a grid on white, row by row.

    Args:
        images: (H, W, 3) uint8 RGB, of any sizes; larger ones are shrunk to their cell, keeping the aspect ratio.
        columns: cells per row.
        cell: (height, width) of a cell in pixels.
        gap: pixels between cells.
    Returns:
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 3) uint8 RGB.
    """
    height, width = cell
    rows = -(-len(images) // columns)
    grid = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        fitted = fit(image, cell)
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        top += (height - fitted.shape[0]) // 2
        left += (width - fitted.shape[1]) // 2
        grid[top:top + fitted.shape[0], left:left + fitted.shape[1]] = fitted
    return grid


def fit(image: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """Shrink an image to fit (height, width); smaller images are unchanged."""
    scale = min(cell[0] / image.shape[0], cell[1] / image.shape[1], 1.0)
    if scale == 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
