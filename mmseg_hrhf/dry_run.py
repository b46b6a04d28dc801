"""Everything a run needs, checked without training and without writing into a work dir."""
from __future__ import annotations

import os.path as osp
from typing import Any, Iterator, Sequence

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset

from .checkpoint import is_whole
from .run_identity import check_same_run, run_seed
from .run_plan import RunPlan, check_options
from .step_files import StepFiles


def dry_run(cfg: Config) -> str:
    """Check options, classes, files of the data, weights, networks, and the work dir, if there is one.

    Args:
        cfg: of the run, with ``work_dir``.
    Returns:
        The plan, and what was found, for people to read.
    Raises:
        ValueError: what would stop the run, with its remedy.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    work_dir, seed = osp.abspath(cfg.work_dir), run_seed(cfg)
    check_options(cfg)
    check_same_run(work_dir, cfg, seed)
    index = osp.join(work_dir, 'class_index')
    plan = RunPlan(cfg, work_dir, seed, index if osp.isdir(index) else None)
    plan.check_model()
    lines = [plan.describe()]
    for name, source, chosen in (('training', plan.train_source, plan.train_positions),
                                 ('test', plan.test_source, plan.test_positions)):
        used = sorted({int(i) for positions in chosen.values() for i in positions})
        check_images(source, used, name)
        lines.append(f'{len(used)} {name} images and their masks are there, in {source.data_root}.')
    weights = list(pretrained_weights(plan.configs[plan.steps[0]].model.student))
    lines += [check_weights(path) for path in weights] or ['No pretrained weights: training starts from random ones.']
    finished = [t for t in plan.steps if osp.exists(StepFiles(work_dir, t).result)]
    if finished:
        lines.append(f'{work_dir} holds this run; finished are steps {", ".join(map(str, finished))}.')
    return '\n'.join([*lines, 'Nothing was trained (--dry-run).'])


def check_images(source: BaseSegDataset, positions: Sequence[int], purpose: str) -> None:
    """Raise ``ValueError`` naming the first image that is no file. (The masks were all read for the class index.)"""
    paths = [source.get_data_info(i)['img_path'] for i in positions]
    missing = [path for path in paths if '://' not in path and not osp.isfile(path)]
    if missing and not source.backend_args:
        raise ValueError(f'{len(missing)} of {len(paths)} {purpose} images are missing, such as {missing[0]!r}: check '
                         f'data_root, data_prefix.img_path and img_suffix={source.img_suffix!r}.')


def pretrained_weights(config: Any) -> Iterator[str]:
    """Every checkpoint that a model's config starts from, by ``init_cfg`` or ``pretrained``, at any depth."""
    if isinstance(config, dict):
        if config.get('type') == 'Pretrained' and config.get('checkpoint'):
            yield config['checkpoint']
        if isinstance(config.get('pretrained'), str):
            yield config['pretrained']
        for value in config.values():
            yield from pretrained_weights(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from pretrained_weights(value)


def check_weights(path: str) -> str:
    """What is to be said of a checkpoint that a model starts from.

    Raises:
        ValueError: a local file is missing or empty.
    """
    if '://' in path:
        return f'Weights {path} will be fetched by mmengine when step 0 begins, unless they are in its cache.'
    if not osp.isfile(path) or not osp.getsize(path):
        raise ValueError(f'Pretrained weights {path!r} do not exist: set init_cfg.checkpoint of the model, or '
                         'init_cfg=None to start from random weights.')
    kind = 'a whole torch file' if is_whole(path) else "a file, of a format older than torch's zip files"
    return f'Weights {path} are {kind}.'
