"""The mmengine config of one learning step, built from the run's config."""
from __future__ import annotations

import copy
import os.path as osp
from dataclasses import asdict
from typing import Any, Callable, Mapping, Optional

from mmengine.config import Config

from ..datasets.source import split_mix
from ..replay.inversion.pixels import PixelMap
from ..replay.sampler import enlarged_batch
from ..scenario import Scenario
from ..work_dir.layout import StepFiles
from .evaluation import set_evaluation
from .plain import as_list, choose_wrapper, is_epoch_based, loop_type, set_classes
from .run import RunConfig


def step_config(run: RunConfig,
                scenario: Scenario,
                step: int,
                num_real: int,
                pixel_map: Optional[PixelMap] = None) -> Config:
    """The config with which a stock mmengine Runner trains and tests one step.

    Args:
        run: parsed config of the run.
        scenario: built from ``run.scenario``.
        step: learning step.
        num_real: number of training images of the step.
        pixel_map: the network's input for each pixel value, if the pipeline changes pixel values.
    """
    files, seed = StepFiles(run.work_dir, step), run.seed + step
    out = copy.deepcopy(run.at(step))
    _set_model(out, run, scenario, files)
    out.custom_hooks = as_list(out.get('custom_hooks')) + [dict(type=name) for name in run.method.hooks]
    _set_train_data(out, run, scenario, files, num_real, pixel_map)
    set_evaluation(out, run.scenario, scenario, files)
    out.custom_hooks = [*out.custom_hooks, dict(type='PredictionGridHook')]
    _set_schedule(out, seed)
    out.work_dir = files.train
    out.experiment_name = f'{out.get("experiment_name") or osp.basename(osp.normpath(run.work_dir))}_step_{step}'
    if out.get('visualizer'):
        # mmengine shares visualizers by name, so all steps would write into step 0's folder. Without a name, each
        # Runner creates its own.
        out.visualizer.pop('name', None)
    out.randomness = dict(out.get('randomness') or {}, seed=seed)
    # `load_from` is for step 0; later steps start from the previous one.
    out.load_from, out.resume = (None if run.has_teacher(step) else out.get('load_from')), False
    out.custom_hooks = [*out.custom_hooks, dict(type='FiniteLossHook', step=step)]
    choose_wrapper(out)
    return out


def resumed_config(cfg: Config, point: Optional[str]) -> Config:
    """A step's config that resumes from the checkpoint ``point``, if there is one."""
    if point is None:
        return cfg
    cfg = copy.deepcopy(cfg)
    cfg.load_from, cfg.resume = point, True
    return cfg


def _set_model(out: Config, run: RunConfig, scenario: Scenario, files: StepFiles) -> None:
    """Wrap the user's segmentor in the method, with the classes of this and the previous step."""
    step, segmentor = files.step, out.pop('model')
    preprocessor = out.pop('data_preprocessor', None)
    if preprocessor is not None:
        segmentor.setdefault('data_preprocessor', preprocessor)
    out.model = dict(copy.deepcopy(run.method_options), student=set_classes(segmentor, scenario.class_names(step)))
    if run.has_teacher(step):
        out.model.teacher = set_classes(segmentor, scenario.class_names(step - 1))
        out.model.teacher_checkpoint = files.previous().checkpoint
    if run.channels_last:
        out.model.channels_last = True
    # An optimizer constructor traverses a network's children and must start at the segmentor.
    constructor = out.optim_wrapper.get('constructor')
    if constructor is not None or out.optim_wrapper.get('paramwise_cfg') is not None:
        out.optim_wrapper.update(
            constructor='StudentOptimWrapperConstructor',
            student_constructor=constructor or 'DefaultOptimWrapperConstructor')


