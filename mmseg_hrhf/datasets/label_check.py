"""Whether a pipeline gives the labels that the scenario says, found on a few images before training."""
from __future__ import annotations

import io
import logging
from typing import Any, Mapping, Sequence

import numpy as np
from mmengine.fileio import get as read_bytes
from mmengine.logging import print_log
from PIL import Image

from ..scenario import IGNORE
from ..utils.errors import UserError
from ..utils.randomness import REAL_SAMPLE, SampleIndex
from .incremental import IncrementalDataset

# Images on which transforms are tried; together they show as many classes as that number of images can.
_TRIALS = 6
# Samples drawn of them in all, since a transform may be applied to few samples only.
_DRAWS = 12
_REPEATS = 3
_REMEDY = ("Labels must be read by mmseg's LoadAnnotations, or by a loader that maps them by results['label_map'] "
           "({raw label: label}), applies no other change and adds 'gt_seg_map' to results['seg_fields'] "
           '(docs/custom_data.md).')


def check_loaded_labels(dataset: IncrementalDataset, name: str) -> None:
    """Compare the labels that a pipeline loads for one image with the mask file under the step's label map.

    Args:
        dataset: of a step; the image is one in which as many labels as possible change. Where the config joins several
            datasets, each has its own pipeline, and an image of each is tried.
        name: of its loader in the config, for messages.
    Raises:
        UserError: a loader that does not map labels, or that transforms of geometry would not find.
    """
    for idx in _most_changed(dataset):
        _check_loaded(dataset, idx, name)


def _check_loaded(dataset: IncrementalDataset, idx: int, name: str) -> None:
    info = dataset.get_data_info(idx)
    path, results = info['seg_map_path'], dict(info)
    for transform in dataset.pipeline_of(idx).transforms:
        image, had_labels = results.get('img'), 'gt_seg_map' in results
        results = transform(results)
        if results is None:
            return  # the pipeline drops this sample, for a reason of its own
        if not had_labels and 'gt_seg_map' in results:
            break
    else:
        if getattr(results.get('data_samples'), 'gt_sem_seg', None) is None:
            raise UserError(f'The pipeline of {name} loads no labels: no transform sets gt_seg_map. {_REMEDY}')
        return  # packed by the transform that loaded them: see `check_label_independence`
    where = f'{type(transform).__name__} in the pipeline of {name}'
    if 'gt_seg_map' not in results.get('seg_fields', ()):
        raise UserError(f"{where} loads labels without adding 'gt_seg_map' to results['seg_fields']: crops and flips "
                         f'would change the image alone. {_REMEDY}')
    with Image.open(io.BytesIO(read_bytes(path, backend_args=_backend(dataset, idx)))) as mask:
        raw = np.asarray(mask, dtype=np.uint8)
    table = np.arange(256)
    table[list(dataset.label_map)] = list(dataset.label_map.values())
    wanted, found = table[raw], np.asarray(results['gt_seg_map'])
    if found.shape == wanted.shape and np.array_equal(found, wanted):
        return
    strange = set(np.unique(found).tolist()) - set(np.unique(wanted).tolist()) - {IGNORE}
    changes_image = image is None or results['img'] is not image
    if changes_image and not strange:
        return  # it may crop while loading: see `check_label_independence`
    if found.shape != wanted.shape:
        raise UserError(f'{where} gives labels of shape {found.shape} for the mask {path!r} of shape {wanted.shape}. '
                         f'{_REMEDY}')
    row, column = np.argwhere(found != wanted)[0].tolist()
    raise UserError(f'{where} gives the label {found[row, column]} for the raw label {raw[row, column]} of {path!r}, '
                     f'row {row}, column {column}; at step {dataset.step} the scenario makes it '
                     f'{wanted[row, column]}. {_REMEDY}')


def _most_changed(dataset: IncrementalDataset) -> list[int]:
    """The image of each joined dataset in which most labels change."""
    changed = np.array([dataset.label_map.get(label, label) != label for label in range(256)])
    counts = (dataset.presence[dataset.positions] & changed).sum(axis=1)
    return [int(indices[counts[indices].argmax()]) for indices in dataset.by_part()]


def _backend(dataset: IncrementalDataset, idx: int) -> Any:
    part, _ = dataset.source.locate(int(dataset.positions[idx]))
    return part.backend_args


