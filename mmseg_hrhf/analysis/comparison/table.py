"""The paper's table: methods as rows, tasks and settings as columns, mean and standard deviation over seeds."""
from __future__ import annotations

import csv
import io
import statistics
from typing import Optional, Sequence

from ..results import BACKGROUND, group_scores
from .cell import Cell


def collect(cells: Sequence[Cell], by_step: bool = False) -> list[dict]:
    """One record per finished cell: method, column (task and setting), seed, and scores of the last step.

    Args:
        cells: cells to read results of.
        by_step: one group for each step's classes, as in Table 7; otherwise one for all classes added after step 0.
    """
    finished = [(cell, results) for cell in cells if (results := cell.results()) is not None]
    sizes: dict[str, list[int]] = {}
    for cell, results in finished:
        if by_step and len(results['results']) == results['num_steps']:  # Joint has only one step
            sizes.setdefault(cell.column, [len(result['new_classes']) for result in results['results']])
    records = []
    for cell, results in finished:
        last, base = results['results'][-1], results['num_base_classes']
        scores = group_scores(last, sizes.get(cell.column, [base, len(last['classes']) - base]))
        records.append(dict(method=cell.method, column=cell.column, seed=cell.seed, scores=scores))
    return records


def markdown(records: Sequence[dict], cells: Sequence[Cell], background: str) -> str:
    """The table in Markdown; missing results are dashes.

    Args:
        records: from ``collect``.
        cells: all cells, in the order of rows and columns.
        background: one of ``BACKGROUND``.
    """
    methods = list(dict.fromkeys(cell.method for cell in cells))
    heads = [(column, group) for column in dict.fromkeys(cell.column for cell in cells)
             for group in group_names(records, column, background) or ['all']]
    lines = ['| method | ' + ' | '.join(f'{column}: {group}' for column, group in heads) + ' |',
             '|---' * (len(heads) + 1) + '|']
    for method in methods:
        shown = [_cell(values_of(records, method, column, background, group)) for column, group in heads]
        lines.append(f'| {method} | ' + ' | '.join(shown) + ' |')
    return '\n'.join(lines) + '\n'


def values_of(records: Sequence[dict], method: str, column: str, background: str, group: str) -> list[float]:
    """Values of a table cell, one per seed."""
    values = [record['scores'][background].get(group) for record in records
              if record['method'] == method and record['column'] == column]
    return [value for value in values if value is not None]


def statistics_of(records: Sequence[dict]) -> list[dict]:
    """One record per table cell: its method, column, background, group, mean, sample std (None for one seed), seeds and
    values."""
    rows = []
    for method, column in dict.fromkeys((record['method'], record['column']) for record in records):
        for background in BACKGROUND:
            for group in group_names(records, column, background):
                values = values_of(records, method, column, background, group)
                if values:
                    spread = statistics.stdev(values) if len(values) > 1 else None
                    rows.append(dict(method=method, column=column, background=background, group=group,
                                     mean=statistics.mean(values), std=spread, seeds=len(values), values=values))
    return rows


def csv_text(rows: Sequence[dict]) -> str:
    """``statistics_of`` as CSV; the values of all seeds share one field, with two decimals."""
    names = ['method', 'column', 'background', 'group', 'mean', 'std', 'seeds', 'values']
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator='\n')
    writer.writeheader()
    writer.writerows(dict(row, values=' '.join(f'{value:.2f}' for value in row['values'])) for row in rows)
    return out.getvalue()


def group_names(records: Sequence[dict], column: str, background: str) -> list[str]:
    """Groups of a column of the table, in order, ``'all'`` last."""
    groups = dict.fromkeys(group for record in records if record['column'] == column
                           for group in record['scores'][background])
    return sorted(groups, key=lambda group: (group == 'all', int(group.split('-')[0]) if group != 'all' else 0))


def mean_and_deviation(series: Sequence[Sequence[Optional[float]]]) -> tuple[list[float], list[float]]:
    """Mean and sample deviation over seeds for each step; NaN and 0 without values, deviation 0 for one value.

    Args:
        series: values by step for each seed, all of the same length.
    """
    columns = [[v for v in column if v is not None and v == v] for column in zip(*series)]
    means = [statistics.mean(column) if column else float('nan') for column in columns]
    spreads = [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns]
    return means, spreads


def _cell(values: Sequence[float]) -> str:
    if not values:
        return '-'
    if len(values) == 1:
        return f'{values[0]:.1f}'
    return f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}'
