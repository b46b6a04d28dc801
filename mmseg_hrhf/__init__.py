"""Class-incremental semantic segmentation for MMSegmentation: Half-Real Half-Fake Distillation (HRHF).

Importing the package registers all of its modules with mmseg: name it in a config's ``custom_imports``.
"""
from . import backbones, datasets, evaluation, inversion, methods, replay, training, visualization  # noqa: F401
from .incremental_runner import IncrementalRunner
from .scenario import Scenario
from .version import __version__

__all__ = ['IncrementalRunner', 'Scenario', '__version__']
