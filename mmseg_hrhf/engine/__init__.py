from . import hooks
from .distributed import IncrementalDataParallel
from .loops import ResumableEpochLoop, ResumableIterLoop
from .runner import IncrementalRunner

__all__ = ['IncrementalDataParallel', 'IncrementalRunner', 'ResumableEpochLoop', 'ResumableIterLoop', 'hooks']
