"""Methods and ablations of the paper's tables, as changes to a config."""
from __future__ import annotations

import copy
from typing import Callable, Optional, Sequence

from mmengine.config import Config

from ...utils.errors import UserError
from ...utils.options import suggest

# Table 1, in the paper's order, and PLOP from later work.
_TABLE_1 = {
    'FT': 'FineTuning',
    'PI': 'PI',
    'EWC': 'EWC',
    'RW': 'RW',
    'LwF': 'LwF',
    'LwF-MC': 'LwFMC',
    'ILT': 'ILT',
    'MiB': 'MiB',
    'PLOP': 'PLOP',
    'HRHF': 'HRHF',
    'Joint': 'Joint',
}
R_VALUES = (0.5, 1, 5, 10, 20)


def _method(name: str) -> Callable[[Config], dict]:
    def options(cfg: Config) -> dict:
        held = cfg.method if _TABLE_1.get(cfg.method['type'], cfg.method['type']) == name else {}
        return dict(method=dict(held, _delete_=True, type=name))

    return options


def _hrhf(**replay) -> Callable[[Config], dict]:
    def options(cfg: Config) -> dict:
        _check_replay(cfg)
        # A copy, since merging removes `_delete_` from its argument.
        return dict(_method('HRHF')(cfg), replay=copy.deepcopy(replay))

    return options


def _check_replay(cfg: Config) -> None:
    if not isinstance(cfg.get('replay'), dict) or 'inversion' not in cfg.replay:
        raise UserError('The comparison needs synthetic images, but the config has no inversion: set '
                        'replay=dict(inversion=dict(...)), as in configs/_base_/methods/hrhf.py.')


def _aggregation(kind: str, **options) -> Callable[[Config], dict]:
    return _hrhf(inversion=dict(aggregation=dict(_delete_=True, type=kind, **options)))


def _without_fakes(cfg: Config) -> dict:
    return dict(_method('HRHF')(cfg), replay=None)


def _noise(cfg: Config) -> dict:
    _check_replay(cfg)
    size = cfg.replay['inversion'].get('size')
    noise = dict(_delete_=True, type='GaussianNoise', **({} if size is None else dict(size=size)))
    return dict(_method('HRHF')(cfg), replay=dict(inversion=noise))


def _without_kd(cfg: Config) -> dict:
    options = _method('HRHF')(cfg)
    options['method']['loss_kd'] = None
    return options


METHODS: dict[str, Callable[[Config], dict]] = {name: _method(kind) for name, kind in _TABLE_1.items()}
METHODS.update({
    'HRHF without fakes': _without_fakes,
    'HRHF with noise': _noise,
    'HRHF AVG': _aggregation('AverageAggregation'),
    'HRHF MAX': _aggregation('MaxAggregation'),
    **{f'HRHF r={r}': _aggregation('ScaleAwareAggregation', r=r) for r in R_VALUES},
    'HRHF without KD': _without_kd,
    'HRHF 1:2': _hrhf(ratio='1:2'),
    'HRHF 2:1': _hrhf(ratio='2:1'),
})

# Rows of the paper's tables.
GROUPS = {
    'table1': list(_TABLE_1),
    'table2': ['HRHF without fakes', 'HRHF with noise', 'HRHF'],
    'table3': ['FT', 'MiB', 'HRHF AVG', 'HRHF MAX', 'HRHF'],
    'table4': [*(f'HRHF r={r}' for r in R_VALUES), 'HRHF'],
    'table5': ['HRHF', 'HRHF without KD'],
    'table6': ['HRHF', 'HRHF 1:2', 'HRHF 2:1'],
    'table7': ['FT', 'LwF', 'LwF-MC', 'ILT', 'MiB', 'HRHF', 'Joint'],
}
GROUPS['ablations'] = list(dict.fromkeys(name for t in range(2, 7) for name in GROUPS[f'table{t}']))
GROUPS['all'] = list(dict.fromkeys(GROUPS['table1'] + GROUPS['ablations']))


def choose_methods(names: Sequence[str], own: Sequence[str] = ()) -> list[str]:
    """Methods by name or by group (``table1`` ... ``table7``, ``ablations``, ``all``), each once, in order.

    Args:
        names: names of methods or groups.
        own: names of methods that the config defines.
    Raises:
        UserError: an unknown name; suggests the closest known one.
    """
    chosen = []
    for name in names:
        if name in GROUPS:
            chosen += GROUPS[name]
        elif name in METHODS or name in own:
            chosen.append(name)
        else:
            known = [*GROUPS, *METHODS, *own]
            hint = suggest(name, known, f': choose among {", ".join(known)}.')
            raise UserError(f'There is no method {name!r}{hint}')
    return list(dict.fromkeys(chosen))


def method_options(name: str, cfg: Config, task: Optional[str] = None) -> dict:
    """Options to merge into ``cfg`` to select the named method.

    ``cfg.comparison['methods'][name]`` extends the options of a known method or defines a new method.
    ``cfg.comparison['methods_by_task'][task][name]`` has options published for a single task, such as MiB's weight.
    They only apply if neither ``cfg.method`` nor the former sets them.
    """
    options = METHODS[name](cfg) if name in METHODS else {}
    comparison = cfg.get('comparison') or {}
    by_task = (comparison.get('methods_by_task') or {}).get(task) or {}
    # A copy, since merging removes every `_delete_` from its argument, which other seeds still need.
    return copy.deepcopy(
        _merged(_filled(options, by_task.get(name) or {}), (comparison.get('methods') or {}).get(name) or {}))


def _filled(options: dict, defaults: dict) -> dict:
    out = dict(options)
    for key, value in defaults.items():
        out[key] = _filled(out[key], value) if isinstance(out.get(key), dict) else out.get(key, value)
    return out


def _merged(base: dict, more: dict) -> dict:
    out = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict) and not value.get('_delete_')
        out[key] = _merged(out[key], value) if both else value
    return out
