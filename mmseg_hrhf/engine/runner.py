"""Runs the learning steps of a scenario in order, each with an mmengine Runner."""
from __future__ import annotations

import gc
import logging
import os.path as osp
import time
from typing import Optional

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import barrier, broadcast, is_main_process
from mmengine.logging import MMLogger, print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import RUNNERS

from ..config.check import check_weight_files
from ..config.evaluation import retest_config
from ..config.identity import run_identity
from ..config.run import RunConfig
from ..config.standalone import is_complete_plain_config, write_plain_config
from ..config.step import resumed_config
from ..datasets.incremental import palette_of
from ..evaluation.incremental_iou import IncrementalIoUMetric
from ..evaluation.summary import collapsed_class, finite, number, write_confusion, write_summary
from ..models.growth import load_first_step
from ..models.segmentors.base import unwrapped
from ..replay.recording import step_statistics
from ..utils.environment import environment
from ..utils.errors import UserError
from ..utils.io import read_json, sha256, write_json
from ..version import __version__
from ..work_dir.checkpoint import held_classes, load_checkpoint, only_data, save_checkpoint
from ..work_dir.layout import StepFiles, read_result, resume_point
from ..work_dir.lock import lock_work_dir
from ..work_dir.record import check_steps, claim_work_dir
from .distributed import from_rank_0, start_distributed
from .loops import release
from .plan import RunPlan


