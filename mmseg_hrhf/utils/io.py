"""Atomic file writes: write to a temporary file, sync, rename."""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, Iterator, Union

from .errors import UserError

PathLike = Union[str, os.PathLike]


@contextlib.contextmanager
def atomic_write(path: PathLike) -> Iterator[BinaryIO]:
    """Open ``path`` for writing bytes; the complete file appears only if the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp creates private files; results get the usual permissions.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def sync_folder(folder: PathLike) -> None:
    """Make a rename in ``folder`` survive a power cut, if the file system supports it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: PathLike, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode('utf-8'))


def write_json(path: PathLike, data: Any) -> None:
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + '\n')


def read_json(path: PathLike) -> Any:
    """Read JSON data.

    Raises:
        UserError: the file is not JSON; names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except ValueError as error:
        raise UserError(f'{path} is damaged ({error}): delete it to regenerate it.') from error


def sha256(path: PathLike) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()
