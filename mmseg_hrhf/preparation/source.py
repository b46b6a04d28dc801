"""Files of a data set as it is handed out: in an archive, or unpacked in a folder."""
from __future__ import annotations

import shutil
import tarfile
from functools import partial
from pathlib import Path
from typing import Callable, Iterator

from ..files import PathLike, atomic_write


def members(source: PathLike, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Files whose path, with ``/``, satisfies ``wanted``, in the order of the source.

    Args:
        source: a folder, or an archive that :mod:`tarfile` reads (.tar, .tgz, ...).
        wanted: asked about paths inside the source.
    Yields:
        Path inside the source, and a function that writes the file to a path, whole or not at all. Only that function
        writes, to where its caller says: names inside an archive cannot lead elsewhere.
    Raises:
        ValueError: the source is missing or no such archive.
    """
    source = Path(source)
    if source.is_dir():
        for path in sorted(source.rglob('*')):
            name = path.relative_to(source).as_posix()
            if path.is_file() and wanted(name):
                yield name, partial(_write, partial(path.open, 'rb'))
        return
    if not source.is_file():
        raise ValueError(f'{source} does not exist: give the downloaded archive, or the folder it unpacks to.')
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                if member.isfile() and wanted(member.name):
                    yield member.name, partial(_write, partial(archive.extractfile, member))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f'{source} is no whole tar archive ({error}): download it again, or give the folder it '
                         'unpacks to.') from error


def _write(open_source: Callable, target: Path) -> None:
    with open_source() as stream, atomic_write(target) as file:
        shutil.copyfileobj(stream, file)
