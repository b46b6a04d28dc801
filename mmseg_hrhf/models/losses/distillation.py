"""Distillation between networks that disagree on what background is (eq. 3)."""
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
    """Fold classes the teacher does not know into background (Probability Rearrange, eq. 3).

    Args:
        log_prob: (N, C, H, W) log-probabilities of the student; channel 0 is background.
        num_old: classes the teacher knows, background included; ``1 <= num_old <= C``.
    Returns:
        (N, num_old, H, W) log-probabilities.
    """
    if not 1 <= num_old <= log_prob.shape[1]:
        raise UserError(f'num_old={num_old} must lie between 1 and the {log_prob.shape[1]} classes of the student.')
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


@MODELS.register_module()
class DistillationLoss(TeacherLoss):
    """Distillation of HRHF (eq. 3): ``-mean over pixels of sum over c of q_c log p'_c``.

    q is the teacher's softmax over its K classes, p' the student's over its C, with the new classes folded into
    background (see ``rearrange_probability``).

    Args:
        loss_weight: lambda of eq. 5.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar from (N, C, H, W) and (N, K, H, W) logits, K <= C."""
        return self.weighted(distillation_loss(student, teacher), teacher.shape[1])

    def weighted(self, distillation: Tensor, num_old: int) -> Tensor:
        """Scalar loss from ``distillation_loss``, however that was computed (see ``fused.py``).

        Args:
            distillation: scalar, nats per pixel.
            num_old: K.
        """
        return self.loss_weight * distillation


@MODELS.register_module()
class UnbiasedDistillationLoss(DistillationLoss):
    """Distillation of MiB: as ``DistillationLoss``, but a mean over pixels and over the K classes.

    Args:
        loss_weight: factor of the loss.
    """

    def weighted(self, distillation: Tensor, num_old: int) -> Tensor:
        return super().weighted(distillation, num_old) / num_old


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


@MODELS.register_module()
class OldClassDistillationLoss(TeacherLoss):
    """Distillation of LwF: ``-mean over pixels and classes of q_c log p_c``.

    q is the teacher's softmax over its K classes, p the student's over the same K.

    Args:
        loss_weight: factor of the loss.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar from (N, C, H, W) and (N, K, H, W) logits, K <= C."""
        return self.loss_weight * old_class_distillation(student, teacher)


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


@MODELS.register_module()
class OldClassBinaryDistillationLoss(TeacherLoss):
    """Distillation of LwF-MC: ``-mean over pixels of sum over c of q_c log p_c + (1 - q_c) log(1 - p_c)``.

    q are the teacher's K sigmoids, p the student's of the same classes.

    Args:
        loss_weight: factor of the loss.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar from (N, C, H, W) and (N, K, H, W) logits, K <= C."""
        return self.loss_weight * old_class_binary_distillation(student, teacher)


def class_binary_cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Binary cross-entropy of every class against the one-hot label, summed over classes (LwF-MC).

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W) integers below C, or ``ignore_index``.
    Returns:
        (N, H, W), 0 on ignored pixels.
    """
    logits = at_least_float32(logits)
    known = labels != ignore_index
    one_hot = F.one_hot(labels.where(known, labels.new_zeros(())), logits.shape[1]).movedim(-1, 1).to(logits)
    return F.binary_cross_entropy_with_logits(logits, one_hot, reduction='none').sum(1) * known


@MODELS.register_module()
class FeatureMSELoss(TeacherLoss):
    """Feature distillation of ILT: ``mean of (f - g)^2`` over all elements of the student's f and the teacher's g.

    Args:
        loss_weight: factor of the loss.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar from two (N, C, h, w) maps."""
        return self.loss_weight * F.mse_loss(at_least_float32(student), at_least_float32(teacher.detach()))


SCALES = (1, 2, 4)


def local_pod(features: Tensor, scales: Sequence[int] = SCALES) -> Tensor:
    """Means of squared features over the rows and over the columns of ever smaller regions (PLOP, eq. 1 to 4).

    Args:
        features: (N, C, H, W).
        scales: regions per side; a scale of which no region holds a pixel is left out. Rows and columns that do not
            divide evenly are left out at the lower right.
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
    """Scalar: Euclidean distance of the embeddings, mean over images; not normalised, as in PLOP's experiments.

    Args:
        student, teacher: (N, C, H, W); no gradient flows into ``teacher``.
    """
    return torch.linalg.vector_norm(local_pod(student) - local_pod(teacher.detach()), dim=1).mean()


@MODELS.register_module()
class PODLoss(TeacherLoss):
    """Local POD of PLOP: ``mean over images of |e(f) - e(g)|``, with ``e`` from ``local_pod``.

    Args:
        loss_weight: factor of the loss.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar from two (N, C, h, w) maps, of features or of logits."""
        return self.loss_weight * pod_distance(student, teacher)


def fold_new_logits(logits: Tensor, num_old: int) -> Tensor:
    """(N, num_old, H, W): the logits of new classes added to background's, so that they can be compared with the
    teacher's."""
    background = logits[:, :1] + logits[:, num_old:].sum(1, keepdim=True)
    return torch.cat([background, logits[:, 1:num_old]], dim=1)
