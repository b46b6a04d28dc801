"""Plain checkpoints: weights of a bare segmentor and data about them, nothing that can run code."""
from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pickle
import re
import struct
import zipfile
import zlib
from typing import Callable, Iterator, Mapping, Optional

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from ..utils.errors import UserError
from ..utils.io import PathLike, atomic_write

# Kinds of numbers in mmengine's checkpoints.
_DTYPES = {'f2': 'Float16', 'f4': 'Float32', 'f8': 'Float64', 'i4': 'Int32', 'i8': 'Int64', 'u1': 'UInt8', '?': 'Bool'}
_RESAVE = ("If you trust it, save its 'state_dict' alone with torch.save and name that file.")


def save_checkpoint(path: PathLike, state_dict: Mapping[str, Tensor], meta: dict, **extra) -> None:
    """Write ``{'state_dict', 'meta'}`` whole or not at all, with what is in ``extra`` and not empty beside.

    mmengine ignores what is beside: a method's state (``method_state``), statistics for the next step's inversion
    (``feature_statistics``).
    """
    state_dict = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    checkpoint = dict({key: value for key, value in extra.items() if value}, state_dict=state_dict, meta=meta)
    with atomic_write(path) as file:
        torch.save(checkpoint, file)


def is_whole(path: PathLike) -> bool:
    """Whether a file is a zip archive, not truncated, whose contents have the checksums (CRC-32) they were saved with.

    torch itself does not look at them.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, zlib.error, struct.error):
        return False
    except OSError as error:
        if error.errno != errno.EINVAL:  # a damaged table of contents points before the file's start
            raise
        return False


@contextlib.contextmanager
def only_data() -> Iterator[None]:
    """Inside, whoever calls ``torch.load`` gets tensors and plain data, never an object whose loading runs code.

    mmengine loads ``load_from`` and pretrained weights by itself, and falls back to unpickling whatever is in them.

    Raises:
        UserError: a file held more than data; nothing of it ran.
    """
    names = ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = '1'
    try:
        with _mmengine_data():
            yield
    except pickle.UnpicklingError as error:
        raise UserError(f'A file of weights holds more than tensors and plain data and is not loaded, since loading '
                         f'it could run code. {_RESAVE} ({_reason(error)})') from error
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _mmengine_data() -> contextlib.AbstractContextManager:
    """Lets through what mmengine's own checkpoints hold beside tensors: NumPy numbers and smoothed log values."""
    if not hasattr(torch.serialization, 'safe_globals'):  # torch < 2.5
        return contextlib.nullcontext()
    # By the names of every NumPy: a file has those of the one it was written under.
    functions = dict(_reconstruct=np.zeros(1).__reduce__()[0], scalar=np.float64(0).__reduce__()[0])
    named = [(function, f'numpy.{core}.multiarray.{name}') for name, function in functions.items()
             for core in ('core', '_core')]
    named += [(type(np.dtype(kind)), f'numpy.dtypes.{name}DType') for kind, name in _DTYPES.items()]
    return torch.serialization.safe_globals(
        [HistoryBuffer, np.ndarray, np.dtype, *named, (_statistic, 'builtins.getattr')])


def _statistic(owner: type, name: str) -> Callable:
    """What stands in for ``getattr`` in a file: the methods by which mmengine smooths a log value, nothing else."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'GLOBAL getattr({owner!r}, {name!r})')
    return getattr(HistoryBuffer, name)


def load_weights(name: str, path: PathLike) -> dict:
    """Read a file of weights, of whatever toolbox, onto the CPU.

    Args:
        name: option that names the file.
        path: local file.
    Raises:
        UserError: it does not exist, is damaged, or holds more than data.
    """
    if not os.path.isfile(path):
        raise UserError(f'{name}={str(path)!r} does not exist: give the path of a checkpoint, or leave it out.')
    try:
        with _mmengine_data():
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f'{name}={str(path)!r} holds more than tensors and plain data and is not loaded, since '
                         f'loading it could run code. {_RESAVE} ({_reason(error)})') from error
    except Exception as error:  # damaged bytes make the reader raise almost anything
        raise UserError(f'{name}={str(path)!r} is truncated, damaged or no checkpoint ({_reason(error)}): fetch it '
                         'again.') from error


def load_checkpoint(path: PathLike, num_classes: Optional[int] = None) -> dict:
    """Read a plain checkpoint onto the CPU.

    Args:
        path: file.
        num_classes: channels the checkpoint must have, if it says how many it has.
    Raises:
        UserError: the file is missing, truncated, holds more than data, or is of another class count.
    """
    if not os.path.exists(path):
        raise UserError(f'Checkpoint {path} does not exist: train the step that writes it first.')
    if not is_whole(path):
        raise UserError(f'Checkpoint {path} ({os.path.getsize(path)} bytes) is truncated or no checkpoint: delete it '
                         'and run the step that writes it again.')
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f'Checkpoint {path} holds more than tensors and plain data and is not loaded, since loading '
                         'it could run code. Of a run, use step_<t>/checkpoint.pth, not the files in step_<t>/train. '
                         f'({_reason(error)})') from error
    except Exception as error:  # damaged bytes make the reader raise almost anything
        raise UserError(f'Checkpoint {path} is damaged ({_reason(error)}): delete it and run the step that writes it '
                         'again.') from error
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise UserError(f"Checkpoint {path} has no 'state_dict': it is not a checkpoint of a segmentor.")
    held = held_classes(checkpoint)
    if num_classes is not None and held and len(held) != num_classes:
        raise UserError(f'Checkpoint {path} knows {len(held)} classes (background included), but {num_classes} are '
                         'needed: it is the checkpoint of another step or scenario.')
    return checkpoint


def held_classes(checkpoint: Mapping) -> list[str]:
    """Names of the classes that a checkpoint's channels stand for, background first; empty if it does not say."""
    return list(((checkpoint.get('meta') or {}).get('dataset_meta') or {}).get('classes', ()))


def _reason(error: Exception) -> str:
    """What torch's advice of several paragraphs comes down to."""
    text = ' '.join(str(error).split())
    named = re.search(r'GLOBAL ([\w.]+)', text)
    if named is not None:
        return f'it names {named[1]}'
    return text[:100].rsplit('. ', 1)[0] or type(error).__name__


def weights_fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
