"""HRHF+: unbiased losses on real images, selective distillation, synthetic images on top of a full batch."""
from __future__ import annotations

import functools
from typing import Callable, Optional

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...utils.errors import UserError
from ..heads import HeadLoss, replace_losses
from ..losses.base import TeacherLoss
from ..losses.distillation import distilled_pixels
from ..losses.label_merge import merge_labels, merge_old_classes, merge_old_labels
from ..student_pass import Part, fused_pass, fuses_distillation, num_real, stacked_labels, with_labels
from .base import IncrementalSegmentor
from .mib import check_softmax


@MODELS.register_module()
class HRHFPlus(IncrementalSegmentor):
    """HRHF with other losses on real images than on synthetic ones. It is ours, and not published elsewhere.

    Real images: MiB's unbiased cross-entropy and unbiased distillation. Pixels with the label of a new class are not
    distilled: the teacher calls them by an old name, which contradicts the label.

    Synthetic images: cross-entropy on the teacher's labels, and distillation (eq. 3). Without synthetic images, the
    method trains on the real ones alone.

    Use it with ``replay=dict(ratio='2:1', added=True)``: synthetic images then do not replace real ones.

    Args:
        loss_kd: distillation loss of real images.
        loss_kd_fake: distillation loss of synthetic images.
        fake_weight: weight of the cross-entropy of synthetic images.
        **kwargs: see ``IncrementalSegmentor``.
    """
    uses_fake_images = True
    replaces_losses = True

    def __init__(self,
                 *,
                 loss_kd: dict = dict(type='UnbiasedDistillationLoss', loss_weight=10.0),
                 loss_kd_fake: dict = dict(type='DistillationLoss', loss_weight=1.0),
                 fake_weight: float = 1.0,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        if not fake_weight >= 0:
            raise UserError(f'method.fake_weight={fake_weight} must not be negative.')
        self.loss_kd = self.build_loss('loss_kd', loss_kd)
        self.loss_kd_fake = self.build_loss('loss_kd_fake', loss_kd_fake)
        self.fake_weight = fake_weight
        self._num_real = 0  # in the current batch
        if self.teacher is not None:
            check_softmax(self.student)
            replace_losses(self.student, functools.partial(
                RealFakeLoss, num_old=self.num_old, fake_weight=fake_weight, num_real=lambda: self._num_real))

    @classmethod
    def check_segmentor(cls, segmentor: nn.Module, size: tuple[int, int]) -> None:
        super().check_segmentor(segmentor, size)
        check_softmax(segmentor)

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        real = self._num_real = num_real(data_samples)
        fakes, losses_kd = len(data_samples) - real, (self.loss_kd, self.loss_kd_fake)
        distilled: list[Optional[Tensor]] = [None, None]
        if self.fuses_losses(RealFakeLoss) and all(map(fuses_distillation, losses_kd)):
            parts = [Part(slice(real), distil=True, num_merged=self.num_old, skip_new=True),
                     Part(slice(real, None), relabel=merge_labels, distil=True, weight=self.fake_weight)]
            losses, terms, _ = fused_pass(self.student, inputs, data_samples, self.small_teacher_logits(inputs),
                                          *[part for part in parts if data_samples[part.images]],
                                          stand_in=RealFakeLoss)
            distilled = [loss.weighted(terms.mean_distillation(part.images), self.num_old)
                         for loss, part in zip(losses_kd, parts)]
        else:
            teacher_logits, labels = self.teacher_logits(inputs), stacked_labels(data_samples)
            merged = torch.cat([labels[:real], merge_labels(labels[real:], teacher_logits[real:])])
            losses, student_logits = self.student_loss(inputs, with_labels(data_samples, merged))
            wanted = distilled_pixels(labels, self.num_old)
            distilled = [selective(loss, student_logits[images], teacher_logits[images], wanted[images])
                         for loss, images in zip(losses_kd, (slice(real), slice(real, None)))]
        if real:
            losses['loss_kd'] = distilled[0]
        if fakes:
            losses['loss_kd_fake'] = distilled[1]
        return losses


def selective(loss: TeacherLoss, student: Tensor, teacher: Tensor, wanted: Tensor) -> Tensor:
    """A loss of the ``wanted`` pixels, times their share of all pixels.

    Args:
        loss: mean over the pixels it gets.
        student, teacher: (N, C, H, W) and (N, K, H, W) logits.
        wanted: (N, H, W) booleans.
    Returns:
        Scalar; 0 if no pixel is wanted.
    """
    number = int(wanted.sum())
    if not number:
        return 0 * student.sum()
    chosen = (logits.movedim(1, -1)[wanted].T[None, :, None] for logits in (student, teacher))
    return loss(*chosen) * (number / wanted.numel())


class RealFakeLoss(HeadLoss):
    """A head's loss: unbiased (MiB) on real images, plus ``fake_weight`` times that of synthetic images.

    Args:
        inner, num_classes: see ``HeadLoss``.
        num_old: number of classes of the previous step, including background.
        fake_weight: weight of the synthetic images' loss.
        num_real: returns the number of real images in the batch, which come first.
    """

    def __init__(self, inner: nn.Module, num_classes: int, num_old: int, fake_weight: float,
                 num_real: Callable[[], int]) -> None:
        super().__init__(inner, num_classes)
        self.num_old, self.fake_weight, self.num_real = num_old, fake_weight, num_real

    def class_loss(self, logits: Tensor, labels: Tensor, weight: Optional[Tensor] = None, **kwargs) -> Tensor:
        real = self.num_real()
        logits_of = merge_old_classes(logits[:real], self.num_old), logits[real:]
        labels_of = merge_old_labels(labels[:real], self.num_old), labels[real:]
        weight_of = (None, None) if weight is None else (weight[:real], weight[real:])
        losses = [
            share * self.inner(*part, weight=pixel_weight, **kwargs)
            for share, pixel_weight, *part in zip((1.0, self.fake_weight), weight_of, logits_of, labels_of)
            if len(part[0])
        ]
        return torch.stack(losses).sum(0)
