"""Masks painted in colours as label masks."""
from __future__ import annotations

from typing import Optional, Sequence

import numpy as np

from ..scenario import IGNORE


def labels_of_colours(image: np.ndarray, palette: Sequence[Sequence[int]],
                      ignore: Optional[Sequence[int]] = None) -> np.ndarray:
    """Label of each pixel: the number of its colour in the palette.

    Args:
        image: (H, W, 3) uint8 RGB.
        palette: RGB colour of each label.
        ignore: RGB colour that becomes 255; none by default.
    Returns:
        (H, W) uint8.
    Raises:
        ValueError: two labels of one colour, or a pixel of no label's colour (a mask saved as JPEG has such).
    """
    if len(palette) > IGNORE:
        raise ValueError(f'{len(palette)} colours do not fit 8-bit masks, in which {IGNORE} means "ignore".')
    colours = [tuple(map(int, colour)) for colour in palette] + ([] if ignore is None else [tuple(map(int, ignore))])
    if len(set(colours)) != len(colours):
        twice = next(colour for i, colour in enumerate(colours) if colour in colours[:i])
        raise ValueError(f'The colour {twice} stands for two labels.')
    code = (image.astype(np.int32) * (65536, 256, 1)).sum(2)
    labels, known = np.full(code.shape, IGNORE, np.uint8), np.zeros(code.shape, bool)
    for label, (red, green, blue) in enumerate(colours):
        found = code == red * 65536 + green * 256 + blue
        labels[found] = label if label < len(palette) else IGNORE
        known |= found
    if not known.all():
        row, column = np.argwhere(~known)[0].tolist()
        colour = tuple(image[row, column].tolist())
        raise ValueError(f"the pixel in row {row}, column {column} has the colour {colour}, which is no label's")
    return labels
