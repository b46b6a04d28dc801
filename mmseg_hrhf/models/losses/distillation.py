"""Distillation of logits (eq. 3, MiB, LwF, LwF-MC, DKD) and of features (ILT, PLOP)."""
from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from ...utils.errors import UserError
from .base import TeacherLoss
from .upsampling import at_least_float32


def rearrange_probability(log_prob: Tensor, num_old: int) -> Tensor:
    """Merge classes that the teacher does not have into background (Probability Rearrange, eq. 3).

    Args:
        log_prob: (N, C, H, W) log-probabilities of the student; channel 0 is background.
        num_old: number of the teacher's classes, including background; ``1 <= num_old <= C``.
    Returns:
        (N, num_old, H, W) log-probabilities.
    """
    if not 1 <= num_old <= log_prob.shape[1]:
        raise UserError(f"num_old={num_old} must be between 1 and the student's {log_prob.shape[1]} classes.")
    background = torch.cat([log_prob[:, :1], log_prob[:, num_old:]], dim=1)
    return torch.cat([background.logsumexp(1, keepdim=True), log_prob[:, 1:num_old]], dim=1)


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy of the rearranged student against the teacher's probabilities, mean over pixels (eq. 3).

    Computed in at least float32, regardless of autocast.

    Args:
        student_logits: (N, C, H, W).
        teacher_logits: (N, K, H, W) with K <= C; it receives no gradient.
    Returns:
        Scalar in nats per pixel.
    """
    student_logits, teacher_logits = at_least_float32(student_logits), at_least_float32(teacher_logits)
    log_prob = rearrange_probability(student_logits.log_softmax(1), teacher_logits.shape[1])
    return -(teacher_logits.detach().softmax(1) * log_prob).sum(1).mean()


def distilled_pixels(labels: Tensor, num_old: int, ignore_index: int = 255) -> Tensor:
    """Boolean (N, H, W): True where ``labels`` has no class that a teacher with ``num_old`` classes lacks."""
    return (labels < num_old) | (labels == ignore_index)


@MODELS.register_module()
class DistillationLoss(TeacherLoss):
    """Distillation of HRHF (eq. 3): ``-mean over pixels of sum over c of q_c log p'_c``.

    q is the teacher's softmax over its K classes; p' is the student's softmax over its C classes, with the new classes
    merged into background (see ``rearrange_probability``).

    Args:
        loss_weight: lambda of eq. 5.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar from (N, C, H, W) and (N, K, H, W) logits, K <= C."""
        return self.weighted(distillation_loss(student, teacher), teacher.shape[1])

    def weighted(self, distillation: Tensor, num_old: int) -> Tensor:
        """Scalar loss from the value of ``distillation_loss``, which ``fused.py`` computes too.

        Args:
            distillation: scalar, nats per pixel.
            num_old: K.
        """
        return self.loss_weight * distillation


@MODELS.register_module()
class UnbiasedDistillationLoss(DistillationLoss):
    """Distillation of MiB: ``DistillationLoss`` divided by the number K of old classes.

    Args:
        loss_weight: weight of the loss.
    """

    def weighted(self, distillation: Tensor, num_old: int) -> Tensor:
        return super().weighted(distillation, num_old) / num_old


def old_class_distillation(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy of the student's softmax over the old classes against the teacher's (Li and Hoiem, LwF).

    Args:
        student_logits: (N, C, H, W).
        teacher_logits: (N, K, H, W) with K <= C; it receives no gradient.
    Returns:
        Scalar: mean over pixels **and** classes, as in MiB's comparison, for which the weight 100 was published.
    """
    student_logits, teacher_logits = at_least_float32(student_logits), at_least_float32(teacher_logits.detach())
    log_prob = student_logits[:, :teacher_logits.shape[1]].log_softmax(1)
    return -(teacher_logits.softmax(1) * log_prob).mean()


@MODELS.register_module()
class OldClassDistillationLoss(TeacherLoss):
    """Distillation of LwF: ``-mean over pixels and classes of q_c log p_c``.

    q is the teacher's softmax over its K classes; p is the student's softmax over the same classes.

    Args:
        loss_weight: weight of the loss.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar from (N, C, H, W) and (N, K, H, W) logits, K <= C."""
        return self.loss_weight * old_class_distillation(student, teacher)


