"""Files of weights that a user names: wherever they are and whoever wrote them, only data is read from them."""
from __future__ import annotations

import io
import os
import os.path as osp
import pickle
import pickletools
import re
import zipfile
from typing import Any, Callable, Optional
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_local_path
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import (
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

from ..utils.compat import mmengine_home
from ..utils.errors import UserError
from ..utils.io import PathLike

# Kinds of numbers in mmengine's checkpoints.
_DTYPES = ('f2', 'f4', 'f8', 'i4', 'i8', 'u1', '?')
# Pickles at the start of a file of torch.save before 1.6 up to the one that holds its content.
_OLD_PICKLES = 4


def read_data(path: PathLike, map_location: Any = 'cpu') -> Any:
    """What ``torch.save`` wrote: tensors and plain data, and the log that mmengine's checkpoints carry.

    Raises:
        pickle.UnpicklingError: more than that; nothing of it ran.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError:
        content = _with_own_names(path)
        if content is None or not hasattr(torch.serialization, 'safe_globals'):  # torch < 2.5
            raise
    with torch.serialization.safe_globals(_LOG_PARTS):
        return torch.load(content, map_location=map_location, weights_only=True)


def log_statistic(owner: type, name: str) -> Callable:
    """The methods by which mmengine smooths a log value, nothing else."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'GLOBAL getattr({owner!r}, {name!r})')
    return getattr(HistoryBuffer, name)


# What makes NumPy's arrays and numbers.
_NUMPY: tuple = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
# What a log consists of: smoothed values, that is arrays of NumPy's numbers and a HistoryBuffer's methods.
_LOG_PARTS = [HistoryBuffer, log_statistic, np.ndarray, np.dtype, *_NUMPY, *(type(np.dtype(kind)) for kind in _DTYPES)]
# By the name that such a file has for a function, the function that is called in its place.
_STAND_INS: dict[str, Callable] = {
    **{f'{module} getattr': log_statistic for module in ('builtins', '__builtin__')},
    **{f'numpy.{core}.multiarray {function.__name__}': function for function in _NUMPY for core in ('core', '_core')},
}


def _with_own_names(path: PathLike) -> Optional[io.BytesIO]:
    """A copy of a file of ``torch.save`` whose pickle calls the stand-ins by their own names; None of any other file.

    mmengine's pickles fetch a log value's methods by ``getattr``, which could fetch anything, and name NumPy's modules
    as the NumPy does under which they were written.
    """
    try:
        if not zipfile.is_zipfile(path):
            with open(path, 'rb') as file:
                return io.BytesIO(_rename(file.read(), _OLD_PICKLES))
        out = io.BytesIO()
        with zipfile.ZipFile(path) as held, zipfile.ZipFile(out, 'w') as copy:
            for name in held.namelist():
                content = held.read(name)
                copy.writestr(name, _rename(content, 1) if name.endswith('/data.pkl') else content)
    except (ValueError, zipfile.BadZipFile):  # no pickle
        return None
    out.seek(0)
    return out


def _rename(content: bytes, number: int) -> bytes:
    """``content`` with stand-ins named in the ``number`` pickles that it begins with."""
    stream, parts, end = io.BytesIO(content), [], 0
    for _ in range(number):
        for opcode, argument, start in pickletools.genops(stream):
            if opcode.name == 'GLOBAL' and argument in _STAND_INS and start is not None:
                function = _STAND_INS[argument]
                parts += [content[end:start], f'c{function.__module__}\n{function.__name__}\n'.encode()]
                end = start + len(f'c{argument}\n')
    return b''.join([*parts, content[end:]])


# -- by mmengine's names ---------------------------------------------------------------------------------------------


def load_from_data_only(filename: str, map_location: Any = None) -> Any:
    """Takes the place of all of mmengine's loaders: they unpickle whatever is in a file.

    Args:
        filename: path or URL, or a name by one of mmengine's schemes, such as ``open-mmlab://resnet50_v1c``.
        map_location: of ``torch.load``.
    Raises:
        UserError: it holds more than data, or mmengine's scheme cannot be read so.
    """
    scheme, _, name = filename.partition('://') if '://' in filename else ('', '', filename)
    try:
        if scheme.endswith(('s3', 'petrel')):
            with get_local_path(filename, backend_args=dict(backend='petrel')) as path:
                return read_data(path, map_location)
        loaded = read_data(_local(scheme, name, filename), map_location)
    except pickle.UnpicklingError as error:
        raise more_than_data(f'{filename!r}', error) from error
    return _of_backbone(loaded) if scheme == 'mmcls' else loaded


def more_than_data(what: str, error: pickle.UnpicklingError) -> UserError:
    """The error for a file, called ``what``, that ``read_data`` refuses."""
    return UserError(f'{what} holds more than tensors and plain data and is not loaded, since loading it could run '
                     "code. If you trust it, save its 'state_dict' alone with torch.save and name that file. "
                     f'({reason(error)})')


def reason(error: Exception) -> str:
    """What torch's advice of several paragraphs comes down to."""
    text = ' '.join(str(error).split())
    named = re.search(r'GLOBAL ([\w.]+)', text)
    if named is not None:
        return f'it names {named[1]}'
    return text[:100].rsplit('. ', 1)[0] or type(error).__name__


def _local(scheme: str, name: str, filename: str) -> str:
    """Path of a file, which is fetched where it is elsewhere."""
    if scheme in ('torchvision', 'modelzoo'):
        filename = get_torchvision_models()[name]
    elif scheme == 'mmcls':
        filename = get_mmcls_models()[name]
    elif scheme in ('open-mmlab', 'openmmlab'):
        filename = get_external_models()[get_deprecated_model_names().get(name, name)]
        if '://' not in filename:
            filename = osp.join(mmengine_home(), filename)
    elif scheme not in ('', 'http', 'https'):
        raise UserError(f'Weights {filename!r}: {scheme}:// cannot be read as data alone. Fetch the file and give its '
                        'local path.')
    if '://' in filename:
        return _fetched(filename)
    path = osp.expanduser(filename)
    if not osp.isfile(path):
        raise FileNotFoundError(f'{path} can not be found.')
    return path


def _fetched(url: str) -> str:
    """Path of the local copy, where torch and mmengine keep theirs, too."""
    path = osp.join(torch.hub.get_dir(), 'checkpoints', osp.basename(urlparse(url).path))
    if get_rank() == 0:  # for all that share its disk
        _download(url, path)
    barrier()
    _download(url, path)
    return path


def _download(url: str, path: str) -> None:
    if not osp.exists(path):
        os.makedirs(osp.dirname(path), exist_ok=True)
        torch.hub.download_url_to_file(url, path, progress=os.isatty(0))


def _of_backbone(checkpoint: dict) -> dict:
    """Weights of a classifier's backbone by a backbone's own names, as mmengine makes them."""
    state = checkpoint.get('state_dict', checkpoint)
    start = 'backbone.'
    return dict(state_dict={name[len(start):]: value for name, value in state.items() if name.startswith(start)})
