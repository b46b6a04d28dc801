"""Plain checkpoints: weights of a bare segmentor and data about them, nothing that can run code."""
from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from typing import Mapping, Optional

import torch
from torch import Tensor

from .files import PathLike, atomic_write


def save_checkpoint(path: PathLike, state_dict: Mapping[str, Tensor], meta: dict, **extra) -> None:
    """Write ``{'state_dict', 'meta'}`` whole or not at all, with what is in ``extra`` and not empty beside.

    mmengine ignores what is beside: a method's state (``method_state``), statistics for the next step's inversion
    (``feature_statistics``).
    """
    state_dict = {name: tensor.detach().cpu() for name, tensor in state_dict.items()}
    checkpoint = dict({key: value for key, value in extra.items() if value}, state_dict=state_dict, meta=meta)
    with atomic_write(path) as file:
        torch.save(checkpoint, file)


def is_whole(path: PathLike) -> bool:
    """Whether a file is a zip archive whose table of contents, at its end, is there: no truncated checkpoint is."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def load_checkpoint(path: PathLike, num_classes: Optional[int] = None) -> dict:
    """Read a plain checkpoint onto the CPU.

    Args:
        path: file.
        num_classes: channels the checkpoint must have, if it says how many it has.
    Raises:
        ValueError: the file is missing, truncated, holds more than data, or is of another class count.
    """
    if not os.path.exists(path):
        raise ValueError(f'Checkpoint {path} does not exist: train the step that writes it first.')
    if not is_whole(path):
        raise ValueError(f'Checkpoint {path} ({os.path.getsize(path)} bytes) is truncated or no checkpoint: delete it '
                         'and run the step that writes it again.')
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f'Checkpoint {path} holds more than tensors and plain data and is not loaded, since loading '
                         'it could run code. Of a run, use step_<t>/checkpoint.pth, not the files in step_<t>/train. '
                         f'({str(error).splitlines()[0]})') from error
    except Exception as error:  # damaged bytes make the reader raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f'Checkpoint {path} is damaged ({reason}): delete it and run the step that writes it '
                         'again.') from error
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise ValueError(f"Checkpoint {path} has no 'state_dict': it is not a checkpoint of a segmentor.")
    dataset_meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    held = len(dataset_meta.get('classes', ())) or None
    if num_classes is not None and held is not None and held != num_classes:
        raise ValueError(f'Checkpoint {path} knows {held} classes (background included), but {num_classes} are needed: '
                         'it is the checkpoint of another step or scenario.')
    return checkpoint


def weights_fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
