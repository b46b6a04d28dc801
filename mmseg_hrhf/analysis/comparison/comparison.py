"""Methods x settings x seeds on one base config: what runs, in which order, and the files it ends in."""
from __future__ import annotations

import json
import os.path as osp
from dataclasses import replace
from typing import Collection, Optional, Sequence

from mmengine.config import Config

from ...config.identity import test_identity, training_identity
from ...config.run import RunConfig
from ...datasets.incremental import scenario_of_config
from ...scenario import Scenario
from ...utils.errors import UserError
from ...utils.io import PathLike, write_json, write_text
from ...work_dir.record import check_steps
from ..charts import plot_curves
from .cell import FIRST_STEP, Cell, cell_config, first_step_identity, joint_identity, write_cell_config
from .runs import Run
from .table import BACKGROUND, collect, csv_text, markdown, statistics_of


def plan_cells(root: PathLike, methods: Sequence[str], settings: Sequence[tuple[Optional[str], str]],
               seeds: Sequence[int]) -> list[Cell]:
    """All cells, each once; a seed's methods together, so that a stopped comparison holds whole columns."""
    cells = (Cell(str(root), method, task, setting, seed) for seed in seeds for task, setting in settings
             for method in methods)
    return list(dict.fromkeys(cells))


def plan_runs(cells: Sequence[Cell], base: Config, write: bool = True) -> list[Run]:
    """The processes that fill the cells, each config written, unless ``write`` is False.

    Cells of one task, setting and seed whose step 0 is the plain training of the base config begin with a shared one;
    those that ask for the same fake images at step 1 share these too. Joint is trained once for all settings of a task.
    Nothing is written before all are checked.

    Raises:
        UserError: a method, task or seed that does not fit the config, two cells that are one run or share a folder,
            or a folder that holds a run of another config.
    """
    _check_distinct(cells, base.scenario.get('task'))
    runs: dict[Cell, Run] = {}
    configs: dict[Cell, RunConfig] = {}
    fakes: dict[tuple, list[Cell]] = {}
    joint: dict[str, Run] = {}
    for cell in cells:
        parsed = _checked(cell, base)
        run = Run(cell, identities=_identities(cell, parsed))
        own, of_all_settings = first_step_identity(parsed), joint_identity(parsed)
        if of_all_settings is not None:
            twin = joint.setdefault(json.dumps(of_all_settings, sort_keys=True), run)
            run.same_as = None if twin is run else twin
        if own is not None:
            first = replace(cell, method=FIRST_STEP)
            if first not in configs:
                configs[first] = _checked(first, base)
            shared = first_step_identity(configs[first]) or {}
            if all(shared.get(key) == value for key, value in own.items()):
                shared_run = Run(first, only_first_step=True, identities=_identities(first, configs[first]))
                run.first_step = runs.setdefault(first, shared_run)
                if parsed.replay is not None:
                    wish = {key: value for key, value in parsed.replay.options.items() if key != 'ratio'}
                    same = fakes.setdefault((first, json.dumps(wish, sort_keys=True, default=repr)), [])
                    run.fakes_from = tuple(same)
                    same.append(cell)
        runs[cell], configs[cell] = run, parsed
    for cell in runs if write else ():
        write_cell_config(cell, configs[cell].user)
    return list(runs.values())


def _checked(cell: Cell, base: Config) -> RunConfig:
    # As HRHF where it can be: a shared step 0 then leaves what fakes need of it (feature statistics), too.
    method = cell.method if cell.method != FIRST_STEP else 'HRHF' if base.get('replay') else 'FT'
    try:
        run = RunConfig.parse(cell_config(replace(cell, method=method), base), seed=cell.seed)
        scenario = _scenario(run)
        for path in scenario.image_lists.values():
            if not osp.isfile(path):
                raise UserError(f'Image list {path!r} does not exist.')
        check_steps(cell.folder, _identities(cell, run))
    except ValueError as error:
        raise UserError(f'{cell.name}: {error}') from error
    return run


