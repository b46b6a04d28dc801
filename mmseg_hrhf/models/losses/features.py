"""Distillation of features (ILT, PLOP)."""
from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from .base import TeacherLoss
from .upsampling import at_least_float32


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
