"""Aggregation of class score maps to one score per image and class (eq. 1, Table 3)."""
from __future__ import annotations

import math
from typing import Iterator, Optional, Sequence, Union

import numpy as np
import torch
from mmseg.registry import TASK_UTILS
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...utils.errors import UserError

# Number of scores pooled at once, but at least one map: fits into the CPU cache, or keeps a GPU busy.
_CHUNK = {'cpu': 2**18}
_CHUNK_OF_ACCELERATORS = 2**24
# Channels-last maps with at least this many classes are pooled without a copy.
_MANY_CLASSES = 16


def scale_aware_aggregation(logits: Tensor, r: Tensor) -> Tensor:
    """Scale-Aware Aggregation: ``(1/r) log mean exp(r s)`` over pixels, by log-sum-exp (eq. 1).

    Args:
        logits: (N, K, H, W) scores s, in any precision and memory format.
        r: (N, K) or broadcastable, positive; approaches the average for r -> 0 and the maximum for r -> infinity.
    Returns:
        (N, K) scores in at least float32, between the average and the maximum of each map.
    """
    r = r.expand(logits.shape[:2]).to(_precise(logits.dtype))
    channels_last = logits.is_contiguous(memory_format=torch.channels_last) and not logits.is_contiguous()
    if channels_last and logits.shape[1] >= _MANY_CLASSES:
        return _LogMeanExp.apply(logits.permute(0, 2, 3, 1).flatten(1, 2), r, 1)
    return _LogMeanExp.apply(logits.flatten(2), r, 2)


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class _LogMeanExp(torch.autograd.Function):
    """``(1/r) log mean exp(r s)`` over dimension ``dim``, with temporary memory for only a part of the scores.

    Scores are (N, K, P) with ``dim=2``, or (N, P, K) with ``dim=1``. Half precision is pooled in float32.
    """

    @staticmethod
    def forward(ctx, scores: Tensor, r: Tensor, dim: int) -> Tensor:
        r = r.unsqueeze(dim)
        pooled = torch.full_like(r, -math.inf, memory_format=torch.contiguous_format)
        for part, at in _parts(scores, dim):
            # Reductions and broadcasts over pixels are several times faster on contiguous memory.
            some = (scores[part].contiguous() * r[at]).logsumexp(dim, keepdim=True)
            pooled[at] = torch.logaddexp(pooled[at], some)
        ctx.save_for_backward(scores, r, pooled)
        ctx.dim = dim
        return ((pooled - math.log(scores.shape[dim])) / r).squeeze(dim)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        # The derivative with respect to the scores is softmax(r s).
        scores, r, pooled = ctx.saved_tensors
        grad = grad.unsqueeze(ctx.dim)
        result = torch.empty_like(scores, memory_format=torch.contiguous_format)
        for part, at in _parts(scores, ctx.dim):
            in_place = result[part] if result.dtype == r.dtype else None
            shares = torch.mul(scores[part].contiguous(), r[at], out=in_place)
            shares.sub_(pooled[at]).exp_().mul_(grad[at])
            if in_place is None:
                result[part] = shares
        return result, None, None


def _parts(scores: Tensor, dim: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Slices of the scores to process at once (images and classes, or images and pixels), and slices of the result."""
    wanted = _CHUNK.get(scores.device.type, _CHUNK_OF_ACCELERATORS)
    images, rows, columns = scores.shape
    held = min(rows, max(1, wanted // columns))
    step = max(1, wanted // columns // rows)
    for image in range(0, images, step):
        for row in range(0, rows, held):
            part = slice(image, image + step), slice(row, row + held)
            yield part, part if dim == 2 else (part[0], slice(None))


class Aggregation:
    """Base class: pools class score maps, possibly in half precision, to one score per image and class.

    ``replay.inversion.aggregation`` can name any subclass registered in mmseg's ``TASK_UTILS``.
    """

    def draw_r(self, num_images: int, num_classes: int, rng: np.random.Generator) -> np.ndarray:
        """Draw (num_images, num_classes) values of r; NaN if the aggregation has no r."""
        return np.full((num_images, num_classes), np.nan)

    def __call__(self, logits: Tensor, r: Tensor) -> Tensor:
        """(N, K) scores in at least float32, from (N, K, H, W)."""
        raise NotImplementedError


@TASK_UTILS.register_module()
class ScaleAwareAggregation(Aggregation):
    """Scale-Aware Aggregation (eq. 1) with a random r for each image and class.

    Args:
        r: values to draw from (Table 4), or a fixed value. Small r favours large objects, large r small ones.
        background_r: fixed value for background; None: drawn like the others. A small value asks for background in many
            places, so that large r of a class makes its objects small (with ``with_background``).
    """

    def __init__(self,
                 r: Union[float, Sequence[float]] = (0.5, 1, 5, 10, 20),
                 background_r: Optional[float] = None) -> None:
        self.r = (float(r), ) if isinstance(r, (int, float)) else tuple(float(value) for value in r)
        if not self.r or min(self.r) <= 0:
            raise UserError(f'replay.inversion.aggregation.r={r!r} must contain only positive numbers '
                            '(for the limit r -> 0, use AverageAggregation).')
        if background_r is not None and not background_r > 0:
            raise UserError(f'replay.inversion.aggregation.background_r={background_r!r} must be positive, or None.')
        self.background_r = background_r

    def draw_r(self, num_images: int, num_classes: int, rng: np.random.Generator) -> np.ndarray:
        drawn = rng.choice(self.r, size=(num_images, num_classes))
        if self.background_r is not None:
            drawn[:, 0] = self.background_r
        return drawn

    def __call__(self, logits: Tensor, r: Tensor) -> Tensor:
        return scale_aware_aggregation(logits, r)


@TASK_UTILS.register_module()
class AverageAggregation(Aggregation):
    """Mean over pixels (Table 3, AVG)."""

    def __call__(self, logits: Tensor, r: Tensor) -> Tensor:
        return logits.mean((2, 3), dtype=_precise(logits.dtype))


@TASK_UTILS.register_module()
class MaxAggregation(Aggregation):
    """Maximum over pixels (Table 3, MAX)."""

    def __call__(self, logits: Tensor, r: Tensor) -> Tensor:
        return logits.amax((2, 3)).to(_precise(logits.dtype))
