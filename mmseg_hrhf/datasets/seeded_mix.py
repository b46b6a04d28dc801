"""mmseg's mixing of images, resumable."""
from __future__ import annotations

from typing import Any

from mmseg.datasets import MultiImageMixDataset
from mmseg.registry import DATASETS

from ..randomness import sample_randomness


@DATASETS.register_module()
class SeededMixDataset(MultiImageMixDataset):
    """``MultiImageMixDataset`` whose choice of images and mixing are seeded by the place of the sample, too."""

    def __getitem__(self, idx: int) -> Any:
        with sample_randomness(idx):
            return super().__getitem__(int(idx))
