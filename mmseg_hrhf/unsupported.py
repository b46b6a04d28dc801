"""What of a plain mmseg config a run of learning steps cannot keep: refused by name, before any work."""
from __future__ import annotations

from typing import Iterable

from mmengine.config import Config

from .datasets.source import split_mix, type_name, unwrap
from .scenario import IGNORE

# What mmseg's schedules name; RealFakeSampler does either one's work.
_SAMPLERS = ('DefaultSampler', 'InfiniteSampler')
# They know the numbers of one dataset's classes, which steps renumber, or measure something else than classes.
_FOREIGN_METRICS = ('CityscapesMetric', 'DepthMetric')


def as_list(value) -> list:
    """A config that may be one item, several or none, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def refuse_unsupported(cfg: Config, uses_fake_images: bool) -> None:
    """Raise ``ValueError`` for what cannot be kept, naming the key, its value and the remedy.

    Args:
        cfg: plain mmseg config; what is ours in it is checked elsewhere.
        uses_fake_images: whether the method replays fake images.
    """
    if cfg.get('strategy'):
        raise ValueError("strategy belongs to mmengine's FlexibleRunner, but each step is trained by its Runner: leave "
                         'it out (model_wrapper_cfg chooses how the model is distributed).')
    _check_start(cfg)
    _check_heads(cfg.model)
    _check_train_data(cfg.train_dataloader)
    for name in ('val', 'test'):
        if cfg.get(f'{name}_dataloader'):
            _check_metrics(name, cfg[f'{name}_dataloader'], as_list(cfg.get(f'{name}_evaluator')))
    if uses_fake_images:
        _check_channels(cfg)


def _check_start(cfg: Config) -> None:
    start = cfg.get('load_from')
    if start and cfg.get('resume'):
        raise ValueError(f'resume=True with load_from={start!r}: a run goes on by itself from what is in its work_dir; '
                         'set resume=False to start step 0 from these weights.')


def _check_heads(model: dict) -> None:
    for key in ('decode_head', 'auxiliary_head'):
        for head in as_list(model.get(key)):
            value = head.get('ignore_index')
            if value not in (None, IGNORE):
                raise ValueError(f'model.{key}.ignore_index={value} of {type_name(head)}: steps renumber classes, and '
                                 f'{IGNORE} marks ignored pixels. Leave it out, and leave that class out of '
                                 'scenario.steps: then its pixels are ignored.')


def _check_train_data(loader: dict) -> None:
    unwrap(split_mix(loader['dataset'])[0])
    if loader.get('batch_sampler'):
        raise ValueError(f'train_dataloader.batch_sampler={type_name(loader["batch_sampler"])} cannot be kept: real '
                         'and fake images are mixed within batches of a fixed size. Leave it out.')
    sampler = loader.get('sampler') or {}
    if sampler and type_name(sampler) not in _SAMPLERS:
        raise ValueError(f'train_dataloader.sampler.type={sampler["type"]!r} would be replaced by RealFakeSampler, '
                         f'which mixes real and fake images and can be resumed: name one of {list(_SAMPLERS)}.')


def _check_metrics(name: str, loader: dict, evaluators: Iterable[dict]) -> None:
    if type_name(loader['dataset']) in ('ConcatDataset', 'RepeatDataset', 'MultiImageMixDataset'):
        raise ValueError(f'{name}_dataloader.dataset is a {type_name(loader["dataset"])}: a step is evaluated on one '
                         'dataset without wrapper, so that mmseg alone can repeat it. Name one.')
    for evaluator in evaluators:
        if type_name(evaluator) in _FOREIGN_METRICS:
            raise ValueError(f'{name}_evaluator has {type_name(evaluator)}, which cannot be kept: it does not compare '
                             'the classes of a step. Use IoUMetric.')
        if evaluator.get('ignore_index', IGNORE) != IGNORE:
            raise ValueError(f'{name}_evaluator.ignore_index={evaluator["ignore_index"]}: steps renumber classes, and '
                             f'{IGNORE} marks ignored pixels. Leave it out, and leave that class out of '
                             'scenario.steps: then its pixels are ignored.')


def _check_channels(cfg: Config) -> None:
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    counts = dict(mean=len(as_list(preprocessor.get('mean'))) or 3)
    counts['in_channels'] = (cfg.model.get('backbone') or {}).get('in_channels', 3)
    for key, count in counts.items():
        if count != 3:
            place = 'model.data_preprocessor' if key == 'mean' else 'model.backbone'
            raise ValueError(f'{place}.{key} is for {count} channels, but fake images are RGB: set replay=None, or use '
                             'a network for three channels.')
