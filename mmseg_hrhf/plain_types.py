"""Types in a config as text, so that its file can be read where the classes have not been imported."""
from __future__ import annotations

from typing import Any

from mmengine.registry import Registry, root
from mmseg import registry


def named_types(value: Any) -> Any:
    """A copy of a config's values in which classes and functions, as pure-Python configs hold them, are strings.

    A class that a registry knows by its own name gets that name, any other its full path, by which mmengine finds it.
    """
    if isinstance(value, dict):
        return {key: named_types(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(named_types, value))
    if isinstance(value, type) or callable(value):
        return _name_of(value)
    return value


def _name_of(value: Any) -> str:
    name = getattr(value, '__name__', None)
    module = getattr(value, '__module__', None)
    if name is None or module is None or '<' in getattr(value, '__qualname__', name):
        raise ValueError(f'{value!r} in the config has no name by which a file could refer to it: register it, and '
                         'name it by its type.')
    known = any(held.get(name) is value for held in _registries())
    return name if known else f'{module}.{name}'


def _registries() -> list[Registry]:
    found = [held for held in vars(registry).values() if isinstance(held, Registry)]
    return found + [held for held in vars(root).values() if isinstance(held, Registry)]
