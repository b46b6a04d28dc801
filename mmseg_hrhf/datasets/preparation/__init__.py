from .check import check_ade, check_voc
from .voc import prepare_voc

__all__ = ['check_ade', 'check_voc', 'prepare_voc']
