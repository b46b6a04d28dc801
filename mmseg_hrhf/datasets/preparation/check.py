"""Checks that a dataset is complete; reports what is missing and where to download it."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Iterable, Sequence

from ...utils.errors import UserError
from ...utils.io import PathLike
from ..class_index import label_counts

VOC_SOURCE = ('VOC 2012: VOCtrainval_11-May-2012.tar (2 GB) from '
              'http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar')
SBD_SOURCE = ('SBD: benchmark.tgz (1.4 GB) from '
              'https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz')
ADE_SOURCE = ('ADE20K: ADEChallengeData2016.zip (0.9 GB) from '
              'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip')
VOC_COUNTS = dict(train=1464, val=1449, train_aug=10582)
ADE_COUNTS = dict(training=20210, validation=2000)
# Number of masks read per split; a run reads all masks when it starts.
_READ = 20
_NAMED = 3


def check_voc(root: PathLike, counts: dict[str, int] = VOC_COUNTS) -> str:
    """Check a ``VOC2012`` folder: image lists and their lengths, all images and masks, and the labels of some masks.

    Args:
        root: folder with ``JPEGImages``, ``SegmentationClassAug`` and ``ImageSets/Segmentation``.
        counts: number of images in ``val`` and ``train_aug``.
    Returns:
        The findings for each split.
    Raises:
        UserError: lists all that is wrong, and where to download the data.
    """
    root, lines = Path(root), []
    faults: list[str] = []
    images, masks = _stems(root / 'JPEGImages', '.jpg', faults), _stems(root / 'SegmentationClassAug', '.png', faults)
    for split in ('train_aug', 'val'):
        path = root / 'ImageSets' / 'Segmentation' / f'{split}.txt'
        if not path.is_file():
            faults.append(f'{path} is missing (tools/prepare_voc.py writes train_aug.txt)')
            continue
        names = path.read_text(encoding='ascii').split()
        if len(names) != counts[split]:
            faults.append(f'{path} lists {len(names)} images, but should list {counts[split]}')
        if len(set(names)) != len(names):
            faults.append(f'{path} contains {len(names) - len(set(names))} duplicates')
        _compare(names, images, f'images of {split} are not in {root / "JPEGImages"}', faults)
        _compare(names, masks, f'masks of {split} are not in {root / "SegmentationClassAug"}', faults)
        _check_labels([root / 'SegmentationClassAug' / f'{name}.png' for name in names if name in masks],
                      {*range(21), 255}, faults)
        lines.append(f'{split}: {len(names)} images with masks')
    _raise(faults, f'VOC 2012 with SBD in {root}', (VOC_SOURCE, SBD_SOURCE))
    return f'{root} is complete. ' + '; '.join(lines) + '.'


def check_ade(root: PathLike, counts: dict[str, int] = ADE_COUNTS) -> str:
    """Check an ``ADEChallengeData2016`` folder: number of images, all images and masks, and the labels of some masks.

    Args:
        root: folder with ``images/{training,validation}`` and ``annotations/{training,validation}``.
        counts: number of images in each split.
    Returns, raises: see ``check_voc``.
    """
    root, lines = Path(root), []
    faults: list[str] = []
    for split, expected in counts.items():
        images = _stems(root / 'images' / split, '.jpg', faults)
        masks = _stems(root / 'annotations' / split, '.png', faults)
        if images and len(images) != expected:
            faults.append(f'{root / "images" / split} contains {len(images)} images, but should contain {expected}')
        _compare(images, masks, f'masks are not in {root / "annotations" / split}', faults)
        _compare(masks, images, f'masks of {split} have no image', faults)
        _check_labels([root / 'annotations' / split / f'{name}.png' for name in sorted(masks)], set(range(151)), faults)
        lines.append(f'{split}: {len(images)} images with masks')
    _raise(faults, f'ADE20K in {root}', (ADE_SOURCE, ))
    return f'{root} is complete. ' + '; '.join(lines) + '.'


def _stems(folder: Path, suffix: str, faults: list[str]) -> set[str]:
    if not folder.is_dir():
        faults.append(f'{folder} is missing')
        return set()
    return {name[:-len(suffix)] for name in os.listdir(folder) if name.endswith(suffix) and not name.startswith('.')}


def _compare(wanted: Iterable[str], held: set[str], what: str, faults: list[str]) -> None:
    missing = sorted(set(wanted) - held)
    if missing and held:
        faults.append(f'{len(missing)} {what}, such as {", ".join(missing[:_NAMED])}')


def _check_labels(paths: Sequence[Path], known: set[int], faults: list[str]) -> None:
    """Check the labels of some evenly spaced masks."""
    for path in paths[::max(1, len(paths) // _READ)]:
        try:
            labels = {int(label) for label in label_counts(str(path))[0].nonzero()[0]}
        except ValueError as error:
            faults.append(str(error))
            continue
        if labels - known:
            faults.append(f'{path} contains label {min(labels - known)}, which is not a label of the dataset')


def _raise(faults: Sequence[str], what: str, sources: Sequence[str]) -> None:
    if faults:
        raise UserError('\n'.join([f'{what} is incomplete:', *(f'- {fault}' for fault in faults),
                                   'Download it from:', *(f'- {each}' for each in sources)]))
