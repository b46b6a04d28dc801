"""Settings that determine the weights and the metrics of a step, as a work dir records them."""
from __future__ import annotations

import functools
import hashlib
import os.path as osp
from typing import Any, Iterable, Mapping, Optional

from ..datasets.source import type_name
from ..utils.io import sha256
from .plain import weight_files
from .run import RunConfig

# Keys that change the weights of a step. The number of workers, the log level and the process count do not, nor do the
# `default_hooks` except for the ones below.
_TRAINING = ('model', 'data_preprocessor', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler',
             'custom_hooks', 'auto_scale_lr')
_CHANGING_HOOKS = ('EMAHook', 'EarlyStoppingHook', 'SyncBuffersHook')
# Keys of the test, and those of the validation, which replace them where a config has no test.
_TEST = {'test_dataloader': 'val_dataloader', 'test_evaluator': 'val_evaluator', 'test_cfg': 'val_cfg'}
_VALIDATION = ('val_interval', 'val_begin', 'dynamic_intervals')
_NOT_IDENTITY = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')


def training_identity(run: RunConfig, step: int) -> dict:
    """What determines the weights of a step besides the previous step and the data, as JSON data.

    Step 0 of most methods is plain training and does not depend on the method.
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
        # Flat names: a hash is compared only if the file existed both times.
        identity.update({f'{name}.sha256': _sha256(path, osp.getmtime(path)) for name, path in weight_files(run.user)
                         if osp.isfile(path)})
    identity['method'] = None if step == 0 and run.method.shares_first_step else _plain(run.method_options)
    if first and identity['method'] is not None:
        for name in ('freeze_norm', 'freeze_backbone'):
            identity['method'].pop(name, None)  # without effect
    if run.scenario.get('setting') == 'partitioned' and not run.method.joint:
        identity['partition_seed'] = run.scenario.get('partition_seed', 0)
    if run.replay is not None:
        # Feature statistics are recorded at the end of a step, for the synthetic images of the next.
        identity['replay'] = dict(feature_statistics=_plain(run.replay.statistics))
        if not first:
            identity['replay'] = _plain(run.replay.options)
    return identity


@functools.lru_cache(maxsize=None)
def _sha256(path: str, changed: float) -> str:
    return sha256(path)


def test_identity(run: RunConfig, step: int) -> dict:
    """What determines the metrics of a step besides its weights and the data, as JSON data."""
    out = run.at(step)
    identity = {key: _plain(out.get(key) or out.get(other)) for key, other in _TEST.items()}
    identity['test_dataloader'].pop('batch_size', None)
    identity['model'] = dict(test_cfg=_plain(out.model.get('test_cfg')))
    return identity


def data_identity(classes: Iterable[str], label_map: Mapping[int, int], names: Optional[Iterable[str]] = None,
                  image_list: Optional[str] = None) -> dict:
    """Classes, labels and images of a step, as JSON data.

    Args:
        classes: by class index.
        label_map: class index of each raw label.
        names: file names of the images; None: not known, and left out.
        image_list: file that lists them.
    """
    identity: dict[str, Any] = dict(
        classes=list(classes), labels=', '.join(f'{raw}: {label_map[raw]}' for raw in sorted(label_map)),
        image_list=None if image_list is None else _sha256(image_list, osp.getmtime(image_list)))
    if names is not None:
        listed = '\n'.join(names)
        identity['images'] = hashlib.sha256(listed.encode('utf-8', 'surrogateescape')).hexdigest()
    return identity


def run_identity(run: RunConfig) -> dict:
    """The options of a run as JSON data, for its records and to find runs that can share work."""
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
    """Config values as JSON data, without keys that may differ between runs of the same experiment."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if key not in _NOT_IDENTITY}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return getattr(value, '__name__', repr(value))