def old_class_binary_distillation(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Binary cross-entropy of the student's old-class sigmoids against the teacher's (Rebuffi et al., iCaRL).

    Args:
        student_logits: (N, C, H, W).
        teacher_logits: (N, K, H, W) with K <= C; it receives no gradient.
    Returns:
        Scalar: sum over the K classes, mean over pixels.
    """
    student_logits, teacher_logits = at_least_float32(student_logits), at_least_float32(teacher_logits.detach())
    num_old = teacher_logits.shape[1]
    return num_old * F.binary_cross_entropy_with_logits(student_logits[:, :num_old], teacher_logits.sigmoid())


@MODELS.register_module()
class OldClassBinaryDistillationLoss(TeacherLoss):
    """Distillation of LwF-MC and DKD: ``-mean over pixels of sum over c of q_c log p_c + (1 - q_c) log(1 - p_c)``.

    q are the teacher's K sigmoids; p are the student's sigmoids of the same classes.

    Args:
        loss_weight: weight of the loss.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar from (N, C, H, W) and (N, K, H, W) logits, K <= C."""
        return self.loss_weight * old_class_binary_distillation(student, teacher)


def class_binary_cross_entropy(logits: Tensor,
                               labels: Tensor,
                               ignore_index: int = 255,
                               first: int = 0,
                               positive_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy of classes against the one-hot label, summed over classes (LwF-MC; DKD, eq. 3).

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W) integers below C, or ``ignore_index``.
        first: first class of the sum; earlier ones only count as "another class".
        positive_weight: weight of the pixels of a class in its own term.
    Returns:
        (N, H, W), 0 on ignored pixels.
    """
    logits = at_least_float32(logits[:, first:])
    classes = torch.arange(first, first + logits.shape[1], device=labels.device)
    one_hot = (labels[:, None] == classes.view(-1, *[1] * (labels.ndim - 1))).to(logits)
    weight = None if positive_weight == 1 else logits.new_full((), positive_weight)
    loss = F.binary_cross_entropy_with_logits(logits, one_hot, reduction='none', pos_weight=weight)
    return loss.sum(1) * (labels != ignore_index)


def decomposed_logits(features: Tensor, weight: Tensor) -> Tensor:
    """Positive and negative reasoning scores of a classifier without its bias (DKD, eq. 6).

    The positive score of class c is the sum of the positive elements of ``u * w_c``, the negative score that of the
    negative ones. Each is summed separately: their difference from the logit would cancel in half precision.

    Args:
        features: u, (N, D, h, w).
        weight: (C, D, 1, 1) of a 1x1 convolution.
    Returns:
        (N, 2 C, h, w): the positive scores of all classes, then the negative ones.
    """
    above, below = weight.relu(), (-weight).relu()
    kernel = torch.cat([torch.cat([above, below], 1), -torch.cat([below, above], 1)])
    return F.conv2d(torch.cat([features.relu(), (-features).relu()], 1), kernel)


@MODELS.register_module()
class FeatureMSELoss(TeacherLoss):
    """Feature distillation of ILT: ``mean of (f - g)^2`` over all elements of the student's f and the teacher's g.

    Args:
        loss_weight: weight of the loss.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar from two (N, C, h, w) maps."""
        return self.loss_weight * F.mse_loss(at_least_float32(student), at_least_float32(teacher.detach()))


SCALES = (1, 2, 4)


def local_pod(features: Tensor, scales: Sequence[int] = SCALES) -> Tensor:
    """Means of squared features over the rows and columns of regions at several scales (PLOP, eq. 1 to 4).

    Args:
        features: (N, C, H, W).
        scales: regions per side. A scale with more regions than pixels per side is skipped. Remaining rows and columns
            at the bottom and right are ignored.
    Returns:
        (N, E) embedding.
    """
    features = at_least_float32(features).square()
    height, width = features.shape[2:]
    parts = []
    for scale in scales:
        rows, columns = height // scale, width // scale
        if rows and columns:
            regions = features[..., :scale * rows, :scale * columns]
            regions = regions.unflatten(3, (scale, columns)).unflatten(2, (scale, rows))  # (N, C, s, rows, s, columns)
            parts += [regions.mean(5).flatten(1), regions.mean(3).flatten(1)]
    return torch.cat(parts, dim=1)


def pod_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Euclidean distance between the embeddings, mean over images; not normalised, as in PLOP's experiments.

    Args:
        student, teacher: (N, C, H, W); ``teacher`` receives no gradient.
    Returns:
        Scalar.
    """
    return torch.linalg.vector_norm(local_pod(student) - local_pod(teacher.detach()), dim=1).mean()


@MODELS.register_module()
class PODLoss(TeacherLoss):
    """Local POD of PLOP: ``mean over images of |e(f) - e(g)|``, with ``e`` from ``local_pod``.

    Args:
        loss_weight: weight of the loss.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar from two (N, C, h, w) maps, of features or of logits."""
        return self.loss_weight * pod_distance(student, teacher)


def fold_new_logits(logits: Tensor, num_old: int) -> Tensor:
    """Add the logits of new classes to the background logit, for comparison with the teacher: (N, num_old, H, W)."""
    background = logits[:, :1] + logits[:, num_old:].sum(1, keepdim=True)
    return torch.cat([background, logits[:, 1:num_old]], dim=1)
