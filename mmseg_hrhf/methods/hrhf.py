"""Half-Real Half-Fake Distillation (eq. 3, 4, 5)."""
from __future__ import annotations

import copy

import torch
from mmengine.structures import PixelData
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor

from ..losses import distillation_loss, merge_labels
from .base import IncrementalSegmentor
from .logits import captured_logits


@MODELS.register_module()
class HRHF(IncrementalSegmentor):
    """Segmentation loss on merged labels plus distillation from the teacher, on real and fake images alike (eq. 5).

    The segmentation loss (eq. 4) is the student's own, so auxiliary heads and cascades keep theirs. Each network runs
    once per iteration.

    Args:
        kd_weight: lambda of eq. 5; 0 leaves the distillation loss out (Table 5).
        **kwargs: see :class:`IncrementalSegmentor`.
    """
    uses_fake_images = True

    def __init__(self, *, kd_weight: float = 1.0, **kwargs) -> None:
        super().__init__(**kwargs)
        if kd_weight < 0:
            raise ValueError(f'method.kd_weight={kd_weight} must not be negative.')
        self.kd_weight = kd_weight

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        teacher_logits = self.teacher_logits(inputs)
        labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data_samples])
        merged = merge_labels(labels, teacher_logits)
        with captured_logits(self.student) as captured:
            losses = self.student.loss(inputs, _with_labels(data_samples, merged))
        if self.kd_weight > 0:
            student_logits = resize(
                captured[0], size=labels.shape[1:], mode='bilinear', align_corners=self.student.align_corners)
            losses['loss_kd'] = self.kd_weight * distillation_loss(student_logits, teacher_logits)
        return losses


def _with_labels(data_samples: list, labels: Tensor) -> list:
    """The samples with other ground truth (N, H, W); the given samples stay as they are."""
    relabelled = []
    for sample, label in zip(data_samples, labels):
        sample = copy.copy(sample)
        sample.gt_sem_seg = PixelData(data=label[None])
        relabelled.append(sample)
    return relabelled
