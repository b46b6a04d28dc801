"""The charts of the pages."""
from __future__ import annotations

from typing import Sequence

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ..comparison.table import mean_and_deviation
from .themed_svg import SERIES, SOFT, chart_style, themed_svg


def step_curves(systems: dict[str, list[Sequence[dict]]], num_steps: int, name: str) -> Markup:
    """mIoU of ``all`` and of ``old`` classes (without background) after each step, a line per system.

    Args:
        systems: for each system the results of each of its seeds; one that is trained once for all (Joint) is a level.
        num_steps: of the scenario.
        name: see :func:`~.themed_svg.themed_svg`.
    """
    with chart_style():
        figure = Figure(figsize=(9.2, 3.1))
        axes = figure.subplots(1, 2, sharey=True)
        for axis, group, title in zip(axes, ('all', 'old'), ('all classes so far', 'classes of step 0')):
            for i, runs in enumerate(systems.values()):
                colour = SERIES[i % len(SERIES)]
                means, spreads = mean_and_deviation([[r['metrics'][f'mIoU_{group}'] for r in run] for run in runs])
                steps = [result['step'] for result in runs[0]]
                if len(steps) == 1 and num_steps > 1:
                    axis.axhline(means[0], color=colour, linestyle='--')
                    continue
                # Beyond eight systems colours come again, with another stroke.
                axis.plot(steps, means, color=colour, marker='o', markersize=4,
                          linestyle='-' if i < len(SERIES) else ':')
                if any(spreads):
                    low, high = ([m + sign * s for m, s in zip(means, spreads)] for sign in (-1, 1))
                    axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.set_title(f'mIoU, {title}')
            axis.set_xlabel('step')
            axis.set_xlim(-0.15, num_steps - 0.85)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set_ylim(bottom=0)
        axes[0].set_ylabel('%')
        figure.tight_layout(w_pad=2.5)
        return themed_svg(figure, name)


_TERMS = dict(
    classification='classification loss', feature='feature statistics', tv='total variation', l2='squared norm')


def inversion_curves(curves: Sequence[dict], name: str) -> Markup:
    """Losses over the iterations of an inversion: a thin line per batch, in one small chart per term.

    Args:
        curves: of the batches, see :func:`~mmseg_hrhf.replay.loss_curve.thin_curve`.
        name: see :func:`~.themed_svg.themed_svg`.
    """
    terms = list(dict.fromkeys(term for curve in curves for term in curve if term != 'iteration'))
    with chart_style():
        figure = Figure(figsize=(3.05 * max(2, len(terms)), 2.3))
        for i, (axis, term) in enumerate(zip(figure.subplots(1, len(terms), squeeze=False)[0], terms)):
            for curve in curves:
                axis.plot(curve['iteration'], curve[term], color=SERIES[i % len(SERIES)], linewidth=1.1,
                          alpha=max(0.25, 1 / len(curves)**0.5))
            axis.set_title(_TERMS.get(term, term))
            axis.set_yscale('log')
            values = [value for curve in curves for value in curve[term] if value > 0]
            wide = bool(values) and max(values) > 30 * min(values)
            axis.yaxis.set_major_locator(LogLocator(subs=(1, ) if wide else (1, 2, 5)))
            axis.yaxis.set_major_formatter(lambda value, _: f'{value:g}')
            axis.yaxis.set_minor_locator(NullLocator())
            axis.tick_params(labelsize=8)
            axis.set_xlabel('iteration', color=SOFT)
        figure.tight_layout(w_pad=1.5)
        return themed_svg(figure, name)
