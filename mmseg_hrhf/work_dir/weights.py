"""Loads weight files from any source without running code from them."""
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

# Number types in mmengine's checkpoints.
_DTYPES = ('f2', 'f4', 'f8', 'i4', 'i8', 'u1', '?')
# Number of pickles at the start of a file written by torch.save before 1.6; the last one holds the content.
_OLD_PICKLES = 4


def read_data(path: PathLike, map_location: Any = 'cpu') -> Any:
    """Load tensors, plain data and mmengine's log history from a file of ``torch.save``.

    Raises:
        pickle.UnpicklingError: the file contains anything else; none of it was run.
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
    """``getattr`` restricted to the methods with which mmengine smooths a log value."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'GLOBAL getattr({owner!r}, {name!r})')
    return getattr(HistoryBuffer, name)


# Constructors of NumPy's arrays and numbers.
_NUMPY: tuple = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
# Contents of a log: NumPy arrays and numbers, and methods of HistoryBuffer.
_LOG_PARTS = [HistoryBuffer, log_statistic, np.ndarray, np.dtype, *_NUMPY, *(type(np.dtype(kind)) for kind in _DTYPES)]
# Replacements of functions, by the name in such a file.
_STAND_INS: dict[str, Callable] = {
    **{f'{module} getattr': log_statistic for module in ('builtins', '__builtin__')},
    **{f'numpy.{core}.multiarray {function.__name__}': function for function in _NUMPY for core in ('core', '_core')},
}


def _with_own_names(path: PathLike) -> Optional[io.BytesIO]:
    """Copy of a file of ``torch.save`` whose pickle names the replacements; None for any other file.

    mmengine's pickles look up a log value's methods with ``getattr``, which could return anything, and use the module
    names of the NumPy version that wrote them.
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
    except (ValueError, zipfile.BadZipFile):  # not a pickle
        return None
    out.seek(0)
    return out


def _rename(content: bytes, number: int) -> bytes:
    """``content`` with the replacements named in its first ``number`` pickles."""
    stream, parts, end = io.BytesIO(content), [], 0
    for _ in range(number):
        for opcode, argument, start in pickletools.genops(stream):
            if opcode.name == 'GLOBAL' and argument in _STAND_INS and start is not None:
                function = _STAND_INS[argument]
                parts += [content[end:start], f'c{function.__module__}\n{function.__name__}\n'.encode()]
                end = start + len(f'c{argument}\n')
    return b''.join([*parts, content[end:]])


# -- mmengine's loaders ----------------------------------------------------------------------------------------------


def load_from_data_only(filename: str, map_location: Any = None) -> Any:
    """Replaces all of mmengine's loaders, which unpickle anything.

    Args:
        filename: path, URL, or a name in one of mmengine's schemes, such as ``open-mmlab://resnet50_v1c``.
        map_location: see ``torch.load``.
    Raises:
        UserError: the file contains more than data, or the scheme is not supported.
    """
    scheme, _, name = filename.partition('://') if '://' in filename else ('', '', filename)
    try:
        if scheme.endswith(('s3', 'petrel')):
            with get_local_path(filename, backend_args=dict(backend='petrel')) as path:
                return read_data(path, map_location)
        loaded = read_data(_local(scheme, name, filename), map_location)
    except pickle.UnpicklingError as error:
        raise unsafe_file_error(f'{filename!r}', error) from error
    return _of_backbone(loaded) if scheme == 'mmcls' else loaded


def unsafe_file_error(what: str, error: pickle.UnpicklingError) -> UserError:
    """Error for a file, named ``what`` in the message, that ``read_data`` rejects."""
    return UserError(f'{what} holds more than tensors and plain data and is not loaded, because loading it could run '
                     "code. If you trust it, save only its 'state_dict' with torch.save and use that file. "
                     f'({reason(error)})')


def reason(error: Exception) -> str:
    """Short form of an error of ``torch.load``."""
    text = ' '.join(str(error).split())
    named = re.search(r'GLOBAL ([\w.]+)', text)
    if named is not None:
        return f'it contains {named[1]}'
    return text[:100].rsplit('. ', 1)[0] or type(error).__name__


def _local(scheme: str, name: str, filename: str) -> str:
    """Local path of a file; downloads it if it is remote."""
    if scheme in ('torchvision', 'modelzoo'):
        filename = get_torchvision_models()[name]
    elif scheme == 'mmcls':
        filename = get_mmcls_models()[name]
    elif scheme in ('open-mmlab', 'openmmlab'):
        filename = get_external_models()[get_deprecated_model_names().get(name, name)]
        if '://' not in filename:
            filename = osp.join(mmengine_home(), filename)
    elif scheme not in ('', 'http', 'https'):
        raise UserError(f'Weights {filename!r}: {scheme}:// is not supported. Download the file and use its local '
                        'path.')
    if '://' in filename:
        return _fetched(filename)
    path = osp.expanduser(filename)
    if not osp.isfile(path):
        raise FileNotFoundError(f'{path} can not be found.')
    return path


def _fetched(url: str) -> str:
    """Path of the local copy, in the cache that torch and mmengine use."""
    path = osp.join(torch.hub.get_dir(), 'checkpoints', osp.basename(urlparse(url).path))
    if get_rank() == 0:  # for all ranks that share its disk
        _download(url, path)
    barrier()
    _download(url, path)
    return path


def _download(url: str, path: str) -> None:
    if not osp.exists(path):
        os.makedirs(osp.dirname(path), exist_ok=True)
        torch.hub.download_url_to_file(url, path, progress=os.isatty(0))


def _of_backbone(checkpoint: dict) -> dict:
    """Weights of a classifier's backbone, without the prefix, as mmengine returns them."""
    state = checkpoint.get('state_dict', checkpoint)
    start = 'backbone.'
    return dict(state_dict={name[len(start):]: value for name, value in state.items() if name.startswith(start)})
