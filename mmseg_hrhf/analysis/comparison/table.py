"""The paper's table: methods by rows, tasks and settings by columns, mean and deviation over seeds."""
from __future__ import annotations

import csv
import io
import statistics
from typing import Optional, Sequence

from ..results import BACKGROUND, group_scores
from .cell import Cell


def collect(cells: Sequence[Cell], by_step: bool = False) -> list[dict]:
    """One record per finished cell: method, column (task and setting), seed, and its last step's groups.

    Args:
        cells: whose results are read.
        by_step: a group for each step's classes, as in Table 7; else one for all classes added since step 0.
    """
    finished = [(cell, results) for cell in cells if (results := cell.results()) is not None]
    sizes: dict[str, list[int]] = {}
    for cell, results in finished:
        if by_step and len(results['results']) == results['num_steps']:  # Joint has no steps of its own
            sizes.setdefault(cell.column, [len(result['new_classes']) for result in results['results']])
    records = []
    for cell, results in finished:
        last, base = results['results'][-1], results['num_base_classes']
        scores = group_scores(last, sizes.get(cell.column, [base, len(last['classes']) - base]))
        records.append(dict(method=cell.method, column=cell.column, seed=cell.seed, scores=scores))
    return records


def markdown(records: Sequence[dict], cells: Sequence[Cell], background: str) -> str:
    """The table in Markdown. A dash stands for what has not finished.

    Args:
        records: of ``collect``.
        cells: all cells, which order rows and columns.
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
    """A table cell's value for each seed."""
    values = [record['scores'][background].get(group) for record in records
              if record['method'] == method and record['column'] == column]
    return [value for value in values if value is not None]


def statistics_of(records: Sequence[dict]) -> list[dict]:
    """Each table cell as a record: method, column, background, group, mean, sample std (None of one), seeds, values."""
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
    """``statistics_of`` as CSV; the seeds' values stand in one field, rounded to two places."""
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
    """Over seeds, step by step: mean and sample deviation (0 of one); NaN where no seed has a value.

    Args:
        series: a list of values by step for each seed, all of one length.
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
