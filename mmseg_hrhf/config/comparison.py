"""Methods and ablations of the paper's tables, as changes to the base config of a comparison."""
from __future__ import annotations

import copy
from typing import Callable, Optional, Sequence

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from ..scenario import SETTINGS
from ..utils.errors import UserError
from ..utils.io import PathLike
from ..utils.options import check_names, suggest
from .load import load_config
from .run import method_class

# Table 1, in the paper's order, and PLOP and DKD from later work.
_TYPES = {
    'FT': 'FineTuning',
    'PI': 'PI',
    'EWC': 'EWC',
    'RW': 'RW',
    'LwF': 'LwF',
    'LwF-MC': 'LwFMC',
    'ILT': 'ILT',
    'MiB': 'MiB',
    'PLOP': 'PLOP',
    'DKD': 'DKD',
    'HRHF': 'HRHF',
    'Joint': 'Joint',
}
R_VALUES = (0.5, 1, 5, 10, 20)
# A row with this after its name is the same with frozen norm layers.
FROZEN = ' frozen'


def _method(name: str) -> Callable[[Config], dict]:
    def options(cfg: Config) -> dict:
        held = cfg.method if _TYPES.get(cfg.method['type'], cfg.method['type']) == name else {}
        options = dict(method=dict(held, _delete_=True, type=name))
        if name == 'HRHF' and cfg.get('replay'):
            options['replay'] = _batches(cfg, name)
        return options

    return options


def _hrhf(**replay) -> Callable[[Config], dict]:
    def options(cfg: Config) -> dict:
        _check_replay(cfg)
        # A copy, since merging removes `_delete_` from its argument.
        return dict(_method('HRHF')(cfg), replay=dict(_batches(cfg, 'HRHF'), **copy.deepcopy(replay)))

    return options


def _batches(cfg: Config, method: str) -> dict:
    """Composition of the batches of HRHF or HRHF+, where the base config has that of the other."""
    plus, wanted = cfg.method['type'] == 'HRHFPlus', method == 'HRHFPlus'
    if plus == wanted:
        return {}
    return dict(ratio='2:1', added=True) if wanted else dict(ratio='1:1', added=False)


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
    return dict(_method('HRHF')(cfg), replay=dict(_batches(cfg, 'HRHF'), inversion=noise))


def _plus(options_of: Callable[[Config], dict]) -> Callable[[Config], dict]:
    """HRHF+ with the replay of a row of HRHF."""

    def options(cfg: Config) -> dict:
        inversion = (options_of(cfg)['replay'] or {}).get('inversion')
        replay = dict(_batches(cfg, 'HRHFPlus'), **({} if inversion is None else dict(inversion=inversion)))
        return dict(method=_method('HRHFPlus')(cfg)['method'],
                    replay=None if options_of is _without_fakes else replay)

    return options


def _without_kd(cfg: Config) -> dict:
    options = _hrhf()(cfg)
    options['method']['loss_kd'] = None
    return options


METHODS: dict[str, Callable[[Config], dict]] = {name: _method(kind) for name, kind in _TYPES.items()}
METHODS.update({
    'HRHF without fakes': _without_fakes,
    'HRHF with noise': _noise,
    'HRHF AVG': _aggregation('AverageAggregation'),
    'HRHF MAX': _aggregation('MaxAggregation'),
    **{f'HRHF r={r}': _aggregation('ScaleAwareAggregation', r=r) for r in R_VALUES},
    'HRHF without KD': _without_kd,
    'HRHF 1:2': _hrhf(ratio='1:2'),
    'HRHF 2:1': _hrhf(ratio='2:1'),
    'HRHF+': _plus(_hrhf()),
    'HRHF+ without fakes': _plus(_without_fakes),
    'HRHF+ with noise': _plus(_noise),
})

# Rows of the paper's tables, and methods from later work.
GROUPS = {
    'table1': [name for name in _TYPES if name != 'DKD'],
    'table2': ['HRHF without fakes', 'HRHF with noise', 'HRHF'],
    'table3': ['FT', 'MiB', 'HRHF AVG', 'HRHF MAX', 'HRHF'],
    'table4': [*(f'HRHF r={r}' for r in R_VALUES), 'HRHF'],
    'table5': ['HRHF', 'HRHF without KD'],
    'table6': ['HRHF', 'HRHF 1:2', 'HRHF 2:1'],
    'table7': ['FT', 'LwF', 'LwF-MC', 'ILT', 'MiB', 'HRHF', 'Joint'],
}
GROUPS['ablations'] = list(dict.fromkeys(name for t in range(2, 7) for name in GROUPS[f'table{t}']))
GROUPS['later'] = ['PLOP', 'DKD', 'HRHF+']
GROUPS['plus'] = ['HRHF+ without fakes', 'HRHF+ with noise', 'HRHF+']
GROUPS['all'] = list(dict.fromkeys(GROUPS['table1'] + GROUPS['later'] + GROUPS['plus'] + GROUPS['ablations']))
GROUPS['frozen'] = [name + FROZEN for name in (*_TYPES, 'HRHF without fakes', *GROUPS['plus']) if name != 'Joint']


