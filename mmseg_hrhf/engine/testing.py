"""Evaluation of the checkpoint of a step."""
from __future__ import annotations

import logging
from typing import Optional

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from ..config.evaluation import prepare_test, set_augmented_pipelines, set_outputs, test_config, test_loader
from ..config.run import RunConfig
from ..datasets.incremental import build_source, scenario_of
from ..scenario import Scenario
from ..utils.errors import UserError
from ..work_dir.checkpoint import held_classes, load_checkpoint, only_data
from ..work_dir.layout import StepFiles
from .distributed import start_distributed
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
        cfg: config; if it has a ``scenario``, the step is read from the checkpoint.
        checkpoint: plain checkpoint of a step.
        out_dir: folder for predicted masks.
        show_dir, show, wait_time: overlay predictions on images, as mmseg's test tool does.
        tta: use test-time augmentation, with ``tta_pipeline`` and ``tta_model`` of the config.
    Returns:
        The metrics.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    start_distributed(cfg)
    loaded = load_checkpoint(checkpoint)
    meta = loaded.get('meta', {})
    if tta:
        set_augmented_pipelines(cfg)
    if cfg.get('scenario') is not None:
        run = RunConfig.parse(cfg)
        scenario = scenario_of(build_source(test_loader(run.plain).dataset, test_mode=True), run.scenario)
        if 'step' not in meta:
            raise UserError(f'Checkpoint {checkpoint} does not state its step, so it was not written by '
                            'tools/train.py: evaluate it with the plain config of its step.')
        scenario.check_step(meta['step'])
        load_checkpoint(checkpoint, scenario.num_classes(meta['step']))
        _check_meaning(checkpoint, loaded, scenario)
        cfg = test_config(run.at(meta['step']), run.scenario, scenario, StepFiles(cfg.work_dir, meta['step']))
    prepare_test(cfg, checkpoint, tta)
    set_outputs(cfg, out_dir, show_dir, show, wait_time)
    with only_data():
        runner = Runner.from_cfg(cfg)
        try:
            return runner.test()
        finally:
            release(runner)


def _check_meaning(checkpoint: str, loaded: dict, scenario: Scenario) -> None:
    """Raise ``UserError`` if classes of the checkpoint and the config differ; warn if their labels differ."""
    meta, held = loaded['meta'], held_classes(loaded)
    wanted = list(scenario.class_names(meta['step']))
    if held and held != wanted:
        raise UserError(f'Checkpoint {checkpoint} has the classes {held}, but the config has {wanted} at step '
                        f'{meta["step"]}, so its run had another scenario: use the config.py of its work dir, or the '
                        'options of its run.')
    for name, value in (('setting', scenario.setting), ('label_protocol', scenario.label_protocol)):
        if meta.get(name, value) != value:
            print_log(f'The checkpoint was trained with scenario.{name}={meta[name]!r}, but the config has {value!r}.',
                      logger='current', level=logging.WARNING)
