"""The schedule of one learning step: the user's, resumable at any iteration."""
from __future__ import annotations

from mmengine.config import Config

from .unsupported import as_list

_LOOPS = dict(EpochBasedTrainLoop='ResumableEpochLoop', IterBasedTrainLoop='ResumableIterLoop')


def is_epoch_based(cfg: Config) -> bool:
    """Whether the schedule counts epochs."""
    return bool(cfg.train_cfg.get('by_epoch', loop_type(cfg) == 'ResumableEpochLoop'))


def loop_type(cfg: Config) -> str:
    """Name of the resumable loop for the config's.

    Raises:
        ValueError: a loop of another kind.
    """
    if 'type' not in cfg.train_cfg:
        return 'ResumableEpochLoop' if cfg.train_cfg.get('by_epoch') else 'ResumableIterLoop'
    kind = getattr(cfg.train_cfg.type, '__name__', cfg.train_cfg.type)
    if kind in _LOOPS.values():
        return kind
    if kind not in _LOOPS:
        raise ValueError(f'train_cfg.type={kind!r} cannot be resumed exactly: use one of {sorted(_LOOPS)}.')
    return _LOOPS[kind]


def set_schedule(out: Config, seed: int) -> None:
    """Resumption at any iteration: loop, seeds and, unless the config has one of its own, a ResumeHook."""
    loop = loop_type(out)
    out.train_cfg.pop('by_epoch', None)
    out.train_cfg.type = loop
    hooks = as_list(out.get('custom_hooks'))
    hooks.append(dict(type='IterationSeedHook', seed=seed))
    chosen = [hook for hook in [*(out.get('default_hooks') or {}).values(), *hooks] if hook]
    if not any(hook.get('type') == 'ResumeHook' for hook in chosen):
        hooks.append(dict(type='ResumeHook'))
    out.custom_hooks = hooks
