"""A work dir belongs to one config: going on in it with another would mix two experiments."""
from __future__ import annotations

import copy
import os.path as osp
import time

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process

from .files import read_json, write_json, write_text

# What makes two runs different; another number of workers, log level or process count does not.
_IDENTITY = ('model', 'data_preprocessor', 'scenario', 'method', 'replay', 'incremental_overrides', 'train_dataloader',
             'train_cfg', 'optim_wrapper', 'param_scheduler', 'custom_hooks', 'load_from', 'randomness',
             'channels_last', 'auto_scale_lr', 'first_step_from')
# What it is tested by, which may be given as mmseg's validation alone.
_TEST = {'test_dataloader': 'val_dataloader', 'test_evaluator': 'val_evaluator', 'test_cfg': 'val_cfg'}
# Seconds after which a network drive shows what another node wrote, as a rule half of it.
_PATIENCE = 60
_NOT_IDENTITY = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')


def run_seed(cfg: Config) -> int:
    """``randomness.seed`` of a run; 0 where the config gives none."""
    seed = (cfg.get('randomness') or {}).get('seed')
    return 0 if seed is None else int(seed)


def check_same_run(work_dir: str, cfg: Config, seed: int) -> None:
    """Raise ``ValueError`` naming the options that differ from those of the run that ``work_dir`` holds."""
    path = osp.join(work_dir, 'run.json')
    if osp.exists(path):
        held = read_json(path)
        # What the run's version did not record says nothing; earlier ones had None for a test given as validation.
        held = {key: value for key, value in held.items() if value is not None or key not in _TEST}
        now = {key: value for key, value in run_identity(cfg, seed).items() if key in held}
        differing = sorted(_differences(held, now))
        if differing:
            hooks = (' A hook that changes nothing of the result can be given as a key of default_hooks instead.'
                     if 'custom_hooks' in differing else '')
            raise ValueError(f'{work_dir} holds a run of another config; different are {", ".join(differing)}. '
                             f'Choose another --work-dir, or delete that folder.{hooks}')


def claim_work_dir(work_dir: str, cfg: Config, seed: int) -> None:
    """Bind ``work_dir`` to this config. Called once it is accepted: a refused config must not bar the mended one.

    Raises:
        ValueError: this process does not see the folder that rank 0 wrote to.
    """
    barrier()  # every rank must have checked before rank 0 writes
    path = osp.join(work_dir, 'run.json')
    if is_main_process() and not osp.exists(path):
        write_json(path, run_identity(cfg, seed))
    barrier()
    for _ in range(_PATIENCE):
        if osp.exists(path):
            return
        time.sleep(1)
    raise ValueError(f'Rank 0 wrote {path}, but this process cannot see it: the work dir must be on a file system that '
                     'all processes share.')


def write_run_config(work_dir: str, cfg: Config, seed: int) -> None:
    """Write the whole config beside ``run.json``, if it is not there: ``tools/train.py`` on it is this run again."""
    path = osp.join(work_dir, 'config.py')
    if not osp.exists(path):
        whole = Config(copy.deepcopy(cfg._cfg_dict))
        for where in ('work_dir', 'only_step', 'launcher'):
            whole.pop(where, None)
        whole.randomness = dict(whole.get('randomness') or {}, seed=seed)
        write_text(path, whole.pretty_text)


def run_identity(cfg: Config, seed: int) -> dict:
    """What a run is, as JSON data."""
    identity = {key: _identity(cfg.get(key)) for key in _IDENTITY}
    identity.update({key: _identity(cfg.get(key) or cfg.get(other)) for key, other in _TEST.items()})
    identity['randomness'] = dict(identity['randomness'] or {}, seed=seed)
    return identity


def _identity(value):
    """Config values as JSON data, without what may change between two runs of one experiment."""
    if isinstance(value, dict):
        return {str(key): _identity(item) for key, item in value.items() if key not in _NOT_IDENTITY}
    if isinstance(value, (list, tuple)):
        return [_identity(item) for item in value]
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return repr(value)


def _differences(old, new, name: str = '') -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = set(old) | set(new)
        return [path for key in keys for path in _differences(old.get(key), new.get(key), f'{name}.{key}'.lstrip('.'))]
    return [] if old == new else [name]
