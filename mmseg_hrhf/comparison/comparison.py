"""Systems x settings x seeds on one base config: what runs, in which order, and the files it ends in."""
from __future__ import annotations

import json
import os.path as osp
from dataclasses import replace
from typing import Optional, Sequence

from mmengine.config import Config

from ..files import PathLike, write_json, write_text
from ..step_config import replay_options
from .cell import FIRST_STEP, Cell, cell_config, shares_first_step, write_cell_config
from .curves import plot_curves
from .runs import Run
from .table import BACKGROUND, collect, csv_text, markdown, statistics_of


def plan_cells(root: PathLike, systems: Sequence[str], settings: Sequence[tuple[Optional[str], str]],
               seeds: Sequence[int]) -> list[Cell]:
    """All cells; a seed's systems together, so that a stopped comparison holds whole columns."""
    return [Cell(str(root), system, task, setting, seed) for seed in seeds for task, setting in settings
            for system in systems]


def plan_runs(cells: Sequence[Cell], base: Config) -> list[Run]:
    """The processes that fill the cells, each config written.

    Cells of one task, setting and seed whose step 0 is plain training begin with a shared one; those that ask for the
    same fake images at step 1 share these too.

    Raises:
        ValueError: a system that does not fit the config.
    """
    runs: list[Run] = []
    first_steps: dict[tuple, Run] = {}
    fakes: dict[tuple, list[Cell]] = {}
    for cell in cells:
        cfg = cell_config(cell, base)
        write_cell_config(cell, cfg)
        run, place = Run(cell), (cell.column, cell.seed)
        if shares_first_step(cfg):
            if place not in first_steps:
                first = Cell(cell.root, FIRST_STEP, cell.task, cell.setting, cell.seed)
                # As HRHF where it can be: step 0 then leaves what fakes need of it (feature statistics), too.
                system = 'HRHF' if base.get('replay') else 'FT'
                write_cell_config(first, cell_config(replace(first, system=system), base))
                first_steps[place] = Run(first, only_first_step=True)
                runs.append(first_steps[place])
            run.first_step = first_steps[place]
            replay = replay_options(cfg)
            if replay is not None:
                wish = {key: value for key, value in replay.items() if key != 'ratio'}
                same = fakes.setdefault((place, json.dumps(wish, sort_keys=True, default=repr)), [])
                run.fakes_from = tuple(same)
                same.append(cell)
        runs.append(run)
    return runs


def write_tables(root: PathLike, cells: Sequence[Cell], title: str) -> str:
    """Write ``table.md``, ``table.csv``, ``table.json`` and ``curves.png``; returns the Markdown."""
    records = collect(cells)
    seeds = sorted({cell.seed for cell in cells})
    parts = [f'# {title}', '', f'mIoU in % after the last step, seeds {", ".join(map(str, seeds))}, '
             f'{len(records)} of {len(cells)} runs finished; mean ± sample standard deviation over seeds.']
    for background in BACKGROUND:
        parts += ['', f'## {background.capitalize()}', '', markdown(records, cells, background).rstrip()]
    text = '\n'.join(parts) + '\n'
    rows = statistics_of(records)
    write_text(osp.join(root, 'table.md'), text)
    write_text(osp.join(root, 'table.csv'), csv_text(rows))
    write_json(osp.join(root, 'table.json'), dict(cells=rows, runs=records))
    if records:
        plot_curves(cells, osp.join(root, 'curves.png'))
    return text
