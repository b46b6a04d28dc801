"""Conversion of colour masks to label masks."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence

import numpy as np
from mmengine.config import Config
from mmseg.registry import DATASETS

from ...scenario import IGNORE
from ...utils.compat import dataset_metainfo
from ...utils.errors import UserError
from ..class_names import check_dataset_names
from ..raw_labels import RawLabels
from ..source import split_mix, unwrap


@dataclass(frozen=True)
class ColourCode:
    """Meaning of the colours in colour masks.

    Args:
        palette: RGB colour of each class.
        labels: raw label of each class.
        unlabelled: raw label of pixels without a class.
    """
    palette: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...]
    unlabelled: int


def colour_code(cfg: Config) -> ColourCode:
    """The colour code of a config's training data, from ``metainfo.palette``, with the labels that training expects.

    With ``reduce_zero_label``, class i has label i + 1, and 0 is unlabelled. If ``metainfo.classes`` is a subset of a
    dataset's classes, they keep their labels among all classes.

    Raises:
        UserError: there is no palette, or concatenated datasets have different palettes.
    """
    data = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    check_dataset_names(data, 'train_dataloader')
    leaves = unwrap(split_mix(data)[0])[0]
    codes = [code for leaf in leaves if (code := _code_of(leaf)) is not None]
    if not codes:
        raise UserError('The config has no train_dataloader.dataset.metainfo.palette: add it, with the colour of each '
                        'class.')
    if any(code != codes[0] for code in codes):
        raise UserError('The datasets of train_dataloader differ in classes, palette or reduce_zero_label: convert '
                        'the masks of each with a config of only that dataset.')
    return codes[0]


def _code_of(leaf: dict) -> Optional[ColourCode]:
    leaf = dict(leaf, type=leaf.get('type', 'BaseSegDataset'))
    dataset = DATASETS.get(leaf['type']) if isinstance(leaf['type'], str) else leaf['type']
    if dataset is None:
        raise UserError(f'Dataset type {leaf["type"]!r} is not registered: check its spelling and custom_imports.')
    metainfo = dataset_metainfo(dataset, leaf.get('metainfo'))
    palette, classes = metainfo.get('palette'), metainfo.get('classes')
    if palette is None or len(palette) == 0:
        return None
    if classes is None:
        classes = [f'class {i}' for i in range(len(palette))]
    raw = RawLabels.of(dataset, classes, leaf.get('reduce_zero_label'))
    # A dataset's built-in palette is for all its classes; a config's may be for the chosen classes only.
    of_chosen = 'palette' in (leaf.get('metainfo') or {}) and len(palette) == len(raw.chosen)
    return ColourCode(tuple(tuple(map(int, colour)) for colour in palette),
                      tuple(raw.labels[name] for name in (raw.chosen if of_chosen else raw.names)),
                      0 if raw.offset else IGNORE)


def labels_of_colours(image: np.ndarray,
                      palette: Sequence[Sequence[int]],
                      ignore: Optional[Sequence[int]] = None,
                      labels: Optional[Sequence[int]] = None,
                      unlabelled: int = IGNORE) -> np.ndarray:
    """Label of each pixel.

    Args:
        image: (H, W, 3) uint8 RGB.
        palette: RGB colours of labels.
        ignore: RGB colour of unlabelled pixels; none by default.
        labels: labels of the colours in ``palette``; 0, 1, 2, ... by default.
        unlabelled: label of unlabelled pixels.
    Returns:
        (H, W) uint8.
    Raises:
        UserError: two labels have the same colour, or a pixel's colour is not in the palette (as in a JPEG mask).
    """
    values = list(range(len(palette)) if labels is None else labels)
    if max(values, default=0) >= IGNORE:
        raise UserError(f'{len(palette)} colours do not fit into 8-bit masks, in which {IGNORE} means "ignore".')
    colours = [tuple(map(int, colour)) for colour in palette]
    if ignore is not None:
        colours.append(tuple(map(int, ignore)))
        values.append(unlabelled)
    if len(set(colours)) != len(colours):
        twice = next(colour for i, colour in enumerate(colours) if colour in colours[:i])
        raise UserError(f'The colour {twice} has two labels: use a different colour for every label')
    code = (image.astype(np.int32) * (65536, 256, 1)).sum(2)
    result, known = np.full(code.shape, unlabelled, np.uint8), np.zeros(code.shape, bool)
    for label, (red, green, blue) in zip(values, colours):
        found = code == red * 65536 + green * 256 + blue
        result[found] = label
        known |= found
    if not known.all():
        row, column = np.argwhere(~known)[0].tolist()
        colour = tuple(image[row, column].tolist())
        raise UserError(f'The pixel at row {row}, column {column} has the colour {colour}, which has no label')
    return result
