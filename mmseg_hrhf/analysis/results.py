"""The results of runs: what their work dirs hold, and mIoU by groups of classes."""
from __future__ import annotations

import itertools
import os.path as osp
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Sequence

from mmengine.config import Config

from ..utils.errors import UserError
from ..utils.io import PathLike, read_json
from ..work_dir.layout import StepFiles

BACKGROUND = ('without background', 'with background')


def group_scores(result: dict, sizes: Sequence[int]) -> dict[str, dict[str, Optional[float]]]:
    """mIoU of groups of classes at a step, by background convention and group name.

    Args:
        result: a step's ``result.json``: ``classes`` and ``metrics`` with ``IoU/<class>`` in percent.
        sizes: numbers of classes of the groups, those of step 0 first.
    Returns:
        For ``'without background'`` and ``'with background'`` the groups and ``'all'``; groups are named by the
        classes' places as in Table 1 and 7, such as ``'1-15'`` and ``'16-20'``. Background joins the first group and
        ``all`` (later papers' ``0-15``). A class without a pixel is left out; None where none has any.
    """
    classes = result['classes']
    values = [result['metrics'][f'IoU/{name}'] for name in classes]
    background = result['metrics']['IoU/background']
    ends = list(itertools.accumulate(sizes))
    groups = {_span(end - size + 1, end): values[end - size:end] for size, end in zip(sizes, ends) if size}
    groups['all'] = values
    holds_background = {_span(1, sizes[0]), 'all'}
    return {
        BACKGROUND[0]: {name: _mean(held) for name, held in groups.items()},
        BACKGROUND[1]: {
            name: _mean([background, *held] if name in holds_background else held)
            for name, held in groups.items()
        },
    }


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f'{first}-{last}'


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


@dataclass(frozen=True)
class RunRecord:
    """A run of one method from one seed.

    Args:
        work_dir: its folder.
        method: what it is called in tables.
        results: of its finished steps, in order (``step_<t>/result.json``).
        identity: its options (``run.json``).
        num_steps: of its scenario.
        num_base: foreground classes of step 0.
    """
    work_dir: str
    method: str
    results: tuple[dict, ...]
    identity: dict
    num_steps: int
    num_base: int

    @property
    def seed(self) -> int:
        return int(self.last['seed'])

    @property
    def last(self) -> dict:
        return self.results[-1]

    @property
    def column(self) -> str:
        """Task and setting, such as ``'15-1 overlapped'``; explicit steps by their numbers of classes."""
        scenario = self.identity['scenario']
        counts = '-'.join(str(len(names)) for names in scenario.get('steps') or ())
        return f'{scenario.get("task") or counts} {scenario.get("setting", "overlapped")}'

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by class index at the last step, background first."""
        return ('background', *self.last['classes'])

    @property
    def is_complete(self) -> bool:
        return self.last['step'] == self.num_steps - 1

    def files(self, step: int) -> StepFiles:
        return StepFiles(self.work_dir, step)

    def plain_config(self, step: int) -> Config:
        """The plain config of a step (see ``plain_step.py``)."""
        return Config.fromfile(self.files(step).config)

    def palette(self) -> list[list[int]]:
        """RGB colour of each class index at the last step."""
        return self.plain_config(self.last['step']).test_dataloader.dataset.metainfo.palette

    def scores(self) -> dict:
        """Groups' mIoU at the last step, see ``group_scores``."""
        return group_scores(self.last, [self.num_base, len(self.last['classes']) - self.num_base])

    def table_record(self) -> dict:
        """What ``statistics_of`` makes the paper's table from."""
        return dict(method=self.method, column=self.column, seed=self.seed, scores=self.scores())


def read_results(work_dir: PathLike) -> Optional[dict]:
    """``results.json`` of a run, None without: ``results`` of finished steps, ``num_steps``, ``num_base_classes``."""
    path = osp.join(work_dir, 'results.json')
    return read_json(path) if osp.exists(path) else None


def read_run(work_dir: PathLike, method: Optional[str] = None) -> RunRecord:
    """Read the work dir of a run.

    Raises:
        UserError: it is none, or no step of it is finished.
    """
    folder = osp.abspath(work_dir)
    held, identity = read_results(folder), osp.join(folder, 'run.json')
    if held is None or not osp.exists(identity):
        raise UserError(f'{work_dir} holds no finished step of a run (no run.json and results.json): give a work dir '
                         'of tools/train.py or tools/compare.py.')
    options, results = read_json(identity), tuple(held['results'])
    # Runs of version 0.1.0's first days wrote neither number.
    num_steps = held.get('num_steps') or len((options['scenario'] or {}).get('steps') or ()) or len(results)
    num_base = held.get('num_base_classes') or len(results[0]['classes'])
    return RunRecord(folder, method or method_name(options), results, options, num_steps, num_base)


def method_name(identity: dict) -> str:
    """What tables call the method of a run: by its type, and by what it replays where that is not its usual."""
    method, replay = identity['method'], identity.get('replay')
    name = {'FineTuning': 'FT', 'LwFMC': 'LwF-MC'}.get(method['type'], method['type'])
    if name != 'HRHF':
        return name
    if replay is None:
        return 'HRHF without fakes'
    if (replay.get('inversion') or {}).get('type') == 'GaussianNoise':
        return 'HRHF with noise'
    return name


def find_runs(paths: Sequence[str]) -> list[RunRecord]:
    """Runs that the paths hold: work dirs, ``NAME=WORK_DIR``, or folders with complete runs anywhere below.

    Two runs of one name, column and seed are told apart by the names of their folders.

    Raises:
        UserError: a path without a run; a run given twice.
    """
    runs: list[RunRecord] = []
    for path in paths:
        name, separator, folder = path.partition('=')
        if not separator or osp.isdir(path):
            name, folder = '', path
        if osp.exists(osp.join(folder, 'run.json')):
            runs.append(read_run(folder, name or None))
            continue
        below = sorted(file.parent for file in Path(folder).glob('**/results.json'))
        # Folders that begin with _ are what runs of a comparison share.
        found = [read_run(each, name or None) for each in below
                 if not each.name.startswith('_') and osp.exists(osp.join(each, 'run.json'))]
        found = [run for run in found if run.is_complete]
        if not found:
            raise UserError(f'{folder} holds no finished run, nor do the folders below it.')
        runs += found
    repeated = [run.work_dir for run in runs if sum(other.work_dir == run.work_dir for other in runs) > 1]
    if repeated:
        raise UserError(f'{repeated[0]} is given more than once.')
    return _told_apart(runs)


def _told_apart(runs: list[RunRecord]) -> list[RunRecord]:
    def place(run: RunRecord) -> tuple:
        return run.method, run.column, run.seed

    places = [place(run) for run in runs]
    clashing = {place[0] for place in places if places.count(place) > 1}
    return [
        replace(run, method=f'{run.method} ({osp.basename(run.work_dir)})') if run.method in clashing else run
        for run in runs
    ]
