"""Builds what the Runner of a step will build, before training, so that no error shows hours later."""
from __future__ import annotations

import contextlib
import copy
import logging
import os.path as osp
import warnings
from operator import attrgetter
from typing import Any, Callable, Iterator, Mapping, Optional

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.hooks import EMAHook
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import OPTIMIZERS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from ..config.plain import as_list
from ..config.step import preflight_config
from ..datasets.incremental import IncrementalDataset
from ..datasets.label_check import check_label_independence, check_loaded_labels
from ..datasets.transforms import find_loading
from ..replay.buffer import FakeImageBuffer
from ..replay.inversion.pixels import PixelMap
from ..replay.pixel_check import check_real_range, check_training_pixels, measure_pixel_map
from ..utils.compat import NoTrace
from ..utils.errors import UserError, explain, reason_of
from ..utils.randomness import REAL_SAMPLE, SampleIndex
from .loops import release

# Options of a Runner, besides its network and data loaders.
_RUNNER_OPTIONS = ('work_dir', 'train_cfg', 'val_cfg', 'test_cfg', 'auto_scale_lr', 'optim_wrapper', 'param_scheduler',
                   'val_evaluator', 'test_evaluator', 'default_hooks', 'custom_hooks', 'launcher', 'env_cfg',
                   'log_processor', 'log_level', 'visualizer', 'default_scope', 'randomness', 'experiment_name')
# Real images in the trial batch.
_NUM_REAL = 2


class _PreflightRunner(NoTrace, Runner):
    """A Runner without side effects: it logs no environment, writes no config file and uses no DDP."""

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except BaseException:
            release(self)
            raise


