from .method_hooks import ImportanceHook, PseudoLabelHook, TrainingStateHook
from .prediction import PredictionGridHook
from .resume import ResumeHook
from .seg_inversion import SegInversionHook
from .training import FiniteLossHook, IterationSeedHook

__all__ = [
    'FiniteLossHook', 'ImportanceHook', 'IterationSeedHook', 'PredictionGridHook', 'PseudoLabelHook', 'ResumeHook',
    'SegInversionHook', 'TrainingStateHook'
]
