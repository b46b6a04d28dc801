"""What a finished step depends on, and whether the config still says the same."""
from __future__ import annotations

import copy
import functools
import hashlib
import logging
import os.path as osp
import time
from typing import Any, Iterable, Mapping, Optional

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

from .config_check import weight_files
from .datasets.source import type_name
from .files import read_json, sha256, write_json, write_text
from .plain_types import named_types
from .replay.step_statistics import statistics_options
from .step_config import effective_config, method_class, replay_options
from .step_files import StepFiles

# What of the config that holds at a step changes its weights. Another number of workers, log level or process count
# does not, and what `default_hooks` hold only looks, but for these.
_TRAINING = ('model', 'data_preprocessor', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler',
             'custom_hooks', 'auto_scale_lr')
_CHANGING_HOOKS = ('EMAHook', 'EarlyStoppingHook', 'SyncBuffersHook')
# What it is tested by, which may be given as mmseg's validation alone.
_TEST = {'test_dataloader': 'val_dataloader', 'test_evaluator': 'val_evaluator', 'test_cfg': 'val_cfg'}
_VALIDATION = ('val_interval', 'val_begin', 'dynamic_intervals')
_NOT_IDENTITY = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')
# Seconds after which a network drive shows what another node wrote, as a rule half of it.
_PATIENCE = 60


def run_seed(cfg: Config) -> int:
    """``randomness.seed`` of a run; 0 where the config gives none."""
    seed = (cfg.get('randomness') or {}).get('seed')
    return 0 if seed is None else int(seed)


# -- identities ------------------------------------------------------------------------------------------------------


def training_identity(cfg: Config, step: int, seed: int) -> dict:
    """What the weights of a step depend on besides the step before and the data, as JSON data.

    Step 0 of most methods is plain training, which does not depend on the method.
    """
    out, method = effective_config(cfg, step), method_class(cfg)
    first = step == 0 or method.joint
    identity = {key: _plain(out.get(key)) for key in _TRAINING}
    for key in _VALIDATION:
        identity['train_cfg'].pop(key, None)
    identity['model'].pop('test_cfg', None)
    hooks = out.get('default_hooks') or {}
    identity['default_hooks'] = {
        key: _plain(hook) for key, hook in hooks.items() if hook and type_name(hook) in _CHANGING_HOOKS}
    if 'param_scheduler' in hooks and hooks['param_scheduler'] is None:
        identity['default_hooks']['param_scheduler'] = 'off'
    identity.update(seed=seed, channels_last=bool(cfg.get('channels_last')))
    if first:
        identity.update(load_from=cfg.get('load_from'), first_step_from=cfg.get('first_step_from'))
        # By names without nesting, which are compared only where both times the file was there.
        identity.update({f'{name}.sha256': _sha256(path, osp.getmtime(path)) for name, path in weight_files(cfg)
                         if osp.isfile(path)})
    identity['method'] = None if step == 0 and method.shares_first_step else _plain(cfg.method)
    replay = replay_options(cfg)
    if replay is not None:
        # Recorded at the end of a step, for the fakes of the next.
        identity['replay'] = dict(feature_statistics=_plain(statistics_options(replay)))
        if not first:
            identity['replay'] = _plain(replay)
    return identity


@functools.lru_cache(maxsize=None)
def _sha256(path: str, changed: float) -> str:
    return sha256(path)


def test_identity(cfg: Config, step: int) -> dict:
    """What the figures of a step depend on besides its weights and the data, as JSON data."""
    out = effective_config(cfg, step)
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


def run_identity(cfg: Config, seed: int) -> dict:
    """The options of a run, as JSON data: for its records, and to find runs that could share work."""
    identity = training_identity(cfg, 0, seed)
    identity.update(
        scenario=_plain(cfg.scenario),
        method=_plain(cfg.method),
        replay=_plain(cfg.get('replay')),
        incremental_overrides=_plain(cfg.get('incremental_overrides')),
        randomness=dict(_plain(cfg.get('randomness') or {}), seed=seed),
        **test_identity(cfg, 0))
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


# -- work dirs -------------------------------------------------------------------------------------------------------