@RUNNERS.register_module()
class IncrementalRunner:
    """Trains, evaluates and records every learning step of a config.

    mmseg's own ``tools/train.py`` builds it for configs with ``runner_type='IncrementalRunner'``. Running the same
    command again continues the run: finished steps are skipped, and an unfinished one resumes from its last checkpoint.

    Args:
        cfg: plain mmseg config plus ``scenario``, ``method`` and, optionally, ``replay``, ``incremental_overrides``
            (merged from step 1 on) and ``only_step``. Its ``work_dir`` receives one folder per step (see
            ``StepFiles``), ``results.json`` and ``results.md``.
    Raises:
        UserError: the config or the data are invalid; raised before any training.
    """

    def __init__(self, cfg: Config) -> None:
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        self.run = RunConfig.parse(cfg)
        self.work_dir = self.run.work_dir
        check_weight_files(cfg)
        start_distributed(cfg)
        self._lock = lock_work_dir(self.work_dir)
        self._runner: Optional[Runner] = None  # of the current step
        self.logger = MMLogger.get_instance(
            f'{self.work_dir} {time.time_ns()}',
            logger_name='mmseg_hrhf',
            log_file=osp.join(self.work_dir, 'run.log'),
            file_mode='a',
            log_level=cfg.get('log_level', 'INFO'))
        self.plan = RunPlan(self.run, osp.join(self.work_dir, 'class_index'))
        self.scenario = self.plan.scenario
        self._identities = self.plan.identities()
        self._to_retest = from_rank_0(lambda: check_steps(self.work_dir, self._identities))
        self._check_only_step()
        if self._to_retest or self._result(self.plan.steps[-1]) is None:
            self.plan.preflight()
        claim_work_dir(self.work_dir, run_identity(self.run), self.run.text())
        print_log(self.plan.describe(), logger=self.logger)

    @classmethod
    def from_cfg(cls, cfg: Config) -> IncrementalRunner:
        return cls(cfg)

    def train(self) -> list[dict]:
        """Run all steps, or ``only_step``. Returns the results of all finished steps."""
        only = self.run.only_step
        try:
            with only_data():
                for step in self.plan.steps if only is None else [only]:
                    if self._result(step) is not None:
                        print_log(f'Step {step} is finished: {self._files(step).result}', logger=self.logger)
                        if step in self._to_retest:
                            self._test_again(step)
                        self._repair_plain_config(step)
                        continue
                    self._run_step(step)
                return self._summarise()
        finally:
            self._release_runner()
            if self._lock is not None:
                self._lock.release()

    # -- one step ----------------------------------------------------------------------------------------------------

    def _run_step(self, step: int) -> None:
        files, cfg, began = self._files(step), self.plan.configs[step], time.time()
        names = ', '.join(self.plan.learns(step))
        print_log(f'Step {step} of {self.scenario.num_steps - 1} begins: {names}', logger=self.logger)
        if cfg.model.get('teacher') is not None:
            self._check_teacher(step, cfg.model.teacher_checkpoint)
        if is_main_process():
            write_json(files.identity, self._identities[step])
        runner = self._runner = Runner.from_cfg(resumed_config(cfg, from_rank_0(lambda: resume_point(files.train))))
        given = self.run.first_step_from if step == 0 else None
        model = unwrapped(runner.train() if given is None else runner.model)
        if given is None:
            # Hooks that save other weights than the trained ones (EMAHook) start over at every test: test and pass on
            # the weights that they would save.
            weights = dict(state_dict=model.state_dict())
            runner.call_hook('before_save_checkpoint', checkpoint=weights)
            model.load_state_dict(weights['state_dict'])
        else:
            load_first_step(model.student, given, self.scenario, self.plan.train_source.raw_labels.names)
            print_log(f'{given} replaces step 0, which is only tested.', logger=self.logger)
        for buffer in model.buffers():
            # Each process has its own batch statistics, but every rank must test what rank 0 saves.
            broadcast(buffer)
        trained = time.time()
        metrics = runner.test()
        if is_main_process():
            seconds = dict(train=trained - began, test=time.time() - trained)
            extra = self._feature_statistics(step, model, runner.train_dataloader.dataset)
            extra['method_state'] = model.method_state()
            weights = dict(state_dict=model.state_dict())
            # Save what was tested: as in the test, a moving average replaces the weights.
            runner.call_hook('before_save_checkpoint', checkpoint=weights)
            self._write_step(step, model.plain_weights(weights['state_dict']), metrics, _confusion(runner), seconds,
                             extra)
        barrier()
        # Free the memory of this step's network, data workers and optimizer before the next step.
        self._release_runner()
        del runner, model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if is_main_process():
            self._log_result(step)

    def _test_again(self, step: int) -> None:
        """Repeat the test of a finished step with the current test config; its weights stay."""
        files, began = self._files(step), time.time()
        print_log(f'Step {step} is tested again, but not trained: the test config or the test data have changed.',
                  logger=self.logger)
        runner = self._runner = Runner.from_cfg(retest_config(self.run, self.scenario, files))
        metrics = runner.test()
        if is_main_process():
            result = read_json(files.result)
            seconds = dict(result['seconds'], test=round(time.time() - began, 1))
            self._write_plain_config(step)
            write_confusion(files.confusion, self.scenario.class_names(step), _confusion(runner))
            write_json(
                files.result,
                dict(result, metrics=finite(metrics), seconds=seconds,
                     num_test_images=len(self.plan.test_positions[step])))
            write_json(files.identity, self._identities[step])
        barrier()
        self._release_runner()

    def _release_runner(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            release(runner)

    def _feature_statistics(self, step: int, model: torch.nn.Module, dataset) -> dict:
        """Checkpoint entries that the next step's inversion needs in addition to the weights."""
        replay = self.run.replay
        if replay is None or replay.statistics is None or step == self.scenario.num_steps - 1:
            return {}
        ratio = replay.ratio if hasattr(dataset, 'num_fake') else None
        batch_size = self.run.plain.train_dataloader.batch_size
        frozen = step > 0 and bool(model.freeze_norm or model.freeze_backbone)
        statistics = step_statistics(model.student, dataset, batch_size, ratio, self.run.seed + step, frozen=frozen,
                                     **replay.statistics)
        if statistics is None:
            return {}
        print_log(f'Recorded the feature statistics of {len(statistics)} layers for the next step.', logger=self.logger)
        return dict(feature_statistics=statistics)

    def _check_teacher(self, step: int, path: str) -> None:
        checkpoint = load_checkpoint(path, self.scenario.num_classes(step - 1))
        meta, classes = checkpoint.get('meta') or {}, held_classes(checkpoint)
        if meta.get('step') != step - 1 or classes != list(self.scenario.class_names(step - 1)):
            raise UserError(f'Checkpoint {path} is of step {meta.get("step")} with the classes {classes}, but step '
                            f'{step} continues step {step - 1} with {list(self.scenario.class_names(step - 1))}: '
                            f"restore the checkpoint of step {step - 1}, or delete that step's folder to retrain it.")

    def _write_step(self, step: int, weights: dict, metrics: dict, confusion: np.ndarray, seconds: dict,
                    extra: dict) -> None:
        files = self._files(step)
        meta = dict(
            dataset_meta=dict(
                classes=self.scenario.class_names(step),
                palette=palette_of(self.plan.test_source, self.scenario, step)),
            step=step,
            steps=[list(names) for names in self.scenario.steps],
            setting=self.scenario.setting,
            label_protocol=self.scenario.label_protocol,
            mmseg_hrhf=__version__)
        save_checkpoint(files.checkpoint, weights, meta, **extra)
        self._write_plain_config(step)
        write_confusion(files.confusion, self.scenario.class_names(step), confusion)
        only = collapsed_class(confusion)
        if step > 0 and only is not None:
            name = self.scenario.class_names(step)[only]
            print_log(f'Step {step} has collapsed: it predicts {name!r} for nearly all test pixels. Likely causes: the '
                      'learning rate is too high, above all for frozen norm layers (method.freeze_norm): lower it, or '
                      'clip gradients by optim_wrapper.clip_grad=dict(max_norm=1). Or no loss of the method preserves '
                      'the old classes (FT), or one outweighs all others.',
                      logger=self.logger, level=logging.WARNING)
        given = self.run.first_step_from if step == 0 else None
        write_json(
            files.result,
            dict(
                {} if given is None else dict(first_step_from=given),
                step=step,
                classes=list(self.scenario.seen_classes(step)),
                new_classes=list(self.plan.learns(step)),
                num_train_images=self.plan.num_real[step],
                num_fake_images=self.run.num_fake_images(step, self.plan.num_real[step]),
                num_test_images=len(self.plan.test_positions[step]),
                metrics=finite(metrics),
                seconds={key: round(value, 1) for key, value in seconds.items()},
                seed=self.run.seed,
                environment=environment(),
                checkpoint_sha256=sha256(files.checkpoint)))

    def _result(self, step: int) -> Optional[dict]:
        return from_rank_0(lambda: read_result(self._files(step)))

    def _repair_plain_config(self, step: int) -> None:
        files, positions = self._files(step), self.plan.test_positions[step]
        if is_main_process() and not is_complete_plain_config(files, len(positions)):
            print_log(f'{files.config} or its list of test images is missing or damaged. Writing them again.',
                      logger=self.logger, level=logging.WARNING)
            self._write_plain_config(step)

    def _write_plain_config(self, step: int) -> None:
        write_plain_config(self.run.at(step), self.scenario, self.plan.test_source, self.plan.test_positions[step],
                           self._files(step), self.plan.view(step, 'test'))

    def _files(self, step: int) -> StepFiles:
        return StepFiles(self.work_dir, step)

    # -- the run -----------------------------------------------------------------------------------------------------

    def _check_only_step(self) -> None:
        only = self.run.only_step
        if only is None:
            return
        self.scenario.check_step(only)
        if only not in self.plan.steps:
            raise UserError(f'--step {only}: {self.run.method.__name__} trains only once, on all classes, as step '
                            f'{self.plan.steps[-1]}. Leave --step out.')
        if only > 0 and not self.run.method.joint and self._result(only - 1) is None:
            raise UserError(f'Step {only} continues step {only - 1}, which is not finished in {self.work_dir}: run '
                            f'that first (--step {only - 1}), or run all steps (without --step).')

    def _log_result(self, step: int) -> None:
        result = read_json(self._files(step).result)
        metrics = result['metrics']
        old, new, everything = (number(metrics[f'mIoU_{name}']) for name in ('old', 'new', 'all'))
        print_log(
            f'Step {step} finished in {sum(result["seconds"].values()):.0f} s. mIoU without background: old {old}, '
            f'new {new}, all {everything}; with background: all {number(metrics["mIoU_all_with_background"])}',
            logger=self.logger)

    def _summarise(self) -> list[dict]:
        results = []
        for step in self.plan.steps:
            result = self._result(step)
            if result is None:
                break
            results.append(result)
        if results and is_main_process():
            title = f'{self.run.method_options["type"]}: {self.scenario.task or "steps"} {self.scenario.setting}'
            markdown = write_summary(self.work_dir, results, title, self.scenario.num_steps,
                                     len(self.scenario.steps[0]))
            print_log(f'{osp.join(self.work_dir, "results.md")}:\n{markdown}', logger=self.logger)
        barrier()
        return results


def _confusion(runner: Runner) -> np.ndarray:
    """(C, C) confusion matrix of the test that ``runner`` has just run, in pixels."""
    return next(metric.confusion for metric in runner.test_loop.evaluator.metrics
                if isinstance(metric, IncrementalIoUMetric) and metric.confusion is not None)
