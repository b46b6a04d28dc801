"""ILT: distillation of outputs and of features."""
from __future__ import annotations

import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..losses.precision import at_least_float32
from .loss_weight import check_weight
from .lwf import LwF
from .stages import captured_stages, check_stages, paired_stages


@MODELS.register_module()
class ILT(LwF):
    """LwF plus the mean squared distance of the backbone's last feature map (Michieli and Zanuttigh, ICCVW 2019).

    Args:
        feature_weight: of the distance.
        **kwargs: see :class:`LwF`.
    """

    def __init__(self, *, feature_weight: float = 100.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.feature_weight = check_weight('feature_weight', feature_weight)

    @classmethod
    def check_segmentor(cls, segmentor: nn.Module, size: tuple[int, int]) -> None:
        super().check_segmentor(segmentor, size)
        check_stages(segmentor, size, last=1)

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        with captured_stages(self.student) as student, captured_stages(self.teacher) as teacher:
            losses = super().incremental_loss(inputs, data_samples)
        (new, old), = paired_stages(student[-1:], teacher[-1:])
        distance = F.mse_loss(at_least_float32(new), at_least_float32(old))
        losses['loss_features'] = self.feature_weight * distance
        return losses
