"""The paper's table: methods as rows, tasks and settings as columns, mean and standard deviation over seeds.

Published figures are read from ``published.csv`` and are never part of it.
"""
from __future__ import annotations

import csv
import io
import re
import statistics
from pathlib import Path
from typing import Collection, Optional, Sequence

from ...scenario import SETTINGS
from ...utils.errors import UserError
from ...utils.io import PathLike
from ..results import ALL, BACKGROUND, class_span, group_scores
from .cell import Cell

# Package data, unlike configs: a tool of a wheel finds it beside this code, wherever it is started.
PUBLISHED = Path(__file__).parents[1] / 'published.csv'
PUBLISHED_PROTOCOLS = 'The HRHF paper (arXiv:2104.00875) uses the label protocol mib, later papers plop.'
# Number of foreground classes of the datasets there, and the section of each value of its column `background`.
_CLASSES = {'VOC 2012': 20, 'ADE20K': 150}
_SECTIONS = {'out': BACKGROUND[0], 'in': BACKGROUND[1], 'unclear': 'background unclear'}
_TEXT, _SCORE = ('.+', 'some text'), r'\d{1,2}(\.\d+)?|100(\.0+)?'
# Pattern of each column of PUBLISHED, and its description for messages. Scores stay text, as printed in the source.
_COLUMNS = dict(
    method=_TEXT, year=(r'(\d{4})?', 'a year or empty'),
    dataset=('|'.join(_CLASSES), f'one of {", ".join(_CLASSES)}'), task=(r'\d+-\d+', "of the form 'B-I'"),
    setting=('|'.join(SETTINGS), f'one of {", ".join(SETTINGS)}'), backbone=_TEXT, memory=('yes|no', 'yes or no'),
    old=(f'({_SCORE})?', 'a percentage or empty'), new=(f'({_SCORE})?', 'a percentage or empty'),
    all=(_SCORE, 'a percentage'), background=('|'.join(_SECTIONS), f'one of {", ".join(_SECTIONS)}'),
    source=_TEXT)


