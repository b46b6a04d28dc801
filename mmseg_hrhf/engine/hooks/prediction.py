"""Sends segmentations of a step's first test images to the backends of mmengine's Visualizer."""
from __future__ import annotations

import io
from typing import Optional, Sequence

import numpy as np
from mmengine.dist import is_main_process
from mmengine.fileio import get as read_bytes
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from PIL import Image

from ...utils.pictures import colour_mask, image_grid, overlay

_LARGEST = (192, 256)


@HOOKS.register_module()
class PredictionGridHook(Hook):
    """Sends one picture after each test, with one row per image: input, overlaid prediction and ground truth.

    Images that Pillow cannot read are skipped, and so are images whose path the pipeline does not pack.

    Args:
        num_images: number of rows.
        tag: name of the picture in the backends.
    """
    priority = 'LOW'

    def __init__(self, num_images: int = 6, tag: str = 'segmentations') -> None:
        self.num_images = num_images
        self.tag = tag
        self._cells: list[np.ndarray] = []

    def before_test_epoch(self, runner) -> None:
        self._cells = []

    def after_test_iter(self, runner, batch_idx: int, data_batch: Optional[dict] = None,
                        outputs: Optional[Sequence] = None) -> None:
        if not is_main_process():
            return
        dataset = runner.test_loop.dataloader.dataset
        palette = dataset.metainfo['palette']
        for sample in list(outputs or ())[:self.num_images - len(self._cells) // 3]:
            try:
                image = _read_rgb(sample.img_path, dataset.source.first.backend_args)
            except (OSError, AttributeError):
                continue  # a missing picture must not stop a run
            prediction = _mask(sample.pred_sem_seg)
            truth = _mask(sample.gt_sem_seg) if 'gt_sem_seg' in sample else np.zeros_like(prediction)
            # A pipeline may resize the labels with the image, so images are resized to the size of the prediction.
            image = np.asarray(Image.fromarray(image).resize(prediction.shape[::-1]))
            self._cells += [image, overlay(image, prediction, palette), colour_mask(truth, palette)]

    def after_test_epoch(self, runner, metrics: Optional[dict] = None) -> None:
        if self._cells:
            cell = tuple(min(most, max(sides)) for most, sides in zip(_LARGEST, zip(*(c.shape for c in self._cells))))
            runner.visualizer.add_image(self.tag, image_grid(self._cells, 3, cell), step=runner.iter)
            self._cells = []


def _mask(data) -> np.ndarray:
    return data.data.squeeze().cpu().numpy().astype(np.uint8)


def _read_rgb(path: str, backend_args: Optional[dict]) -> np.ndarray:
    with Image.open(io.BytesIO(read_bytes(path, backend_args=backend_args))) as image:
        return np.asarray(image.convert('RGB'))
