"""Where configs and tools are: in the wheel's ``.mim``, or beside the package in a clone."""
from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
# Configs of this package, by a path relative to its configs: 'mmseg_hrhf::hrhf/voc_15-1.py'.
SCOPE = 'mmseg_hrhf::'


def installed_folder(name: str) -> Path:
    """The folder ``configs`` or ``tools``.

    Raises:
        ValueError: the package was installed without it.
    """
    for folder in (_PACKAGE / '.mim' / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise ValueError(f'This installation of mmseg_hrhf has no {name}: install its wheel, or clone the repository.')


def config_path(path: str) -> str:
    """A config's path; ``mmseg_hrhf::`` in front stands for the folder of this package's configs."""
    return str(installed_folder('configs') / path[len(SCOPE):]) if path.startswith(SCOPE) else path
