"""Cross-entropy and distillation in one pass over small bands of upsampled logits.

``distillation.py`` and ``label_merge.py`` are the readable form of the same formulas. Here, the upsampled logits, their
log-softmax and the gradients exist for one band at a time and are computed once for all losses.
"""
from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .distillation import distilled_pixels
from .upsampling import Upsampling, Workspace, at_least_float32, bands


class FusedTerms(NamedTuple):
    """Sums over the pixels of each image.

    Args:
        cross_entropy, distillation: (N,) nats; ignored pixels do not contribute to the cross-entropy.
        correct: (N,) number of pixels that are not ignored and whose label has the highest logit.
        labels: (N, H, W) targets of the cross-entropy.
    """
    cross_entropy: Tensor
    distillation: Tensor
    correct: Tensor
    labels: Tensor

    def mean_distillation(self) -> Tensor:
        """Scalar, equal to ``distillation_loss``."""
        return self.distillation.sum() / self.labels.numel()


def fused_losses(student: Tensor,
                 labels: Tensor,
                 teacher: Optional[Tensor] = None,
                 relabel: Optional[Callable[[Tensor, Tensor], Tensor]] = None,
                 distil: bool = False,
                 num_merged: int = 0,
                 skip_new: bool = False,
                 align_corners: bool = False,
                 ignore_index: int = 255) -> FusedTerms:
    """Losses of logits that are bilinearly upsampled to the size of the labels.

    Args:
        student: (N, C, h, w) logits; only they receive gradients.
        labels: (N, H, W) integers below C, or ``ignore_index``.
        teacher: (N, K, h', w') logits with K <= C; None if neither ``relabel`` nor ``distil`` is used.
        relabel: maps (n, rows, W) labels and (n, K, rows, W) teacher logits to new labels, pixel by pixel.
        distil: compute eq. 3 (``distillation_loss``).
        num_merged: number of channels that count as background in the cross-entropy, as in MiB
            (``merge_old_classes``); 0 for plain cross-entropy.
        skip_new: do not distil pixels that ``labels`` assigns to a class the teacher does not have.
        align_corners: of the upsampling.
        ignore_index: label of ignored pixels.
    """
    return FusedTerms(*_Fused.apply(student, labels, teacher, relabel, distil, num_merged, skip_new, align_corners,
                                    ignore_index))


class _Fused(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, student: Tensor, labels: Tensor, teacher: Optional[Tensor], relabel, distil: bool,
                num_merged: int, skip_new: bool, align_corners: bool, ignore_index: int) -> tuple[Tensor, ...]:
        ctx.dtype = student.dtype
        with torch.autocast(student.device.type, enabled=False):
            student = at_least_float32(student)
            size = (int(labels.shape[1]), int(labels.shape[2]))
            up = Upsampling(student.shape[2:], size, align_corners, student)
            if teacher is not None:
                teacher = teacher.to(student.dtype)
                up_teacher = Upsampling(teacher.shape[2:], size, align_corners, teacher)
            cross_entropy, distilled, correct = student.new_zeros(3, len(student))
            gradients = [torch.zeros_like(student) for _ in range(1 + distil)]
            used, space = torch.empty_like(labels), Workspace(student)
            for images, rows in bands((*student.shape[:2], *size), student):
                label = given = labels[images, rows]
                band = LogSoftmax(up.up(student[images], rows, space, 'student'), space)
                if teacher is not None:
                    teacher_band = up_teacher.up(teacher[images], rows, space, 'teacher')
                    label = label if relabel is None else relabel(label, teacher_band)
                used[images, rows] = label
                kept = label != ignore_index
                label = torch.where(kept, label, 0)[:, None]
                picked = band.scores.gather(1, label)[:, 0]
                correct[images] += ((picked >= 0) & kept).sum((1, 2))
                if distil:
                    loss, gradient = distillation(band, teacher_band, space)
                    if skip_new:
                        wanted = distilled_pixels(given, teacher_band.shape[1], ignore_index)
                        loss, gradient = loss * wanted, gradient.mul_(wanted[:, None])
                    distilled[images] += loss.sum((1, 2))
                    up.add_adjoint(gradients[1][images], gradient, rows, space)
                loss = band.log_total[:, 0] - picked
                if num_merged:
                    loss = subtract_merged_target(band, loss, label, num_merged, space)
                else:
                    band.prob.scatter_add_(1, label, band.prob.new_full((), -1.).expand(label.shape))
                cross_entropy[images] += torch.where(kept, loss, 0.).sum((1, 2))
                up.add_adjoint(gradients[0][images], band.prob.mul_(kept[:, None]), rows, space)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(correct, used)
        return cross_entropy, distilled, correct, used

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Optional[Tensor], ...]:
        terms = [saved * output.view(-1, 1, 1, 1) for saved, output in zip(ctx.saved_tensors, outputs)]
        return (sum(terms[1:], terms[0]).to(ctx.dtype), *[None] * 8)


