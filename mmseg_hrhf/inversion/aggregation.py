"""From a map of class scores to one score per class and image (eq. 1, Table 3)."""
from __future__ import annotations

import math
from typing import Iterator, Sequence, Union

import numpy as np
import torch
from mmseg.registry import TASK_UTILS
from torch import Tensor
from torch.autograd.function import once_differentiable

# Scores that are pooled in one go, unless a map has more: what caches hold, or what keeps a GPU busy.
_CHUNK = {'cpu': 2**18}
_CHUNK_OF_ACCELERATORS = 2**24


def scale_aware_aggregation(logits: Tensor, r: Tensor) -> Tensor:
    """Scale-Aware Aggregation: ``(1/r) log mean exp(r s)`` over pixels, by log-sum-exp (eq. 1).

    Args:
        logits: (N, K, H, W) scores s.
        r: (N, K) or broadcastable, positive; towards 0 the average, towards infinity the maximum.
    Returns:
        (N, K) scores, between the average and the maximum of each map.
    """
    return _LogMeanExp.apply(logits.flatten(2), r.expand(logits.shape[:2])[..., None])


class _LogMeanExp(torch.autograd.Function):
    """``(1/r) log mean exp(r s)`` over the last dimension. Beside the scores, only some maps are held at a time."""

    @staticmethod
    def forward(ctx, scores: Tensor, r: Tensor) -> Tensor:
        pooled = torch.empty_like(r)
        for part in _parts(scores):
            # Reductions and broadcasts over pixels are several times as fast where these lie side by side.
            pooled[part] = (scores[part].contiguous() * r[part]).logsumexp(-1, keepdim=True)
        ctx.save_for_backward(scores, r, pooled)
        return ((pooled - math.log(scores.shape[-1])) / r).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        # The derivative by a score is its share in the sum: softmax(r s).
        scores, r, pooled = ctx.saved_tensors
        result = torch.empty_like(scores, memory_format=torch.contiguous_format)
        for part in _parts(scores):
            shares = torch.mul(scores[part].contiguous(), r[part], out=result[part])
            shares.sub_(pooled[part]).exp_().mul_(grad[..., None][part])
        return result, None


def _parts(scores: Tensor) -> Iterator[tuple[slice, slice]]:
    """Images and classes of (N, K, P) scores, as many as one goes through at once."""
    images, classes, pixels = scores.shape
    maps = max(1, _CHUNK.get(scores.device.type, _CHUNK_OF_ACCELERATORS) // pixels)
    step = max(1, maps // classes)
    for image in range(0, images, step):
        for k in range(0, classes, min(maps, classes)):
            yield slice(image, image + step), slice(k, k + min(maps, classes))


class _Aggregation:
    """Aggregations draw what they need for a batch of images, then pool its maps."""

    def draw_r(self, num_images: int, num_classes: int, rng: np.random.Generator) -> np.ndarray:
        """(num_images, num_classes) float; NaN where the aggregation has no r."""
        return np.full((num_images, num_classes), np.nan)

    def __call__(self, logits: Tensor, r: Tensor) -> Tensor:
        raise NotImplementedError


@TASK_UTILS.register_module()
class ScaleAwareAggregation(_Aggregation):
    """Eq. 1 with r drawn for each image and class.

    Args:
        r: values to draw from (Table 4); one value fixes it. Small r asks for large objects, large r for small ones.
    """

    def __init__(self, r: Union[float, Sequence[float]] = (0.5, 1, 5, 10, 20)) -> None:
        self.r = (float(r), ) if isinstance(r, (int, float)) else tuple(float(value) for value in r)
        if not self.r or min(self.r) <= 0:
            raise ValueError(f'aggregation.r={r!r} must hold positive numbers '
                             '(for the average, the limit r -> 0, use AverageAggregation).')

    def draw_r(self, num_images: int, num_classes: int, rng: np.random.Generator) -> np.ndarray:
        return rng.choice(self.r, size=(num_images, num_classes))

    def __call__(self, logits: Tensor, r: Tensor) -> Tensor:
        return scale_aware_aggregation(logits, r)


@TASK_UTILS.register_module()
class AverageAggregation(_Aggregation):
    """Mean over pixels (Table 3, AVG)."""

    def __call__(self, logits: Tensor, r: Tensor) -> Tensor:
        return logits.mean((2, 3))


@TASK_UTILS.register_module()
class MaxAggregation(_Aggregation):
    """Maximum over pixels (Table 3, MAX)."""

    def __call__(self, logits: Tensor, r: Tensor) -> Tensor:
        return logits.amax((2, 3))
