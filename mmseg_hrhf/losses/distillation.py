"""Distillation between networks that disagree on what background is (eq. 3)."""
from __future__ import annotations

import torch
from torch import Tensor

from .precision import at_least_float32


def rearrange_probability(log_prob: Tensor, num_old: int) -> Tensor:
    """Fold classes the teacher does not know into background (Probability Rearrange, eq. 3).

    Args:
        log_prob: (N, C, H, W) log-probabilities of the student; channel 0 is background.
        num_old: classes the teacher knows, background included; ``1 <= num_old <= C``.
    Returns:
        (N, num_old, H, W) log-probabilities.
    """
    if not 1 <= num_old <= log_prob.shape[1]:
        raise ValueError(f'num_old={num_old} must lie between 1 and the {log_prob.shape[1]} classes of the student.')
    background = torch.cat([log_prob[:, :1], log_prob[:, num_old:]], dim=1)
    return torch.cat([background.logsumexp(1, keepdim=True), log_prob[:, 1:num_old]], dim=1)


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy of the rearranged student against the teacher's probabilities, mean over pixels (eq. 3).

    Computed in float32 at least, whatever the autocast type of the logits.

    Args:
        student_logits: (N, C, H, W).
        teacher_logits: (N, K, H, W) with K <= C; no gradient flows into it.
    Returns:
        Scalar in nats per pixel.
    """
    student_logits, teacher_logits = at_least_float32(student_logits), at_least_float32(teacher_logits)
    log_prob = rearrange_probability(student_logits.log_softmax(1), teacher_logits.shape[1])
    return -(teacher_logits.detach().softmax(1) * log_prob).sum(1).mean()
