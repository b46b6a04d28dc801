"""What the weights and the figures of a step depend on, as data that a work dir records."""
from __future__ import annotations

import functools
import hashlib
import os.path as osp
from typing import Any, Iterable, Mapping

from ..datasets.source import type_name
from ..utils.io import sha256
from .plain import weight_files
from .run import RunConfig

# What of the config that holds at a step changes its weights. Another number of workers, log level or process count
# does not, and what `default_hooks` hold only looks, but for these.
_TRAINING = ('model', 'data_preprocessor', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler',
             'custom_hooks', 'auto_scale_lr')
_CHANGING_HOOKS = ('EMAHook', 'EarlyStoppingHook', 'SyncBuffersHook')
# What it is tested by, which may be given as mmseg's validation alone.
_TEST = {'test_dataloader': 'val_dataloader', 'test_evaluator': 'val_evaluator', 'test_cfg': 'val_cfg'}
_VALIDATION = ('val_interval', 'val_begin', 'dynamic_intervals')
_NOT_IDENTITY = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')


def training_identity(run: RunConfig, step: int) -> dict:
    """What the weights of a step depend on besides the step before and the data, as JSON data.

    Step 0 of most methods is plain training, which does not depend on the method.
    """
    out, first = run.at(step), not run.has_teacher(step)
    identity = {key: _plain(out.get(key)) for key in _TRAINING}
    for key in _VALIDATION:
        identity['train_cfg'].pop(key, None)
    identity['model'].pop('test_cfg', None)
    hooks = out.get('default_hooks') or {}
    identity['default_hooks'] = {
        key: _plain(hook) for key, hook in hooks.items() if hook and type_name(hook) in _CHANGING_HOOKS}
    if 'param_scheduler' in hooks and hooks['param_scheduler'] is None:
        identity['default_hooks']['param_scheduler'] = 'off'
    identity.update(seed=run.seed, channels_last=run.channels_last)
    if first:
        identity.update(load_from=run.plain.get('load_from'), first_step_from=run.first_step_from)
        # By names without nesting, which are compared only where both times the file was there.
        identity.update({f'{name}.sha256': _sha256(path, osp.getmtime(path)) for name, path in weight_files(run.user)
                         if osp.isfile(path)})
    identity['method'] = None if step == 0 and run.method.shares_first_step else _plain(run.method_options)
    if run.replay is not None:
        # Recorded at the end of a step, for the synthetic images of the next.
        identity['replay'] = dict(feature_statistics=_plain(run.replay.statistics))
        if not first:
            identity['replay'] = _plain(run.replay.options)
    return identity


@functools.lru_cache(maxsize=None)
def _sha256(path: str, changed: float) -> str:
    return sha256(path)


def test_identity(run: RunConfig, step: int) -> dict:
    """What the figures of a step depend on besides its weights and the data, as JSON data."""
    out = run.at(step)
    identity = {key: _plain(out.get(key) or out.get(other)) for key, other in _TEST.items()}
    identity['test_dataloader'].pop('batch_size', None)
    identity['model'] = dict(test_cfg=_plain(out.model.get('test_cfg')))
    return identity


def data_identity(classes: Iterable[str], label_map: Mapping[int, int], names: Iterable[str]) -> dict:
    """Classes, labels and images of a step, as JSON data."""
    listed = '\n'.join(names)
    return dict(
        classes=list(classes),
        labels=', '.join(f'{raw}: {label_map[raw]}' for raw in sorted(label_map)),
        images=hashlib.sha256(listed.encode('utf-8', 'surrogateescape')).hexdigest())


def run_identity(run: RunConfig) -> dict:
    """The options of a run, as JSON data: for its records, and to find runs that could share work."""
    cfg, identity = run.user, training_identity(run, 0)
    identity.update(
        scenario=_plain(run.scenario),
        method=_plain(run.method_options),
        replay=_plain(cfg.get('replay')),
        incremental_overrides=_plain(run.overrides),
        randomness=dict(_plain(cfg.get('randomness') or {}), seed=run.seed),
        **test_identity(run, 0))
    return dict(identity, model=_plain(cfg.model))


def _plain(value: Any) -> Any:
    """Config values as JSON data, without what may change between two runs of one experiment."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if key not in _NOT_IDENTITY}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return getattr(value, '__name__', repr(value))
