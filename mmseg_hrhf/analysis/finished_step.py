"""A finished step as a frozen network and its test images."""
from __future__ import annotations

import os.path as osp

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from PIL import Image

from ..datasets.transforms import find_loading
from ..replay.pixel_check import measure_pixel_map
from ..scenario import IGNORE
from ..utils.errors import UserError
from ..utils.io import PathLike
from ..work_dir.checkpoint import load_checkpoint

_UNLABELLED = (224, 224, 224)


class FinishedStep:
    """The plain config and checkpoint that a step leaves.

    Args:
        folder: ``WORK_DIR/step_<t>``.
        device: that the network runs on.
    Raises:
        UserError: the folder holds no finished step.
    """

    def __init__(self, folder: PathLike, device: str = 'cpu') -> None:
        self.folder = str(folder)
        config, checkpoint = (osp.join(folder, name) for name in ('config.py', 'checkpoint.pth'))
        for path in (config, checkpoint):
            if not osp.exists(path):
                raise UserError(f'{folder} is no finished step: {osp.basename(path)} is missing. Name a folder '
                                 'WORK_DIR/step_<t> of a run.')
        self.cfg = Config.fromfile(config)
        init_default_scope(self.cfg.get('default_scope', 'mmseg'))
        model = revert_sync_batchnorm(MODELS.build(self.cfg.model))
        held = load_checkpoint(checkpoint)
        model.load_state_dict(held['state_dict'])
        # Of layers other than batch norm, for the network's inversion; None where none are recorded.
        self.feature_statistics = held.get('feature_statistics')
        self.model = model.eval().requires_grad_(False).to(device)
        metainfo = self.cfg.test_dataloader.dataset.metainfo
        self.classes, self.palette = tuple(metainfo['classes']), np.array(metainfo['palette'], dtype=np.uint8)
        self._dataset = None

    @property
    def dataset(self):
        """The step's test images, as mmseg evaluates them."""
        if self._dataset is None:
            self._dataset = DATASETS.build(self.cfg.test_dataloader.dataset)
        return self._dataset

    def measure_pixels(self, size: tuple[int, int]) -> None:
        """Find what the network is fed for a pixel of an image of (height, width), for its inversion."""
        loading = find_loading(self.dataset.pipeline.transforms, self.dataset.get_data_info(0))
        self.model.pixel_map = measure_pixel_map(self.dataset.pipeline, loading, self.model.data_preprocessor, size)

    def class_index(self, name: str) -> int:
        """Channel of a foreground class; ``UserError`` for a name the step does not know."""
        if name not in self.classes[1:]:
            raise UserError(f'{self.folder} knows no class {name!r}; it knows {", ".join(self.classes[1:])}.')
        return self.classes.index(name)

    def names(self) -> list[str]:
        """File name of each test image, without its suffix."""
        infos = (self.dataset.get_data_info(i) for i in range(len(self.dataset)))
        return [osp.splitext(osp.basename(info['img_path']))[0] for info in infos]

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of the size of ``labels``.

        The file as it is; or what the pipeline made of it, where that resizes and crops the labels along (MiB's centre
        crops).
        """
        with Image.open(self.dataset.get_data_info(index)['img_path']) as file:
            image = np.asarray(file.convert('RGB'))
        if image.shape[:2] == self.labels(index).shape:
            return image
        return self.dataset[index]['inputs'].flip(0).permute(1, 2, 0).to(torch.uint8).numpy()

    def labels(self, index: int) -> np.ndarray:
        """(H, W) class indices of the ground truth, 255 where there is none."""
        return self.dataset[index]['data_samples'].gt_sem_seg.data[0].numpy()

    @torch.no_grad()
    def predict(self, index: int) -> np.ndarray:
        """(H, W) class indices that the network predicts."""
        sample, = self.model.test_step(pseudo_collate([self.dataset[index]]))
        return sample.pred_sem_seg.data[0].cpu().numpy()

    def coloured(self, labels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 picture of (H, W) class indices in the dataset's palette; unlabelled pixels are grey."""
        table = np.full((IGNORE + 1, 3), _UNLABELLED, dtype=np.uint8)
        table[:len(self.palette)] = self.palette
        return table[labels]
