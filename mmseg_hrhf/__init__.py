"""Class-incremental semantic segmentation for MMSegmentation: Half-Real Half-Fake Distillation (HRHF).

Name the package in a config's ``custom_imports``: where mmengine is loaded, importing it registers all of its modules
with mmseg. Before that it loads nothing; ``register_all``, or the first use of one of its names, registers them.
"""
from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from .utils.environment import quiet_import
from .version import __version__

if TYPE_CHECKING:
    from .engine.runner import IncrementalRunner
    from .scenario import Scenario
    from .utils.errors import UserError

__all__ = ['IncrementalRunner', 'Scenario', 'UserError', '__version__', 'register_all']

# Whose modules register themselves as they are imported.
_ROOMS = ('datasets', 'engine', 'evaluation', 'models', 'replay')
_HOMES = {'IncrementalRunner': 'engine.runner', 'Scenario': 'scenario', 'UserError': 'utils.errors'}


def register_all() -> None:
    """Register everything with mmseg; a second call changes nothing."""
    with quiet_import():
        for room in _ROOMS:
            importlib.import_module(f'{__name__}.{room}')


def __getattr__(name: str) -> Any:
    if name not in _ROOMS and name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    register_all()
    if name in _ROOMS:
        return sys.modules[f'{__name__}.{name}']
    return getattr(sys.modules[f'{__name__}.{_HOMES[name]}'], name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])


if 'mmengine' in sys.modules:
    register_all()
