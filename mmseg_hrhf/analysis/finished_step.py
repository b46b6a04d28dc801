"""Network and test images of a finished step, and predictions of several steps on the same images."""
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
    """Plain config and checkpoint of a finished step. Network and dataset are built on first use.

    Args:
        folder: ``WORK_DIR/step_<t>``.
        device: device of the network; None selects a GPU if available.
    Raises:
        UserError: the folder contains no finished step.
    """

    def __init__(self, folder: PathLike, device: Optional[str] = None) -> None:
        self.folder = str(folder)
        self.device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        config, self._path = (osp.join(folder, name) for name in ('config.py', 'checkpoint.pth'))
        for path in (config, self._path):
            if not osp.exists(path):
                raise UserError(f'{folder} is not a finished step: {osp.basename(path)} is missing. Use a folder '
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
            raise UserError(f'{self._path} does not match config.py in its folder: {error}') from error
        return model.eval().requires_grad_(False).to(self.device)

    @property
    def feature_statistics(self) -> Optional[dict]:
        """Recorded statistics of layers other than batch norm, for inversion; None if there are none."""
        return self._checkpoint.get('feature_statistics')

    @functools.cached_property
    def dataset(self):
        """Test dataset of the step, as evaluated by mmseg."""
        return DATASETS.build(self.cfg.test_dataloader.dataset)

    def _sample(self, index: int) -> dict:
        try:
            return self.dataset[index]
        except OSError as error:
            raise UserError(f'Cannot read the test images of {self.folder}: {error}. Restore them, or set '
                            'test_dataloader.dataset in its config.py.') from error

    def measure_pixels(self, size: tuple[int, int]) -> None:
        """Measure the map from pixels to network input for images of (height, width), for inversion."""
        loading = find_loading(self.dataset.pipeline.transforms, self.dataset.get_data_info(0))
        self.model.pixel_map = measure_pixel_map(self.dataset.pipeline, loading, self.model.data_preprocessor, size)

    def class_index(self, name: str) -> int:
        """Channel of a foreground class; ``UserError`` for an unknown name."""
        if name not in self.classes[1:]:
            raise UserError(f'{self.folder} has no class {name!r}: choose among {", ".join(self.classes[1:])}.')
        return self.classes.index(name)

    def names(self) -> list[str]:
        """File names of the test images, without suffix."""
        infos = (self.dataset.get_data_info(i) for i in range(len(self.dataset)))
        return [osp.splitext(osp.basename(info['img_path']))[0] for info in infos]

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of the same size as ``labels``.

        The original image; or the output of the pipeline, if that resizes or crops the labels (MiB's centre crops).
        """
        sample = self._sample(index)
        with Image.open(sample['data_samples'].img_path) as file:
            image = np.asarray(file.convert('RGB'))
        if image.shape[:2] == sample['data_samples'].gt_sem_seg.shape:
            return image
        return sample['inputs'].flip(0).permute(1, 2, 0).to(torch.uint8).numpy()

    def labels(self, index: int) -> np.ndarray:
        """(H, W) uint8 class indices of the ground truth, 255 for ignored pixels."""
        return self._sample(index)['data_samples'].gt_sem_seg.data[0].numpy().astype(np.uint8)

    @torch.no_grad()
    def predict(self, index: int) -> np.ndarray:
        """(H, W) uint8 predicted class indices."""
        sample, = self.model.test_step(pseudo_collate([self._sample(index)]))
        return sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)

    def coloured(self, labels: np.ndarray) -> np.ndarray:
        """Colour (H, W) class indices by the dataset's palette, ignored pixels grey: (H, W, 3) uint8."""
        table = np.full((IGNORE + 1, 3), _UNLABELLED, dtype=np.uint8)
        table[:len(self.palette)] = self.palette
        return table[labels]

    def named_images(self, names: Iterable[str]) -> list[int]:
        """Positions of test images by file name; ``UserError`` for an unknown name."""
        positions = {name: i for i, name in enumerate(self.names())}
        for name in names:
            if name not in positions:
                raise UserError(f'{name!r} is not a test image of {self.folder}: use file names without suffix.')
        return [positions[name] for name in names]

    def choose_images(self, number: int) -> list[int]:
        """Positions of up to ``number`` test images that together show all classes; ``UserError`` if there are none."""
        order = np.random.default_rng(0).permutation(len(self.dataset))[:_LOOKED_AT].tolist()
        shares = [(np.bincount(labels.ravel(), minlength=256)[:len(self.classes)] / labels.size).tolist()
                  for labels in map(self.labels, order)]
        chosen = [order[i] for i in take_turns(shares, number)]
        if not chosen:
            raise UserError(f'No test image of {self.folder} shows a class clearly: choose images by name.')
        return chosen


# Maximum number of images to search for examples of each class.
_LOOKED_AT = 300
# An image shows a class clearly if the class covers a fraction of the image between these limits.
_SHARE = (0.03, 0.7)


def take_turns(shares: Sequence[Sequence[float]], number: int) -> list[int]:
    """Choose images that together show all classes, one class after another.

    Args:
        shares: for each image, the fraction of pixels of each class index.
        number: maximum number of images.
    Returns:
        Positions of the images, in the order of choice.
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
    """A test image with its ground truth and predictions.

    Args:
        name: file name of the image, without suffix.
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) uint8 class indices.
        predictions: (H, W) uint8 class indices by title of the step.
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
        folders: step folders by title; the last one provides images and ground truth.
        number: number of images to choose if ``names`` is empty.
        names: file names of images, without suffix.
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
