"""Evaluation config of a learning step: images, labels and groups of classes."""
from __future__ import annotations

import copy
import os.path as osp
from typing import Any, Mapping

from mmengine.config import Config

from ..datasets.source import type_name
from ..scenario import Scenario
from ..utils.errors import UserError
from ..work_dir.layout import StepFiles
from .plain import as_list, choose_wrapper, is_epoch_based, set_classes
from .run import RunConfig


def test_loader(plain: Config) -> Any:
    """The data loader with which a plain mmseg config is tested."""
    return plain.get('test_dataloader') or plain.val_dataloader


def set_evaluation(out: Config, options: Mapping[str, Any], scenario: Scenario, files: StepFiles) -> None:
    """Make ``out`` evaluate on the images, labels and groups of a step.

    Args:
        out: plain mmseg config, changed in place.
        options: the options from which ``scenario`` was built.
        scenario: scenario of the run.
        files: files of the step.
    Raises:
        UserError: there is no test data, or no metric from which the groups can be computed.
    """
    for name in ('val', 'test'):
        loader = out.get(f'{name}_dataloader')
        if loader is None:
            continue
        loader.dataset = dict(
            type='IncrementalDataset',
            dataset=loader.dataset,
            scenario=dict(options),
            step=files.step,
            test_mode=True,
            cache_dir=osp.join(files.work_dir, 'class_index'))
        out[f'{name}_evaluator'] = _evaluator(out[f'{name}_evaluator'], scenario, files.step)
    if out.get('test_dataloader') is None:
        if out.get('val_dataloader') is None:
            raise UserError('The config has neither test_dataloader nor val_dataloader: a step cannot be evaluated.')
        for name in ('dataloader', 'evaluator'):
            out[f'test_{name}'] = copy.deepcopy(out[f'val_{name}'])
        out.test_cfg = dict(type='TestLoop')
    if not any(evaluator.get('type') == 'IncrementalIoUMetric' and not evaluator.get('prefix')
               and not evaluator.get('format_only') for evaluator in as_list(out.test_evaluator)):
        raise UserError('test_evaluator must include an IoUMetric without prefix and format_only: it yields the mIoU '
                        'of old, new and all classes.')
    if out.get('train_cfg') is None:
        return
    # Each step ends with a test of its final weights; a validation at that point would only repeat it.
    length = out.train_cfg.get('max_epochs' if is_epoch_based(out) else 'max_iters')
    if out.train_cfg.get('val_interval', 1 if is_epoch_based(out) else 1000) >= length:
        out.val_dataloader = out.val_evaluator = out.val_cfg = None


def _evaluator(evaluator: Any, scenario: Scenario, step: int) -> Any:
    """The evaluator with mmseg's IoUMetric replaced by the one with groups."""
    if isinstance(evaluator, (list, tuple)):
        return [_evaluator(item, scenario, step) for item in evaluator]
    if type_name(evaluator) != 'IoUMetric':
        return evaluator
    return dict(evaluator, type='IncrementalIoUMetric', groups=scenario.metric_groups(step))


def test_config(plain: Config, options: Mapping[str, Any], scenario: Scenario, files: StepFiles) -> Config:
    """The config with which a stock mmengine Runner tests a step's plain checkpoint.

    Args:
        plain: mmseg config of the step.
        options: the options from which ``scenario`` was built.
        scenario: scenario of the run.
        files: files of the step; their work dir stores the class index.
    """
    out = copy.deepcopy(plain)
    preprocessor = out.pop('data_preprocessor', None)
    out.model = set_classes(out.model, scenario.class_names(files.step))
    if preprocessor is not None:
        out.model.setdefault('data_preprocessor', preprocessor)
    set_evaluation(out, options, scenario, files)
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'val_dataloader', 'val_evaluator',
                'val_cfg'):
        out.pop(key, None)
    choose_wrapper(out)
    return out


def retest_config(run: RunConfig, scenario: Scenario, files: StepFiles) -> Config:
    """The config that tests a finished step of a run again."""
    out = test_config(run.at(files.step), run.scenario, scenario, files)
    out.work_dir, out.load_from, out.resume = osp.join(files.folder, 'test'), files.checkpoint, False
    return out


def prepare_test(out: Config, checkpoint: str, tta: bool) -> None:
    """Load the weights of ``checkpoint``, and wrap the network by ``tta_model`` if ``tta`` is set."""
    if tta:
        out.model = dict(out.tta_model, module=out.model)
    out.load_from = checkpoint
    choose_wrapper(out)


def set_outputs(out: Config, out_dir: Any, show_dir: Any, show: bool, wait_time: float) -> None:
    """Make a test write predicted masks to ``out_dir`` and overlays to ``show_dir``, or show them."""
    if out_dir:
        for evaluator in as_list(out.test_evaluator):
            evaluator['output_dir'] = out_dir
    if show or show_dir:
        out.setdefault('default_hooks', {})
        out.default_hooks.visualization = dict(type='SegVisualizationHook', draw=True, show=show, wait_time=wait_time)
        if show_dir:
            out.setdefault('visualizer', dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')]))
            out.visualizer['save_dir'] = show_dir


def set_augmented_pipelines(cfg: Config) -> None:
    """Replace the test pipelines by ``tta_pipeline``.

    Raises:
        UserError: the config has no ``tta_pipeline`` or ``tta_model``.
    """
    for key in ('tta_pipeline', 'tta_model'):
        if not cfg.get(key):
            raise UserError(f"--tta needs {key} in the config, as in mmseg's configs.")
    for loader in (cfg.get('test_dataloader'), cfg.get('val_dataloader')):
        if loader is not None:
            loader.dataset.pipeline = cfg.tta_pipeline
