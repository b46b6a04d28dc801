"""Records of a run and its steps in the work dir, compared with the current config."""
from __future__ import annotations

import logging
import os.path as osp
import time
from typing import Any, Iterable, Mapping, Optional

from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

from ..utils.errors import UserError
from ..utils.io import read_json, write_json, write_text
from .layout import StepFiles

# Seconds to wait for a file written by another node; network drives usually show it in half that time.
_TIMEOUT = 60


def check_steps(work_dir: str, identities: Mapping[int, dict]) -> list[int]:
    """Compare the steps in a work dir with the current config.

    Args:
        work_dir: of the run.
        identities: by step, with ``training``, ``test`` and, if the data are known, ``training_data`` and
            ``test_data``.
    Returns:
        Finished steps whose test settings differ: their weights are still valid, their results are not.
    Raises:
        UserError: a step was trained with other settings; names what differs and the steps to retrain.
    """
    tested_otherwise = []
    for step in sorted(identities):
        files, now = StepFiles(work_dir, step), identities[step]
        if not osp.exists(files.identity):
            if osp.exists(files.result):
                print_log(f'{files.folder} does not record its config and is used as is.',
                          logger='current', level=logging.WARNING)
            continue
        held = read_json(files.identity)
        if not isinstance(held, dict) or 'training' not in held:
            raise UserError(f'{files.identity} is not a record of a step: delete {files.folder} to regenerate it.')
        differing = _differing(held, now, ('training', 'training_data'))
        started = any(map(osp.exists, (files.result, files.resume_point, files.fakes)))
        if differing and started:
            raise UserError(_refusal(work_dir, step, differing, identities))
        if osp.exists(files.result) and _differing(held, now, ('test', 'test_data')):
            tested_otherwise.append(step)
    return tested_otherwise


def _differing(held: dict, now: dict, parts: Iterable[str]) -> list[str]:
    found = []
    for part in parts:
        if part in held and part in now:
            # Ignore keys that an earlier version did not record, and those that are not known now.
            known = held[part].keys() & now[part].keys()
            if 'images' in known:  # which say more than the list that names them
                known -= {'image_list'}
            prefix = part if part.endswith('_data') else ''
            old, new = ({key: each[part][key] for key in known} for each in (held, now))
            found += _differences(old, new, prefix)
    return sorted(found)


def _refusal(work_dir: str, step: int, differing: list[str], identities: Mapping[int, dict]) -> str:
    again = [t for t in sorted(identities) if t >= step and osp.isdir(StepFiles(work_dir, t).folder)]
    stand = [t for t in sorted(identities) if t < step and osp.exists(StepFiles(work_dir, t).result)]
    folders = ' '.join(StepFiles(work_dir, t).folder for t in again)
    hooks = (' A hook that does not affect the result can be set as a key of default_hooks instead.'
             if any(name.startswith('custom_hooks') for name in differing) else '')
    kept = f' (step{"s" if len(stand) > 1 else ""} {", ".join(map(str, stand))} would be kept)' if stand else ''
    return (f'{work_dir} holds a run of another config: step {step} was trained with other settings of '
            f'{", ".join(differing)}. Choose another --work-dir, or delete {folders} to retrain step'
            f'{"s" if len(again) > 1 else ""} {", ".join(map(str, again))}{kept}.{hooks}')


def claim_work_dir(work_dir: str, identity: Mapping[str, Any], text: str) -> None:
    """Record a run's options in ``run.json`` and its config in ``config.py``.

    Call it only after the config is accepted: a rejected config must not be recorded.

    Args:
        work_dir: of the run.
        identity: options of the run.
        text: config as text.
    Raises:
        UserError: this process cannot see the folder that rank 0 wrote to.
    """
    barrier()  # all ranks must finish their checks before rank 0 writes
    path = osp.join(work_dir, 'run.json')
    if is_main_process():
        _write_if_changed(osp.join(work_dir, 'config.py'), text)
        if not osp.exists(path) or _read_or_none(path) != identity:
            write_json(path, identity)
    barrier()
    for _ in range(_TIMEOUT):
        if osp.exists(path):
            return
        time.sleep(1)
    raise UserError(f'Rank 0 wrote {path}, but this process cannot see it: the work dir must be on a file system that '
                    'all processes share.')


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
