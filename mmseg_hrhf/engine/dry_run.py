"""Checks everything a run needs, without training or writing to the work dir."""
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
    """Check options, classes, data files, weights, networks and, if it exists, the work dir.

    Args:
        cfg: config of the run, with ``work_dir``; the plan is for as many processes as ``launcher`` has started.
    Returns:
        The plan and the findings, as text.
    Raises:
        UserError: something would stop the run.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    run = RunConfig.parse(cfg)
    check_weight_files(cfg)
    start_distributed(cfg)
    work_dir = run.work_dir
    index = osp.join(work_dir, 'class_index')
    with tempfile.TemporaryDirectory(prefix='mmseg_hrhf_') as folder:
        plan = RunPlan(run, index if osp.isdir(index) else folder)
        to_retest = check_steps(work_dir, plan.identities())
        plan.preflight()
    lines = [plan.describe()]
    for name, source, chosen in (('training', plan.train_source, plan.train_positions),
                                 ('test', plan.test_source, plan.test_positions)):
        used = sorted({int(i) for positions in chosen.values() for i in positions})
        lines.append(f'Found {len(used)} {name} images and their masks in {source.data_root}.')
    weights = [_describe(path) for _, path in weight_files(cfg)]
    lines += weights or ['No pretrained weights: training starts from random weights.']
    finished = [t for t in plan.steps if osp.exists(StepFiles(work_dir, t).result)]
    if finished:
        lines.append(f'{work_dir} contains this run. Finished steps: {", ".join(map(str, finished))}.')
    if to_retest:
        lines.append(f'Steps that will be tested again, but not trained: {", ".join(map(str, to_retest))}, since the '
                     'test config or the test data have changed.')
    return '\n'.join([*lines, 'Nothing was trained (--dry-run).'])


def _describe(path: str) -> str:
    if is_remote(path):
        return f'mmengine will download the weights {path} when step 0 starts, unless they are in its cache.'
    return f'Weights {path} are complete and contain no code.'
