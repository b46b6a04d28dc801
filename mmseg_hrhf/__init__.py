"""Class-incremental semantic segmentation for MMSegmentation: Half-Real Half-Fake Distillation (HRHF).

Importing the package registers all of its modules with mmseg: name it in a config's ``custom_imports``.
"""
import sys

from .utils.environment import quiet_import
from .version import __version__

# `python -m mmseg_hrhf TOOL --help` comes by here too, and must not wait for the toolbox.
if sys.argv[:1] != ['-m'] or {'-h', '--help'}.isdisjoint(sys.argv):
    with quiet_import():
        from . import datasets, engine, evaluation, models, replay  # noqa: F401
        from .engine.runner import IncrementalRunner
        from .scenario import Scenario

__all__ = ['IncrementalRunner', 'Scenario', '__version__']
