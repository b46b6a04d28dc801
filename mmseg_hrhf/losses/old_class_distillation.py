"""Distillation over the channels that teacher and student share, the new ones left out."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32


def old_class_distillation(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy of the student's softmax over the old classes against the teacher's (Li and Hoiem, LwF).

    Args:
        student_logits: (N, C, H, W).
        teacher_logits: (N, K, H, W) with K <= C; no gradient flows into it.
    Returns:
        Scalar: mean over pixels **and** classes, as in MiB's comparison, on whose scale the published weight 100 is.
    """
    student_logits, teacher_logits = at_least_float32(student_logits), at_least_float32(teacher_logits.detach())
    log_prob = student_logits[:, :teacher_logits.shape[1]].log_softmax(1)
    return -(teacher_logits.softmax(1) * log_prob).mean()


def old_class_binary_distillation(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Binary cross-entropy of the student's sigmoids of the old classes against the teacher's (Rebuffi et al., iCaRL).

    Args:
        student_logits: (N, C, H, W).
        teacher_logits: (N, K, H, W) with K <= C; no gradient flows into it.
    Returns:
        Scalar: sum over the K classes, mean over pixels.
    """
    student_logits, teacher_logits = at_least_float32(student_logits), at_least_float32(teacher_logits.detach())
    num_old = teacher_logits.shape[1]
    return num_old * F.binary_cross_entropy_with_logits(student_logits[:, :num_old], teacher_logits.sigmoid())
