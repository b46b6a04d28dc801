"""Plain checkpoints: weights of a bare segmentor and data about them, nothing that can run code."""
from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pickle
import struct
import zipfile
import zlib
from typing import Iterator, Mapping, Optional

import torch
from torch import Tensor

from ..utils.compat import loading_by
from ..utils.errors import UserError
from ..utils.io import PathLike, atomic_write
from .weights import load_from_data_only, more_than_data, read_data, reason


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
    """Inside, mmengine loads tensors and plain data, never an object whose loading runs code.

    By itself it unpickles whatever is in ``load_from`` and in pretrained weights (``init_cfg``).

    Raises:
        UserError: a file holds more than data; nothing of it ran.
    """
    with loading_by(load_from_data_only):
        yield


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
        return read_data(path)
    except pickle.UnpicklingError as error:
        raise more_than_data(f'{name}={str(path)!r}', error) from error
    except Exception as error:  # damaged bytes make the reader raise almost anything
        raise UserError(f'{name}={str(path)!r} is truncated, damaged or no checkpoint ({reason(error)}): fetch it '
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
                         f'({reason(error)})') from error
    except Exception as error:  # damaged bytes make the reader raise almost anything
        raise UserError(f'Checkpoint {path} is damaged ({reason(error)}): delete it and run the step that writes it '
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


def weights_fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
