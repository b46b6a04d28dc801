"""The images that a scenario divides, from one dataset or from several in mmengine's wrappers."""
from __future__ import annotations

import collections
import copy
from dataclasses import replace
from typing import Any, Sequence

import numpy as np
from mmengine.dataset import Compose
from mmseg.datasets import BaseSegDataset, MultiImageMixDataset
from mmseg.registry import DATASETS

from ..utils.errors import UserError
from ..utils.randomness import sample_randomness
from .raw_labels import RawLabels

MIX = 'MultiImageMixDataset'
_WRAPPERS = ('ConcatDataset', 'RepeatDataset', MIX, 'ClassBalancedDataset')


def type_name(cfg: dict) -> str:
    """Name of a config's type, without scope; the type may be a class."""
    kind = cfg.get('type')
    return kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', repr(kind))


def split_mix(cfg: dict) -> tuple[dict, dict]:
    """A dataset's config without ``MultiImageMixDataset``, and the options of the latter ({} if there is none).

    Mixing comes last: ``Repeat(Mix(x))`` becomes ``Mix(Repeat(x))``, which is equivalent.
    """
    if type_name(cfg) == MIX:
        inner, mix = split_mix(cfg['dataset'])
        if mix:
            raise UserError(f'{MIX} within {MIX} cannot be divided into learning steps: merge their pipelines.')
        return inner, {key: value for key, value in cfg.items() if key != 'dataset'}
    if type_name(cfg) == 'RepeatDataset':
        inner, mix = split_mix(cfg['dataset'])
        return dict(cfg, dataset=inner), mix
    return cfg, {}


def unwrap(cfg: dict) -> tuple[list[dict], np.ndarray]:
    """The datasets in nested ``ConcatDataset`` and ``RepeatDataset``, and their order.

    Returns:
        Their configs, and their numbers in the order in which the wrappers iterate over them.
    Raises:
        UserError: a wrapper cannot be divided into learning steps.
    """
    name = type_name(cfg)
    if name == 'ConcatDataset':
        if not cfg['datasets']:
            raise UserError('ConcatDataset contains no datasets: add some to its `datasets`.')
        leaves: list[dict] = []
        sequences = []
        for part in cfg['datasets']:
            found, sequence = unwrap(part)
            sequences.append(sequence + len(leaves))
            leaves += found
        return leaves, np.concatenate(sequences)
    if name == 'RepeatDataset':
        leaves, order = unwrap(cfg['dataset'])
        return leaves, np.tile(order, cfg['times'])
    if name in _WRAPPERS:
        raise UserError(f'{name} cannot be divided into learning steps here: use only ConcatDataset and RepeatDataset, '
                        f'which may be nested, with {MIX} around them.')
    return [cfg], np.zeros(1, dtype=np.int64)


def without_reduce_zero_label(pipeline: Sequence) -> list:
    """A copy of a pipeline's config without ``reduce_zero_label`` at any depth."""

    def cleaned(value):
        if isinstance(value, dict):
            return {key: cleaned(item) for key, item in value.items() if key != 'reduce_zero_label'}
        return type(value)(map(cleaned, value)) if isinstance(value, (list, tuple)) else value

    return cleaned(copy.deepcopy(list(pipeline)))


