"""Cross-entropy and distillation in one pass over small bands of up-sampled logits.

The same formulas as in ``distillation.py`` and ``old_class_merge.py``, which are their readable form: the up-sampled
logits, their log-softmax and the gradients exist for one band at a time, and each is computed once for all losses.
"""
from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .precision import at_least_float32
from .upsampling import Upsampling, bands


class FusedTerms(NamedTuple):
    """Sums over the pixels of each image.

    Args:
        cross_entropy, distillation: (N,) nats; ignored pixels have no cross-entropy.
        correct: (N,) pixels that are not ignored and whose label has the highest logit.
        labels: (N, H, W) that the cross-entropy was taken against.
    """
    cross_entropy: Tensor
    distillation: Tensor
    correct: Tensor
    labels: Tensor


def fused_losses(student: Tensor,
                 labels: Tensor,
                 teacher: Optional[Tensor] = None,
                 relabel: Optional[Callable[[Tensor, Tensor], Tensor]] = None,
                 distil: bool = False,
                 num_merged: int = 0,
                 align_corners: bool = False,
                 ignore_index: int = 255) -> FusedTerms:
    """Losses of logits, bilinearly up-sampled to the size of the labels.

    Args:
        student: (N, C, h, w) logits; the one that gradients flow into.
        labels: (N, H, W) integers below C, or ``ignore_index``.
        teacher: (N, K, h', w') logits with K <= C; none if neither ``relabel`` nor ``distil`` needs them.
        relabel: from (n, rows, W) labels and (n, K, rows, W) logits of the teacher to new labels, pixel by pixel.
        distil: compute eq. 3 (:func:`~.distillation.distillation_loss`).
        num_merged: channels that stand for background in the cross-entropy, as in MiB
            (:func:`~.old_class_merge.merge_old_classes`); 0: none.
        align_corners: of the up-sampling.
        ignore_index: label of pixels without cross-entropy.
    """
    return FusedTerms(*_Fused.apply(student, labels, teacher, relabel, distil, num_merged, align_corners,
                                    ignore_index))


class _Fused(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, student: Tensor, labels: Tensor, teacher: Optional[Tensor], relabel, distil: bool,
                num_merged: int, align_corners: bool, ignore_index: int) -> tuple[Tensor, ...]:
        ctx.dtype = student.dtype
        with torch.autocast(student.device.type, enabled=False):
            student = at_least_float32(student)
            size = (int(labels.shape[1]), int(labels.shape[2]))
            up = Upsampling(student.shape[2:], size, align_corners, student)
            if teacher is not None:
                teacher = teacher.to(student.dtype)
                up_teacher = Upsampling(teacher.shape[2:], size, align_corners, teacher)
            cross_entropy, distillation, correct = student.new_zeros(3, len(student))
            gradients = [torch.zeros_like(student) for _ in range(1 + distil)]
            used = torch.empty_like(labels)
            for images, rows in bands((*student.shape[:2], *size), student):
                label = labels[images, rows]
                log_prob = up.up(student[images], rows).log_softmax(1)
                if teacher is not None:
                    teacher_band = up_teacher.up(teacher[images], rows)
                    label = label if relabel is None else relabel(label, teacher_band)
                used[images, rows] = label
                kept = label != ignore_index
                label = torch.where(kept, label, 0)[:, None]
                picked = log_prob.gather(1, label)[:, 0]
                correct[images] += ((picked >= log_prob.amax(1)) & kept).sum((1, 2))
                prob = log_prob.exp()
                if distil:
                    loss, target = distillation_target(log_prob, teacher_band)
                    distillation[images] += loss.sum((1, 2))
                    up.add_adjoint(gradients[1][images], torch.sub(prob, target, out=target), rows)
                if num_merged:
                    loss = subtract_merged_target(prob, log_prob, picked, label, num_merged)
                else:
                    loss = -picked
                    prob.scatter_add_(1, label, prob.new_full((), -1.).expand(label.shape))
                cross_entropy[images] += torch.where(kept, loss, 0.).sum((1, 2))
                up.add_adjoint(gradients[0][images], prob.mul_(kept[:, None]), rows)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(correct, used)
        return cross_entropy, distillation, correct, used

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Optional[Tensor], ...]:
        terms = [saved * output.view(-1, 1, 1, 1) for saved, output in zip(ctx.saved_tensors, outputs)]
        return (sum(terms[1:], terms[0]).to(ctx.dtype), *[None] * 7)


def distillation_target(log_prob: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Distillation (eq. 3) at each pixel, and what its gradient by the logits takes from the student's probabilities.

    Args:
        log_prob: (N, C, H, W) of the student.
        teacher: (N, K, H, W) logits.
    Returns:
        (N, H, W) and (N, C, H, W): the teacher's probabilities, background's divided among background and the classes
        that the teacher does not know as the student divides it.
    """
    num_old, prob = teacher.shape[1], teacher.softmax(1)
    unknown = torch.cat([log_prob[:, :1], log_prob[:, num_old:]], dim=1)
    background = unknown.logsumexp(1, keepdim=True)
    loss = -(prob[:, :1] * background)[:, 0] - (prob[:, 1:] * log_prob[:, 1:num_old]).sum(1)
    shares = unknown.sub_(background).exp_().mul_(prob[:, :1])
    return loss, torch.cat([shares[:, :1], prob[:, 1:], shares[:, 1:]], dim=1)


def subtract_merged_target(prob: Tensor, log_prob: Tensor, picked: Tensor, label: Tensor, num_merged: int) -> Tensor:
    """MiB's cross-entropy at each pixel; ``prob`` becomes its gradient by the logits.

    Args:
        prob, log_prob: (N, C, H, W) of the student.
        picked: (N, H, W) entry of ``log_prob`` at the label.
        label: (N, 1, H, W) below C.
        num_merged: channels that stand for background.
    Returns:
        (N, H, W).
    """
    old = log_prob[:, :num_merged]
    background, is_old = old.logsumexp(1, keepdim=True), label < num_merged
    prob[:, :num_merged] -= (old - background).exp_().mul_(is_old)
    prob.scatter_add_(1, label, is_old.to(prob.dtype) - 1)
    return -torch.where(is_old[:, 0], background[:, 0], picked)