class LogSoftmax:
    """Log-softmax of a band, as its components.

    Args:
        scores: (N, C, H, W) logits; the maximum of each pixel is subtracted in place.
        space: workspace that stores the probabilities.

    Attributes:
        prob: (N, C, H, W).
        log_total: (N, 1, H, W); the log-probabilities are ``scores - log_total``.
    """

    def __init__(self, scores: Tensor, space: Workspace) -> None:
        self.scores = scores.sub_(scores.amax(1, keepdim=True))
        self.prob = torch.exp(scores, out=space.tensor('prob', *scores.shape))
        total = self.prob.sum(1, keepdim=True)
        self.prob /= total
        self.log_total = total.log_()


def distillation(student: LogSoftmax, teacher: Tensor, space: Workspace) -> tuple[Tensor, Tensor]:
    """Distillation loss (eq. 3) of each pixel.

    The gradient splits the teacher's background probability over background and the new classes in the student's
    proportions.

    Args:
        student: (N, C, H, W).
        teacher: (N, K, H, W) logits; overwritten.
    Returns:
        (N, H, W) loss and its (N, C, H, W) gradient with respect to the student's logits.
    """
    scores, shape, num_old = student.scores, student.prob.shape, teacher.shape[1]
    prob = teacher.div_(exp_in_place(teacher)[1])
    unknown = torch.cat([scores[:, :1], scores[:, num_old:]], 1,
                        out=space.tensor('unknown', shape[0], 1 + shape[1] - num_old, *shape[2:]))
    background, total = exp_in_place(unknown)
    unknown *= prob[:, :1] / total
    gradient = space.tensor('gradient', *shape)
    torch.sub(student.prob[:, :1], unknown[:, :1], out=gradient[:, :1])
    torch.sub(student.prob[:, 1:num_old], prob[:, 1:], out=gradient[:, 1:num_old])
    torch.sub(student.prob[:, num_old:], unknown[:, 1:], out=gradient[:, num_old:])
    known = prob[:, 1:].mul_(scores[:, 1:num_old]).sum(1)
    return (student.log_total - prob[:, :1] * background)[:, 0] - known, gradient


def subtract_merged_target(student: LogSoftmax, loss: Tensor, label: Tensor, num_merged: int,
                           space: Workspace) -> Tensor:
    """MiB's cross-entropy of each pixel; ``student.prob`` becomes its gradient with respect to the logits.

    Args:
        student: (N, C, H, W).
        loss: (N, H, W) plain cross-entropy.
        label: (N, 1, H, W) below C.
        num_merged: number of channels that count as background.
    Returns:
        (N, H, W).
    """
    number, _, *size = student.prob.shape
    old = space.tensor('old', number, num_merged, *size).copy_(student.scores[:, :num_merged])
    background, total = exp_in_place(old)
    is_old = label < num_merged
    student.prob[:, :num_merged] -= old.mul_(is_old / total)
    student.prob.scatter_add_(1, label, is_old.to(old.dtype) - 1)
    return torch.where(is_old, student.log_total - background, loss[:, None])[:, 0]


def exp_in_place(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Replace (N, C, H, W) scores by ``exp(score - maximum of the pixel)``.

    Returns:
        (N, 1, H, W) log-sum-exp of the original scores, and (N, 1, H, W) sum of the new ones.
    """
    highest = scores.amax(1, keepdim=True)
    total = scores.sub_(highest).exp_().sum(1, keepdim=True)
    return total.log() + highest, total
