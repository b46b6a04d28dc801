"""The plan of a run, built and checked before training."""
from __future__ import annotations

import os.path as osp
import tempfile
from typing import Optional

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmseg.registry import DATASETS, MODELS
from torch import nn

from ..config.evaluation import test_loader
from ..config.identity import data_identity, test_identity, training_identity
from ..config.plain import is_epoch_based, training_size
from ..config.run import RunConfig
from ..config.step import step_config, view_options
from ..datasets.incremental import IncrementalDataset, build_source, count_labels, scenario_of, select_images
from ..datasets.label_check import check_loaded_labels, describe_shares
from ..datasets.source import Source, split_mix
from ..models.growth import check_growth, load_first_step
from ..models.heads import check_head, main_head
from ..models.student_pass import norms_with_statistics
from ..replay.inversion.pixels import PixelMap, fastest_memory_format
from ..replay.sampler import split_batch
from ..scenario import IGNORE, Scenario
from ..utils.errors import UserError, explain, reason_of
from .preflight import StepPreflight

# (height, width) of trial inputs if the config does not set the training size.
_TRIAL_SIZE = (64, 64)
# Share of all pixels from which a class is likely to be background.
_WIDESPREAD = 0.5
# Channels per block of oneDNN with AVX-512; it is 8 with AVX2, but a run may resume on another CPU.
_ONEDNN_BLOCK = 16


