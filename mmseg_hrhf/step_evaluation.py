"""The evaluation of one learning step: its images, its labels, its groups of classes."""
from __future__ import annotations

import copy
import os.path as osp

from mmengine.config import Config

from .datasets.source import type_name
from .scenario import Scenario
from .step_files import StepFiles
from .step_schedule import is_epoch_based


def set_evaluation(out: Config, own: dict, scenario: Scenario, files: StepFiles) -> None:
    """Let ``out`` be evaluated on a step's images, labels and groups. ``own`` holds the user's ``scenario``.

    Raises:
        ValueError: nothing to evaluate on, or no metric to make the groups from.
    """
    for name in ('val', 'test'):
        loader = out.get(f'{name}_dataloader')
        if loader is None:
            continue
        loader.dataset = dict(
            type='IncrementalDataset',
            dataset=loader.dataset,
            scenario=own['scenario'],
            step=files.step,
            test_mode=True,
            cache_dir=osp.join(files.work_dir, 'class_index'))
        out[f'{name}_evaluator'] = _evaluator(out[f'{name}_evaluator'], scenario, files.step)
    if out.get('test_dataloader') is None:
        if out.get('val_dataloader') is None:
            raise ValueError('The config has neither test_dataloader nor val_dataloader: a step cannot be evaluated.')
        for name in ('dataloader', 'evaluator'):
            out[f'test_{name}'] = copy.deepcopy(out[f'val_{name}'])
        out.test_cfg = dict(type='TestLoop')
    evaluators = out.test_evaluator if isinstance(out.test_evaluator, (list, tuple)) else [out.test_evaluator]
    if not any(evaluator.get('type') == 'IncrementalIoUMetric' and not evaluator.get('prefix')
               and not evaluator.get('format_only') for evaluator in evaluators):
        raise ValueError('test_evaluator must hold an IoUMetric without prefix and format_only: the mIoU of old, new '
                         'and all classes is made from it.')
    if out.get('train_cfg') is None:
        return
    # Each step ends in a test of its last weights; validation at the same moment would only repeat it.
    length = out.train_cfg.get('max_epochs' if is_epoch_based(out) else 'max_iters')
    if out.train_cfg.get('val_interval', 1 if is_epoch_based(out) else 1000) >= length:
        out.val_dataloader = out.val_evaluator = out.val_cfg = None


def _evaluator(evaluator, scenario: Scenario, step: int):
    """The evaluator with mmseg's IoUMetric replaced by the one that knows groups."""
    if isinstance(evaluator, (list, tuple)):
        return [_evaluator(item, scenario, step) for item in evaluator]
    if type_name(evaluator) != 'IoUMetric':
        return evaluator
    return dict(evaluator, type='IncrementalIoUMetric', groups=scenario.metric_groups(step))
