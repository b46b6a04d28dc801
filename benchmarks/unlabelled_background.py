"""HRHF that ignores pixels of synthetic images where the teacher predicts background.

Deviates from eq. 4 to measure the cost of background in synthetic images, which may look like future classes. Eq. 3
still applies there.

    PYTHONPATH=. python tools/compare.py benchmarks/configs/shapes.py --methods "fakes without background"
"""
from __future__ import annotations

from pathlib import Path

import torch
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_hrhf.models.losses.label_merge import merge_labels
from mmseg_hrhf.models.segmentors.hrhf import HRHF
from mmseg_hrhf.models.student_pass import stacked_labels, with_labels


@MODELS.register_module()
class UnlabelledFakeBackground(HRHF):
    """HRHF with ignored pixels on synthetic images; needs a second teacher pass."""

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        labels = stacked_labels(data_samples)
        fake = torch.tensor([_is_fake(sample.img_path) for sample in data_samples], device=labels.device).view(-1, 1, 1)
        if not fake.any():
            raise ValueError(f'No image of a batch is a fake; one is {data_samples[0].img_path}.')
        merged = merge_labels(labels, self.teacher_logits(inputs))
        ignored = self.student.decode_head.ignore_index
        labels = torch.where(fake, torch.where(merged == 0, ignored, merged), labels)
        return super().incremental_loss(inputs, with_labels(data_samples, labels))


def _is_fake(path: str) -> bool:
    # FakeImageBuffer.image_path, in the folder StepFiles.fakes.
    return Path(path).parts[-3:-1] == ('fakes', 'images')
