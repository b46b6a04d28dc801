"""The training crop of MiB, which mmcv and mmseg lack, and the loading transforms of a pipeline."""
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
    """Crop with random area and aspect ratio, then resize (MiB's training crop, as in torchvision).

    Crops with an area above 1 never fit. After ten draws that do not fit, the largest centred crop within the ratio
    limits is used.

    Args:
        size: side of the square output, in pixels.
        area: range of the crop's area, as a fraction of the image area.
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


# mmcv flags with which all decoders except tifffile return 8 bits, whatever the file's bit depth.
_8_BIT = ('color', 'color_ignore_orientation', 'grayscale', 'grayscale_ignore_orientation')


@dataclass(frozen=True)
class Loading:
    """Positions of the loading transforms in a pipeline.

    Args:
        image: position of the transform that sets ``img``.
        labels: position of the transform that sets ``gt_seg_map``; may be the same.
        dtype: dtype of the loaded image.
    """
    image: int
    labels: int
    dtype: np.dtype


def find_loading(transforms: Sequence[Callable], info: dict) -> Loading:
    """Find the loading transforms: mmcv's and mmseg's by their class, others by the keys that they set.

    Args:
        transforms: transforms of a training pipeline.
        info: data info of a real image, on which loaders other than mmcv's and mmseg's are tried.
    Raises:
        UserError: no transform loads images, or none loads labels.
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
                    'synthetic images cannot replace the files that it reads: load images with LoadImageFromFile and '
                    'labels with LoadAnnotations, or with transforms that set the same keys.')