class StepPreflight:
    """Builds loaders, loops, optimizer, schedulers, hooks, visualizer and evaluators of a step in a temporary folder.

    Args:
        cfg: config of the step, see ``step_config``.
        step: learning step.
        model: ``IncrementalSegmentor`` with the step's student, without teacher.
        folder: temporary work dir.
        share: makes the config of an ``IncrementalDataset`` reuse images and labels that have been read already.
        overrides: ``incremental_overrides`` of the step, for messages.
    Raises:
        UserError: something cannot be built; names its config key, the step and the reason.
    """

    def __init__(self, cfg: Config, step: int, model: nn.Module, folder: str, share: Callable[[dict], None],
                 overrides: Mapping[str, Any]) -> None:
        self.step, self.model, self.overrides = step, model, overrides
        self.folder = osp.join(folder, f'step_{step}')
        self.cfg = preflight_config(cfg, self.folder, share)
        loaders = {f'{name}_dataloader': self._build_loader(name) for name in ('train', 'val', 'test')
                   if self.cfg.get(f'{name}_dataloader') is not None}
        self.datasets = {key.split('_')[0]: loader.dataset for key, loader in loaders.items()}
        options = {key: self.cfg.get(key) for key in _RUNNER_OPTIONS if self.cfg.get(key) is not None}
        with self._building('default_hooks, custom_hooks, visualizer, log_processor, randomness or env_cfg'):
            self.runner = _PreflightRunner(model=model, **options, **loaders)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # the run will show them
                self._build_training()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release what mmengine keeps of the Runner, and the accelerator's memory."""
        release(self.runner)
        self.model.cpu()

    @property
    def _fakes(self) -> FakeImageBuffer:
        return FakeImageBuffer(osp.join(self.folder, 'fakes'), 1)

    def _build_loader(self, name: str) -> DataLoader:
        with self._building(f'{name}_dataloader'):
            loader = Runner.build_dataloader(self.cfg[f'{name}_dataloader'], seed=0)
        # Without workers, which mmengine's iteration-based loop would start at once.
        return DataLoader(loader.dataset, batch_size=loader.batch_size, sampler=loader.sampler,
                          collate_fn=loader.collate_fn, drop_last=loader.drop_last)

    def _build_training(self) -> None:
        runner = self.runner
        with self._building('train_cfg'):
            loop = runner.train_loop
        self._check_optimizers(self.cfg.optim_wrapper)
        with self._building('optim_wrapper'):
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
            runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
            runner.optim_wrapper.initialize_count_status(runner.model, 0, loop.max_iters)
        if runner.param_schedulers is not None:
            with self._building('param_scheduler'):
                runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
            self._check_schedulers()
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):  # it builds its model only when training starts
                with self._building('custom_hooks or default_hooks (EMAHook)'):
                    hook.before_run(runner)
                    hook.before_train(runner)
        for name in ('val', 'test'):
            if self.cfg.get(f'{name}_dataloader') is not None:
                with self._building(f'{name}_cfg or {name}_evaluator'):
                    getattr(runner, f'{name}_loop')
        for key in ('activation_checkpointing', 'efficient_conv_bn_eval'):
            for name in as_list(self.cfg.get(key)):
                try:
                    attrgetter(name)(self.model)  # as mmengine does
                except AttributeError as error:
                    raise UserError(f'{key} names {name!r}, but the network has no such module: correct or remove '
                                    'it.') from error

    def _check_optimizers(self, options: dict) -> None:
        """Check optimizer types, for which mmengine's error would be that None is not callable."""
        for key, value in options.items():
            if key == 'optimizer' and isinstance(value, dict) and isinstance(value.get('type'), str):
                with OPTIMIZERS.switch_scope_and_registry(None) as registry:  # mmseg's registry has more
                    known = registry.get(value['type']) is not None
                if not known:
                    raise UserError(f'optim_wrapper.optimizer.type={value["type"]!r} of step {self.step} is not a '
                                    f'registered optimizer: check its spelling.{self._overridden("optim_wrapper")}')
            elif isinstance(value, dict):
                self._check_optimizers(value)

    def _check_schedulers(self) -> None:
        if self.cfg.train_cfg.type != 'ResumableIterLoop':
            return
        held = self.runner.param_schedulers
        schedulers = [item for items in held.values() for item in items] if isinstance(held, dict) else held
        for scheduler in schedulers:
            # Metric-based schedulers that count epochs step after each validation.
            if scheduler.by_epoch and not getattr(scheduler, 'need_val_args', False):
                raise UserError(f'param_scheduler {type(scheduler).__name__} of step {self.step} counts epochs '
                                '(by_epoch=True, the default), but train_cfg counts iterations, so it would never '
                                f'step. Set by_epoch=False.{self._overridden("param_scheduler train_cfg")}')

    # -- samples -----------------------------------------------------------------------------------------------------

    def check_labels(self) -> None:
        """Compare the labels of one image with the scenario's, and look for transforms that hard-code class indices."""
        for name, dataset in self.datasets.items():
            view = step_view(dataset)
            where = f'{name}_dataloader'
            with self._building(f'{where}.dataset.pipeline', 'cannot make a sample'):
                check_loaded_labels(view, where)
                if name != 'val':
                    check_label_independence(getattr(dataset, 'real', dataset), view, where)

    def check_pixels(self, size: tuple[int, int]) -> Optional[PixelMap]:
        """The network's input for each pixel value, which must be the same in training and testing.

        Args:
            size: (height, width) of synthetic images.
        Returns:
            None if the pipelines do not change pixel values.
        """
        preprocessor = copy.deepcopy(self.model.data_preprocessor).cpu()
        train, test = step_view(self.datasets['train']), step_view(self.datasets['test'])
        pipeline = test.pipeline_of(0)
        loading = find_loading(pipeline.transforms, test.get_data_info(0))
        found = measure_pixel_map(pipeline, loading, preprocessor, size)
        pixel_map = PixelMap.of(preprocessor) if found is None else found
        check_real_range(self.datasets['test'], preprocessor, pixel_map, 'test_dataloader')
        real, parts = getattr(self.datasets['train'], 'real', self.datasets['train']), train.by_part()
        check_real_range(real, preprocessor, pixel_map, 'train_dataloader', parts, training=True)
        for first in (int(part[0]) for part in parts):
            pipeline = train.pipeline_of(first)
            loading = find_loading(pipeline.transforms, train.get_data_info(first))
            check_training_pixels(pipeline, loading, preprocessor, size, pixel_map)
        return found

    def check_batch(self, size: Optional[tuple[int, int]]) -> None:
        """Collate real images, and a synthetic one if the step uses them, and compute the loss of the real ones.

        Args:
            size: (height, width) of synthetic images; None: the step uses none.
        """
        dataset = self.datasets['train']
        num_real = getattr(dataset, 'num_real', len(dataset))
        first, *others = step_view(dataset).by_part()
        # Batch norm needs more than one image.
        chosen = [*np.resize(first, _NUM_REAL).tolist(), *(int(part[0]) for part in others)]
        if size is not None:
            # Not a single colour, on which some transforms (Rerange) fail.
            ramp = np.resize(np.arange(256, dtype=np.uint8), (1, *size, 3))
            self._fakes.add_batch(0, ramp, [{}])
            chosen.append(num_real)
        with self._building('train_dataloader.dataset.pipeline', 'cannot make a sample'):
            samples = [dataset[SampleIndex(i, (0, REAL_SAMPLE, i))] for i in chosen]
        sizes = ', '.join(f'{"synthetic" if i == num_real else "real"} {tuple(sample["inputs"].shape[-2:])}'
                          for i, sample in zip(chosen, samples))
        with self._building('model.data_preprocessor', 'cannot process a batch'):
            self._collate(samples, sizes)

    def _collate(self, samples: list, sizes: str) -> None:
        try:
            self.model.data_preprocessor(pseudo_collate(samples), True)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(f'Images of step {self.step} cannot be collated into one batch: the pipeline returns '
                            f'{sizes} (height, width), and data_preprocessor.size={self._declared_size()} does not '
                            f'make them equal ({error}). Crop or resize all images to one size in the pipeline, or set '
                            'data_preprocessor.size at least as large, and replay.inversion.size to the size on which '
                            'the network trains.') from error
        self._check_loss(samples[:_NUM_REAL])

    @torch.no_grad()
    def _check_loss(self, samples: list) -> None:
        # Otherwise an error at step 1 would show hours later. Without SyncBN, no rank waits for another.
        student = revert_sync_batchnorm(self.model.student).to(get_device()).train()
        with self._building('model', 'cannot be trained on images of train_dataloader'), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            student(**student.data_preprocessor(pseudo_collate(samples), True), mode='loss')

    def _declared_size(self) -> Any:
        return getattr(self.model.data_preprocessor, 'size', None)

    def check_test(self) -> None:
        """Run a test image through the network and every metric."""
        for name in ('test', 'val'):
            if name in self.datasets:
                self._check_evaluation(name)

    @torch.no_grad()
    def _check_evaluation(self, name: str) -> None:
        dataset, loop = self.datasets[name], getattr(self.runner, f'{name}_loop')
        with self._building(f'{name}_dataloader.dataset.pipeline', 'cannot make a sample'):
            batch = pseudo_collate([dataset[0]])
        model = self.model.to(get_device()).eval()
        with self._building('model (with test_cfg)', f'cannot predict an image of {name}_dataloader'):
            outputs = model.test_step(batch)
        with self._building(f'{name}_evaluator', 'cannot evaluate'), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # means over classes that one image does not contain
            loop.evaluator.process(data_samples=outputs, data_batch=batch)
            for metric in loop.evaluator.metrics:
                metric.compute_metrics(metric.results)
                metric.results.clear()

    @contextlib.contextmanager
    def _building(self, what: str, verb: str = 'cannot be built') -> Iterator[None]:
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            logging.getLogger('mmseg_hrhf').debug('preflight', exc_info=error)
            if explain(error) is not None:
                raise
            raise UserError(f'{what} of step {self.step} {verb}: {type(error).__name__}: {reason_of(error)}.'
                            f'{self._overridden(what)}') from error

    def _overridden(self, what: str) -> str:
        touched = [key for key in self.overrides if key in what]
        return f' incremental_overrides sets {", ".join(touched)} from step 1 on.' if touched else ''


def step_view(dataset: Any) -> IncrementalDataset:
    """The view of a step, without wrappers that mix its images or add synthetic ones."""
    while not isinstance(dataset, IncrementalDataset):
        dataset = dataset.real if hasattr(dataset, 'real') else dataset.dataset
    return dataset
