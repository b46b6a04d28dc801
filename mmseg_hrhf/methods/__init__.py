from .base import IncrementalSegmentor
from .data_parallel import IncrementalDataParallel
from .finetune import FineTuning
from .hrhf import HRHF
from .ilt import ILT
from .joint import Joint
from .lwf import LwF
from .lwf_mc import LwFMC
from .mib import MiB
from .optim_constructor import StudentOptimWrapperConstructor

__all__ = [
    'HRHF', 'ILT', 'FineTuning', 'IncrementalDataParallel', 'IncrementalSegmentor', 'Joint', 'LwF', 'LwFMC', 'MiB',
    'StudentOptimWrapperConstructor'
]