def collect(cells: Sequence[Cell], by_step: bool = False, backgrounds: Sequence[str] = BACKGROUND) -> list[dict]:
    """One record per finished cell: method, column (task and setting), seed, label protocol, scores of the last step.

    Args:
        cells: cells to read results of.
        by_step: one group for each step's classes, as in Table 7; otherwise one for all classes added after step 0.
        backgrounds: those of ``BACKGROUND`` to keep.
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
        records.append(dict(method=cell.method, column=cell.column, seed=cell.seed, label_protocol=cell.label_protocol,
                            scores={background: scores[background] for background in backgrounds}))
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
             for group in group_names(records, column, background) or [ALL[background]]]
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
    """One record per table cell: its method, column, label protocol (all that its runs have), background, group, mean,
    sample std (None for one seed), seeds and values."""
    rows = []
    for method, column in dict.fromkeys((record['method'], record['column']) for record in records):
        runs = [record for record in records if (record['method'], record['column']) == (method, column)]
        protocols = ' '.join(sorted({run['label_protocol'] for run in runs}))
        for background in runs[0]['scores']:
            for group in group_names(records, column, background):
                values = values_of(records, method, column, background, group)
                if values:
                    spread = statistics.stdev(values) if len(values) > 1 else None
                    rows.append(dict(method=method, column=column, label_protocol=protocols, background=background,
                                     group=group, mean=statistics.mean(values), std=spread, seeds=len(values),
                                     values=values))
    return rows


def protocol_note(records: Sequence[dict]) -> str:
    """Names the label protocol of all records; where they differ, the methods of each in each column."""
    found: dict[str, dict[str, dict]] = {}
    for record in records:
        found.setdefault(record['column'], {}).setdefault(record['label_protocol'], {})[record['method']] = None
    names = sorted({name for held in found.values() for name in held})
    if len(names) < 2:
        return f'Label protocol: {names[0]}.' if names else ''
    return 'Label protocols differ, so the figures are not comparable. ' + ' '.join(
        f'{column}: ' + '; '.join(f'{name} ({", ".join(methods)})' for name, methods in held.items()) + '.'
        for column, held in found.items())


def csv_text(rows: Sequence[dict]) -> str:
    """``statistics_of`` as CSV; the values of all seeds share one field, with two decimals."""
    names = ['method', 'column', 'label_protocol', 'background', 'group', 'mean', 'std', 'seeds', 'values']
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator='\n')
    writer.writeheader()
    writer.writerows(dict(row, values=' '.join(f'{value:.2f}' for value in row['values'])) for row in rows)
    return out.getvalue()


def group_names(records: Sequence[dict], column: str, background: str) -> list[str]:
    """Groups of a column of the table, in order, that of all classes last."""
    groups = dict.fromkeys(group for record in records if record['column'] == column
                           for group in record['scores'][background])
    return sorted(groups, key=lambda group: (group == ALL[background], group != ALL[background]
                                             and int(group.split('-')[0])))


def mean_and_deviation(series: Sequence[Sequence[Optional[float]]]) -> tuple[list[float], list[float]]:
    """Mean and sample deviation over seeds for each step; NaN and 0 without values, deviation 0 for one value.

    Args:
        series: values by step for each seed, all of the same length.
    """
    columns = [[v for v in column if v is not None and v == v] for column in zip(*series)]
    means = [statistics.mean(column) if column else float('nan') for column in columns]
    spreads = [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns]
    return means, spreads


def read_published(columns: Collection[str], path: PathLike = PUBLISHED) -> list[dict[str, str]]:
    """Published figures of the given columns, in the order of the file.

    Args:
        columns: tasks and settings, such as ``'15-1 overlapped'``.
        path: CSV file with one line per figure of a method, task and setting. ``year`` is the method's; ``memory``
            says whether it keeps real images of old classes; ``old``, ``new`` and ``all`` are mIoU in %, empty where
            the source does not print them; ``background`` says whether ``old`` and ``all`` include background.
    Raises:
        UserError: a malformed line; names it.
    """
    rows = []
    with open(path, encoding='utf-8', newline='') as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != list(_COLUMNS):
            raise UserError(f'{path}, line 1: the columns must be {",".join(_COLUMNS)}.')
        for row in reader:
            if None in row or None in row.values():
                raise UserError(f'{path}, line {reader.line_num}: {len(_COLUMNS)} fields are required.')
            for name, (pattern, wanted) in _COLUMNS.items():
                if not re.fullmatch(pattern, row[name]):
                    raise UserError(f'{path}, line {reader.line_num}: {name}={row[name]!r} must be {wanted}.')
            rows.append(row)
    return [row for row in rows if f'{row["task"]} {row["setting"]}' in columns]


def published_tables(rows: Sequence[dict[str, str]], backgrounds: Sequence[str] = BACKGROUND) -> list[dict]:
    """One table for each dataset, task and background convention, so that no column mixes two conventions.

    Args:
        rows: rows of ``read_published``.
        backgrounds: those of ``BACKGROUND`` to show. Rows whose source leaves the convention open are always shown.
    Returns:
        ``title``; ``heads``: names of the columns; ``rows``: their values, as printed in the source.
    """
    names = ['method', 'year', 'memory', 'setting', 'backbone', 'old', 'new', 'all', 'source']
    tables = []
    for kind, section in _SECTIONS.items():
        held = [row for row in rows if row['background'] == kind and (kind == 'unclear' or section in backgrounds)]
        for dataset, task in dict.fromkeys((row['dataset'], row['task']) for row in held):
            groups = _group_heads(kind, int(task.split('-')[0]), _CLASSES[dataset])
            shown = [row for row in held if (row['dataset'], row['task']) == (dataset, task)]
            tables.append(dict(title=f'{dataset} {task}, {section}', heads=[*names[:5], *groups, names[-1]],
                               rows=[[row[name] for name in names] for row in shown]))
    return tables


def _group_heads(kind: str, base: int, total: int) -> list[str]:
    """Heads of ``old``, ``new`` and ``all``: those of measured figures of the same convention."""
    old, everything = {'out': (class_span(1, base), ALL[BACKGROUND[0]]),
                       'in': (class_span(0, base), ALL[BACKGROUND[1]]),
                       'unclear': (f'{class_span(0, base)} or {class_span(1, base)}', 'all, background unclear')}[kind]
    return [old, class_span(base + 1, total), everything]


def published_markdown(tables: Sequence[dict]) -> str:
    """``published_tables`` in Markdown."""
    if not tables:
        return 'None for these tasks and settings with this --background.\n'
    return '\n'.join(
        f'### {table["title"]}\n\n| {" | ".join(table["heads"])} |\n{"|---" * len(table["heads"])}|\n'
        + ''.join(f'| {" | ".join(value or "-" for value in row)} |\n' for row in table['rows']) for table in tables)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return '-'
    if len(values) == 1:
        return f'{values[0]:.1f}'
    return f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}'