class Source:
    """Images and raw labels of one or several datasets with the same classes.

    Labels are those of the masks: neither ``reduce_zero_label`` nor ``metainfo.classes`` is applied, since the scenario
    maps labels.

    Args:
        parts: fully initialised datasets.
        order: numbers of the parts, in the order in which training iterates over them (a part may repeat).
    Raises:
        UserError: the parts have different classes.
    """

    def __init__(self, parts: Sequence[BaseSegDataset], order: np.ndarray) -> None:
        self.parts = list(parts)
        self.raw_labels, *others = [
            RawLabels.of(type(part), part.metainfo.get('classes'), part.reduce_zero_label) for part in self.parts
        ]
        for other in others:
            if replace(other, dataset=self.raw_labels.dataset) != self.raw_labels:
                raise UserError(f'ConcatDataset concatenates {self.raw_labels.dataset} and {other.dataset}, which have '
                                'different classes or a different reduce_zero_label: use the same for both.')
        self._starts = np.cumsum([0] + [len(part) for part in self.parts])
        self._order = order

    def __deepcopy__(self, memo: dict) -> Source:
        # mmengine often copies configs, which may contain a source; sources are immutable.
        return self

    @property
    def first(self) -> BaseSegDataset:
        """The first dataset; the only one unless the config concatenates several."""
        return self.parts[0]

    @property
    def metainfo(self) -> dict:
        return self.first.metainfo

    @property
    def data_root(self) -> str:
        return self.first.data_root

    @property
    def max_refetch(self) -> int:
        return self.first.max_refetch

    @property
    def reduces_zero_label(self) -> bool:
        """Whether the user's config enables ``reduce_zero_label``."""
        return bool(self.first.reduce_zero_label)

    @property
    def pipeline(self) -> Compose:
        """Pipeline of the first dataset."""
        return self.first.pipeline

    def __len__(self) -> int:
        return int(self._starts[-1])

    def part_numbers(self, positions: np.ndarray) -> np.ndarray:
        """Number of the dataset to which each image belongs."""
        return np.searchsorted(self._starts, positions, side='right') - 1

    def locate(self, idx: int) -> tuple[BaseSegDataset, int]:
        """The dataset of image ``idx``, and the image's index in it."""
        number = int(self.part_numbers(np.array(idx)))
        return self.parts[number], int(idx - self._starts[number])

    def get_data_info(self, idx: int) -> dict:
        part, within = self.locate(idx)
        return dict(part.get_data_info(within), reduce_zero_label=False, label_map=None)

    def pipeline_of(self, idx: int) -> Compose:
        return self.locate(idx)[0].pipeline

    def repeated(self, positions: np.ndarray) -> np.ndarray:
        """``positions`` ordered by part, as often and in the order in which the wrappers iterate over the parts."""
        by_part = [
            positions[(positions >= start) & (positions < end)] for start, end in zip(self._starts, self._starts[1:])
        ]
        return np.concatenate([by_part[number] for number in self._order])


@DATASETS.register_module()
class SeededMixDataset(MultiImageMixDataset):
    """``MultiImageMixDataset`` whose choice of images and mixing are also seeded by the sample's position."""

    def __getitem__(self, idx: int) -> Any:
        with sample_randomness(idx):
            return super().__getitem__(int(idx))


def load_image_list(path: str, names: Sequence[str]) -> np.ndarray:
    """Read a published list of a step's images.

    Args:
        path: ``.npy`` with integer positions in the dataset or with names, or ``.txt`` with one name per line.
        names: file stems of the dataset's images, in order.
    Returns:
        Positions of the images, in the order of the list.
    Raises:
        UserError: the file has another format, or an entry is unknown, out of range or listed twice.
    """
    if path.endswith('.npy'):
        try:
            with open(path, 'rb') as file:
                items = np.lib.format.read_array(file, allow_pickle=False).ravel()
        except (OSError, EOFError, ValueError) as error:
            raise UserError(f'Image list {path!r} cannot be read: {error}. It must be a .npy array of integer '
                            'positions or of names (no pickled objects).') from error
    elif path.endswith('.txt'):
        try:
            with open(path, encoding='utf-8') as file:
                items = np.array([line.strip() for line in file if line.strip()], dtype=str)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f'Image list {path!r} cannot be read: {error}.') from error
    else:
        raise UserError(f'Image list {path!r} must end in .npy (positions or names) or .txt (names).')
    if items.dtype.kind in 'iu':
        bad = items[(items < 0) | (items >= len(names))]
        if bad.size:
            raise UserError(f'Image list {path!r} contains position {bad[0]}, but the dataset has {len(names)} images '
                            '(0-based positions): use the list of this dataset and split.')
        positions = items.astype(np.int64)
    elif items.dtype.kind in 'US':
        where = {name: i for i, name in enumerate(names)}
        found = [where.get(name, where.get(_stem(name))) for name in items.astype(str)]
        if None in found:
            raise UserError(f'Image list {path!r} names {found.count(None)} images that the dataset does not contain, '
                            f'such as {str(items[found.index(None)])!r}: use the list of this dataset and split.')
        positions = np.array(found, dtype=np.int64)
        held = collections.Counter(names)
        for name in (names[i] for i in positions.tolist()):
            if held[name] > 1:
                raise UserError(f'Image list {path!r} names {name!r}, but the dataset contains {held[name]} images '
                                'with that name: use integer positions instead (.npy, 0-based).')
    else:
        raise UserError(f'Image list {path!r} is an array of {items.dtype}, but must contain integers or names.')
    unique, counts = np.unique(positions, return_counts=True)
    if len(unique) != len(positions):
        raise UserError(f'Image list {path!r} contains {names[unique[counts > 1][0]]!r} more than once: remove '
                        'duplicates.')
    return positions


def _stem(name: str) -> str:
    return name.strip().replace('\\', '/').rsplit('/', 1)[-1].rsplit('.', 1)[0]
