from .base import IncrementalSegmentor
from .data_parallel import IncrementalDataParallel
from .ewc import EWC
from .finetune import FineTuning
from .hrhf import HRHF
from .ilt import ILT
from .importance import ImportanceSegmentor
from .importance_hook import ImportanceHook
from .joint import Joint
from .lwf import LwF
from .lwf_mc import LwFMC
from .mib import MiB
from .optim_constructor import StudentOptimWrapperConstructor
from .path_integral import PI
from .plop import PLOP
from .pseudo_label_hook import PseudoLabelHook
from .riemannian_walk import RW
from .training_state_hook import TrainingStateHook

__all__ = [
    'EWC', 'HRHF', 'ILT', 'PI', 'PLOP', 'RW', 'FineTuning', 'ImportanceHook', 'ImportanceSegmentor',
    'IncrementalDataParallel', 'IncrementalSegmentor', 'Joint', 'LwF', 'LwFMC', 'MiB', 'PseudoLabelHook',
    'StudentOptimWrapperConstructor', 'TrainingStateHook'
]
