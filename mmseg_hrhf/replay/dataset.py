"""Datasets of synthetic images, and of real and synthetic images."""
from __future__ import annotations

from typing import Any, Callable, Optional, Sequence

import numpy as np
from mmengine.dataset import Compose
from mmseg.registry import DATASETS
from torch.utils.data import Dataset

from ..datasets.incremental import load_sample
from ..datasets.transforms import Loading, find_loading
from ..models.student_pass import SYNTHETIC
from ..utils.io import PathLike
from ..utils.randomness import sample_randomness
from .buffer import FakeImageBuffer, load_image


class LoadFakeImage:
    """Replaces a pipeline's image loader: synthetic images are local BMP files, independent of the real images' format.

    Sets ``img`` ((H, W, 3), BGR like mmcv), ``img_shape`` and ``ori_shape``.

    Args:
        dtype: of the images from the pipeline's original loader.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def __call__(self, results: dict) -> dict:
        pixels = load_image(results['img_path'], results.get('sha256'))
        results['img'] = np.ascontiguousarray(pixels[..., ::-1]).astype(self.dtype, copy=False)
        results['img_shape'] = results['ori_shape'] = pixels.shape[:2]
        return results


class NoLabels:
    """Replaces a pipeline's label loader: synthetic images have no labels, so ``gt_seg_map`` is 0 everywhere."""

    def __call__(self, results: dict) -> dict:
        results['gt_seg_map'] = np.zeros(results['ori_shape'], dtype=np.uint8)
        results['seg_fields'].append('gt_seg_map')
        return results


def fake_pipeline(transforms: Sequence[Callable], loading: Loading) -> Compose:
    """The real images' pipeline with loaders for synthetic images; the augmentation is the same."""
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
    """Images of a buffer, augmented like real ones, without labels (class 0 everywhere).

    The length is the declared size, so the dataset can be built before the buffer is filled.

    Args:
        folder: of the buffer.
        num_images: declared size of the buffer.
        pipeline: see ``fake_pipeline``.
    """

    def __init__(self, folder: PathLike, num_images: int, pipeline: Compose) -> None:
        self.buffer = FakeImageBuffer(folder, num_images)
        self.pipeline = pipeline

    @property
    def metainfo(self) -> dict:
        return {}  # no labels; a step has the classes of its real images

    def full_init(self) -> None:
        """No-op; mmengine calls it on every dataset."""

    def __len__(self) -> int:
        return self.buffer.num_images

    def get_data_info(self, idx: int) -> dict:
        return dict(
            img_path=str(self.buffer.image_path(idx % len(self))),
            sha256=self.buffer.hash_of(idx % len(self)),
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
    """Real images of a step, followed by its synthetic images. ``RealFakeSampler`` draws from both.

    Args:
        real: config of the step's real dataset.
        fake_folder: of the buffer.
        num_fake: declared size of the buffer.
        mix: config of a ``MultiImageMixDataset`` without its dataset. Real images are only mixed with real ones, and
            synthetic with synthetic ones.
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
        """No-op; mmengine calls it on every dataset."""

    def __len__(self) -> int:
        return self.num_real + self.num_fake

    def __getitem__(self, idx: int) -> Any:
        with sample_randomness(idx):
            if idx < self.num_real:
                return self.real[int(idx)]
            sample = self.fake[idx - self.num_real]
        sample['data_samples'].set_metainfo({SYNTHETIC: True})
        return sample
