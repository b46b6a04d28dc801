"""Pixel counts per label of every mask, scanned in parallel and cached by the fingerprint of the files."""
from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import threading
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Collection, Optional, Sequence

import cv2
import numpy as np
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import get as read_bytes
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from ..utils.errors import UserError
from ..utils.io import atomic_write
from .image_check import ImageReader, check_image

# Image modes with one 8-bit label per pixel: grey, palette, and black and white.
_MASK_MODES = ('L', 'P', '1')
# Masks per task of a worker process; for fewer masks, starting processes does not pay off.
_CHUNK = 64
# Image reader of a worker: inherited, not sent, because a pipeline may not be picklable.
_reader: Optional[ImageReader] = None


def label_counts(path: str, backend_args: Optional[dict] = None) -> tuple[np.ndarray, tuple[int, int]]:
    """Pixel counts of each label in a mask file, and its size.

    Args:
        path: a single-channel 8-bit image (grey or palette).
        backend_args: file backend of mmengine.
    Returns:
        (256,) int64, whose entry c counts the pixels of label c, and (width, height).
    Raises:
        UserError: the file is missing, unreadable or has another mode; names it.
    """
    try:
        # Most masks are on a local disk, where a plain read is much faster than mmengine's backend look-up.
        data = read_bytes(path, backend_args=backend_args) if backend_args else _local_bytes(path)
    except OSError as error:
        raise UserError(f'Mask {path!r} cannot be read: {error.strerror or error}.') from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode, size = image.mode, image.size
            # Pillow counts white as 255, but the annotation loader reads it as 1.
            counts = np.bincount(np.asarray(image).ravel(), minlength=256) if mode == '1' else image.histogram()
    except UnidentifiedImageError as error:
        raise UserError(f'Mask {path!r} is not a readable image ({len(data)} bytes): replace it.') from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).rstrip('.')
        raise UserError(f'Mask {path!r} is not a readable image ({len(data)} bytes): {reason}.') from error
    if mode not in _MASK_MODES:
        raise UserError(f'Mask {path!r} has mode {mode!r}; a mask must be one 8-bit channel of labels (grey or '
                         'palette). Convert colour masks to label masks first: tools/convert_colour_masks.py.')
    return np.array(counts[:256], dtype=np.int64), size


def _local_bytes(path: str) -> bytes:
    with open(path, 'rb') as file:
        return file.read()


def _read_pairs(pairs: Sequence[tuple[int, str, Optional[str]]], backend_args: Optional[dict]) -> np.ndarray:
    """(N, 256) pixel counts of each label in masks; also checks the image of each mask."""
    rows = np.zeros((len(pairs), 256), dtype=np.uint32)
    for row, (index, mask, image) in zip(rows, pairs):
        row[:], size = label_counts(mask, backend_args)
        if image is not None:
            check_image(image, mask, size, None if _reader is None else partial(_reader, index))
    return rows


