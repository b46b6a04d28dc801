"""One run of a comparison: a method on a task and setting, with a seed."""
from __future__ import annotations

import os.path as osp
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from mmengine.config import Config

from ...config.comparison import compared_config
from ...config.identity import run_identity, test_identity, training_identity
from ...config.run import RunConfig
from ...scenario import SETTINGS
from ...utils.errors import UserError
from ...utils.io import read_json, write_text
from ...work_dir.layout import StepFiles
from ..results import label_protocol, read_results

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
        setting: one of ``SETTINGS``.
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

    @property
    def label_protocol(self) -> str:
        """Label protocol of the trained run, which may differ from that of the config."""
        return label_protocol(read_json(osp.join(self.folder, 'run.json')))


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
    """The config of a run, see ``compared_config``."""
    return compared_config(base, cell.method, cell.task, cell.setting)


def first_step_identity(run: RunConfig) -> Optional[dict]:
    """JSON data that identifies step 0 of a run; None if it is not plain training, which methods can share."""
    if not run.method.shares_first_step:
        return None
    identity = dict(training_identity(run, 0), scenario=dict(run.scenario), test=test_identity(run, 0))
    # Step 0 records feature statistics for the synthetic images of step 1; other methods ignore them.
    statistics = identity.pop('replay', None)
    return identity if statistics is None else dict(identity, **statistics)


def joint_identity(run: RunConfig) -> Optional[dict]:
    """JSON data that identifies a run regardless of its setting; None for methods other than Joint."""
    if not run.method.joint:
        return None
    identity = run_identity(run)
    of_setting = ('setting', 'partition_seed', 'image_lists')
    return dict(identity, scenario={key: value for key, value in identity['scenario'].items() if key not in of_setting})


def write_cell_config(cell: Cell, cfg: Config) -> None:
    """Write the run's config if it changed."""
    text = f'# {cell.name}\n{cfg.pretty_text}'
    path = Path(cell.config)
    if not path.exists() or path.read_text(encoding='utf-8') != text:
        write_text(path, text)


def _slug(text: str) -> str:
    return re.sub(r'[^\w.=+-]+', '_', text)
