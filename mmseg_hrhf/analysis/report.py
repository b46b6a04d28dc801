"""HTML report of one run, or of several runs for comparison."""
from __future__ import annotations

import json
import logging
import pprint
from typing import Optional, Sequence

import numpy as np
from mmengine.logging import print_log

from ..evaluation.summary import read_confusion, summarise
from ..utils.io import PathLike
from ..utils.pictures import fit
from .charts import css_colour, mask_uri, photo_uri, step_curves, write_page
from .comparison.table import (
    PUBLISHED_PROTOCOLS,
    group_names,
    mean_and_deviation,
    protocol_note,
    published_tables,
    statistics_of,
)
from .finished_step import Panel, make_panels
from .results import BACKGROUND, RunRecord

_PICTURE = (240, 320)
# With more classes, the confusion matrix is only in confusion.csv.
_MATRIX_CLASSES = 30


def write_report(path: PathLike, runs: Sequence[RunRecord], num_images: int = 8,
                 published: Optional[Sequence[dict]] = None) -> None:
    """Write the report.

    Args:
        path: HTML file.
        runs: runs of any methods, tasks, settings and seeds.
        num_images: number of test images to show; with 0, no checkpoint is loaded.
        published: rows of ``read_published``, for a section of their own; None: no such section.
    """
    columns = [_column([run for run in runs if run.column == name], f'c{i}', num_images)
               for i, name in enumerate(dict.fromkeys(run.column for run in runs))]
    methods = list(dict.fromkeys(run.method for run in runs))
    names = ', '.join(methods) if len(methods) < 4 else f'{len(methods)} methods'
    write_page(
        path,
        'report.html',
        title=f'{names}: {columns[0]["name"]}' if len(columns) == 1 else names,
        seeds=sorted({run.seed for run in runs}),
        tiles=_tiles(runs[0]) if len(runs) == 1 else [],
        tables={background: paper_table(runs, background) for background in BACKGROUND},
        protocols=protocol_note([run.table_record() for run in runs]),
        published=None if published is None else published_tables(published),
        published_protocols=PUBLISHED_PROTOCOLS,
        columns=columns,
        runs=[_run(run) for run in runs],
        mixed_environments=any(run.last.get('environment') != runs[0].last.get('environment') for run in runs),
        differing=differing_options(runs))


def paper_table(runs: Sequence[RunRecord], background: str) -> dict:
    """Table in the paper's layout: methods as rows, task and setting as columns, divided into groups of classes.

    Returns:
        ``heads``: ``[(column, [group, ...])]``; ``rows``: ``[(method, [cell, ...])]``. A cell is None or
        ``dict(mean, std, seeds, best)``.
    """
    records = [run.table_record() for run in runs]
    cells = {(row['method'], row['column'], row['group']): row for row in statistics_of(records)
             if row['background'] == background}
    heads = [(column, group_names(records, column, background)) for column in dict.fromkeys(r.column for r in runs)]
    methods = list(dict.fromkeys(run.method for run in runs))
    # A group has no cell if the test images contain none of its classes.
    best = {(column, group): max((cells[s, column, group]['mean'] for s in methods if (s, column, group) in cells),
                                 default=None)
            for column, groups in heads for group in groups}
    rows = []
    for method in methods:
        row: list[Optional[dict]] = []
        for column, groups in heads:
            for group in groups:
                cell = cells.get((method, column, group))
                is_best = cell is not None and len(methods) > 1 and cell['mean'] == best[column, group]
                row.append(cell and dict(cell, best=is_best))
        rows.append((method, row))
    return dict(heads=heads, rows=rows)


def class_table(runs: Sequence[RunRecord]) -> dict:
    """IoU of each class after each step, and its forgetting, averaged over the seeds of one method.

    Returns:
        ``steps``: step numbers; ``rows``: ``dict(name, colour, ious, forgetting, first)`` by class index, where
        ``first`` marks the first class of a step.
    """
    first = runs[0]
    series: dict[str, list] = {name: [] for name in first.classes}
    lost: dict[str, list] = {name: [] for name in first.classes}
    for run in runs:
        forgetting = summarise(run.results)['forgetting']
        for name in first.classes:
            series[name].append([result['metrics'].get(f'IoU/{name}') for result in run.results])
            lost[name].append([forgetting.get(name)])
    starts = {result['new_classes'][0] for result in first.results}
    rows = []
    for name, colour in zip(first.classes, first.palette()):
        means = [None if value != value else value for value in mean_and_deviation(series[name])[0]]
        loss = mean_and_deviation(lost[name])[0][0]
        rows.append(dict(name=name, colour=css_colour(colour), ious=means, forgetting=None if loss != loss else loss,
                         first=name in starts))
    return dict(steps=[result['step'] for result in first.results], rows=rows)


