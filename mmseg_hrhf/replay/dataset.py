"""Fake images as a dataset, and real and fake ones as one."""
from __future__ import annotations

from typing import Any, Callable, Optional, Sequence

import numpy as np
from mmengine.dataset import Compose
from mmseg.registry import DATASETS
from PIL import Image
from torch.utils.data import Dataset

from ..datasets.incremental import load_sample
from ..datasets.transforms import Loading, find_loading
from ..utils.io import PathLike
from ..utils.randomness import sample_randomness
from .buffer import FakeImageBuffer


class LoadFakeImage:
    """Stands in for a pipeline's image loader: fakes are PNG files on a local disk, whatever the real images are.

    Sets ``img`` ((H, W, 3), BGR as mmcv decodes), ``img_shape`` and ``ori_shape``.

    Args:
        dtype: of the images that the pipeline's own loader gives.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def __call__(self, results: dict) -> dict:
        with Image.open(results['img_path']) as image:
            pixels = np.asarray(image.convert('RGB'))
        results['img'] = np.ascontiguousarray(pixels[..., ::-1]).astype(self.dtype, copy=False)
        results['img_shape'] = results['ori_shape'] = pixels.shape[:2]
        return results


class NoLabels:
    """Stands in for a pipeline's label loader: fakes have no new label, so ``gt_seg_map`` is 0 everywhere."""

    def __call__(self, results: dict) -> dict:
        results['gt_seg_map'] = np.zeros(results['ori_shape'], dtype=np.uint8)
        results['seg_fields'].append('gt_seg_map')
        return results


def fake_pipeline(transforms: Sequence[Callable], loading: Loading) -> Compose:
    """The real images' pipeline, reading fakes: the same augmentation after other loaders."""
    out: list[Callable] = []
    for i, transform in enumerate(transforms):
        if i not in (loading.image, loading.labels):
            out.append(transform)
        if i == loading.image:
            out.append(LoadFakeImage(loading.dtype))
        if i == loading.labels:
            out.append(NoLabels())
    return Compose(out)


@DATASETS.register_module()
class FakeImageDataset(Dataset):
    """The images of a buffer, through the same augmentation as real ones, without a label (class 0 everywhere).

    The length is the declared size, so the dataset can be built before the buffer is filled.

    Args:
        folder: of the buffer.
        num_images: its declared size.
        pipeline: see ``fake_pipeline``.
    """

    def __init__(self, folder: PathLike, num_images: int, pipeline: Compose) -> None:
        self.buffer = FakeImageBuffer(folder, num_images)
        self.pipeline = pipeline

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
    """Real images of a step, then its fake images. ``RealFakeSampler`` draws from the two.

    Args:
        real: config of the step's real dataset.
        fake_folder: of the buffer.
        num_fake: declared size of the buffer.
        mix: config of a ``MultiImageMixDataset`` without its dataset, through which real images are mixed with real
            ones, and fake with fake.
    """

    def __init__(self, real: dict, fake_folder: PathLike, num_fake: int, mix: Optional[dict] = None) -> None:
        self.real = DATASETS.build(dict(mix, dataset=real) if mix else real)
        view = self.real.dataset if mix else self.real
        transforms = view.pipeline_of(0).transforms
        pipeline = fake_pipeline(transforms, find_loading(transforms, view.get_data_info(0)))
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
