"""Comparison of methods x settings x seeds from one base config: its runs, their order, and the output files."""
from __future__ import annotations

import json
import os.path as osp
from dataclasses import replace
from typing import Collection, Optional, Sequence

from mmengine.config import Config

from ...config.identity import data_identity, test_identity, training_identity
from ...config.run import RunConfig
from ...datasets.incremental import scenario_of_config
from ...scenario import Scenario
from ...utils.errors import UserError
from ...utils.io import PathLike, write_json, write_text
from ...work_dir.record import check_steps
from ..charts import plot_curves
from .cell import FIRST_STEP, Cell, cell_config, first_step_identity, joint_identity, write_cell_config
from .runs import Run
from .table import (
    BACKGROUND,
    PUBLISHED_PROTOCOLS,
    collect,
    csv_text,
    markdown,
    protocol_note,
    published_markdown,
    published_tables,
    statistics_of,
)


def plan_cells(root: PathLike, methods: Sequence[str], settings: Sequence[tuple[Optional[str], str]],
               seeds: Sequence[int]) -> list[Cell]:
    """All cells without duplicates, ordered by seed and column, so that an interrupted comparison has full columns."""
    cells = (Cell(str(root), method, task, setting, seed) for seed in seeds for task, setting in settings
             for method in methods)
    return list(dict.fromkeys(cells))


def plan_runs(cells: Sequence[Cell], base: Config, write: bool = True) -> list[Run]:
    """Plan the runs of the cells and, with ``write``, write their configs after all are checked.

    Cells of the same task, setting and seed share step 0 if it is plain training. They also share the synthetic images
    of step 1 if these have the same options. Joint is trained once for all settings of a task.

    Raises:
        UserError: a method, task or seed that does not match the config, two cells that are the same run or share a
            folder, or a folder that contains a run of another config.
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
    # As HRHF if possible, so that a shared step 0 records the feature statistics that synthetic images need.
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
    """JSON data that identifies the steps of a run, as far as the config determines them."""
    scenario, found = _scenario(run), {}
    last = scenario.num_steps - 1
    for t in [0] if cell.method == FIRST_STEP else [last] if run.method.joint else range(last + 1):
        options, learnt = run.training_scenario(scenario, t)
        trained = scenario_of_config(run.plain.train_dataloader.dataset, options)
        classes = scenario.class_names(t)
        found[t] = dict(
            training=training_identity(run, t),
            training_data=data_identity(classes, trained.train_label_map(learnt),
                                        image_list=trained.image_lists.get(learnt)),
            test=test_identity(run, t),
            test_data=data_identity(classes, scenario.test_label_map(t)))
    return found


def describe(runs: Sequence[Run]) -> str:
    """One line per run: its name, state and folder, and what it shares with other runs."""
    lines = []
    for run in runs:
        state = 'finished' if run.is_done() else 'to run'
        shared = [f'step 0 of {run.first_step.cell.folder}' if run.first_step else '',
                  f'the same as {run.same_as.cell.name}' if run.same_as else '',
                  f'synthetic images of {run.fakes_from[0].name}' if run.fakes_from else '']
        lines.append(', '.join([f'{run.cell.name}: {state}', run.cell.folder, *filter(None, shared)]))
    return '\n'.join(lines)


def _check_distinct(cells: Sequence[Cell], own_task: Optional[str]) -> None:
    columns: dict[tuple, Cell] = {}
    folders: dict[str, Cell] = {}
    for cell in cells:
        twin = columns.setdefault((cell.task or own_task, cell.setting, cell.seed, cell.method), cell)
        if twin != cell:
            raise UserError(f"--settings names the config's own task {own_task!r} twice: as {twin.column!r} and as "
                             f'{cell.column!r}. Remove one of them.')
        other = folders.setdefault(cell.folder, cell)
        if other != cell or osp.basename(cell.folder) == FIRST_STEP:
            of = repr(other.name) if other != cell else 'the shared step 0'
            raise UserError(f'The runs of {cell.name!r} and of {of} would share the folder {cell.folder}: rename a '
                             'method in comparison.methods.')


def _different_batches(cells: Sequence[Cell]) -> list[str]:
    """A warning if runs used different numbers of processes, and thus different batch sizes."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        results = cell.results()
        if results is not None:
            number = results['results'][-1].get('environment', {}).get('processes')
            found.setdefault(str(number), []).append(cell.name)
    if len(found) < 2:
        return []
    return ['', '**Batch sizes differ** (batch size per process x number of processes): ' +
            '; '.join(f'{number} processes: {len(names)} runs, such as {names[0]}' for number, names in found.items()) +
            '.']


def write_tables(root: PathLike, cells: Sequence[Cell], title: str, by_step: bool = False,
                 failed: Collection[Cell] = (), published: Optional[Sequence[dict]] = None,
                 backgrounds: Sequence[str] = BACKGROUND[:1]) -> str:
    """Write ``table.md``, ``table.csv``, ``table.json`` and ``curves.png``; returns the Markdown.

    Args:
        root: folder of the comparison.
        cells: cells of the table.
        title: heading of the page.
        by_step: see ``collect``.
        failed: failed cells, which are excluded because their results may be of another test.
        published: rows of ``read_published``, for a section of their own below the measured ones.
        backgrounds: those of ``BACKGROUND`` to write, both measured and published.
    """
    finished = [cell for cell in cells if cell not in failed]
    records = collect(finished, by_step, backgrounds)
    seeds = sorted({cell.seed for cell in cells})
    parts = [f'# {title}', '', f'mIoU in % after the last step, seeds {", ".join(map(str, seeds))}, '
             f'{len(records)} of {len(cells)} runs finished; mean ± sample standard deviation over seeds.']
    parts += ['', protocol_note(records)] if records else []
    parts += _different_batches(cells)
    for background in backgrounds:
        parts += ['', f'## {background.capitalize()}', '', markdown(records, cells, background).rstrip()]
    if published is not None:
        parts += ['', '## Published', '',
                  f'mIoU in % as printed in the source, not measured here. {PUBLISHED_PROTOCOLS}', '',
                  published_markdown(published_tables(published, backgrounds)).rstrip()]
    text = '\n'.join(parts) + '\n'
    rows = statistics_of(records)
    write_text(osp.join(root, 'table.md'), text)
    write_text(osp.join(root, 'table.csv'), csv_text(rows))
    write_json(osp.join(root, 'table.json'), dict(cells=rows, runs=records))
    if records:
        plot_curves(finished, osp.join(root, 'curves.png'))
    return text