def fingerprint(paths: Sequence[str]) -> str:
    """SHA-256 of the name, size and modification time of all files (only the name of remote files)."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = os.stat(path)
            entry = f'{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n'
        except OSError:
            entry = f'{path}\n'
        digest.update(entry.encode('utf-8', 'surrogateescape'))
    return digest.hexdigest()


def scan(paths: Sequence[str],
         known_labels: Collection[int],
         backend_args: Optional[dict] = None,
         num_workers: Optional[int] = None,
         images: Optional[Sequence[str]] = None,
         reader: Optional[ImageReader] = None) -> np.ndarray:
    """Pixel counts of each label in all masks, decoded in parallel worker processes, with a progress bar.

    Args:
        paths, known_labels, backend_args, images, reader: see ``class_index``.
        num_workers: number of processes; None: one per core available to this job.
    Returns:
        (N, 256) uint32 pixel counts.
    Raises:
        UserError: a mask is missing, unreadable, has another mode, or a label not in ``known_labels``; an image is
            missing, truncated or has another size than its mask.
    """
    counts = np.zeros((len(paths), 256), dtype=np.uint32)
    checked: Sequence[Optional[str]] = images or [None] * len(paths)
    pairs = list(zip(range(len(paths)), paths, checked))
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(paths), _CHUNK)]
    with _workers(len(paths), num_workers or _cores(), reader) as pool, \
            tqdm(desc='class index', total=len(paths), unit='mask', mininterval=0.5) as bar:
        found = pool.map(partial(_read_pairs, backend_args=backend_args), [pairs[chunk] for chunk in chunks])
        for chunk, rows in zip(chunks, found):
            counts[chunk] = _check_labels(rows, known_labels, paths[chunk])
            bar.update(len(rows))
    return counts


def _cores() -> int:
    # Cores available to this job, if the system reports them.
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _workers(num_masks: int, num_workers: int, reader: Optional[ImageReader]) -> Executor:
    # Forked workers start immediately (a spawned one imports the toolbox for seconds), and processes share no GIL.
    if num_masks > _CHUNK and num_workers > 1 and 'fork' in multiprocessing.get_all_start_methods():
        return ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context('fork'),
                                   initializer=_start_process, initargs=(os.getpid(), reader))
    return ThreadPoolExecutor(num_workers, initializer=_read_by, initargs=(reader, ))


def _read_by(reader: Optional[ImageReader]) -> None:
    global _reader
    _reader = reader


def _start_process(parent: int, reader: Optional[ImageReader]) -> None:
    _read_by(reader)
    cv2.setNumThreads(0)  # OpenCV's threads do not survive a fork
    _end_with(parent)


def _end_with(parent: int) -> None:
    """End this worker soon after its parent is killed; otherwise workers of the pool would wait forever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _ranges(labels: Sequence[int]) -> str:
    """``[0, 1, 2, 255]`` as ``'0-2, 255'``."""
    parts: list[list[int]] = []
    for label in labels:
        if parts and label == parts[-1][1] + 1:
            parts[-1][1] = label
        else:
            parts.append([label, label])
    return ', '.join(str(a) if a == b else f'{a}-{b}' for a, b in parts)


def class_index(paths: Sequence[str],
                known_labels: Collection[int],
                cache_dir: Optional[str] = None,
                backend_args: Optional[dict] = None,
                images: Optional[Sequence[str]] = None,
                reader: Optional[ImageReader] = None) -> np.ndarray:
    """Pixel counts of each label in the masks, cached.

    Rank 0 reads the cache, or scans and writes it, and broadcasts the counts. Without ``cache_dir``, every rank scans.

    Args:
        paths: mask files, in the dataset's order.
        known_labels: raw labels that a mask may have.
        cache_dir: folder of the cache files, used only by rank 0.
        backend_args: file backend of mmengine.
        images: image file of each mask, if they are local; checked in the same pass.
        reader: loads images by index if their files do not determine the size.
    Returns:
        (N, 256) uint32; ``result[i, c]``: pixels of mask i that have raw label c.
    """
    if cache_dir is None:
        return scan(paths, known_labels, backend_args, images=images, reader=reader)
    held: list = [None]
    if is_main_process():
        # Whether images match the sizes of their masks depends on the pipeline.
        files = fingerprint([*paths, *(images or [])])
        key = hashlib.sha256(f'{files} {reader!r}'.encode('utf-8', 'surrogateescape')).hexdigest()
        file = Path(cache_dir) / f'{key[:32]}.npz'
        counts = _load(file, key, len(paths))
        if counts is None:
            counts = scan(paths, known_labels, backend_args, images=images, reader=reader)
            labels = np.flatnonzero(counts.any(axis=0))
            with atomic_write(file) as stream:
                np.savez_compressed(stream, counts=counts[:, labels], labels=labels, key=np.array(key))
        held = [counts]
    # Do not share the file instead: on network drives, other nodes may not see it for a while.
    broadcast_object_list(held)
    return _check_labels(held[0], known_labels, paths)


def _load(file: Path, key: str, length: int) -> Optional[np.ndarray]:
    counts = np.zeros((length, 256), dtype=np.uint32)
    try:
        with open(file, 'rb') as stream, np.load(stream, allow_pickle=False) as data:
            if data['key'].item() != key:
                return None  # copied from other data
            if len(data['counts']) != length:
                return None
            counts[:, data['labels']] = data['counts']
    except Exception:  # treat a damaged cache as missing; numpy and zipfile may raise anything
        return None
    return counts


def _check_labels(counts: np.ndarray, known_labels: Collection[int], paths: Sequence[str]) -> np.ndarray:
    unknown = np.ones(256, dtype=bool)
    unknown[list(known_labels)] = False
    rows, labels = np.nonzero(counts.astype(bool) & unknown)
    if len(rows):
        raise UserError(f'Mask {paths[rows[0]]!r} holds label {labels[0]}, which is not a label of this dataset '
                         f'(known: {_ranges(sorted(known_labels))}).')
    return counts
