"""From a map of class scores to one score per class and image (eq. 1, Table 3)."""
from __future__ import annotations

import math
from typing import Iterator, Sequence, Union

import numpy as np
import torch
from mmseg.registry import TASK_UTILS
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...utils.errors import UserError

# Scores that are pooled in one go, unless a map has more: what caches hold, or what keeps a GPU busy.
_CHUNK = {'cpu': 2**18}
_CHUNK_OF_ACCELERATORS = 2**24
# From so many classes on, maps in channels last are pooled as they lie; fewer are gathered first.
_MANY_CLASSES = 16


def scale_aware_aggregation(logits: Tensor, r: Tensor) -> Tensor:
    """Scale-Aware Aggregation: ``(1/r) log mean exp(r s)`` over pixels, by log-sum-exp (eq. 1).

    Args:
        logits: (N, K, H, W) scores s, of any precision and memory format.
        r: (N, K) or broadcastable, positive; towards 0 the average, towards infinity the maximum.
    Returns:
        (N, K) scores in float32 or more, between the average and the maximum of each map.
    """
    r = r.expand(logits.shape[:2]).to(_precise(logits.dtype))
    channels_last = logits.is_contiguous(memory_format=torch.channels_last) and not logits.is_contiguous()
    if channels_last and logits.shape[1] >= _MANY_CLASSES:
        return _LogMeanExp.apply(logits.permute(0, 2, 3, 1).flatten(1, 2), r, 1)
    return _LogMeanExp.apply(logits.flatten(2), r, 2)


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class _LogMeanExp(torch.autograd.Function):
    """``(1/r) log mean exp(r s)`` over dimension ``dim``. Beside the scores, only a part is held at a time.

    Scores are (N, K, P) with ``dim=2``, or (N, P, K) with ``dim=1``; of half precision, they are pooled in float32.
    """

    @staticmethod
    def forward(ctx, scores: Tensor, r: Tensor, dim: int) -> Tensor:
        r = r.unsqueeze(dim)
        pooled = torch.full_like(r, -math.inf, memory_format=torch.contiguous_format)
        for part, at in _parts(scores, dim):
            # Reductions and broadcasts over pixels are several times as fast where these lie side by side.
            some = (scores[part].contiguous() * r[at]).logsumexp(dim, keepdim=True)
            pooled[at] = torch.logaddexp(pooled[at], some)
        ctx.save_for_backward(scores, r, pooled)
        ctx.dim = dim
        return ((pooled - math.log(scores.shape[dim])) / r).squeeze(dim)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        # The derivative by a score is its share in the sum: softmax(r s).
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
    """What of the scores one goes through at once, and where it is pooled: images and classes, or pixels of images."""
    wanted = _CHUNK.get(scores.device.type, _CHUNK_OF_ACCELERATORS)
    images, rows, columns = scores.shape
    held = min(rows, max(1, wanted // columns))
    step = max(1, wanted // columns // rows)
    for image in range(0, images, step):
        for row in range(0, rows, held):
            part = slice(image, image + step), slice(row, row + held)
            yield part, part if dim == 2 else (part[0], slice(None))


class Aggregation:
    """Pools maps of class scores, which may be of half precision, to one score per class and image.

    A subclass registered in mmseg's ``TASK_UTILS`` can be named in ``replay.inversion.aggregation``.
    """

    def draw_r(self, num_images: int, num_classes: int, rng: np.random.Generator) -> np.ndarray:
        """(num_images, num_classes) float; NaN where the aggregation has no r."""
        return np.full((num_images, num_classes), np.nan)

    def __call__(self, logits: Tensor, r: Tensor) -> Tensor:
        """(N, K) scores in float32 or more, from (N, K, H, W)."""
        raise NotImplementedError


@TASK_UTILS.register_module()
class ScaleAwareAggregation(Aggregation):
    """Eq. 1 with r drawn for each image and class.

    Args:
        r: values to draw from (Table 4); one value fixes it. Small r asks for large objects, large r for small ones.
    """

    def __init__(self, r: Union[float, Sequence[float]] = (0.5, 1, 5, 10, 20)) -> None:
        self.r = (float(r), ) if isinstance(r, (int, float)) else tuple(float(value) for value in r)
        if not self.r or min(self.r) <= 0:
            raise UserError(f'aggregation.r={r!r} must hold positive numbers '
                             '(for the average, the limit r -> 0, use AverageAggregation).')

    def draw_r(self, num_images: int, num_classes: int, rng: np.random.Generator) -> np.ndarray:
        return rng.choice(self.r, size=(num_images, num_classes))

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
