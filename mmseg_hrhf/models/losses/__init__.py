from .base import TeacherLoss, build_loss
from .distillation import (
    DistillationLoss,
    OldClassBinaryDistillationLoss,
    OldClassDistillationLoss,
    UnbiasedDistillationLoss,
)
from .features import FeatureMSELoss, PODLoss

__all__ = [
    'DistillationLoss', 'FeatureMSELoss', 'OldClassBinaryDistillationLoss', 'OldClassDistillationLoss', 'PODLoss',
    'TeacherLoss', 'UnbiasedDistillationLoss', 'build_loss'
]
