"""Results of runs, read from their work dirs, and mIoU of groups of classes."""
from __future__ import annotations

import itertools
import os.path as osp
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Sequence

from mmengine.config import Config

from ..scenario import Scenario
from ..utils.errors import UserError
from ..utils.io import PathLike, read_json
from ..work_dir.layout import StepFiles

BACKGROUND = ('without background', 'with background')
# Names of the group of all classes: one for each convention, since their means differ.
ALL = dict(zip(BACKGROUND, ('all', 'all, with background')))


def group_scores(result: dict, sizes: Sequence[int]) -> dict[str, dict[str, Optional[float]]]:
    """mIoU of groups of classes after a step, by background convention and group name.

    Args:
        result: ``result.json`` of a step, with ``classes`` and ``metrics``, which has ``IoU/<class>`` in percent.
        sizes: number of classes of each group, starting with that of step 0.
    Returns:
        The groups for each of ``BACKGROUND``. Their names are class ranges: ``'1-15'``, ``'16-20'`` and ``'all'``
        without background, as in Tables 1 and 7; ``'0-15'``, ``'16-20'`` and ``'all, with background'`` with it, as in
        later papers. Classes without pixels are skipped; a group without any is None.
    """
    classes = result['classes']
    values = [result['metrics'][f'IoU/{name}'] for name in classes]
    background = result['metrics']['IoU/background']
    base, ends = sizes[0], list(itertools.accumulate(sizes))
    added = {class_span(end - size + 1, end): _mean(values[end - size:end])
             for size, end in zip(sizes[1:], ends[1:]) if size}
    without, included = BACKGROUND
    return {
        without: {class_span(1, base): _mean(values[:base]), **added, ALL[without]: _mean(values)},
        included: {class_span(0, base): _mean([background, *values[:base]]), **added,
                   ALL[included]: _mean([background, *values])},
    }


def class_span(first: int, last: int) -> str:
    return str(first) if first == last else f'{first}-{last}'


def label_protocol(identity: dict) -> str:
    """Label protocol of a run, from its ``run.json``."""
    return (identity['scenario'] or {}).get('label_protocol', Scenario.label_protocol)


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


@dataclass(frozen=True)
class RunRecord:
    """A run of one method with one seed.

    Args:
        work_dir: folder of the run.
        method: name of the method in tables.
        results: results of the finished steps, in order (``step_<t>/result.json``).
        identity: options of the run (``run.json``).
        num_steps: number of steps of the scenario.
        num_base: number of foreground classes of step 0.
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
        """Task and setting, such as ``'15-1 overlapped'``; explicit steps are named by their numbers of classes."""
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
        """mIoU of groups at the last step, see ``group_scores``."""
        return group_scores(self.last, [self.num_base, len(self.last['classes']) - self.num_base])

    def table_record(self) -> dict:
        """Record for ``statistics_of``."""
        return dict(method=self.method, column=self.column, seed=self.seed,
                    label_protocol=label_protocol(self.identity), scores=self.scores())


def read_results(work_dir: PathLike) -> Optional[dict]:
    """``results.json`` of a run (``results`` of finished steps, ``num_steps``, ``num_base_classes``), or None."""
    path = osp.join(work_dir, 'results.json')
    return read_json(path) if osp.exists(path) else None


def read_run(work_dir: PathLike, method: Optional[str] = None) -> RunRecord:
    """Read the work dir of a run.

    Raises:
        UserError: it is not a work dir, or has no finished step.
    """
    folder = osp.abspath(work_dir)
    held, identity = read_results(folder), osp.join(folder, 'run.json')
    if held is None or not osp.exists(identity):
        raise UserError(f'{work_dir} contains no finished step of a run (run.json or results.json is missing): use a '
                        'work dir of tools/train.py or tools/compare.py.')
    options, results = read_json(identity), tuple(held['results'])
    # Early runs of version 0.1.0 wrote neither number.
    num_steps = held.get('num_steps') or len((options['scenario'] or {}).get('steps') or ()) or len(results)
    num_base = held.get('num_base_classes') or len(results[0]['classes'])
    return RunRecord(folder, method or method_name(options), results, options, num_steps, num_base)


def method_name(identity: dict) -> str:
    """Name of a run's method in tables, from its type and its replay options."""
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
    """Find runs in paths: work dirs, ``NAME=WORK_DIR``, or folders with complete runs at any depth.

    Folder names are added to methods that have several runs with the same column and seed.

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
        # Folders that start with _ are shared by runs of a comparison.
        found = [read_run(each, name or None) for each in below
                 if not each.name.startswith('_') and osp.exists(osp.join(each, 'run.json'))]
        found = [run for run in found if run.is_complete]
        if not found:
            raise UserError(f'{folder} contains no finished run, nor do its subfolders: give a work dir.')
        runs += found
    repeated = [run.work_dir for run in runs if sum(other.work_dir == run.work_dir for other in runs) > 1]
    if repeated:
        raise UserError(f'{repeated[0]} is given more than once: remove the repetition.')
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
