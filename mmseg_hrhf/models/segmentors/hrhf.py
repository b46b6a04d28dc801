"""Half-Real Half-Fake Distillation (eq. 3, 4, 5)."""
from __future__ import annotations

from typing import Optional

from mmseg.registry import MODELS
from torch import Tensor

from ..losses.label_merge import merge_labels
from ..student_pass import Part, fused_pass, fuses_distillation, stacked_labels, with_labels
from .base import IncrementalSegmentor


@MODELS.register_module()
class HRHF(IncrementalSegmentor):
    """Segmentation loss on merged labels plus distillation from the teacher, on real and synthetic images (eq. 5).

    The segmentation loss (eq. 4) is the student's configured loss, including those of auxiliary heads and cascades.
    Each network runs once per iteration.

    Args:
        loss_kd: distillation loss, whose ``loss_weight`` is lambda of eq. 5; None disables it (Table 5).
        **kwargs: see ``IncrementalSegmentor``.
    """
    uses_fake_images = True

    def __init__(self, *, loss_kd: Optional[dict] = dict(type='DistillationLoss', loss_weight=1.0), **kwargs) -> None:
        super().__init__(**kwargs)
        self.loss_kd = None if loss_kd is None else self.build_loss('loss_kd', loss_kd)

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        if self.fuses_losses() and (self.loss_kd is None or fuses_distillation(self.loss_kd)):
            losses, terms, _ = fused_pass(self.student, inputs, data_samples, self.small_teacher_logits(inputs),
                                          Part(relabel=merge_labels, distil=self.loss_kd is not None))
            if self.loss_kd is not None:
                losses['loss_kd'] = self.loss_kd.weighted(terms.mean_distillation(), self.num_old)
        else:
            teacher_logits = self.teacher_logits(inputs)
            merged = merge_labels(stacked_labels(data_samples), teacher_logits)
            losses, student_logits = self.student_loss(inputs, with_labels(data_samples, merged))
            if self.loss_kd is not None:
                losses['loss_kd'] = self.loss_kd(student_logits, teacher_logits)
        return losses
