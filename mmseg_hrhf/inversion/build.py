"""From a config's options to what synthesises fake images."""
from __future__ import annotations

import inspect
from typing import Any, Optional

from mmseg.registry import TASK_UTILS

from ..options import check_choice, check_names, check_types, parameters


def build_inversion(options: Optional[dict]) -> Any:
    """Build ``SegInversion`` or another registered synthesiser (see :class:`.seg_inversion.SegInversion`).

    Raises:
        ValueError: an unknown type or option, a value of the wrong type or out of range; names it.
    """
    held = _check('replay.inversion', options, "dict(type='SegInversion', size=512)")
    if 'aggregation' in held:
        _check('replay.inversion.aggregation', held['aggregation'], "dict(type='ScaleAwareAggregation')")
    return TASK_UTILS.build(held)


def _check(name: str, options: Optional[dict], example: str) -> dict:
    if not isinstance(options, dict) or 'type' not in options:
        raise ValueError(f'{name}={options!r} must be a dict with a type, such as {example}.')
    taker = TASK_UTILS.get(options['type']) if isinstance(options['type'], str) else options['type']
    if not inspect.isclass(taker):
        package = __package__.split('.')[0]
        ours = [key for key, value in TASK_UTILS.module_dict.items() if value.__module__.startswith(package)]
        check_choice(f'{name}.type', options['type'], sorted(ours))
    annotations = parameters(taker)
    check_names(name, options, {*annotations, 'type'})
    check_types(name, options, annotations)
    for key, value in inspect.signature(taker).parameters.items():
        if value.default is value.empty and key not in options:
            raise ValueError(f'{name} lacks {key}, which {taker.__name__} has no default for: give {example}.')
    return options
