"""Results of a run over its steps: summary, tables and confusion files."""
from __future__ import annotations

import csv
import io
import math
import os
from typing import Mapping, Optional, Sequence

import numpy as np

from ..utils.errors import UserError
from ..utils.io import PathLike, write_json, write_text

_COLUMNS = (
    ('old', 'mIoU_old'),
    ('new', 'mIoU_new'),
    ('all', 'mIoU_all'),
    ('old + bg', 'mIoU_old_with_background'),
    ('all + bg', 'mIoU_all_with_background'),
)


def summarise(results: Sequence[dict]) -> dict:
    """Metrics over all steps.

    Args:
        results: results of steps 0, 1, ... in order, each with ``classes`` (foreground, in learning order),
            ``new_classes`` and ``metrics`` (see ``IncrementalIoUMetric``) in percent (None for a class or group without
            pixels).
    Returns:
        ``steps``: mIoU of each group by step; ``average_incremental_mIoU``: mean of ``mIoU_all`` over steps (also with
        background); ``forgetting``: for each class learnt before the last step, its IoU when learnt minus its IoU now;
        ``average_forgetting``: the mean of these (None after one step).
    """
    last, learnt = results[-1], {}
    for result in results:
        for name in result['new_classes']:
            learnt[name] = result['metrics'][f'IoU/{name}']
    forgetting = {}
    for name in last['classes']:
        if name in learnt and name not in last['new_classes']:
            now = last['metrics'][f'IoU/{name}']
            forgetting[name] = None if now is None or learnt[name] is None else learnt[name] - now
    return dict(
        steps=[{key: result['metrics'][key] for _, key in _COLUMNS} for result in results],
        average_incremental_mIoU=_mean([result['metrics']['mIoU_all'] for result in results]),
        average_incremental_mIoU_with_background=_mean(
            [result['metrics']['mIoU_all_with_background'] for result in results]),
        forgetting=forgetting,
        average_forgetting=_mean(list(forgetting.values())))


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def summary_markdown(results: Sequence[dict], title: str) -> str:
    """A Markdown table of all steps, and one of IoU and forgetting by class."""
    summary = summarise(results)
    head = ['step', 'learns', 'images', 'fakes', *(name for name, _ in _COLUMNS)]
    lines = [
        f'# {title}', '',
        'mIoU in %, without background except in "+ bg" columns. `old`: classes of step 0; `new`: classes added since.',
        '', _row(head), '|---' * len(head) + '|'
    ]
    for result in results:
        cells = [number(result['metrics'][key]) for _, key in _COLUMNS]
        learns = ', '.join(result['new_classes'])
        if len(learns) > 60:
            learns = f'{len(result["new_classes"])} classes'
        lines.append(_row([result['step'], learns, result['num_train_images'], result['num_fake_images'], *cells]))
    forgetting = summary['average_forgetting']
    head = ['class', *(f'step {result["step"]}' for result in results), 'forgetting']
    lines += [
        '', f'Average incremental mIoU: {number(summary["average_incremental_mIoU"])} '
        f'({number(summary["average_incremental_mIoU_with_background"])} with background). '
        f'Average forgetting: {number(forgetting)}.', '', _row(head), '|---' * len(head) + '|'
    ]
    for name in ('background', *results[-1]['classes']):
        cells = [number(result['metrics'].get(f'IoU/{name}')) for result in results]
        lines.append(_row([name, *cells, number(summary['forgetting'].get(name))]))
    return '\n'.join(lines) + '\n'


def write_summary(work_dir: str, results: Sequence[dict], title: str, num_steps: int, num_base: int) -> str:
    """Write ``results.json`` and ``results.md``.

    Args:
        work_dir: work dir of the run.
        results: results of its finished steps, see ``summarise``.
        title: title of the table.
        num_steps: number of steps of the scenario.
        num_base: number of classes of step 0.
    Returns:
        The tables as Markdown.
    """
    markdown = summary_markdown(results, title)
    write_json(os.path.join(work_dir, 'results.json'),
               dict(summarise(results), results=results, num_steps=num_steps, num_base_classes=num_base))
    write_text(os.path.join(work_dir, 'results.md'), markdown)
    return markdown


def finite(metrics: Mapping[str, float]) -> dict[str, Optional[float]]:
    """Metrics as strict JSON values: None for a group or class without pixels."""
    return {key: float(value) if math.isfinite(value) else None for key, value in metrics.items()}


def _row(cells: Sequence) -> str:
    return '| ' + ' | '.join(map(str, cells)) + ' |'


def number(value: Optional[float]) -> str:
    """Format with two decimals; a dash for None."""
    return '-' if value is None else f'{value:.2f}'


# Share of the test pixels.
_COLLAPSED = 0.999


def collapsed_class(counts: np.ndarray) -> Optional[int]:
    """Index of a class that is predicted for nearly all pixels, but is not nearly all of the ground truth.

    Args:
        counts: (C, C) confusion matrix; row: true class, column: predicted class.
    """
    least = _COLLAPSED * counts.sum()
    predicted, true = counts.sum(axis=0), counts.sum(axis=1)
    found = int(predicted.argmax())
    return found if predicted[found] > least > true[found] else None


_CORNER = 'true \\ predicted'


def write_confusion(path: PathLike, classes: Sequence[str], counts: np.ndarray) -> None:
    """Write a confusion matrix as CSV with the class names in the first row and column.

    Args:
        path: file to write.
        classes: names by class index, background first.
        counts: (C, C) integers; row: true class, column: predicted class.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator='\n')
    table.writerow([_CORNER, *classes])
    for name, row in zip(classes, counts.tolist()):
        table.writerow([name, *row])
    write_text(path, text.getvalue())


def read_confusion(path: PathLike) -> Optional[tuple[list[str], np.ndarray]]:
    """Class names and (C, C) int64 counts; None if there is no such file.

    Raises:
        UserError: the file is not a confusion matrix.
    """
    try:
        with open(path, newline='', encoding='utf-8') as file:
            (_, *classes), *rows = csv.reader(file)
        counts = np.array([row[1:] for row in rows], dtype=np.int64)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f'{path} is not a confusion matrix ({error}): delete it.') from error
    if counts.shape != (len(classes), len(classes)):
        raise UserError(f'{path} is not a confusion matrix, since it has {len(classes)} classes and counts of shape '
                        f'{counts.shape}: delete it.')
    return classes, counts
