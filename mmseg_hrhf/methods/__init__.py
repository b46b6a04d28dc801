from .base import IncrementalSegmentor
from .data_parallel import IncrementalDataParallel
from .finetune import FineTuning
from .hrhf import HRHF
from .optim_constructor import StudentOptimWrapperConstructor

__all__ = [
    'HRHF', 'FineTuning', 'IncrementalDataParallel', 'IncrementalSegmentor', 'StudentOptimWrapperConstructor'
]