def _scenario(run: RunConfig) -> Scenario:
    return scenario_of_config(run.plain.train_dataloader.dataset, run.scenario)


def _identities(cell: Cell, run: RunConfig) -> dict[int, dict]:
    """What the steps of a run depend on, as far as the config alone tells."""
    last = _scenario(run).num_steps - 1
    steps = [0] if cell.method == FIRST_STEP else [last] if run.method.joint else range(last + 1)
    return {t: dict(training=training_identity(run, t), test=test_identity(run, t)) for t in steps}


def describe(runs: Sequence[Run]) -> str:
    """A line for each run: what it is, what it shares, and where its files are."""
    lines = []
    for run in runs:
        state = 'finished' if run.is_done() else 'to run'
        shared = [f'step 0 of {run.first_step.cell.folder}' if run.first_step else '',
                  f'the same as {run.same_as.cell.name}' if run.same_as else '',
                  f'fakes of {run.fakes_from[0].name}' if run.fakes_from else '']
        lines.append(', '.join([f'{run.cell.name}: {state}', run.cell.folder, *filter(None, shared)]))
    return '\n'.join(lines)


def _check_distinct(cells: Sequence[Cell], own_task: Optional[str]) -> None:
    columns: dict[tuple, Cell] = {}
    folders: dict[str, Cell] = {}
    for cell in cells:
        twin = columns.setdefault((cell.task or own_task, cell.setting, cell.seed, cell.method), cell)
        if twin != cell:
            raise UserError(f"--settings names the config's own task {own_task!r} twice: as {twin.column!r} and as "
                             f'{cell.column!r}. Give one of them.')
        other = folders.setdefault(cell.folder, cell)
        if other != cell or osp.basename(cell.folder) == FIRST_STEP:
            of = repr(other.name) if other != cell else 'the shared step 0'
            raise UserError(f'The runs of {cell.name!r} and of {of} would have one folder, {cell.folder}: rename a '
                             'method in comparison.methods.')


def _different_batches(cells: Sequence[Cell]) -> list[str]:
    """A warning where runs were of different numbers of processes, which multiply the batch."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        results = cell.results()
        if results is not None:
            number = results['results'][-1].get('environment', {}).get('processes')
            found.setdefault(str(number), []).append(cell.name)
    if len(found) < 2:
        return []
    return ['', '**Not the same batch everywhere**, which is that of a process times their number: ' +
            '; '.join(f'{number} processes: {len(names)} runs, such as {names[0]}' for number, names in found.items()) +
            '.']


def write_tables(root: PathLike, cells: Sequence[Cell], title: str, by_step: bool = False,
                 failed: Collection[Cell] = ()) -> str:
    """Write ``table.md``, ``table.csv``, ``table.json`` and ``curves.png``; returns the Markdown.

    Args:
        root: folder of the comparison.
        cells: rows and columns.
        title: of the page.
        by_step: see ``collect``.
        failed: cells whose figures, if there are any, are of another test than the others'.
    """
    finished = [cell for cell in cells if cell not in failed]
    records = collect(finished, by_step)
    seeds = sorted({cell.seed for cell in cells})
    parts = [f'# {title}', '', f'mIoU in % after the last step, seeds {", ".join(map(str, seeds))}, '
             f'{len(records)} of {len(cells)} runs finished; mean ± sample standard deviation over seeds.']
    parts += _different_batches(cells)
    for background in BACKGROUND:
        parts += ['', f'## {background.capitalize()}', '', markdown(records, cells, background).rstrip()]
    text = '\n'.join(parts) + '\n'
    rows = statistics_of(records)
    write_text(osp.join(root, 'table.md'), text)
    write_text(osp.join(root, 'table.csv'), csv_text(rows))
    write_json(osp.join(root, 'table.json'), dict(cells=rows, runs=records))
    if records:
        plot_curves(finished, osp.join(root, 'curves.png'))
    return text
