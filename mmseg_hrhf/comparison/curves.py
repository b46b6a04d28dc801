"""mIoU over learning steps, a line per system."""
from __future__ import annotations

from pathlib import Path
from typing import Sequence

from ..files import PathLike, atomic_write
from .cell import Cell
from .table import mean_and_deviation


def plot_curves(cells: Sequence[Cell], path: PathLike) -> None:
    """Draw ``all`` and ``old`` (without background) after each step; the band is the deviation over seeds.

    Args:
        cells: whose finished runs are drawn; a system with the last step alone (Joint) is a dashed level.
        path: of the picture; its suffix names the format (``.png``, ``.svg``).
    """
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    done = [(cell, results) for cell in cells for results in [cell.results()] if results is not None]
    columns = list(dict.fromkeys(cell.column for cell, _ in done))
    systems = list(dict.fromkeys(cell.system for cell, _ in done))
    colours = {system: plt.get_cmap('tab20')(i % 20) for i, system in enumerate(systems)}
    colours['HRHF'] = (0., 0., 0., 1.)  # the method that the others are compared with
    figure, axes = plt.subplots(2, max(1, len(columns)), figsize=(4.2 * max(1, len(columns)) + 2, 7), squeeze=False,
                                sharex='col', sharey='row')
    for j, column in enumerate(columns):
        axes[0][j].set_title(column)
        axes[1][j].set_xlabel('step')
        for i, group in enumerate(('all', 'old')):
            axis = axes[i][j]
            axis.grid(alpha=0.3)
            axis.set_ylabel(f'mIoU of {group} classes, %' if j == 0 else '')
            for system in systems:
                runs = [results for cell, results in done if (cell.system, cell.column) == (system, column)]
                if runs:
                    _draw(axis, system, runs, f'mIoU_{group}', colours[system])
    if systems:
        handles, labels = {}, []
        for axis in axes.flat:
            handles.update(dict(zip(axis.get_legend_handles_labels()[1], axis.get_legend_handles_labels()[0])))
        labels = [system for system in systems if system in handles]
        figure.legend([handles[label] for label in labels], labels, loc='center left', bbox_to_anchor=(1.0, 0.5),
                      frameon=False)
    figure.tight_layout()
    with atomic_write(path) as file:
        figure.savefig(file, format=Path(path).suffix.lstrip('.'), dpi=110, bbox_inches='tight')
    plt.close(figure)


def _draw(axis, system: str, runs: Sequence[dict], key: str, colour) -> None:
    steps = [result['step'] for result in runs[0]['results']]
    # A gap in the line where no test image shows a class of the group.
    means, spread = mean_and_deviation([[result['metrics'][key] for result in run['results']] for run in runs])
    if len(steps) == 1 and runs[0]['num_steps'] > 1:
        axis.axhline(means[0], color=colour, linestyle='--', label=system)
        return
    axis.plot(steps, means, color=colour, marker='o', markersize=3, label=system,
              linewidth=2.5 if system == 'HRHF' else 1.5)
    axis.set_xticks(steps)
    if len(runs) > 1:
        axis.fill_between(steps, [m - s for m, s in zip(means, spread)], [m + s for m, s in zip(means, spread)],
                          color=colour, alpha=0.15, linewidth=0)