def check_steps(work_dir: str, identities: Mapping[int, dict]) -> list[int]:
    """Compare the steps that a work dir holds with what they would be now.

    Args:
        work_dir: of the run.
        identities: by step, with ``training``, ``test`` and, where the data are known, ``training_data`` and
            ``test_data``.
    Returns:
        Finished steps whose test differs: their weights stand, their figures do not.
    Raises:
        ValueError: a step that was trained otherwise; names what differs and the steps that would be made again.
    """
    tested_otherwise = []
    for step in sorted(identities):
        files, now = StepFiles(work_dir, step), identities[step]
        if not osp.exists(files.identity):
            if osp.exists(files.result):
                print_log(f'{files.folder} does not say by which config it was made, and is taken as it is.',
                          logger='current', level=logging.WARNING)
            continue
        held = read_json(files.identity)
        if not isinstance(held, dict) or 'training' not in held:
            raise ValueError(f'{files.identity} is no record of a step: delete {files.folder} to have it made again.')
        differing = _differing(held, now, ('training', 'training_data'))
        started = any(map(osp.exists, (files.result, files.resume_point, files.fakes)))
        if differing and started:
            raise ValueError(_refusal(work_dir, step, differing, identities))
        if osp.exists(files.result) and _differing(held, now, ('test', 'test_data')):
            tested_otherwise.append(step)
    return tested_otherwise


def _differing(held: dict, now: dict, parts: Iterable[str]) -> list[str]:
    found = []
    for part in parts:
        if part in held and part in now:
            # What an earlier version did not record says nothing.
            known = {key: value for key, value in now[part].items() if key in held[part]}
            prefix = part if part.endswith('_data') else ''
            found += _differences(held[part], known, prefix)
    return sorted(found)


def _refusal(work_dir: str, step: int, differing: list[str], identities: Mapping[int, dict]) -> str:
    again = [t for t in sorted(identities) if t >= step and osp.isdir(StepFiles(work_dir, t).folder)]
    stand = [t for t in sorted(identities) if t < step and osp.exists(StepFiles(work_dir, t).result)]
    folders = ' '.join(StepFiles(work_dir, t).folder for t in again)
    hooks = (' A hook that changes nothing of the result can be given as a key of default_hooks instead.'
             if any(name.startswith('custom_hooks') for name in differing) else '')
    kept = f' (step{"s" if len(stand) > 1 else ""} {", ".join(map(str, stand))} would stand)' if stand else ''
    return (f'{work_dir} holds a run of another config: step {step} was made with other settings of '
            f'{", ".join(differing)}. Choose another --work-dir, or delete {folders} to have step'
            f'{"s" if len(again) > 1 else ""} {", ".join(map(str, again))} made again{kept}.{hooks}')


def claim_work_dir(work_dir: str, cfg: Config, seed: int) -> None:
    """Record a run's options in ``run.json`` and ``config.py``: ``tools/train.py`` on the latter is this run again.

    Called once a config is accepted: a refused one must not be recorded.

    Raises:
        ValueError: this process does not see the folder that rank 0 wrote to.
    """
    barrier()  # every rank must have checked before rank 0 writes
    path = osp.join(work_dir, 'run.json')
    if is_main_process():
        _write_if_changed(osp.join(work_dir, 'config.py'), _config_text(cfg, seed))
        identity = run_identity(cfg, seed)
        if not osp.exists(path) or _read_or_none(path) != identity:
            write_json(path, identity)
    barrier()
    for _ in range(_PATIENCE):
        if osp.exists(path):
            return
        time.sleep(1)
    raise ValueError(f'Rank 0 wrote {path}, but this process cannot see it: the work dir must be on a file system that '
                     'all processes share.')


def _config_text(cfg: Config, seed: int) -> str:
    whole = Config(named_types(copy.deepcopy(cfg._cfg_dict.to_dict())))
    for where in ('work_dir', 'only_step', 'launcher'):
        whole.pop(where, None)
    whole.randomness = dict(whole.get('randomness') or {}, seed=seed)
    return whole.pretty_text


def _write_if_changed(path: str, text: str) -> None:
    try:
        with open(path, encoding='utf-8') as file:
            if file.read() == text:
                return
    except (OSError, UnicodeDecodeError):
        pass
    write_text(path, text)


def _read_or_none(path: str) -> Optional[Any]:
    try:
        return read_json(path)
    except ValueError:
        return None


def _differences(old: Any, new: Any, name: str = '') -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = set(old) | set(new) if name else set(new)
        return [path for key in keys for path in _differences(old.get(key), new.get(key), f'{name}.{key}'.lstrip('.'))]
    return [] if old == new else [name]
