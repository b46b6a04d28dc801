"""Losses over the iterations of an inversion, short enough to keep for every batch."""
from __future__ import annotations

from typing import Sequence

import numpy as np

# Points kept of a curve.
MAX_POINTS = 50


def thin_curve(losses: Sequence[dict[str, float]], max_points: int = MAX_POINTS) -> dict[str, list[float]]:
    """At most ``max_points`` iterations, evenly spaced, the first and the last among them.

    Args:
        losses: of each iteration, by term.
        max_points: at least 2.
    Returns:
        ``iteration`` (from 1) and each term of the last iteration: lists of one length. Empty without iterations.
    """
    if not losses:
        return {}
    kept = np.unique(np.linspace(0, len(losses) - 1, max_points).round().astype(int)).tolist()
    curve: dict[str, list[float]] = dict(iteration=[i + 1 for i in kept])
    for name in losses[-1]:
        curve[name] = [float(f'{losses[i][name]:.5g}') for i in kept]
    return curve


def mean_curve(curves: Sequence[dict[str, list[float]]]) -> list[dict[str, float]]:
    """Mean over batches of what :func:`thin_curve` gives, one dict per iteration.

    Batches that stopped early have other iterations: each iteration has the mean of the batches that hold it.
    """
    points: dict[int, list[dict[str, float]]] = {}
    for curve in curves:
        terms = [name for name in curve if name != 'iteration']
        for at, iteration in enumerate(curve['iteration']):
            points.setdefault(int(iteration), []).append({name: curve[name][at] for name in terms})
    means = []
    for iteration in sorted(points):
        rows = points[iteration]
        mean = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        means.append(dict(mean, iteration=iteration))
    return means
