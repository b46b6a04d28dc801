"""LwF (learning without forgetting), LwF-MC and ILT."""
from __future__ import annotations

from typing import Optional

from mmseg.registry import MODELS
from torch import Tensor, nn

from ..heads import HeadLoss, replace_losses
from ..losses.distillation import class_binary_cross_entropy
from ..student_pass import captured_stages, check_stages, paired_stages
from .base import IncrementalSegmentor


@MODELS.register_module()
class LwF(IncrementalSegmentor):
    """Fine-tuning plus distillation over the old classes (Li and Hoiem, ECCV 2016; weight from MiB's comparison).

    Args:
        loss_kd: distillation loss.
        **kwargs: see ``IncrementalSegmentor``.
    """

    def __init__(self,
                 *,
                 loss_kd: dict = dict(type='OldClassDistillationLoss', loss_weight=100.0),
                 **kwargs) -> None:
        super().__init__(**kwargs)
        self.loss_kd = self.build_loss('loss_kd', loss_kd)

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        teacher_logits = self.teacher_logits(inputs)
        losses, student_logits = self.student_loss(inputs, data_samples)
        losses['loss_kd'] = self.loss_kd(student_logits, teacher_logits)
        return losses


@MODELS.register_module()
class LwFMC(IncrementalSegmentor):
    """Binary cross-entropy on labels and on the teacher's sigmoids (Rebuffi et al., CVPR 2017, without exemplars).

    Step 0 uses binary cross-entropy too, so it cannot be shared with other methods. Binary cross-entropy replaces every
    loss of main and auxiliary heads on class logits and keeps its weight.

    Args:
        loss_kd: distillation loss; weight from MiB's comparison.
        classifier_start: as in ``IncrementalSegmentor``. The default is ``'random'``, since MiB's initialisation
            assumes a softmax.
        **kwargs: see ``IncrementalSegmentor``.
    """
    replaces_losses = True
    shares_first_step = False

    def __init__(self,
                 *,
                 loss_kd: dict = dict(type='OldClassBinaryDistillationLoss', loss_weight=10.0),
                 classifier_start: str = 'random',
                 **kwargs) -> None:
        super().__init__(classifier_start=classifier_start, **kwargs)
        self.loss_kd = self.build_loss('loss_kd', loss_kd)
        replace_losses(self.student, BinaryLoss)

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        teacher_logits = self.teacher_logits(inputs)
        losses, student_logits = self.student_loss(inputs, data_samples)
        losses['loss_kd'] = self.loss_kd(student_logits, teacher_logits)
        return losses


class BinaryLoss(HeadLoss):
    """Replaces a head's loss by binary cross-entropy, summed over classes and averaged over pixels."""

    @property
    def loss_name(self) -> str:
        return 'loss_bce'

    def class_loss(self,
                   logits: Tensor,
                   labels: Tensor,
                   weight: Optional[Tensor] = None,
                   ignore_index: int = 255,
                   reduction_override: Optional[str] = None,
                   **kwargs) -> Tensor:
        loss = getattr(self.inner, 'loss_weight', 1.0) * self.pixel_loss(logits, labels, ignore_index)
        if weight is not None:  # from the head's pixel sampler
            loss = loss * weight
        return loss if reduction_override == 'none' else loss.mean()

    def pixel_loss(self, logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
        """(N, H, W) loss of each pixel from (N, C, H, W) logits and (N, H, W) labels; 0 on ignored pixels."""
        return class_binary_cross_entropy(logits, labels, ignore_index)


@MODELS.register_module()
class ILT(LwF):
    """LwF plus mean squared error of the backbone's last feature map (Michieli and Zanuttigh, ICCVW 2019).

    Args:
        loss_features: loss on the last feature maps.
        **kwargs: see ``LwF``.
    """

    def __init__(self, *, loss_features: dict = dict(type='FeatureMSELoss', loss_weight=100.0), **kwargs) -> None:
        super().__init__(**kwargs)
        self.loss_features = self.build_loss('loss_features', loss_features)

    @classmethod
    def check_segmentor(cls, segmentor: nn.Module, size: tuple[int, int]) -> None:
        super().check_segmentor(segmentor, size)
        check_stages(segmentor, size, last=1)

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        with captured_stages(self.student) as student, captured_stages(self.teacher) as teacher:
            losses = super().incremental_loss(inputs, data_samples)
        (new, old), = paired_stages(student[-1:], teacher[-1:])
        losses['loss_features'] = self.loss_features(new, old)
        return losses
