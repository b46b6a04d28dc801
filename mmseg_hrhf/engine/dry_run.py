"""Everything a run needs, checked without training and without writing into a work dir."""
from __future__ import annotations

import os.path as osp
import tempfile

from mmengine.config import Config
from mmengine.registry import init_default_scope

from ..config.check import check_weight_files
from ..config.plain import is_remote, weight_files
from ..config.run import RunConfig
from ..work_dir.layout import StepFiles
from ..work_dir.record import check_steps
from .distributed import start_distributed
from .plan import RunPlan


def dry_run(cfg: Config) -> str:
    """Check options, classes, files of the data, weights, networks, and the work dir, if there is one.

    Args:
        cfg: of the run, with ``work_dir``; with several processes (``launcher``) the plan is for as many.
    Returns:
        The plan, and what was found, for people to read.
    Raises:
        UserError: what would stop the run, with its remedy.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    run = RunConfig.parse(cfg)
    check_weight_files(cfg)
    start_distributed(cfg)
    work_dir = run.work_dir
    index = osp.join(work_dir, 'class_index')
    with tempfile.TemporaryDirectory(prefix='mmseg_hrhf_') as folder:
        plan = RunPlan(run, index if osp.isdir(index) else folder)
        tested_otherwise = check_steps(work_dir, plan.identities())
        plan.rehearse()
    lines = [plan.describe()]
    for name, source, chosen in (('training', plan.train_source, plan.train_positions),
                                 ('test', plan.test_source, plan.test_positions)):
        used = sorted({int(i) for positions in chosen.values() for i in positions})
        lines.append(f'{len(used)} {name} images and their masks are there, in {source.data_root}.')
    weights = [_describe(path) for _, path in weight_files(cfg)]
    lines += weights or ['No pretrained weights: training starts from random ones.']
    finished = [t for t in plan.steps if osp.exists(StepFiles(work_dir, t).result)]
    if finished:
        lines.append(f'{work_dir} holds this run; finished are steps {", ".join(map(str, finished))}.')
    if tested_otherwise:
        lines.append(f'Steps {", ".join(map(str, tested_otherwise))} stand, but will be tested again: the config '
                     'of the test, or its data, differ.')
    return '\n'.join([*lines, 'Nothing was trained (--dry-run).'])


def _describe(path: str) -> str:
    if is_remote(path):
        return f'Weights {path} will be fetched by mmengine when step 0 begins, unless they are in its cache.'
    return f'Weights {path} are whole and hold data only.'
