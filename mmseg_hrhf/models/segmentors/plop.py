"""PLOP: distillation of pooled outputs (POD) and pseudo-labels."""
from __future__ import annotations

import functools
import math
from typing import Callable, Optional

import torch
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..heads import HeadLoss, replace_losses
from ..losses.distillation import fold_new_logits
from ..losses.label_merge import entropy_histogram, median_thresholds, pseudo_labels, sure_share
from ..losses.upsampling import pool_upsampled
from ..student_pass import Part, captured_stages, check_stages, fused_pass, paired_stages, stacked_labels, with_labels
from .base import IncrementalSegmentor

# Lower limit of the entropy thresholds.
_MIN_THRESHOLD = 0.001


@MODELS.register_module()
class PLOP(IncrementalSegmentor):
    """Local POD on features and logits, and pseudo-labels where the teacher is certain (Douillard et al., CVPR 2021).

    POD compares the features of all backbone stages, and the logits at the resolution of the last stage. It is scaled
    by the square root of all classes / new classes. The segmentation loss of an image is weighted by the fraction of
    its background on which the teacher is certain. Auxiliary heads use the same labels and weights. Thresholds are
    medians over the step's images, computed before its first iteration (``PseudoLabelHook``).

    Args:
        loss_pod: distance between the features of student and teacher, for each stage.
        loss_pod_logits: distance between their logits, with the student's new classes folded into background.
        **kwargs: see ``IncrementalSegmentor``.
    """
    replaces_losses = True
    hooks = ('PseudoLabelHook', 'TrainingStateHook')

    def __init__(self,
                 *,
                 loss_pod: dict = dict(type='PODLoss', loss_weight=0.01),
                 loss_pod_logits: dict = dict(type='PODLoss', loss_weight=0.0005),
                 **kwargs) -> None:
        super().__init__(**kwargs)
        self.loss_pod = self.build_loss('loss_pod', loss_pod)
        self.loss_pod_logits = self.build_loss('loss_pod_logits', loss_pod_logits)
        self.thresholds: Optional[Tensor] = None
        self._image_weight: Optional[Tensor] = None
        if not self.first_step:
            replace_losses(self.student, functools.partial(ImageWeightedLoss, image_weight=lambda: self._image_weight))

    @classmethod
    def check_segmentor(cls, segmentor: nn.Module, size: tuple[int, int]) -> None:
        super().check_segmentor(segmentor, size)
        check_stages(segmentor, size)

    def entropy_histogram(self, inputs: Tensor, data_samples: list) -> Tensor:
        """(K, bins) histogram of the teacher's entropy on the background of a batch."""
        return entropy_histogram(self.teacher_logits(inputs), stacked_labels(data_samples))

    def set_thresholds(self, histogram: Tensor) -> None:
        """Set the thresholds to the medians of ``entropy_histogram``, summed over all images."""
        self._take(median_thresholds(histogram.cpu(), _MIN_THRESHOLD))

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        fused = self.fuses_losses(ImageWeightedLoss)
        with captured_stages(self.teacher) as old_stages:
            old = self.small_teacher_logits(inputs) if fused else self.teacher_logits(inputs)
        with captured_stages(self.student) as new_stages:
            if fused:
                losses, _, new = fused_pass(self.student, inputs, data_samples, old, Part(relabel=self._relabel),
                                            weigh=self._weigh, stand_in=ImageWeightedLoss)
            else:
                raw = stacked_labels(data_samples)
                labels = self._relabel(raw, old)
                self._weigh(raw, labels)
                losses, new = self.student_loss(inputs, with_labels(data_samples, labels))
        num_old, num_classes = self.num_old, self.student.num_classes
        distances = [self.loss_pod(*pair) for pair in paired_stages(new_stages, old_stages)]
        size, pooled = data_samples[0].gt_sem_seg.shape, old_stages[-1].shape[2:]
        new, old = (pool_upsampled(logits, size, pooled, self.student.align_corners) for logits in (new, old))
        distances.append(self.loss_pod_logits(fold_new_logits(new, num_old), old))
        losses['loss_pod'] = math.sqrt(num_classes / (num_classes - num_old)) * torch.stack(distances).mean()
        return losses

    def _relabel(self, labels: Tensor, teacher_logits: Tensor) -> Tensor:
        return pseudo_labels(labels, teacher_logits, self.thresholds)

    def _weigh(self, labels: Tensor, named: Tensor) -> Tensor:
        self._image_weight = sure_share(labels, named)
        return self._image_weight

    def training_state(self) -> dict:
        return {} if self.thresholds is None else dict(thresholds=self.thresholds.cpu())

    def load_training_state(self, state: dict) -> None:
        self._take(state.get('thresholds'))

    def _take(self, thresholds: Optional[Tensor]) -> None:
        # On the device that uses them: a copy in each iteration would synchronise host and accelerator.
        device = next(self.student.parameters()).device
        self.thresholds = None if thresholds is None else thresholds.to(device)


class ImageWeightedLoss(HeadLoss):
    """A head's loss with a weight for each image.

    Cross-entropy takes the weight of each pixel. Other losses, which may not support pixel weights, are computed image
    by image.

    Args:
        inner, num_classes: see ``HeadLoss``.
        image_weight: returns the (N,) weights of the batch.
    """

    def __init__(self, inner: nn.Module, num_classes: int, image_weight: Callable[[], Tensor]) -> None:
        super().__init__(inner, num_classes)
        self.image_weight = image_weight

    def class_loss(self, logits: Tensor, labels: Tensor, weight: Optional[Tensor] = None, **kwargs) -> Tensor:
        if isinstance(self.inner, CrossEntropyLoss):
            weights = self.image_weight().view(-1, *[1] * (labels.ndim - 1)).expand(labels.shape)
            return self.inner(logits, labels, weight=weights if weight is None else weight * weights, **kwargs)
        if weight is not None:
            kwargs['weight'] = weight
        losses = []
        for i, share in enumerate(self.image_weight()):
            of_image = {key: value[i:i + 1] if key == 'weight' else value for key, value in kwargs.items()}
            losses.append(share * self.inner(logits[i:i + 1], labels[i:i + 1], **of_image))
        if kwargs.get('reduction_override') == 'none':
            return torch.cat(losses)
        return torch.stack(losses).mean(0)
