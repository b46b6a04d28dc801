"""Fake images as a dataset, and real and fake ones as one."""
from __future__ import annotations

from typing import Any, Optional

from mmengine.dataset import Compose
from mmseg.registry import DATASETS
from torch.utils.data import Dataset

from ..datasets.incremental import load_sample
from ..files import PathLike
from ..randomness import sample_randomness
from .buffer import FakeImageBuffer


@DATASETS.register_module()
class FakeImageDataset(Dataset):
    """The images of a buffer, through the same augmentation as real ones, without a label (class 0 everywhere).

    The length is the declared size, so the dataset can be built before the buffer is filled.

    Args:
        folder: of the buffer.
        num_images: its declared size.
        pipeline: the real images' training pipeline.
    """

    def __init__(self, folder: PathLike, num_images: int, pipeline: list) -> None:
        self.buffer = FakeImageBuffer(folder, num_images)
        self.pipeline = Compose(pipeline)

    @property
    def metainfo(self) -> dict:
        return {}  # fakes have no labels; the classes of a step are those of its real images

    def full_init(self) -> None:
        """Nothing is left to do; mmengine calls this on every dataset."""

    def __len__(self) -> int:
        return self.buffer.num_images

    def get_data_info(self, idx: int) -> dict:
        return dict(
            img_path=str(self.buffer.image_path(idx % len(self))),
            seg_map_path=str(self.buffer.blank_mask),
            label_map=None,
            reduce_zero_label=False,
            seg_fields=[],
            sample_idx=idx)

    def pipeline_of(self, idx: int) -> Compose:
        return self.pipeline

    def __getitem__(self, idx: int) -> Any:
        return load_sample(self, idx)


@DATASETS.register_module()
class RealFakeDataset(Dataset):
    """Real images of a step, then its fake images. :class:`RealFakeSampler` draws from the two.

    Args:
        real: config of the step's real dataset.
        fake_folder: of the buffer.
        num_fake: declared size of the buffer.
        mix: config of a ``MultiImageMixDataset`` without its dataset, through which real images are mixed with real
            ones, and fake with fake.
    """

    def __init__(self, real: dict, fake_folder: PathLike, num_fake: int, mix: Optional[dict] = None) -> None:
        self.real = DATASETS.build(dict(mix, dataset=real) if mix else real)
        pipeline = (self.real.dataset if mix else self.real).source.pipeline.transforms
        fake = dict(type='FakeImageDataset', folder=fake_folder, num_images=num_fake, pipeline=pipeline)
        self.fake = DATASETS.build(dict(mix, dataset=fake) if mix else fake)
        self.num_real, self.num_fake = len(self.real), num_fake

    @property
    def metainfo(self) -> dict:
        return self.real.metainfo

    def full_init(self) -> None:
        """Nothing is left to do; mmengine calls this on every dataset."""

    def __len__(self) -> int:
        return self.num_real + self.num_fake

    def __getitem__(self, idx: int) -> Any:
        with sample_randomness(idx):
            return self.real[int(idx)] if idx < self.num_real else self.fake[idx - self.num_real]