def choose_methods(names: Sequence[str], own: Sequence[str] = ()) -> list[str]:
    """Methods by name or by group (see ``GROUPS``), each once, in order.

    Args:
        names: names of methods or groups. Every method except Joint also exists as ``'NAME frozen'``.
        own: names of methods that the config defines.
    Raises:
        UserError: an unknown name; suggests the closest known one.
    """
    chosen = []
    rows = [*METHODS, *own]
    frozen = [name + FROZEN for name in rows if name != 'Joint']
    for name in names:
        if name in GROUPS:
            chosen += GROUPS[name]
        elif name in (*rows, *frozen):
            chosen.append(name)
        else:
            hint = suggest(name, [*GROUPS, *rows, *frozen],
                           f': choose among {", ".join([*GROUPS, *rows])}, and all but Joint with {FROZEN!r} after it.')
            raise UserError(f'There is no method {name!r}{hint}')
    return list(dict.fromkeys(chosen))


def method_options(name: str, cfg: Config, task: Optional[str] = None) -> dict:
    """Options to merge into ``cfg`` to select the named method.

    ``cfg.comparison['methods'][name]`` extends the options of a known method or defines a new method.
    ``cfg.comparison['methods_by_task'][task][name]`` has options published for a single task, such as MiB's weight.
    They only apply if neither ``cfg.method`` nor the former sets them. ``'NAME frozen'`` has the options of NAME.
    """
    comparison = cfg.get('comparison') or {}
    own = comparison.get('methods') or {}
    same = name.removesuffix(FROZEN)
    if same != name and (same in METHODS or same in own):
        options = _merged(method_options(same, cfg, task), dict(method=dict(freeze_norm=True)))
    else:
        options = METHODS[name](cfg) if name in METHODS else {}
    by_task = (comparison.get('methods_by_task') or {}).get(task) or {}
    # A copy, since merging removes every `_delete_` from its argument, which other seeds still need.
    return copy.deepcopy(_merged(_filled(options, by_task.get(name) or {}), own.get(name) or {}))


def compared_config(base: Config, method: str, task: Optional[str], setting: str) -> Config:
    """The config of a run of a comparison: ``base`` with the method, task and setting.

    Args:
        base: config of the comparison.
        method: name of the method.
        task: ``'B-I'``, or None for that of the config.
        setting: one of ``SETTINGS``.
    Raises:
        UserError: a method that does not match the config, or whose ``custom_imports`` cannot be imported; a task or
            setting that needs its own image lists.
    """
    cfg = copy.deepcopy(base)
    comparison = cfg.pop('comparison', None) or {}
    scenario = _scenario(task, setting, cfg.scenario, comparison.get('tasks') or {})
    options = method_options(method, base, scenario.get('task'))
    of_row = options.pop('scenario', {})
    divided = sorted({'task', 'steps', 'setting'} & set(of_row))
    if divided:
        raise UserError(f'Method {method!r} of the comparison sets scenario.{divided[0]}, which all methods '
                        'of a column share: select it with --settings, or define a scenario in comparison.tasks.')
    scenario.update(of_row)
    try:  # the method's modules must be imported before its types are looked up
        import_modules_from_strings(**options.get('custom_imports') or dict(imports=[]))
    except ImportError as error:
        raise UserError(f'Method {method!r} of the comparison needs a module that cannot be imported: '
                         f'{str(error).splitlines()[0]}') from error
    cfg.merge_from_dict(dict(options, scenario=dict(scenario, _delete_=True)))
    if not method_class(cfg.method).shares_first_step:
        cfg.pop('first_step_from', None)
    return cfg


def _scenario(task: Optional[str], setting: str, own: dict, tasks: dict) -> dict:
    scenario: dict = dict(own)
    named: dict = {}
    if task is not None:
        named = tasks.get(f'{task}/{setting}') or tasks.get(task) or {}
        scenario.pop('steps', None)
        scenario.pop('task', None)
        scenario.update(named or dict(task=task))
    elsewhere = setting != own.get('setting', SETTINGS[0]) or task not in (None, own.get('task'))
    if elsewhere and own.get('image_lists') is not None and 'image_lists' not in named:
        place = f'{task or own.get("task") or "TASK"}/{setting}'
        raise UserError(f'scenario.image_lists of the config belong to its own task and setting, not to {place}. '
                        f"Use --settings {place} and set comparison=dict(tasks={{'{place}': dict(task=..., "
                        'image_lists=...)}), where image_lists=None selects images by the rule of the setting.')
    scenario['setting'] = setting
    return scenario


def load_base(path: PathLike, options: Optional[list]) -> Config:
    """Load and check the base config of a comparison."""
    cfg = load_config(str(path), options)
    comparison = cfg.get('comparison') or {}
    check_names('comparison', comparison, ('methods', 'methods_by_task', 'tasks'))
    for key in ('scenario', 'method'):
        if not isinstance(cfg.get(key), dict):
            raise UserError(f'{path} has no {key}=dict(...): start from a config in configs/hrhf.')
    return cfg


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
