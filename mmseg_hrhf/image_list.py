"""Published lists of the images of a step."""
from __future__ import annotations

import collections
from typing import Sequence

import numpy as np


def load_image_list(path: str, names: Sequence[str]) -> np.ndarray:
    """Read a published list of a step's images.

    Args:
        path: ``.npy`` with integer positions in the dataset's listing or with names, or ``.txt`` with one name a line.
        names: file stems of the dataset's images, in listing order.
    Returns:
        Positions of the images, in the order of the list.
    Raises:
        ValueError: the file is of another kind, or an entry is unknown, out of range or listed twice.
    """
    if path.endswith('.npy'):
        try:
            with open(path, 'rb') as file:
                items = np.lib.format.read_array(file, allow_pickle=False).ravel()
        except (OSError, EOFError, ValueError) as error:
            raise ValueError(f'Image list {path!r} cannot be read: {error}. It must be a .npy array of integer '
                             'positions or of names (no pickled objects).') from error
    elif path.endswith('.txt'):
        try:
            with open(path, encoding='utf-8') as file:
                items = np.array([line.strip() for line in file if line.strip()], dtype=str)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f'Image list {path!r} cannot be read: {error}.') from error
    else:
        raise ValueError(f'Image list {path!r} must end in .npy (positions or names) or .txt (names).')
    if items.dtype.kind in 'iu':
        bad = items[(items < 0) | (items >= len(names))]
        if bad.size:
            raise ValueError(f'Image list {path!r} holds position {bad[0]}, but the dataset has {len(names)} images '
                             '(0-based positions): is it the list of another dataset or split?')
        positions = items.astype(np.int64)
    elif items.dtype.kind in 'US':
        where = {name: i for i, name in enumerate(names)}
        found = [where.get(name, where.get(_stem(name))) for name in items.astype(str)]
        if None in found:
            raise ValueError(f'Image list {path!r} names {str(items[found.index(None)])!r} ({found.count(None)} such '
                             'names), which the dataset does not hold.')
        positions = np.array(found, dtype=np.int64)
        held = collections.Counter(names)
        for name in (names[i] for i in positions.tolist()):
            if held[name] > 1:
                raise ValueError(f'Image list {path!r} names {name!r}, but the dataset holds {held[name]} images of '
                                 'that name: list integer positions instead (.npy, 0-based).')
    else:
        raise ValueError(f'Image list {path!r} is an array of {items.dtype}; integers or names are needed.')
    unique, counts = np.unique(positions, return_counts=True)
    if len(unique) != len(positions):
        raise ValueError(f'Image list {path!r} holds {names[unique[counts > 1][0]]!r} more than once.')
    return positions


def _stem(name: str) -> str:
    return name.strip().replace('\\', '/').rsplit('/', 1)[-1].rsplit('.', 1)[0]
