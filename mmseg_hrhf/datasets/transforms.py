"""The crop of the published training set-up, which neither mmcv nor mmseg has."""
from __future__ import annotations

import math
from typing import Optional

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS


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
