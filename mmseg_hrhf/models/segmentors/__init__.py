from .base import FineTuning, IncrementalSegmentor, Joint
from .dkd import DKD
from .hrhf import HRHF
from .hrhf_plus import HRHFPlus
from .importance import EWC, PI, RW, ImportanceSegmentor
from .lwf import ILT, LwF, LwFMC
from .mib import MiB
from .plop import PLOP

__all__ = [
    'DKD',
    'EWC',
    'HRHF',
    'ILT',
    'PI',
    'PLOP',
    'RW',
    'FineTuning',
    'HRHFPlus',
    'ImportanceSegmentor',
    'IncrementalSegmentor',
    'Joint',
    'LwF',
    'LwFMC',
    'MiB'
]
