"""The size of the images on which a config trains, from which fake images take theirs."""
from __future__ import annotations

from typing import Any, Optional

from mmengine.config import Config

from .inversion.seg_inversion import image_size

# As many pixels are optimised together as in the paper: 16 images of 512 x 512.
_PIXELS, _LARGEST_BATCH = 16 * 512 * 512, 16


def training_size(cfg: Config) -> Optional[tuple[int, int]]:
    """(height, width) to which training batches are padded, or else cropped; None where the config does not say.

    A transformer with position embeddings of a fixed size takes exactly this.
    """
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    return _pair(preprocessor.get('size')) or _crop(cfg.train_dataloader.dataset)


def inversion_batch(size: Any) -> int:
    """Images of ``size``, a side or (height, width), to optimise together: the paper's 16, or as many of its pixels."""
    try:
        height, width = image_size(size)
    except (TypeError, ValueError):  # refused with its name where the inversion is built
        return _LARGEST_BATCH
    return max(1, min(_LARGEST_BATCH, _PIXELS // (height * width)))


def _crop(dataset: dict) -> Optional[tuple[int, int]]:
    """Size of the last crop in the pipelines of a dataset and of what it wraps, outermost first."""
    for transform in reversed(dataset.get('pipeline') or []):
        size = transform.get('crop_size') or ('Crop' in str(transform['type']) and transform.get('size'))
        if size:
            return _pair(size)
    inner = [dataset['dataset']] if dataset.get('dataset') else dataset.get('datasets') or []
    return next((size for size in map(_crop, inner) if size), None)


def _pair(size) -> Optional[tuple[int, int]]:
    if isinstance(size, int):
        return size, size
    return tuple(size) if size else None
