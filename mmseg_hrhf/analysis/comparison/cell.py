"""One run of a comparison: a method on a task and setting, with a seed."""
from __future__ import annotations

import copy
import os.path as osp
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from ...config.identity import run_identity, test_identity, training_identity
from ...config.load import load_config
from ...config.run import RunConfig, method_class
from ...scenario import SETTINGS
from ...utils.errors import UserError
from ...utils.io import PathLike, read_json, write_text
from ...utils.options import check_names
from ...work_dir.layout import StepFiles
from ..results import read_results
from .methods import method_options

# Step 0, shared by all methods with plain training at step 0.
FIRST_STEP = '_first_step'


@dataclass(frozen=True)
class Cell:
    """A run and its folder.

    Args:
        root: folder of the comparison.
        method: name of the method.
        task: ``'B-I'``, or None for that of the config. If ``comparison.tasks`` of the config has the key
            ``'TASK/SETTING'`` or ``'TASK'``, its value is the scenario.
        setting: ``'overlapped'``, ``'disjoint'`` or ``'sequential'``.
        seed: seed of the run.
    """
    root: str
    method: str
    task: Optional[str]
    setting: str
    seed: int

    @property
    def column(self) -> str:
        """Column of the run in the table, such as ``'15-1 overlapped'``."""
        return f'{self.task} {self.setting}' if self.task else self.setting

    @property
    def name(self) -> str:
        return f'{self.method}, {self.column}, seed {self.seed}'

    @property
    def folder(self) -> str:
        return osp.join(self.root, _slug(self.column), f'seed_{self.seed}', _slug(self.method))

    @property
    def config(self) -> str:
        """Path of the complete config: with ``--work-dir`` and ``--seed``, ``tools/train.py`` reproduces the run."""
        return f'{self.folder}.py'

    def results(self) -> Optional[dict]:
        """``results.json`` of the finished run; None if steps are missing or evaluated again."""
        results = read_results(self.folder)
        if results is None or results['results'][-1]['step'] != results['num_steps'] - 1:
            return None
        # results.json is written last: after an interruption, steps may be newer than it, or missing.
        stand = all(_read_if_there(StepFiles(self.folder, result['step']).result) == result
                    for result in results['results'])
        return results if stand else None


def _read_if_there(path: str) -> Optional[dict]:
    return read_json(path) if osp.exists(path) else None


def parse_setting(text: str) -> tuple[Optional[str], str]:
    """``'15-1/disjoint'`` -> ``('15-1', 'disjoint')``; ``'disjoint'`` -> ``(None, 'disjoint')``, the config's task."""
    task, _, setting = text.rpartition('/')
    if setting not in SETTINGS:
        raise UserError(f"Setting {text!r} is not of the form 'TASK/SETTING' or 'SETTING', where SETTING is one of "
                         f'{", ".join(SETTINGS)}; such as 15-1/overlapped.')
    return task or None, setting


def cell_config(cell: Cell, base: Config) -> Config:
    """The config of a run: ``base`` with the cell's method, task and setting.

    Raises:
        UserError: a method that does not match the config, or whose ``custom_imports`` cannot be imported; a task or
            setting that needs its own image lists.
    """
    cfg = copy.deepcopy(base)
    comparison = cfg.pop('comparison', None) or {}
    scenario = _scenario(cell, cfg.scenario, comparison.get('tasks') or {})
    options = method_options(cell.method, base, scenario.get('task'))
    of_row = options.pop('scenario', {})
    divided = sorted({'task', 'steps', 'setting'} & set(of_row))
    if divided:
        raise UserError(f'Method {cell.method!r} of the comparison sets scenario.{divided[0]}, which all methods '
                        'of a column share: select it with --settings, or define a scenario in comparison.tasks.')
    scenario.update(of_row)
    try:  # the method's modules must be imported before its types are looked up
        import_modules_from_strings(**options.get('custom_imports') or dict(imports=[]))
    except ImportError as error:
        raise UserError(f'Method {cell.method!r} of the comparison needs a module that cannot be imported: '
                         f'{str(error).splitlines()[0]}') from error
    cfg.merge_from_dict(dict(options, scenario=dict(scenario, _delete_=True)))
    if not method_class(cfg.method).shares_first_step:
        cfg.pop('first_step_from', None)
    return cfg


def _scenario(cell: Cell, own: dict, tasks: dict) -> dict:
    scenario: dict = dict(own)
    named: dict = {}
    if cell.task is not None:
        named = tasks.get(f'{cell.task}/{cell.setting}') or tasks.get(cell.task) or {}
        scenario.pop('steps', None)
        scenario.pop('task', None)
        scenario.update(named or dict(task=cell.task))
    elsewhere = cell.setting != own.get('setting', SETTINGS[0]) or cell.task not in (None, own.get('task'))
    if elsewhere and own.get('image_lists') is not None and 'image_lists' not in named:
        place = f'{cell.task or own.get("task") or "TASK"}/{cell.setting}'
        raise UserError(f'scenario.image_lists of the config belong to its own task and setting, not to {cell.column}. '
                        f"Use --settings {place} and set comparison=dict(tasks={{'{place}': dict(task=..., "
                        'image_lists=...)}), where image_lists=None selects images by the rule of the setting.')
    scenario['setting'] = cell.setting
    return scenario


def first_step_identity(run: RunConfig) -> Optional[dict]:
    """JSON data that identifies step 0 of a run; None if it is not plain training, which methods can share."""
    if not run.method.shares_first_step:
        return None
    identity = dict(training_identity(run, 0), scenario=run.user.scenario.to_dict(), test=test_identity(run, 0))
    # Step 0 records feature statistics for the synthetic images of step 1; other methods ignore them.
    statistics = identity.pop('replay', None)
    return identity if statistics is None else dict(identity, **statistics)


def joint_identity(run: RunConfig) -> Optional[dict]:
    """JSON data that identifies a run regardless of its setting; None for methods other than Joint."""
    if not run.method.joint:
        return None
    identity = run_identity(run)
    of_setting = ('setting', 'image_lists')
    return dict(identity, scenario={key: value for key, value in identity['scenario'].items() if key not in of_setting})


def write_cell_config(cell: Cell, cfg: Config) -> None:
    """Write the run's config if it changed."""
    text = f'# {cell.name}\n{cfg.pretty_text}'
    path = Path(cell.config)
    if not path.exists() or path.read_text(encoding='utf-8') != text:
        write_text(path, text)


def load_base(path: PathLike, options: Optional[list]) -> Config:
    """Load and check the base config of a comparison."""
    cfg = load_config(str(path), options)
    comparison = cfg.get('comparison') or {}
    check_names('comparison', comparison, ('methods', 'methods_by_task', 'tasks'))
    for key in ('scenario', 'method'):
        if not isinstance(cfg.get(key), dict):
            raise UserError(f'{path} has no {key}=dict(...): start from a config in configs/hrhf.')
    return cfg


def _slug(text: str) -> str:
    return re.sub(r'[^\w.=-]+', '_', text)
