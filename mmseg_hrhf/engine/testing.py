"""Evaluation of one step's checkpoint."""
from __future__ import annotations

import logging
from typing import Optional

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from ..config.check import check_names_of_classes
from ..config.step import step_test_config
from ..datasets.incremental import build_source, scenario_of
from ..scenario import Scenario
from ..utils.errors import UserError
from ..work_dir.checkpoint import held_classes, load_checkpoint, only_data
from .distributed import start_distributed, wrap_for_cpu
from .loops import release


def run_test(cfg: Config,
             checkpoint: str,
             out_dir: Optional[str] = None,
             show_dir: Optional[str] = None,
             show: bool = False,
             wait_time: float = 2,
             tta: bool = False) -> dict:
    """Test a checkpoint with the config of its run, or with any plain mmseg config.

    Args:
        cfg: config; with a ``scenario``, the step is read from the checkpoint.
        checkpoint: plain checkpoint of a step.
        out_dir: folder for predicted masks.
        show_dir, show, wait_time: paint predictions, as mmseg's test tool does.
        tta: augment at test time, by ``tta_pipeline`` and ``tta_model`` of the config.
    Returns:
        The metrics.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    start_distributed(cfg)
    loaded = load_checkpoint(checkpoint)
    meta = loaded.get('meta', {})
    if tta:
        _augment_data(cfg)
    if cfg.get('scenario') is not None:
        check_names_of_classes(cfg)
        loader = cfg.get('test_dataloader') or cfg.val_dataloader
        scenario = scenario_of(build_source(loader.dataset, test_mode=True), cfg.scenario)
        if 'step' not in meta:
            raise UserError(f'Checkpoint {checkpoint} does not say of which step it is: it was not written by '
                             'tools/train.py. Evaluate it with the plain config of its step.')
        scenario.check_step(meta['step'])
        load_checkpoint(checkpoint, scenario.num_classes(meta['step']))
        _check_meaning(checkpoint, loaded, scenario)
        cfg = step_test_config(cfg, scenario, meta['step'])
    if tta:
        cfg.model = dict(cfg.tta_model, module=cfg.model)
    cfg.load_from = checkpoint
    if out_dir:
        evaluators = cfg.test_evaluator
        for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            evaluator['output_dir'] = out_dir
    if show or show_dir:
        cfg.setdefault('default_hooks', {})
        cfg.default_hooks.visualization = dict(type='SegVisualizationHook', draw=True, show=show, wait_time=wait_time)
        if show_dir:
            cfg.setdefault('visualizer', dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')]))
            cfg.visualizer['save_dir'] = show_dir
    wrap_for_cpu(cfg)
    with only_data():
        runner = Runner.from_cfg(cfg)
        try:
            return runner.test()
        finally:
            release(runner)


def _check_meaning(checkpoint: str, loaded: dict, scenario: Scenario) -> None:
    """Raise ``UserError`` if a channel of the checkpoint is another class in the config; say if labels differ."""
    meta, held = loaded['meta'], held_classes(loaded)
    wanted = list(scenario.class_names(meta['step']))
    if held and held != wanted:
        raise UserError(f'Checkpoint {checkpoint} knows the classes {held}, but the config has {wanted} at step '
                         f'{meta["step"]}: its run had another scenario. Give the config.py of its work dir, or the '
                         'options of its run.')
    for name, value in (('setting', scenario.setting), ('label_protocol', scenario.label_protocol)):
        if meta.get(name, value) != value:
            print_log(f'The checkpoint was trained with scenario.{name}={meta[name]!r}, the config has {value!r}.',
                      logger='current', level=logging.WARNING)


def _augment_data(cfg: Config) -> None:
    for key in ('tta_pipeline', 'tta_model'):
        if not cfg.get(key):
            raise UserError(f'--tta needs {key} in the config, as mmseg\'s configs have it.')
    for loader in (cfg.get('test_dataloader'), cfg.get('val_dataloader')):
        if loader is not None:
            loader.dataset.pipeline = cfg.tta_pipeline
