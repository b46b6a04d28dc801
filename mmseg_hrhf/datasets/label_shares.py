"""What becomes of the pixels of a step's images: background, ignored, or a class to learn."""
from __future__ import annotations

from typing import Mapping

import numpy as np

from ..scenario import IGNORE

_MOST_NAMED = 6


def describe_shares(counts: np.ndarray, label_map: Mapping[int, int], names: Mapping[int, str]) -> str:
    """Share of the pixels that count as background and that are ignored, and by which raw labels.

    Args:
        counts: (256,) pixels of each raw label.
        label_map: class index (0: background) or 255 of each raw label.
        names: of the raw labels.
    Returns:
        Such as ``'background 71.2 % (background 60.1 %, blue 11.1 %), ignored 3.0 % (void 3.0 %)'``.
    """
    pixels = [int(count) for count in counts]
    total = max(sum(pixels), 1)
    parts = []
    for what, index in (('background', 0), ('ignored', IGNORE)):
        raws = [raw for raw in label_map if label_map[raw] == index and pixels[raw]]
        raws.sort(key=lambda raw: -pixels[raw])
        share = sum(pixels[raw] for raw in raws)
        shown = [f'{names.get(raw, f"label {raw}")} {_percent(pixels[raw], total)}' for raw in raws[:_MOST_NAMED]]
        if len(raws) > _MOST_NAMED:
            shown.append(f'{len(raws) - _MOST_NAMED} more labels')
        parts.append(f'{what} {_percent(share, total)}' + (f' ({", ".join(shown)})' if shown else ''))
    return ', '.join(parts)


def _percent(part: int, total: int) -> str:
    return f'{100 * part / total:.1f} %'
