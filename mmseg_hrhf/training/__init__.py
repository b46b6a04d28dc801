from .finite_loss_hook import FiniteLossHook
from .iteration_seed_hook import IterationSeedHook
from .loops import ResumableEpochLoop, ResumableIterLoop
from .resume_hook import ResumeHook, resume_point

__all__ = [
    'FiniteLossHook', 'IterationSeedHook', 'ResumableEpochLoop', 'ResumableIterLoop', 'ResumeHook', 'resume_point'
]
