"""LwF: learning without forgetting."""
from __future__ import annotations

from mmseg.registry import MODELS
from torch import Tensor

from ..losses import old_class_distillation
from .base import IncrementalSegmentor
from .loss_weight import check_weight


@MODELS.register_module()
class LwF(IncrementalSegmentor):
    """Fine-tuning plus distillation over the old classes (Li and Hoiem, ECCV 2016; weight from MiB's comparison).

    Args:
        kd_weight: of the distillation.
        **kwargs: see :class:`IncrementalSegmentor`.
    """

    def __init__(self, *, kd_weight: float = 100.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.kd_weight = check_weight('kd_weight', kd_weight)

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        teacher_logits = self.teacher_logits(inputs)
        losses, student_logits = self.student_loss(inputs, data_samples)
        losses['loss_kd'] = self.kd_weight * old_class_distillation(student_logits, teacher_logits)
        return losses
