"""MiB (modelling the background)."""
from __future__ import annotations

import functools

from mmseg.registry import MODELS
from torch import Tensor, nn

from ...utils.errors import UserError
from ..heads import HeadLoss, class_heads, losses_of, replace_losses
from ..losses.label_merge import merge_old_classes, merge_old_labels
from ..student_pass import Part, fused_pass, fuses_distillation
from .base import IncrementalSegmentor


@MODELS.register_module()
class MiB(IncrementalSegmentor):
    """Unbiased cross-entropy and unbiased distillation (Cermelli et al., CVPR 2020).

    Background in the labels includes the old classes, and background in the teacher's output includes the new ones.
    Auxiliary heads have the same classes and use the unbiased cross-entropy, too; distillation only uses the main head.

    Args:
        loss_kd: distillation loss; the published weight is 10, and 100 for VOC 15-1.
        **kwargs: see ``IncrementalSegmentor``.
    """

    replaces_losses = True

    def __init__(self,
                 *,
                 loss_kd: dict = dict(type='UnbiasedDistillationLoss', loss_weight=10.0),
                 **kwargs) -> None:
        super().__init__(**kwargs)
        self.loss_kd = self.build_loss('loss_kd', loss_kd)
        if self.teacher is not None:
            check_softmax(self.student)
            replace_losses(self.student, functools.partial(UnbiasedLoss, num_old=self.num_old))

    @classmethod
    def check_segmentor(cls, segmentor: nn.Module, size: tuple[int, int]) -> None:
        super().check_segmentor(segmentor, size)
        check_softmax(segmentor)

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        if self.fuses_losses(UnbiasedLoss) and fuses_distillation(self.loss_kd):
            losses, terms, _ = fused_pass(self.student, inputs, data_samples, self.small_teacher_logits(inputs),
                                          Part(distil=True, num_merged=self.num_old), stand_in=UnbiasedLoss)
            losses['loss_kd'] = self.loss_kd.weighted(terms.mean_distillation(), self.num_old)
        else:
            teacher_logits = self.teacher_logits(inputs)
            losses, student_logits = self.student_loss(inputs, data_samples)
            losses['loss_kd'] = self.loss_kd(student_logits, teacher_logits)
        return losses


def check_softmax(segmentor: nn.Module) -> None:
    """Raise ``UserError`` if a head's loss uses sigmoids: MiB merges log-probabilities of a softmax."""
    for head in class_heads(segmentor):
        for loss in losses_of(head):
            if getattr(loss, 'use_sigmoid', False):
                raise UserError(f'{type(loss).__name__} of {type(head).__name__} has use_sigmoid=True, but this '
                                'method requires a softmax: set use_sigmoid=False, or choose another method.')


class UnbiasedLoss(HeadLoss):
    """A head's loss, computed on logits and labels whose old classes are merged into background.

    Args:
        inner, num_classes: see ``HeadLoss``.
        num_old: number of classes of the previous step, including background.
    """

    def __init__(self, inner: nn.Module, num_classes: int, num_old: int) -> None:
        super().__init__(inner, num_classes)
        self.num_old = num_old

    def class_loss(self, logits: Tensor, labels: Tensor, **kwargs) -> Tensor:
        return self.inner(merge_old_classes(logits, self.num_old), merge_old_labels(labels, self.num_old), **kwargs)
