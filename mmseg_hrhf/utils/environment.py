"""Software and hardware of a run, the location of installed files, and a quiet import of the toolbox."""
from __future__ import annotations

import contextlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Iterator

from ..version import __version__
from .errors import UserError, rank

_TOOLBOX = ('mmengine', 'mmcv', 'mmcv-lite', 'mmsegmentation', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation')


def environment() -> dict[str, str]:
    """Versions, processors and number of processes, by name."""
    # Imported late: the package imports this module, and `--help` must not wait for the toolbox.
    import torch
    from mmengine.dist import get_world_size
    found = {'mmseg_hrhf': __version__, 'Python': platform.python_version(), 'torch': torch.__version__}
    for package in _TOOLBOX:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    found['platform'] = f'{platform.system()} {platform.machine()}'
    found['processors'] = f'{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads of torch'
    if torch.cuda.is_available():
        found['GPU'] = f'{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}'
    found['processes'] = str(get_world_size())
    return found


_PACKAGE = Path(__file__).parents[1]
# Prefix of a path relative to this package's configs: 'mmseg_hrhf::hrhf/voc_15-1.py'.
SCOPE = 'mmseg_hrhf::'


def installed_folder(name: str) -> Path:
    """Path of the folder ``configs`` or ``tools``.

    Raises:
        UserError: the package was installed without it.
    """
    for folder in (_PACKAGE / '.mim' / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise UserError(f'This installation of mmseg_hrhf has no {name}: install its wheel, or clone the repository.')


def config_path(path: str) -> str:
    """Path of a config; the prefix ``mmseg_hrhf::`` stands for this package's config folder."""
    return str(installed_folder('configs') / path[len(SCOPE):]) if path.startswith(SCOPE) else path


class _Muted:
    """A stream that can be muted. Log handlers created meanwhile may keep it, so it writes again afterwards."""

    def __init__(self, stream) -> None:
        self.stream, self.muted = stream, True

    def write(self, text: str) -> int:
        return len(text) if self.muted else self.stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Suppress output inside the block; with several processes, only rank 0 shows warnings."""
    streams = [_Muted(sys.stdout)] if rank() == 0 else [_Muted(sys.stdout), _Muted(sys.stderr)]
    # Do not save and restore warning filters: modules add their own on import.
    try:
        with contextlib.ExitStack() as stack:
            for stream, redirect in zip(streams, (contextlib.redirect_stdout, contextlib.redirect_stderr)):
                stack.enter_context(redirect(stream))
            yield
    finally:
        for stream in streams:
            stream.muted = False
