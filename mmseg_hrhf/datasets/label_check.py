"""Checks before training, on a few images, that a pipeline yields the labels of the scenario."""
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

# Number of trial images, chosen to contain as many classes as possible.
_TRIALS = 6
# Number of samples drawn from them in total, since a transform may apply to few samples.
_DRAWS = 12
_REPEATS = 3
_REMEDY = ("Load labels with mmseg's LoadAnnotations, or with a loader that maps them by results['label_map'] "
           "({raw label: label}), makes no other change and adds 'gt_seg_map' to results['seg_fields'] "
           '(docs/custom_data.md).')


def check_loaded_labels(dataset: IncrementalDataset, name: str) -> None:
    """Compare the labels that a pipeline loads for one image with the mask, mapped by the step's label map.

    Args:
        dataset: dataset of a step; the image is the one in which most labels change. If the config concatenates
            datasets, each has its own pipeline, and one image of each is tried.
        name: name of its loader in the config, for messages.
    Raises:
        UserError: the pipeline does not map the labels, or its geometric transforms would not find them.
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
            return  # the pipeline drops this sample
        if not had_labels and 'gt_seg_map' in results:
            break
    else:
        if getattr(results.get('data_samples'), 'gt_sem_seg', None) is None:
            raise UserError(f'The pipeline of {name} loads no labels: no transform sets gt_seg_map. {_REMEDY}')
        return  # the loading transform also packs them: see `check_label_independence`
    where = f'{type(transform).__name__} in the pipeline of {name}'
    if 'gt_seg_map' not in results.get('seg_fields', ()):
        raise UserError(f"{where} loads labels without adding 'gt_seg_map' to results['seg_fields'], so that crops and "
                        f'flips would change only the image. {_REMEDY}')
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
        raise UserError(f'{where} returns labels of shape {found.shape} for the mask {path!r} of shape {wanted.shape}. '
                        f'{_REMEDY}')
    row, column = np.argwhere(found != wanted)[0].tolist()
    raise UserError(f'{where} returns label {found[row, column]} for raw label {raw[row, column]} in {path!r}, row '
                    f'{row}, column {column}, but the scenario maps it to {wanted[row, column]} at step '
                    f'{dataset.step}. {_REMEDY}')


def _most_changed(dataset: IncrementalDataset) -> list[int]:
    """The image of each concatenated dataset in which most labels change."""
    changed = np.array([dataset.label_map.get(label, label) != label for label in range(256)])
    counts = (dataset.presence[dataset.positions] & changed).sum(axis=1)
    return [int(indices[counts[indices].argmax()]) for indices in dataset.by_part()]


def _backend(dataset: IncrementalDataset, idx: int) -> Any:
    part, _ = dataset.source.locate(int(dataset.positions[idx]))
    return part.backend_args


def check_label_independence(dataset: Any, inner: IncrementalDataset, name: str) -> None:
    """Check that no transform depends on the class indices, which change with each step.

    A few images go through the pipeline twice, with the same random numbers but different class indices. The results
    must differ in these indices only. Background (0) and ignored pixels (255) keep theirs.

    Args:
        dataset: ``inner``, or a dataset that mixes its images.
        inner: view of a step; its label map is restored afterwards.
        name: name of the loader in the config, for messages.
    Raises:
        UserError: labels depend on the class indices.
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
    # In the same order, since a transform may sort labels.
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
                # The pipeline may use its own random generator for few samples.
                if not all(_repeats(plain, dataset, idx, name, draw) for _ in range(_REPEATS)):
                    return
                strange = np.unique(plain[expected != renumbered]) if plain.shape == renumbered.shape else ()
                which = f' (as seen for label {strange[0]})' if len(strange) else ''
                raise UserError(f'The labels from the pipeline of {name} depend on class indices{which}: a transform '
                                'hard-codes a class index or interpolates between labels (as RandomRotFlip does; '
                                "RandomRotate does not), or the loader does not map labels by results['label_map']. "
                                f'Class indices change with each step, except 0 (background) and {IGNORE} (ignored): '
                                'remove that transform, or let it use only these two (docs/custom_data.md).')
    finally:
        inner.label_map = before


def _repeats(labels: np.ndarray, dataset: Any, idx: int, name: str, draw: int) -> bool:
    """Whether the same draw gives the same labels again; warns if not."""
    if _equal(labels, _labels(dataset, idx, name, draw)):
        return True
    print_log(f'The pipeline of {name} uses its own random generator: a resumed run will not reproduce its samples, '
              'and its labels could not be checked.', logger='current', level=logging.WARNING)
    return False


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and np.array_equal(first, second)


def _labels(dataset: Any, idx: int, name: str, draw: int) -> np.ndarray:
    """(H, W) labels of an image after the complete pipeline; the same ``draw`` gives the same augmentation."""
    sample = dataset[SampleIndex(idx, (draw, REAL_SAMPLE, idx))]
    packed: Any = sample.get('data_samples') if isinstance(sample, Mapping) else None
    if getattr(packed, 'gt_sem_seg', None) is None:
        raise UserError(f'The pipeline of {name} packs no labels: end it with PackSegInputs, or with a transform that '
                        'returns data_samples with gt_sem_seg.')
    return packed.gt_sem_seg.data[0].numpy().astype(np.int64)


def _draws(dataset: IncrementalDataset, classes: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of a draw and an image; the images of every concatenated dataset cover as many classes as possible."""
    images = [idx for indices in dataset.by_part() for idx in _covering(dataset, indices, classes)]
    draws = 1 if dataset.test_mode else max(_DRAWS // max(len(images), 1), 1)
    return [(draw, idx) for draw in range(draws) for idx in images]


def _covering(dataset: IncrementalDataset, indices: np.ndarray, classes: Sequence[int]) -> list[int]:
    """Up to ``_TRIALS`` images of ``indices`` that cover as many of the classes as possible, chosen greedily."""
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
    """Shares of the pixels that are background or ignored, in total and by raw label.

    Args:
        counts: (256,) number of pixels of each raw label.
        label_map: class index (0: background) or 255 of each raw label.
        names: names of the raw labels.
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
