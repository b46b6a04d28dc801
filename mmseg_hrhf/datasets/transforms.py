"""The crop of the published training set-up, which neither mmcv nor mmseg has."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Optional, Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

from ..utils.errors import UserError


@TRANSFORMS.register_module()
class RandomResizedCrop(BaseTransform):
    """Crop a random *area* share and aspect ratio, then resize (MiB's training crop; torchvision's rule).

    A share above 1 never fits; where ten draws do not fit, the largest centred crop within the ratio limits is taken.

    Args:
        size: side of the square output, in pixels.
        area: range of the crop's share of the image area.
        ratio: range of width / height, drawn log-uniformly.
    """

    def __init__(self, size: int, area: tuple[float, float] = (0.5, 2.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)):
        self.size = size
        self.area = area
        self.ratio = ratio

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Draw (top, left, height, width) of a crop."""
        for _ in range(10):
            area = height * width * np.random.uniform(*self.area)
            ratio = math.exp(np.random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return np.random.randint(height - h + 1), np.random.randint(width - w + 1), h, w
        w = min(width, round(height * self.ratio[1]))
        h = min(height, round(width / self.ratio[0]))
        return (height - h) // 2, (width - w) // 2, h, w

    def transform(self, results: dict) -> Optional[dict]:
        top, left, h, w = self.box(*results['img'].shape[:2])
        window = np.s_[top:top + h, left:left + w]
        results['img'] = cv2.resize(results['img'][window], (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        for key in results.get('seg_fields', []):
            results[key] = cv2.resize(results[key][window], (self.size, self.size), interpolation=cv2.INTER_NEAREST)
        results['img_shape'] = results['img'].shape[:2]
        return results


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
        UserError: no transform loads an image, or labels.
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
    raise UserError(f'No transform of the training pipeline sets {missing} (tried on {info["img_path"]!r}), so '
                     'synthetic images cannot take the place of the files it reads: load images by LoadImageFromFile '
                     'and labels by LoadAnnotations, or by transforms that set the same keys.')
