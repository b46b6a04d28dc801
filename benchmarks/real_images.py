"""Real images of the old classes instead of synthetic ones: an upper bound on replay for a given schedule.

Class-incremental methods may not do this. Shows whether the schedule or the synthetic images limit a result:

    PYTHONPATH=. python tools/compare.py benchmarks/configs/voc_animals_tuning.py --methods "real images for fakes"
"""
from __future__ import annotations

from pathlib import Path
from typing import Callable, Optional, Sequence

import numpy as np
import torch
from mmseg.registry import TASK_UTILS
from PIL import Image

from mmseg_hrhf.replay.inversion.base import FakeBatch, Inversion

# Minimum share of an image that its class must cover.
_SHARE = 0.02


@TASK_UTILS.register_module()
class RealImages(Inversion):
    """Crops of training images that show the first requested class; the teacher labels them like synthetic images.

    Args:
        size: side, or (height, width), of the images in pixels.
        data_root: in VOC's layout.
        ann_file: list of image names, one per line.
        labels: raw mask label of each old class, in the teacher's order, without background.
        batch_size: images per call.
        whole_side: crop the largest possible square and resize it; otherwise crop ``size`` pixels.
        masks: folder of the masks.
        suffix: of the images' names.
    """
    def __init__(self, size, data_root: str, ann_file: str, labels: Sequence[int], batch_size: int = 16,
                 whole_side: bool = True, masks: str = 'SegmentationClassAug', suffix: str = '.jpg') -> None:
        super().__init__(size, batch_size)
        self.whole_side, self.suffix = whole_side, suffix
        self.folder = Path(data_root) / 'JPEGImages'
        self.names: dict[int, list[str]] = {number: [] for number in range(1, len(labels) + 1)}
        for name in Path(ann_file).read_text().split():
            with Image.open(Path(data_root) / masks / f'{name}.png') as mask:
                counts = mask.histogram()
            for number, label in enumerate(labels, 1):
                if counts[label] > _SHARE * sum(counts):
                    self.names[number].append(name)

    def __call__(self, model, request, on_iteration: Optional[Callable[[dict], None]] = None,
                 recorded=None) -> FakeBatch:
        rng = np.random.default_rng(request.seed)
        images = [self._crop(rng.choice(self.names[classes[0]]), rng) for classes in request.classes]
        if on_iteration is not None:
            on_iteration({})
        return FakeBatch(torch.from_numpy(np.stack(images)), [[] for _ in images], {})

    def _crop(self, name: str, rng: np.random.Generator) -> np.ndarray:
        with Image.open(self.folder / f'{name}{self.suffix}') as image:
            image = image.convert('RGB')
        crop = (min(image.size), ) * 2 if self.whole_side else self.size[::-1]
        left, top = (int(rng.integers(length - side + 1)) for length, side in zip(image.size, crop))
        image = image.crop((left, top, left + crop[0], top + crop[1]))
        return np.asarray(image.resize(self.size[::-1], Image.Resampling.BILINEAR))
