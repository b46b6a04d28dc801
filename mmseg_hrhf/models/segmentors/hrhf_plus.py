"""HRHF+: unbiased losses and selective distillation of real images; synthetic images where real ones lack classes."""
from __future__ import annotations

import functools
from typing import Callable, Optional

import torch
from mmengine.dist import all_reduce
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...utils.errors import UserError
from ..heads import HeadLoss, replace_losses
from ..losses.base import TeacherLoss
from ..losses.distillation import distilled_pixels
from ..losses.label_merge import merge_labels, merge_old_classes, merge_old_labels, predicted_class
from ..student_pass import Part, fused_pass, fuses_distillation, num_real, stacked_labels, with_labels
from .base import IncrementalSegmentor
from .mib import check_softmax
from .plop import ImageWeightedLoss


@MODELS.register_module()
class HRHFPlus(IncrementalSegmentor):
    """HRHF with other losses on real images than on synthetic ones. It is ours, and not published elsewhere.

    Real images: MiB's unbiased cross-entropy and unbiased distillation. With ``selective``, pixels with the label of a
    new class are not distilled: the teacher calls them by an old name, which contradicts the label.

    Synthetic images: cross-entropy on the teacher's labels, and distillation (eq. 3). With ``balanced``, an image is
    weighted by how much the batch's real images lack its classes (``lack_of_classes``). Without synthetic images, the
    method trains on the real ones alone.

    Use it with ``replay=dict(ratio='2:1', added=True)``: synthetic images then do not replace real ones.

    Args:
        loss_kd: distillation loss of real images.
        loss_kd_fake: distillation loss of synthetic images.
        selective: leave pixels of new classes out of distillation; False: distil all pixels.
        fake_weight: weight of both losses of synthetic images.
        balanced: weight synthetic images; False: all count the same.
        **kwargs: see ``IncrementalSegmentor``.
    """
    uses_fake_images = True
    replaces_losses = True

    def __init__(self,
                 *,
                 loss_kd: dict = dict(type='UnbiasedDistillationLoss', loss_weight=10.0),
                 loss_kd_fake: dict = dict(type='DistillationLoss', loss_weight=1.0),
                 selective: bool = True,
                 fake_weight: float = 1.0,
                 balanced: bool = True,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        if not fake_weight >= 0:
            raise UserError(f'method.fake_weight={fake_weight} must not be negative.')
        self.loss_kd = self.build_loss('loss_kd', loss_kd)
        self.loss_kd_fake = self.build_loss('loss_kd_fake', loss_kd_fake)
        self.selective, self.fake_weight, self.balanced = selective, fake_weight, balanced
        self._weights: Tensor = torch.empty(0)  # of the synthetic images of the current batch
        if self.teacher is not None:
            check_softmax(self.student)
            replace_losses(self.student, functools.partial(
                RealFakeLoss, num_old=self.num_old, fake_weights=lambda: self._weights))

    @classmethod
    def check_segmentor(cls, segmentor: nn.Module, size: tuple[int, int]) -> None:
        super().check_segmentor(segmentor, size)
        check_softmax(segmentor)

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        real, labels = num_real(data_samples), stacked_labels(data_samples)
        fused = self.fuses_losses(RealFakeLoss) and all(map(fuses_distillation, (self.loss_kd, self.loss_kd_fake)))
        losses, distilled = (self._fused if fused else self._readable)(inputs, data_samples, labels, real)
        if real:
            losses['loss_kd'] = distilled[0]
        if real < len(labels):
            losses['loss_kd_fake'] = distilled[1]
        return losses

    def _fused(self, inputs: Tensor, data_samples: list, labels: Tensor, real: int) -> tuple[dict, list[Tensor]]:
        seen = labels.new_zeros(self.num_old)

        def count(labels: Tensor, teacher_logits: Tensor) -> Tensor:
            seen.add_(self._count_old(labels, teacher_logits))
            return labels

        def weigh(labels: Tensor, named: Tensor) -> Tensor:
            self._weights = self._weigh(seen, labels[:real], named[real:])
            return torch.cat([self._weights.new_ones(real), self._weights])

        weighted = self.balanced and real < len(labels)
        parts = [Part(slice(real), count if weighted else None, distil=True, num_merged=self.num_old,
                      skip_new=self.selective),
                 Part(slice(real, None), merge_labels, distil=True)]
        losses, terms, _ = fused_pass(self.student, inputs, data_samples, self.small_teacher_logits(inputs),
                                      *[part for part in parts if data_samples[part.images]], weigh=weigh,
                                      stand_in=RealFakeLoss)
        means = terms.distillation / labels[0].numel()
        return losses, [self.loss_kd.weighted(means[:real].mean(), self.num_old),
                        self.loss_kd_fake.weighted((self._weights * means[real:]).mean(), self.num_old)]

    def _readable(self, inputs: Tensor, data_samples: list, labels: Tensor, real: int) -> tuple[dict, list[Tensor]]:
        old = self.teacher_logits(inputs)
        seen = self._count_old(labels[:real], old[:real])
        named = torch.cat([labels[:real], merge_labels(labels[real:], old[real:])])
        self._weights = self._weigh(seen, labels[:real], named[real:])
        losses, new = self.student_loss(inputs, with_labels(data_samples, named))
        of_fakes = [weight * self.loss_kd_fake(new[i:i + 1], old[i:i + 1])
                    for i, weight in enumerate(self._weights, real)]
        if self.selective:
            of_real = distil_pixels(self.loss_kd, new[:real], old[:real], distilled_pixels(labels[:real], self.num_old))
        else:
            of_real = self.loss_kd(new[:real], old[:real])
        return losses, [of_real,
                        torch.stack(of_fakes).mean() if of_fakes else new.sum()]

    def _count_old(self, labels: Tensor, teacher_logits: Tensor) -> Tensor:
        """(K,) numbers of pixels that the teacher assigns to each class, where no new class is labelled."""
        # Counting by mask or bincount would synchronise host and accelerator.
        wanted = distilled_pixels(labels, self.num_old).flatten().long()
        return wanted.new_zeros(self.num_old).scatter_add_(0, predicted_class(teacher_logits).flatten(), wanted)

    def _weigh(self, seen: Tensor, labels: Tensor, named: Tensor) -> Tensor:
        """(n,) weights of synthetic images, see ``lack_of_classes``.

        Args:
            seen: (K,) of this process, see ``_count_old``.
            labels: (N - n, H, W) of the real images.
            named: (n, H, W) the teacher's classes of the synthetic images.
        """
        if not (self.balanced and len(named)):
            return torch.full((len(named), ), self.fake_weight, device=named.device)
        counts = torch.cat([seen, (~distilled_pixels(labels, self.num_old)).sum()[None]])
        all_reduce(counts)  # those of the whole batch
        return self.fake_weight * lack_of_classes(
            counts[:-1], counts[-1] / (self.student.num_classes - self.num_old), named)


def lack_of_classes(seen: Tensor, new: Tensor, named: Tensor) -> Tensor:
    """How much real images lack the old classes that synthetic images show.

    Old class c is lacking by ``max(0, 1 - seen_c / new)``; an image by the mean of its foreground pixels.

    Args:
        seen: (K,) pixels of each old class in the real images; background first.
        new: pixels of a new class in the real images, mean over the new classes.
        named: (n, H, W) old classes of the synthetic images' pixels.
    Returns:
        (n,) between 0 and 1; 0 for an image without foreground.
    """
    lack = (1 - seen / new.clamp(min=1)).clamp(min=0)
    shown = (named > 0) & (named < len(lack))  # 255: padding
    return (lack[named.where(shown, 0)] * shown).sum((1, 2)) / shown.sum((1, 2)).clamp(min=1)


def distil_pixels(loss: TeacherLoss, student: Tensor, teacher: Tensor, wanted: Tensor) -> Tensor:
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
    """A head's loss: unbiased (MiB) on real images, plus that of the weighted synthetic images.

    Args:
        inner, num_classes: see ``HeadLoss``.
        num_old: number of classes of the previous step, including background.
        fake_weights: returns the (n,) weights of the batch's synthetic images, which come last.
    """

    def __init__(self, inner: nn.Module, num_classes: int, num_old: int, fake_weights: Callable[[], Tensor]) -> None:
        super().__init__(inner, num_classes)
        self.num_old, self.fake_weights = num_old, fake_weights
        self.of_fakes = ImageWeightedLoss(inner, num_classes, fake_weights)

    def class_loss(self, logits: Tensor, labels: Tensor, weight: Optional[Tensor] = None, **kwargs) -> Tensor:
        real = len(labels) - len(self.fake_weights())
        of_real, of_fakes = ({}, {}) if weight is None else (dict(weight=weight[:real]), dict(weight=weight[real:]))
        losses = []
        if real:
            losses.append(self.inner(merge_old_classes(logits[:real], self.num_old),
                                     merge_old_labels(labels[:real], self.num_old), **of_real, **kwargs))
        if real < len(labels):
            losses.append(self.of_fakes(logits[real:], labels[real:], **of_fakes, **kwargs))
        # A pixel sampler asks for the loss of each pixel.
        return torch.cat(losses) if kwargs.get('reduction_override') == 'none' else torch.stack(losses).sum(0)
