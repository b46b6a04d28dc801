"""Exclusive work-dir lock."""
from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import weakref
from pathlib import Path
from typing import Optional

from mmengine.dist import broadcast_object_list, is_main_process

from ..utils.errors import UserError
from ..utils.io import PathLike

try:
    import fcntl
except ImportError:  # not POSIX: no locks
    fcntl = None  # type: ignore[assignment]

# Handle and number of holders of each lock file of this process, by path. A POSIX lock belongs to the process, and
# closing any handle of the file releases it, so each file is opened only once.
_HELD: dict[str, list[int]] = {}


class WorkDirLock:
    """Exclusive lock on a work dir, held until ``release``, until its owner is collected or until the process ends.

    A POSIX record lock on ``.lock``: the kernel releases it when the process ends (even by kill -9), child processes do
    not inherit it, and it works across hosts on NFS. The host and pid in the file are only for error messages.

    Args:
        work_dir: created if missing.
    Raises:
        UserError: another process holds the lock (names host and pid), or the folder is not writable.
    """

    def __init__(self, work_dir: PathLike) -> None:
        path = str(Path(work_dir).resolve() / '.lock')
        if path in _HELD:
            _HELD[path][1] += 1
        else:
            _HELD[path] = [_lock(path, str(work_dir)), 1]
        self.release = weakref.finalize(self, _release, path)


def lock_work_dir(work_dir: PathLike) -> Optional[WorkDirLock]:
    """Lock a work dir for all processes of this job: rank 0 takes the lock; if it cannot, all ranks raise the error."""
    lock = None
    refusal: list[Optional[str]] = [None]
    if is_main_process():
        try:
            lock = WorkDirLock(work_dir)
        except ValueError as error:
            refusal = [str(error)]
    broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise UserError(refusal[0])
    return lock


def holder_of(work_dir: PathLike) -> Optional[str]:
    """Description of the process that holds a work dir; None if there is none or locks are not supported."""
    path = str(Path(work_dir).resolve() / '.lock')
    if path in _HELD:
        return 'this process'
    if fcntl is None or not os.path.exists(path):
        return None
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return _holder(handle) if error.errno in (errno.EACCES, errno.EAGAIN) else None
    finally:
        os.close(handle)
    return None


def _lock(path: str, work_dir: str) -> int:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f'Work dir {work_dir} cannot be written ({error.strerror}): choose another --work-dir, or '
                         'fix its permissions or disk.') from error
    try:
        if fcntl is not None:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(dict(host=socket.gethostname(), pid=os.getpid())).encode())
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            holder = _holder(handle)
            os.close(handle)
            raise UserError(
                f'Work dir {work_dir} is in use by {holder}: wait for that job or stop it, or choose another '
                f'--work-dir. (If that host is gone for good, delete {path}.)') from error
        if error.errno == errno.ENOSPC:
            os.close(handle)
            raise OSError(error.errno, error.strerror, path) from error
        # A file system without locks (ENOLCK, ENOTSUP) cannot detect two jobs.
    return handle


def _holder(handle: int) -> str:
    try:
        holder = json.loads(os.pread(handle, 1000, 0))
        return f'process {holder["pid"]} on host {holder["host"]}'
    except (ValueError, KeyError, TypeError):
        return 'another process'


def _release(path: str) -> None:
    held = _HELD[path]
    held[1] -= 1
    if held[1] == 0:
        del _HELD[path]
        with contextlib.suppress(OSError):
            os.close(held[0])
