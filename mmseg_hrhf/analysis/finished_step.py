"""A finished step as a frozen network and its test images, and what several steps predict on the same images."""
from __future__ import annotations

import functools
import os.path as osp
from dataclasses import dataclass
from typing import Iterable, Mapping, Optional, Sequence

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
    """The plain config and checkpoint that a step leaves. Network and dataset are built once they are asked for.

    Args:
        folder: ``WORK_DIR/step_<t>``.
        device: that the network runs on; None: a GPU if there is one.
    Raises:
        UserError: the folder holds no finished step.
    """

    def __init__(self, folder: PathLike, device: Optional[str] = None) -> None:
        self.folder = str(folder)
        self.device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        config, self._path = (osp.join(folder, name) for name in ('config.py', 'checkpoint.pth'))
        for path in (config, self._path):
            if not osp.exists(path):
                raise UserError(f'{folder} is no finished step: {osp.basename(path)} is missing. Name a folder '
                                'WORK_DIR/step_<t> of a run.')
        self.cfg = Config.fromfile(config)
        init_default_scope(self.cfg.get('default_scope', 'mmseg'))
        metainfo = self.cfg.test_dataloader.dataset.metainfo
        self.classes, self.palette = tuple(metainfo['classes']), np.array(metainfo['palette'], dtype=np.uint8)

    @functools.cached_property
    def _checkpoint(self) -> dict:
        return load_checkpoint(self._path)

    @functools.cached_property
    def model(self) -> torch.nn.Module:
        """The network, in eval mode."""
        model = revert_sync_batchnorm(MODELS.build(self.cfg.model))
        try:
            model.load_state_dict(self._checkpoint['state_dict'])
        except RuntimeError as error:
            raise UserError(f'{self._path} does not fit the config beside it: {error}') from error
        return model.eval().requires_grad_(False).to(self.device)

    @property
    def feature_statistics(self) -> Optional[dict]:
        """Of layers other than batch norm, for the network's inversion; None where none are recorded."""
        return self._checkpoint.get('feature_statistics')

    @functools.cached_property
    def dataset(self):
        """The step's test images, as mmseg evaluates them."""
        return DATASETS.build(self.cfg.test_dataloader.dataset)

    def _sample(self, index: int) -> dict:
        try:
            return self.dataset[index]
        except OSError as error:
            raise UserError(f'The test images are not where {self.folder} had them: {error}') from error

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
        sample = self._sample(index)
        with Image.open(sample['data_samples'].img_path) as file:
            image = np.asarray(file.convert('RGB'))
        if image.shape[:2] == sample['data_samples'].gt_sem_seg.shape:
            return image
        return sample['inputs'].flip(0).permute(1, 2, 0).to(torch.uint8).numpy()

    def labels(self, index: int) -> np.ndarray:
        """(H, W) uint8 class indices of the ground truth, 255 where there is none."""
        return self._sample(index)['data_samples'].gt_sem_seg.data[0].numpy().astype(np.uint8)

    @torch.no_grad()
    def predict(self, index: int) -> np.ndarray:
        """(H, W) uint8 class indices that the network predicts."""
        sample, = self.model.test_step(pseudo_collate([self._sample(index)]))
        return sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)

    def coloured(self, labels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 picture of (H, W) class indices in the dataset's palette; unlabelled pixels are grey."""
        table = np.full((IGNORE + 1, 3), _UNLABELLED, dtype=np.uint8)
        table[:len(self.palette)] = self.palette
        return table[labels]

    def named_images(self, names: Iterable[str]) -> list[int]:
        """Positions of test images by file name; ``UserError`` for one that is not there."""
        positions = {name: i for i, name in enumerate(self.names())}
        for name in names:
            if name not in positions:
                raise UserError(f'{name!r} is no test image of {self.folder}.')
        return [positions[name] for name in names]

    def choose_images(self, number: int) -> list[int]:
        """Positions of up to ``number`` test images that together show every class; ``UserError`` without any."""
        order = np.random.default_rng(0).permutation(len(self.dataset))[:_LOOKED_AT].tolist()
        shares = [(np.bincount(labels.ravel(), minlength=256)[:len(self.classes)] / labels.size).tolist()
                  for labels in map(self.labels, order)]
        chosen = [order[i] for i in take_turns(shares, number)]
        if not chosen:
            raise UserError(f'No test image of {self.folder} shows a class well: name some images.')
        return chosen


# Images looked at, at most, to find some that show each class.
_LOOKED_AT = 300
# A class shows well where it takes between these shares of an image.
_SHARE = (0.03, 0.7)


def take_turns(shares: Sequence[Sequence[float]], number: int) -> list[int]:
    """Images that together show every class, classes taking turns.

    Args:
        shares: of each image, the share of pixels of each class index.
        number: of images to choose.
    Returns:
        Their positions, in the order of the turns.
    """
    chosen: list[int] = []
    classes = list(range(1, len(shares[0]))) if shares else []
    while classes and len(chosen) < number:
        found = []
        for index in classes:
            good = [i for i, row in enumerate(shares) if i not in chosen and _SHARE[0] <= row[index] <= _SHARE[1]]
            if good and len(chosen) < number:
                chosen.append(good[0])
                found.append(index)
        classes = found
    return chosen


@dataclass
class Panel:
    """A test image and masks of it.

    Args:
        name: file name of the image, without its suffix.
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) uint8 class indices.
        predictions: (H, W) uint8 by title of the step.
    """
    name: str
    image: np.ndarray
    truth: np.ndarray
    predictions: dict[str, np.ndarray]


def make_panels(folders: Mapping[str, PathLike],
                number: int = 5,
                names: Sequence[str] = (),
                device: Optional[str] = None) -> list[Panel]:
    """Run the networks of finished steps on the same test images.

    Args:
        folders: of the steps, by title; images and ground truth are the last one's.
        number: of images to choose where none are named.
        names: of images.
        device: see ``FinishedStep``.
    Raises:
        UserError: data or a checkpoint is missing.
    """
    step = FinishedStep(list(folders.values())[-1], device)
    chosen = step.named_images(names) if names else step.choose_images(number)
    held = step.names()
    panels = [Panel(held[i], step.image(i), step.labels(i), {}) for i in chosen]
    for title, folder in folders.items():
        other = FinishedStep(folder, device)  # one network at a time
        other.dataset = step.dataset
        for panel, i in zip(panels, chosen):
            panel.predictions[title] = other.predict(i)
    return panels