def confusion_table(runs: Sequence[RunRecord]) -> Optional[dict]:
    """Confusion matrix at the last step, normalised by row, over the pixels of all seeds.

    Returns:
        None unless every run recorded its confusion; otherwise ``classes``, ``largest`` (see
        ``largest_confusions``) and ``shares``, (C, C) or None for too many classes.
    """
    tables = [read_confusion(run.files(run.last['step']).confusion) for run in runs]
    recorded = [table for table in tables if table is not None]
    if len(recorded) < len(tables):
        return None
    classes = recorded[0][0]
    counts = np.sum([counts for _, counts in recorded], axis=0)
    return dict(
        classes=classes,
        largest=largest_confusions(classes, counts, 12),
        shares=row_shares(counts).tolist() if len(classes) <= _MATRIX_CLASSES else None)


def differing_options(runs: Sequence[RunRecord]) -> dict:
    """Options that differ between methods or columns, from the first run of each.

    Returns:
        ``heads``: ``[(method, column)]``; ``rows``: ``[(dotted name, [value, ...])]``.
    """
    first: dict[tuple[str, str], RunRecord] = {}
    for run in runs:
        first.setdefault((run.method, run.column), run)
    flat = [dict(_flatten(run.identity)) for run in first.values()]
    names = sorted({name for options in flat for name in options})
    values = [(name, [options.get(name, '-') for options in flat]) for name in names]
    return dict(heads=list(first), rows=[(name, held) for name, held in values if len(set(held)) > 1])


def _flatten(value, name: str = ''):
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flatten(item, f'{name}.{key}'.lstrip('.'))
    else:
        yield name, json.dumps(value)


def _column(runs: list[RunRecord], key: str, num_images: int) -> dict:
    methods: dict[str, list[RunRecord]] = {}
    for run in runs:
        methods.setdefault(run.method, []).append(run)
    return dict(
        name=runs[0].column,
        num_steps=runs[0].num_steps,
        curves=step_curves({name: [run.results for run in held] for name, held in methods.items()},
                           runs[0].num_steps, key),
        classes={name: class_table(held) for name, held in methods.items()},
        confusions={name: confusion_table(held) for name, held in methods.items()},
        **_pictures([held[0] for held in methods.values()], num_images))


def _pictures(runs: list[RunRecord], num_images: int) -> dict:
    """Panels of all steps of one run or of the last step of several runs, or the reason why there are none."""
    if num_images == 0:
        return dict(titles=[], panels=[], legend=[], no_panels='disabled (--images 0)')
    if len(runs) == 1:
        folders = {f'after step {result["step"]}': runs[0].files(result['step']).folder for result in runs[0].results}
    else:
        folders = {run.method: run.files(run.last['step']).folder for run in runs}
    try:
        panels = make_panels(folders, num_images)
    except ValueError as error:
        print_log(f'No pictures: {error}', logger='current', level=logging.WARNING)
        return dict(titles=[], panels=[], legend=[], no_panels=str(error).rstrip('.'))
    palette = runs[0].palette()
    seen = {int(c) for panel in panels for mask in (panel.truth, *panel.predictions.values()) for c in np.unique(mask)}
    legend = [(name, css_colour(palette[c])) for c, name in enumerate(runs[0].classes) if c in seen]
    return dict(titles=list(folders), panels=[_panel(panel, palette) for panel in panels],
                legend=legend, no_panels=None)


def _panel(panel: Panel, palette: list) -> dict:
    small = fit(panel.image, _PICTURE)
    truth, *masks = (mask_uri(mask, palette, small.shape[:2]) for mask in (panel.truth, *panel.predictions.values()))
    return dict(name=panel.name, photo=photo_uri(small), truth=truth, masks=masks)


def _tiles(run: RunRecord) -> list[tuple[str, Optional[float]]]:
    metrics, summary = run.last['metrics'], summarise(run.results)
    return [('mIoU of all classes', metrics['mIoU_all']), ('classes of step 0', metrics['mIoU_old']),
            ('classes added since', metrics['mIoU_new']),
            ('mean mIoU over steps', summary['average_incremental_mIoU']),
            ('mean forgetting (points)', summary['average_forgetting'])]


def _run(run: RunRecord) -> dict:
    return dict(
        method=run.method, column=run.column, seed=run.seed, work_dir=run.work_dir, results=run.results,
        environment=run.last.get('environment') or {},
        seconds=sum(sum(result['seconds'].values()) for result in run.results),
        config=pprint.pformat(run.identity, width=110, compact=True, sort_dicts=True))


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Normalise (C, C) pixel counts to percent of each true class; NaN in rows without pixels."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(100.0 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)


def largest_confusions(classes: Sequence[str], counts: np.ndarray, number: int) -> list[tuple[str, str, float]]:
    """``(true class, predicted class, percent of the true class's pixels)``, largest first; at least 1 %."""
    shares = np.nan_to_num(row_shares(counts))
    np.fill_diagonal(shares, 0)
    order = np.argsort(-shares, axis=None, kind='stable')[:number]
    pairs = [np.unravel_index(i, shares.shape) for i in order]
    return [(classes[i], classes[j], float(shares[i, j])) for i, j in pairs if shares[i, j] >= 1]