def check_label_independence(dataset: Any, inner: IncrementalDataset, name: str) -> None:
    """Check that no transform names a class by its number, since steps renumber classes.

    A few images go through the pipeline twice, with the same random numbers and with classes numbered differently. What
    comes out must differ by these numbers alone. Background (0) and ignored (255) keep theirs.

    Args:
        dataset: ``inner``, or what mixes its images.
        inner: view of a step; its label map is put back afterwards.
        name: of the loader in the config, for messages.
    Raises:
        UserError: labels depend on the numbers of the classes.
    """
    classes = sorted(inner.scenario.labels.values())
    own = {**{raw: raw for raw in inner.label_map}, IGNORE: IGNORE}
    background = inner.scenario.background
    if background is not None:
        if 0 in classes:
            own[0] = background
        own[background] = 0
    if inner.scenario.zero_is_void:
        own[0] = 0
    # In the same order, since a transform may sort the labels it finds.
    other = {**own, **{raw: IGNORE - len(classes) + i for i, raw in enumerate(classes)}}
    renumber = np.full(256, -1)
    for raw in own:
        renumber[own[raw]] = other[raw]
    renumber[IGNORE] = IGNORE
    if 0 not in classes or background is not None:
        renumber[0] = 0
    before = inner.label_map
    try:
        for trial, (draw, idx) in enumerate(_draws(inner, classes)):
            inner.label_map = own
            plain = _labels(dataset, idx, name, draw)
            if trial == 0 and not _repeats(plain, dataset, idx, name, draw):
                return
            inner.label_map = other
            renumbered = _labels(dataset, idx, name, draw)
            expected = renumber[plain]
            if not _equal(renumbered, expected):
                inner.label_map = own
                # It may draw something by itself for a few samples only.
                if not all(_repeats(plain, dataset, idx, name, draw) for _ in range(_REPEATS)):
                    return
                strange = np.unique(plain[expected != renumbered]) if plain.shape == renumbered.shape else ()
                which = f' (seen at label {strange[0]})' if len(strange) else ''
                raise UserError(f'The labels that the pipeline of {name} gives depend on the numbers of the classes'
                                 f'{which}: some transform names a class by its number or interpolates between labels '
                                 '(as RandomRotFlip does; RandomRotate does not), or the loader does not map labels by '
                                 'results[\'label_map\']. Every step renumbers its classes (0 is background, '
                                 f'{IGNORE} is ignored): take that transform out, or let it use 0 and {IGNORE} alone '
                                 '(docs/custom_data.md).')
    finally:
        inner.label_map = before


def _repeats(labels: np.ndarray, dataset: Any, idx: int, name: str, draw: int) -> bool:
    """Whether the same draw gives the same labels again; warn if it does not."""
    if _equal(labels, _labels(dataset, idx, name, draw)):
        return True
    print_log(f'The pipeline of {name} uses a random generator of its own: a resumed run will not repeat them, and '
              'labels could not be checked.', logger='current', level=logging.WARNING)
    return False


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and np.array_equal(first, second)


def _labels(dataset: Any, idx: int, name: str, draw: int) -> np.ndarray:
    """(H, W) labels of an image after the whole pipeline; the same ``draw`` augments alike."""
    sample = dataset[SampleIndex(idx, (draw, REAL_SAMPLE, idx))]
    packed: Any = sample.get('data_samples') if isinstance(sample, Mapping) else None
    if getattr(packed, 'gt_sem_seg', None) is None:
        raise UserError(f'The pipeline of {name} packs no labels: it must end in PackSegInputs, or in a transform '
                         'that gives data_samples with gt_sem_seg.')
    return packed.gt_sem_seg.data[0].numpy().astype(np.int64)


def _draws(dataset: IncrementalDataset, classes: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of a draw and an image: some of every joined dataset, which show as many classes as a few can."""
    images = [idx for indices in dataset.by_part() for idx in _showing(dataset, indices, classes)]
    draws = 1 if dataset.test_mode else max(_DRAWS // max(len(images), 1), 1)
    return [(draw, idx) for draw in range(draws) for idx in images]


def _showing(dataset: IncrementalDataset, indices: np.ndarray, classes: Sequence[int]) -> list[int]:
    """Images among ``indices`` that show as many of the classes as a few can, by greedy choice."""
    shown = dataset.presence[dataset.positions[indices]][:, list(classes)]
    chosen: list[int] = []
    missing = np.ones(len(classes), dtype=bool)
    while len(chosen) < _TRIALS:
        gains = (shown & missing).sum(axis=1)
        best = int(gains.argmax())
        if gains[best] == 0:
            break
        chosen.append(int(indices[best]))
        missing &= ~shown[best]
    return chosen


_MOST_NAMED = 6


def describe_shares(counts: np.ndarray, label_map: Mapping[int, int], names: Mapping[int, str]) -> str:
    """Share of the pixels that count as background and that are ignored, and by which raw labels.

    Args:
        counts: (256,) pixels of each raw label.
        label_map: class index (0: background) or 255 of each raw label.
        names: of the raw labels.
    Returns:
        Such as ``'background 71.2 % (background 60.1 %, blue 11.1 %), ignored 3.0 % (void 3.0 %)'``.
    """
    pixels = [int(count) for count in counts]
    total = max(sum(pixels), 1)
    parts = []
    for what, index in (('background', 0), ('ignored', IGNORE)):
        raws = [raw for raw in label_map if label_map[raw] == index and pixels[raw]]
        raws.sort(key=lambda raw: -pixels[raw])
        share = sum(pixels[raw] for raw in raws)
        shown = [f'{names.get(raw, f"label {raw}")} {_percent(pixels[raw], total)}' for raw in raws[:_MOST_NAMED]]
        if len(raws) > _MOST_NAMED:
            shown.append(f'{len(raws) - _MOST_NAMED} more labels')
        parts.append(f'{what} {_percent(share, total)}' + (f' ({", ".join(shown)})' if shown else ''))
    return ', '.join(parts)


def _percent(part: int, total: int) -> str:
    return f'{100 * part / total:.1f} %'
