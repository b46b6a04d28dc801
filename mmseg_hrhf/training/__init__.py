from .iteration_seed_hook import IterationSeedHook
from .loops import ResumableEpochLoop, ResumableIterLoop
from .resume_hook import ResumeHook, resume_point

__all__ = ['IterationSeedHook', 'ResumableEpochLoop', 'ResumableIterLoop', 'ResumeHook', 'resume_point']
