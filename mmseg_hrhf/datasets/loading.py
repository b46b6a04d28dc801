"""Which transforms of a pipeline read files, so that what follows them can be fed other images."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Optional, Sequence

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmseg.datasets.transforms import LoadAnnotations

# Flags of mmcv with which other decoders than tifffile give 8 bits, whatever the file holds.
_8_BIT = ('color', 'color_ignore_orientation', 'grayscale', 'grayscale_ignore_orientation')


@dataclass(frozen=True)
class Loading:
    """The loading transforms of a pipeline, by position.

    Args:
        image: of the transform that sets ``img``.
        labels: of the one that sets ``gt_seg_map``; it may be the same.
        dtype: of the image that is loaded.
    """
    image: int
    labels: int
    dtype: np.dtype


def find_loading(transforms: Sequence[Callable], info: dict) -> Loading:
    """Find them: mmcv's and mmseg's own by their class, others by what they add to a sample.

    Args:
        transforms: of a training pipeline.
        info: of a real image, which goes through the pipeline where it has a loader that is not mmcv's or mmseg's.
    Raises:
        ValueError: no transform loads an image, or labels.
    """
    known = _known(transforms)
    return _tried(transforms, info) if known is None else known


def _known(transforms: Sequence[Callable]) -> Optional[Loading]:
    images: list[tuple[int, Any]] = [(i, transform) for i, transform in enumerate(transforms)
                                     if type(transform) is LoadImageFromFile]
    labels = [i for i, transform in enumerate(transforms) if type(transform) is LoadAnnotations]
    if len(images) != 1 or len(labels) != 1:
        return None
    at, loader = images[0]
    if loader.imdecode_backend == 'tifffile' or loader.color_type not in _8_BIT:
        return None
    return Loading(at, labels[0], np.dtype(np.float32 if loader.to_float32 else np.uint8))


def _tried(transforms: Sequence[Callable], info: dict) -> Loading:
    results, image, labels, dtype = dict(info), None, None, None
    for i, transform in enumerate(transforms):
        results = transform(results)
        if not isinstance(results, dict):
            break
        if image is None and isinstance(results.get('img'), np.ndarray):
            image, dtype = i, results['img'].dtype
        if labels is None and 'gt_seg_map' in results:
            labels = i
        if image is not None and labels is not None and dtype is not None:
            return Loading(image, labels, dtype)
    missing = 'img' if image is None else 'gt_seg_map'
    raise ValueError(f'No transform of the training pipeline sets {missing} (tried on {info["img_path"]!r}), so '
                     'synthetic images cannot take the place of the files it reads: load images by LoadImageFromFile '
                     'and labels by LoadAnnotations, or by transforms that set the same keys.')
