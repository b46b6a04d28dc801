from .base import TeacherLoss, build_loss
from .distillation import (
    DistillationLoss,
    FeatureMSELoss,
    OldClassBinaryDistillationLoss,
    OldClassDistillationLoss,
    PODLoss,
    UnbiasedDistillationLoss,
)

__all__ = [
    'DistillationLoss', 'FeatureMSELoss', 'OldClassBinaryDistillationLoss', 'OldClassDistillationLoss', 'PODLoss',
    'TeacherLoss', 'UnbiasedDistillationLoss', 'build_loss'
]
