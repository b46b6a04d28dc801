"""What a run ran on, for its records."""
from __future__ import annotations

import os
import platform
from importlib import metadata

import torch
from mmengine.dist import get_world_size

from .version import __version__

_TOOLBOX = ('mmengine', 'mmcv', 'mmcv-lite', 'mmsegmentation', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation')


def environment() -> dict[str, str]:
    """Versions, processors and number of processes, by name."""
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
