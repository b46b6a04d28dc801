"""The confusion of a step as a table that spreadsheets open."""
from __future__ import annotations

import csv
import io
from typing import Optional, Sequence

import numpy as np

from ..files import PathLike, write_text

_CORNER = 'true \\ predicted'


def write_confusion(path: PathLike, classes: Sequence[str], counts: np.ndarray) -> None:
    """Write pixel counts as CSV with the class names as its first row and column.

    Args:
        path: file.
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
    """Class names and (C, C) int64 counts; None where no confusion was recorded.

    Raises:
        ValueError: the file is no such table.
    """
    try:
        with open(path, newline='', encoding='utf-8') as file:
            (_, *classes), *rows = csv.reader(file)
        counts = np.array([row[1:] for row in rows], dtype=np.int64)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f'{path} is no confusion table ({error}): delete it.') from error
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f'{path} is no confusion table: {len(classes)} classes, counts of shape {counts.shape}.')
    return classes, counts
