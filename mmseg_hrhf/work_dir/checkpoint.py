"""Plain checkpoints: the weights of a bare segmentor and metadata, nothing that can run code."""
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
from .weights import load_from_data_only, read_data, reason, unsafe_file_error


def save_checkpoint(path: PathLike, state_dict: Mapping[str, Tensor], meta: dict, **extra) -> None:
    """Atomically write ``{'state_dict', 'meta'}`` and the non-empty entries of ``extra``.

    mmengine ignores the extra entries: a method's state (``method_state``) and statistics for the next step's inversion
    (``feature_statistics``).
    """
    state_dict = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    checkpoint = dict({key: value for key, value in extra.items() if value}, state_dict=state_dict, meta=meta)
    with atomic_write(path) as file:
        torch.save(checkpoint, file)


def is_intact(path: PathLike) -> bool:
    """Whether a file is a complete zip archive whose contents match their CRC-32 checksums.

    torch itself does not check them.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, zlib.error, struct.error):
        return False
    except OSError as error:
        if error.errno != errno.EINVAL:  # a damaged table of contents points before the start of the file
            raise
        return False


@contextlib.contextmanager
def only_data() -> Iterator[None]:
    """Inside the block, mmengine loads only tensors and plain data.

    By default it unpickles anything in ``load_from`` and in pretrained weights (``init_cfg``), which can run code.

    Raises:
        UserError: a file contains more than data; none of it was run.
    """
    with loading_by(load_from_data_only):
        yield


def load_weights(name: str, path: PathLike) -> dict:
    """Load a weight file of any toolbox onto the CPU.

    Args:
        name: option that names the file.
        path: local file.
    Raises:
        UserError: the file does not exist, is damaged, or contains more than data.
    """
    if not os.path.isfile(path):
        raise UserError(f'{name}={str(path)!r} does not exist: set it to the path of a checkpoint, or remove it.')
    try:
        return read_data(path)
    except pickle.UnpicklingError as error:
        raise unsafe_file_error(f'{name}={str(path)!r}', error) from error
    except Exception as error:  # damaged bytes make the reader raise almost anything
        raise UserError(f'{name}={str(path)!r} is truncated, damaged or not a checkpoint ({reason(error)}): '
                         'download it again.') from error


def load_checkpoint(path: PathLike, num_classes: Optional[int] = None) -> dict:
    """Load a plain checkpoint onto the CPU.

    Args:
        path: file.
        num_classes: required number of channels, checked if the checkpoint records its classes.
    Raises:
        UserError: the file is missing, truncated, contains more than data, or has another number of classes.
    """
    if not os.path.exists(path):
        raise UserError(f'Checkpoint {path} does not exist: train the step that writes it first.')
    if not is_intact(path):
        raise UserError(f'Checkpoint {path} ({os.path.getsize(path)} bytes) is truncated or not a checkpoint: delete '
                         'it and run the step that writes it again.')
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f'Checkpoint {path} holds more than tensors and plain data and is not loaded, because loading '
                         'it could run code. Use step_<t>/checkpoint.pth of a run, not the files in step_<t>/train. '
                         f'({reason(error)})') from error
    except Exception as error:  # damaged bytes make the reader raise almost anything
        raise UserError(f'Checkpoint {path} is damaged ({reason(error)}): delete it and run the step that writes it '
                         'again.') from error
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise UserError(f"Checkpoint {path} has no 'state_dict': it is not a checkpoint of a segmentor.")
    held = held_classes(checkpoint)
    if num_classes is not None and held and len(held) != num_classes:
        raise UserError(f'Checkpoint {path} has {len(held)} classes (background included), but {num_classes} are '
                         'needed: it belongs to another step or scenario.')
    return checkpoint


def held_classes(checkpoint: Mapping) -> list[str]:
    """Class names of a checkpoint's channels, background first; empty if not recorded."""
    return list(((checkpoint.get('meta') or {}).get('dataset_meta') or {}).get('classes', ()))


def weights_fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, shapes and values of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
