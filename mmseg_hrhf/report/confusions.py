"""What is taken for what, from the pixel counts of a step's test."""
from __future__ import annotations

from typing import Sequence

import numpy as np


def row_shares(counts: np.ndarray) -> np.ndarray:
    """(C, C) pixel counts as percentages of each true class; NaN in rows without a pixel."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(100.0 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)


def largest_confusions(classes: Sequence[str], counts: np.ndarray, number: int) -> list[tuple[str, str, float]]:
    """``(class, taken for, percentage of the class's pixels)``, the largest shares first; at least 1 %."""
    shares = np.nan_to_num(row_shares(counts))
    np.fill_diagonal(shares, 0)
    order = np.argsort(-shares, axis=None, kind='stable')[:number]
    pairs = [np.unravel_index(i, shares.shape) for i in order]
    return [(classes[i], classes[j], float(shares[i, j])) for i, j in pairs if shares[i, j] >= 1]