def _set_train_data(out: Config, run: RunConfig, scenario: Scenario, files: StepFiles, num_real: int,
                    pixel_map: Optional[PixelMap]) -> None:
    """Train on the step's part of the user's dataset and, from step 1 on, on synthetic images."""
    options, learnt = run.training_scenario(scenario, files.step)
    loader = out.train_dataloader
    dataset, mix = split_mix(loader.dataset)
    if mix:
        mix['type'] = 'SeededMixDataset'
    real = dict(type='IncrementalDataset', dataset=dataset, scenario=options, step=learnt,
                cache_dir=osp.join(run.work_dir, 'class_index'))
    num_fake = run.num_fake_images(files.step, num_real)
    replay = run.replay if num_fake else None
    if replay is not None and replay.added:
        given, loader.batch_size = loader.batch_size, enlarged_batch(loader.batch_size, replay.ratio)
        if out.get('auto_scale_lr'):  # the learning rate is that of the real images
            out.auto_scale_lr.base_batch_size *= loader.batch_size / given
    # Full batches only, resumable at any: batch norm of a single pooled image is undefined.
    loader.sampler = dict(
        type='RealFakeSampler',
        batch_size=loader.batch_size,
        ratio=None if replay is None else replay.ratio,
        shuffle=(loader.get('sampler') or {}).get('shuffle', True),
        infinite=not is_epoch_based(out))
    if replay is None:
        loader.dataset = dict(mix, dataset=real) if mix else real
        return
    loader.dataset = dict(type='RealFakeDataset', real=real, fake_folder=files.fakes, num_fake=num_fake)
    if mix:
        loader.dataset.mix = mix
    hook = dict(type='SegInversionHook', folder=files.fakes, num_images=num_fake, inversion=dict(replay.inversion),
                seed=run.seed + files.step)
    if pixel_map is not None:
        hook['pixel_map'] = {name: list(values) for name, values in asdict(pixel_map).items()}
    out.custom_hooks = [*out.custom_hooks, hook]


def _set_schedule(out: Config, seed: int) -> None:
    """Make training resumable at any iteration: loop, seeds and, unless the config has one, a ResumeHook."""
    loop = loop_type(out)
    out.train_cfg.pop('by_epoch', None)
    out.train_cfg.type = loop
    hooks = as_list(out.get('custom_hooks'))
    hooks.append(dict(type='IterationSeedHook', seed=seed))
    chosen = [hook for hook in [*(out.get('default_hooks') or {}).values(), *hooks] if hook]
    if not any(hook.get('type') == 'ResumeHook' for hook in chosen):
        hooks.append(dict(type='ResumeHook'))
    out.custom_hooks = hooks


def preflight_config(cfg: Config, folder: str, share: Callable[[dict], None]) -> Config:
    """A copy of a step's config that writes only to ``folder``, without the network, which is built already.

    Args:
        cfg: config of the step.
        folder: temporary work dir, whose ``fakes`` contains one synthetic image.
        share: makes the config of an ``IncrementalDataset`` reuse images and labels that have been read already.
    """
    out = Config({key: copy.deepcopy(value) for key, value in cfg.items() if key != 'model'})
    out.work_dir, out.log_level, out.launcher = osp.join(folder, 'train'), 'CRITICAL', 'none'
    out.load_from, out.resume = None, False
    for name in ('train', 'val', 'test'):
        loader = out.get(f'{name}_dataloader')
        if loader is not None:
            _redirect(loader.dataset, folder, share)
        for evaluator in as_list(out.get(f'{name}_evaluator')):
            if evaluator.get('output_dir'):
                evaluator['output_dir'] = osp.join(folder, 'output')
    if out.get('visualizer'):
        out.visualizer.pop('save_dir', None)
        # Only mmengine's local backend can be tried without side effects.
        kept = [backend for backend in as_list(out.visualizer.get('vis_backends'))
                if str(backend.get('type')).endswith('LocalVisBackend')]
        out.visualizer['vis_backends'] = kept
    return out


def _redirect(dataset: dict[str, Any], folder: str, share: Callable[[dict], None]) -> None:
    """Redirect the synthetic images and the class index of a dataset's config to ``folder``."""
    if dataset.get('type') == 'IncrementalDataset':
        dataset['cache_dir'] = osp.join(folder, 'class_index')
        share(dataset)
        return  # the wrapped dataset is the user's
    if dataset.get('type') == 'RealFakeDataset':
        dataset.update(fake_folder=osp.join(folder, 'fakes'), num_fake=1)
    for key in ('real', 'dataset'):
        if isinstance(dataset.get(key), dict):
            _redirect(dataset[key], folder, share)


def view_options(cfg: Config, name: str) -> dict[str, Any]:
    """Options of a step's ``IncrementalDataset`` for training (``'train'``) or testing (``'test'``)."""
    options: Mapping[str, Any] = cfg[f'{name}_dataloader'].dataset
    while options['type'] != 'IncrementalDataset':
        options = options.get('real') or options['dataset']
    return dict(options, cache_dir=None)  # without it, no rank waits for another