def iterations(cfg: Config, num_real: int) -> int:
    """Number of training iterations of a step.

    Args:
        cfg: config of the step, from ``step_config``.
        num_real: number of its training images, including repetitions.
    """
    if not is_epoch_based(cfg):
        return int(cfg.train_cfg.max_iters)
    loader, ranks = cfg.train_dataloader, get_world_size()
    sampler = loader.get('sampler') or {}
    if sampler.get('type') == 'RealFakeSampler':
        ratio = sampler.get('ratio')
        real = loader.batch_size if ratio is None else split_batch(loader.batch_size, ratio)[0]
        per_epoch = -(-num_real // (real * ranks))
    else:
        on_rank = -(-num_real // ranks)
        per_epoch = on_rank // loader.batch_size if loader.get('drop_last') else -(-on_rank // loader.batch_size)
    return int(cfg.train_cfg.max_epochs) * per_epoch


class RunPlan:
    """Scenario, data and config of every step of a run.

    Args:
        run: parsed config of the run.
        cache_dir: folder of the class index, which is all that is written; None: nothing is written.
    Raises:
        UserError: the config or the data are invalid.
    """

    def __init__(self, run: RunConfig, cache_dir: Optional[str]) -> None:
        self.run = run
        self._wanted = dict(train=split_mix(run.plain.train_dataloader.dataset)[0], test=test_loader(run.plain).dataset)
        self.train_source = build_source(self._wanted['train'])
        self.test_source = build_source(self._wanted['test'], test_mode=True)
        self.scenario = scenario_of(self.train_source, run.scenario)
        if scenario_of(self.test_source, run.scenario) != self.scenario:
            raise UserError('The datasets of train_dataloader and test_dataloader, '
                            f'{self.train_source.raw_labels.dataset} and {self.test_source.raw_labels.dataset}, have '
                            'different classes or a different reduce_zero_label: use the same for both.')
        last = self.scenario.num_steps - 1
        self.steps = [last] if run.method.joint else list(range(last + 1))
        counts = count_labels(self.train_source, self.scenario, cache_dir)
        self._presence = dict(train=counts > 0)
        # Name and pixel share of a class that may be background.
        self._widespread = self._find_widespread(counts)
        self._trained = {t: self._training_scenario(t) for t in self.steps}
        self.train_positions = {t: select_images(self.train_source, scenario, counts > 0, learnt, False)
                                for t, (scenario, learnt) in self._trained.items()}
        self.num_real = {t: len(positions) for t, positions in self.train_positions.items()}
        # (256,) number of training and test pixels of each raw label.
        self.train_pixels = {t: counts[positions].sum(axis=0) for t, positions in self.train_positions.items()}
        counts = count_labels(self.test_source, self.scenario, cache_dir)
        self._presence['test'] = counts > 0
        self.test_positions = {
            t: select_images(self.test_source, self.scenario, counts > 0, t, True) for t in self.steps
        }
        self.test_pixels = {t: counts[positions].sum(axis=0) for t, positions in self.test_positions.items()}
        self._freezes_nothing = False  # until the preflight finds it
        # Build the config of every step now, so that no error shows hours later.
        self.configs = {t: self._step_config(t) for t in self.steps}

    def _find_widespread(self, counts: np.ndarray) -> Optional[tuple[str, float]]:
        """Name and share of a class with most of the pixels, if the background of the data is not known.

        Raises:
            UserError: no step learns that class, and the config does not ignore it.
        """
        options, scenario = self.run.scenario, self.scenario
        if scenario.background is not None:
            return None
        pixels = counts.sum(axis=0, dtype=np.int64)
        name = max(scenario.labels, key=lambda name: pixels[scenario.labels[name]])
        share = float(pixels[scenario.labels[name]] / max(pixels.sum(), 1))
        chosen = name in self.train_source.raw_labels.chosen and name not in (options.get('ignored_classes') or ())
        if share < _WIDESPREAD or not chosen:
            return None
        if name not in scenario.seen_classes(scenario.num_steps - 1):
            raise UserError(f'{self.train_source.raw_labels.dataset} has no background, and no step learns {name!r}, '
                            f'which has {100 * share:.1f} % of all pixels: set scenario.background={name!r} if it is '
                            f'background, or scenario.ignored_classes=[{name!r}] to ignore its pixels.')
        return None if 'background' in options else (name, share)

    def _step_config(self, step: int, pixel_map: Optional[PixelMap] = None) -> Config:
        return step_config(self.run, self.scenario, step, self.num_real[step], pixel_map)

    def _training_scenario(self, step: int) -> tuple[Scenario, int]:
        options, learnt = self.run.training_scenario(self.scenario, step)
        return scenario_of(self.train_source, options), learnt

    def identities(self) -> dict[int, dict]:
        """What determines the weights and the metrics of each step, see ``check_steps``."""
        found = {}
        for t in self.steps:
            classes, test_map = self.scenario.class_names(t), self.scenario.test_label_map(t)
            found[t] = dict(
                training=training_identity(self.run, t),
                training_data=data_identity(classes, self._train_label_map(t),
                                            self._names(self.train_source, self.train_positions[t]),
                                            self._trained[t][0].image_lists.get(self._trained[t][1])),
                test=test_identity(self.run, t),
                test_data=data_identity(classes, test_map, self._names(self.test_source, self.test_positions[t])))
        return found

    @staticmethod
    def _names(source: Source, positions: np.ndarray) -> list[str]:
        return [osp.basename(source.get_data_info(int(i))['img_path']) for i in positions]

    def _train_label_map(self, step: int) -> dict[int, int]:
        scenario, learnt = self._trained[step]
        return scenario.train_label_map(learnt)

    def learns(self, step: int) -> tuple[str, ...]:
        """Names of the classes that the step trains."""
        return self.scenario.seen_classes(step) if self.run.method.joint else self.scenario.steps[step]

    def preflight(self) -> None:
        """Build everything that the first two steps need, and try it on a few images (see ``StepPreflight``).

        This finds errors that only show when something is built or used. If the pipelines change pixel values, the
        mapping is added to the configs of the steps.
        """
        first = _build(self.configs[self.steps[0]].model)
        if self.run.first_step_from is not None:
            load_first_step(first.student, self.run.first_step_from, self.scenario,
                            self.train_source.raw_labels.names)
        if self.run.channels_last:
            _check_channels_last(first.student, training_size(self.run.plain))
        models = {self.steps[0]: first}
        if len(self.steps) > 1:
            models[1] = self._second_model(first.student)
        size = None if self.run.replay is None or len(self.steps) == 1 else self.run.replay.size
        pixel_map = None
        with tempfile.TemporaryDirectory(prefix='mmseg_hrhf_') as folder:
            for step, model in models.items():
                overrides = self.run.overrides if step > 0 else {}
                preflight = StepPreflight(self.configs[step], step, model, folder, self._share, overrides)
                try:
                    preflight.check_labels()
                    preflight.check_batch(None if step == 0 else size)
                    if size is not None:
                        pixel_map = preflight.check_pixels(size)
                    preflight.check_test()
                finally:
                    preflight.close()
        for step in self.steps[2:]:
            self._check_labels_of(step)
        if pixel_map is not None:
            self.configs = {t: self._step_config(t, pixel_map) for t in self.steps}

    def _second_model(self, first: nn.Module) -> nn.Module:
        """The network of step 1, without its teacher, which is not trained yet."""
        options = {key: value for key, value in self.configs[1].model.items() if not key.startswith('teacher')}
        model = _build(options)
        check_growth(first, model.student)
        self._freezes_nothing = bool(model.freeze_norm) and not norms_with_statistics(model.student)
        if self.run.method.needs_teacher:
            check_head(main_head(model.student))
        self.run.method.check_segmentor(_build(self.configs[1].model.student),
                                        training_size(self.run.plain) or _TRIAL_SIZE)
        return model

    def _check_labels_of(self, step: int) -> None:
        for name in ('train', 'test'):
            check_loaded_labels(self.view(step, name), f'{name}_dataloader')

    def view(self, step: int, name: str) -> IncrementalDataset:
        """Real images for training (``'train'``) or testing (``'test'``) a step; ranks may call this independently."""
        options = view_options(self.configs[step], name)
        self._share(options)
        return DATASETS.build(options)

    def _share(self, options: dict) -> None:
        """Make the config of an ``IncrementalDataset`` reuse the plan's images and labels, if they are the same."""
        name = 'test' if options.get('test_mode') else 'train'
        if options['dataset'] == self._wanted[name]:
            source = self.test_source if name == 'test' else self.train_source
            options.update(dataset=source, presence=self._presence[name])

    def describe(self) -> str:
        """The plan as a text table."""
        lines = [
            f'{self.run.method_options["type"]}, {self.scenario.setting}, {self.scenario.label_protocol} labels, '
            f'work dir {self.run.work_dir}',
            f'{"step":>4} {"classes":>7} {"images":>7} {"fakes":>6} {"iterations":>10} {"test":>6}  learns',
        ]
        for t in self.steps:
            learns = ', '.join(self.learns(t))
            fakes = self.run.num_fake_images(t, self.num_real[t])
            drawn = len(self.train_source.repeated(self.train_positions[t]))
            lines.append(f'{t:>4} {self.scenario.num_classes(t):>7} {self.num_real[t]:>7} {fakes:>6} '
                         f'{iterations(self.configs[t], drawn):>10} {len(self.test_positions[t]):>6}  '
                         f'{learns if len(learns) < 70 else learns[:66] + " ..."}')
        lines.append('Pixels that are background or ignored:')
        for t in self.steps:
            for name, pixels, label_map in (('train', self.train_pixels[t], self._train_label_map(t)),
                                            ('test', self.test_pixels[t], self.scenario.test_label_map(t))):
                lines.append(f'{t:>4} {name:>5}  {describe_shares(pixels, label_map, self._label_names())}')
        if self._widespread is not None:
            name, share = self._widespread
            lines.append(f'No class is background, and {name!r}, with {100 * share:.1f} % of all pixels, is learnt as '
                         f'a class: set scenario.background={name!r} if it is background.')
        if self._freezes_nothing:
            lines.append('method.freeze_norm has no effect: no layer of the network has running statistics.')
        for name, source in (('train', self.train_source), ('test', self.test_source)):
            if source.reduces_zero_label:
                lines.append(f'{name}_dataloader: reduce_zero_label of {source.raw_labels.dataset} is disabled: label '
                             '0 stays 0, which is background in training and void in evaluation.')
        return '\n'.join(lines)

    def _label_names(self) -> dict[int, str]:
        names = {label: name for name, label in self.train_source.raw_labels.labels.items()}
        return {**{0: 'label 0'}, **names, IGNORE: f'void {IGNORE}'}


def _check_channels_last(model: nn.Module, size: Optional[tuple[int, int]]) -> None:
    images = torch.zeros(2, 3, *(size or _TRIAL_SIZE))
    if fastest_memory_format(model.eval(), images) is not torch.channels_last:
        raise UserError(f'channels_last=True: {type(model).__name__} with {type(main_head(model)).__name__} does not '
                        'support the channels-last memory format: remove channels_last.')
    if get_device() == 'cpu':
        for name, layer in model.named_modules():
            if _overruns(layer):
                raise UserError(f'channels_last=True: {name} is a 1x1 convolution with {layer.in_channels} channels '
                                f'and stride {layer.stride}; with fewer than {_ONEDNN_BLOCK} channels, oneDNN writes '
                                'out of bounds on a CPU: remove channels_last.')


def _overruns(layer: nn.Module) -> bool:
    """Whether oneDNN's weight gradient is wrong or crashes in channels-last format (its issue 6035)."""
    return (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and max(layer.stride) > 1
            and layer.in_channels // layer.groups < _ONEDNN_BLOCK and layer.weight.requires_grad)


def _build(model: dict) -> nn.Module:
    try:
        return MODELS.build(model)
    except Exception as error:  # mmseg raises almost anything, such as RuntimeError for an operator that mmcv lacks
        if explain(error) is not None:
            raise
        raise UserError(f'The model cannot be built from the config: {reason_of(error)}') from error
