"""One run of a comparison: a method on a task and setting, from a seed."""
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
from ...work_dir.layout import StepFiles
from ..results import read_results
from .methods import method_options

# Step 0 of every method that trains it plainly.
FIRST_STEP = '_first_step'


@dataclass(frozen=True)
class Cell:
    """A run and its folder.

    Args:
        root: folder of the comparison.
        method: its name.
        task: ``'B-I'``, or None for the config's own. What ``comparison.tasks`` of the config has under
            ``'TASK/SETTING'`` or ``'TASK'`` is the scenario.
        setting: ``'overlapped'``, ``'disjoint'`` or ``'sequential'``.
        seed: of the run.
    """
    root: str
    method: str
    task: Optional[str]
    setting: str
    seed: int

    @property
    def column(self) -> str:
        """Where the run stands in the table, e.g. ``'15-1 overlapped'``."""
        return f'{self.task} {self.setting}' if self.task else self.setting

    @property
    def name(self) -> str:
        return f'{self.method}, {self.column}, seed {self.seed}'

    @property
    def folder(self) -> str:
        return osp.join(self.root, _slug(self.column), f'seed_{self.seed}', _slug(self.method))

    @property
    def config(self) -> str:
        """The run's whole config: ``tools/train.py`` on it, with ``--work-dir`` and ``--seed``, is this run."""
        return f'{self.folder}.py'

    def results(self) -> Optional[dict]:
        """``results.json`` of the finished run; None while steps are missing, deleted or measured again."""
        results = read_results(self.folder)
        if results is None or results['results'][-1]['step'] != results['num_steps'] - 1:
            return None
        # It is written last: a run that was stopped before has newer steps, or fewer.
        stand = all(_read_if_there(StepFiles(self.folder, result['step']).result) == result
                    for result in results['results'])
        return results if stand else None


def _read_if_there(path: str) -> Optional[dict]:
    return read_json(path) if osp.exists(path) else None


def parse_setting(text: str) -> tuple[Optional[str], str]:
    """``'15-1/disjoint'`` -> ``('15-1', 'disjoint')``; ``'disjoint'`` -> ``(None, 'disjoint')``: the config's task."""
    task, _, setting = text.rpartition('/')
    if setting not in SETTINGS:
        raise UserError(f"Setting {text!r} is not of the form 'TASK/SETTING' or 'SETTING', where SETTING is one of "
                         f'{", ".join(SETTINGS)}; such as 15-1/overlapped.')
    return task or None, setting


def cell_config(cell: Cell, base: Config) -> Config:
    """The config of a run: ``base`` as the cell's method, task and setting.

    Raises:
        UserError: a method that does not fit the config, or whose ``custom_imports`` cannot be imported; a task or
            setting without the image lists that the config's own has.
    """
    cfg = copy.deepcopy(base)
    comparison = cfg.pop('comparison', None) or {}
    scenario = _scenario(cell, cfg.scenario, comparison.get('tasks') or {})
    options = method_options(cell.method, base, scenario.get('task'))
    of_row = options.pop('scenario', {})
    divided = sorted({'task', 'steps', 'setting'} & set(of_row))
    if divided:
        raise UserError(f'Method {cell.method!r} of the comparison sets scenario.{divided[0]}, which is the same for '
                         'all rows of a column: choose it by --settings, or name a scenario in comparison.tasks.')
    scenario.update(of_row)
    try:  # a row's own modules have to be there before its types are looked up
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
        raise UserError(f"scenario.image_lists of the config are those of its own task and setting, but {cell.column} "
                         f"is compared, too. Ask for --settings {place} and give its own: comparison=dict(tasks="
                         f"{{'{place}': dict(task=..., image_lists=...)}}), with image_lists=None for the rule.")
    scenario['setting'] = cell.setting
    return scenario


def first_step_identity(run: RunConfig) -> Optional[dict]:
    """What step 0 of a run is, as JSON data; None where it is not the plain training that other methods begin with."""
    if not run.method.shares_first_step:
        return None
    identity = dict(training_identity(run, 0), scenario=run.user.scenario.to_dict(), test=test_identity(run, 0))
    # What step 0 records for the fakes of step 1; a method without fakes does not mind it.
    statistics = identity.pop('replay', None)
    return identity if statistics is None else dict(identity, **statistics)


def joint_identity(run: RunConfig) -> Optional[dict]:
    """What a run is whatever its setting, as JSON data; None where the setting matters, as in all methods but Joint."""
    if not run.method.joint:
        return None
    identity = run_identity(run)
    of_setting = ('setting', 'image_lists')
    return dict(identity, scenario={key: value for key, value in identity['scenario'].items() if key not in of_setting})


def write_cell_config(cell: Cell, cfg: Config) -> None:
    """Write the run's config, if it says something new."""
    text = f'# {cell.name}\n{cfg.pretty_text}'
    path = Path(cell.config)
    if not path.exists() or path.read_text(encoding='utf-8') != text:
        write_text(path, text)


def load_base(path: PathLike, options: Optional[list]) -> Config:
    """The base config of a comparison, checked for what every run of it needs."""
    cfg = load_config(str(path), options)
    comparison = cfg.get('comparison') or {}
    known = ('methods', 'methods_by_task', 'tasks')
    unknown = sorted(set(comparison) - set(known))
    if unknown:
        raise UserError(f'comparison has no option {unknown[0]!r}: its options are {", ".join(known)}.')
    for key in ('scenario', 'method'):
        if not isinstance(cfg.get(key), dict):
            raise UserError(f'{path} has no {key}=dict(...): compare from a config of configs/hrhf.')
    return cfg


def _slug(text: str) -> str:
    return re.sub(r'[^\w.=-]+', '_', text)
