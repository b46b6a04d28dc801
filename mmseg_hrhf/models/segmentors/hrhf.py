"""Half-Real Half-Fake Distillation (eq. 3, 4, 5)."""
from __future__ import annotations

from mmseg.registry import MODELS
from torch import Tensor

from ..losses.distillation import distillation_loss
from ..losses.label_merge import merge_labels
from ..student_pass import fused_pass, stacked_labels, with_labels
from .base import IncrementalSegmentor, check_weight


@MODELS.register_module()
class HRHF(IncrementalSegmentor):
    """Segmentation loss on merged labels plus distillation from the teacher, on real and fake images alike (eq. 5).

    The segmentation loss (eq. 4) is the student's own, so auxiliary heads and cascades keep theirs. Each network runs
    once per iteration.

    Args:
        kd_weight: lambda of eq. 5; 0 leaves the distillation loss out (Table 5).
        **kwargs: see ``IncrementalSegmentor``.
    """
    uses_fake_images = True

    def __init__(self, *, kd_weight: float = 1.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.kd_weight = check_weight('kd_weight', kd_weight)

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        if self.fuses_losses():
            losses, terms, _ = fused_pass(self.student, inputs, data_samples, self.small_teacher_logits(inputs),
                                          relabel=merge_labels, distil=self.kd_weight > 0)
            distillation = terms.distillation.sum() / terms.labels.numel()
        else:
            teacher_logits = self.teacher_logits(inputs)
            merged = merge_labels(stacked_labels(data_samples), teacher_logits)
            losses, student_logits = self.student_loss(inputs, with_labels(data_samples, merged))
            if self.kd_weight > 0:
                distillation = distillation_loss(student_logits, teacher_logits)
        if self.kd_weight > 0:
            losses['loss_kd'] = self.kd_weight * distillation
        return losses
