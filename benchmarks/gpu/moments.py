"""The inversion's channel moments and aggregation against float64."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from mmseg_hrhf.replay.inversion.aggregation import scale_aware_aggregation
from mmseg_hrhf.replay.inversion.feature_statistics import watched

from .errors import SCALE, distance
from .parts import check
from .place import Place

# Bounds of the distance from float64 of the same rounded input: values, gradients (rounded to the type of the input).
TYPES = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (1e-5, 1e-2), torch.float16: (1e-5, 2e-3)}
ORDERS = dict(side_by_side=torch.contiguous_format, channels_last=torch.channels_last)


def moments(place: Place) -> dict:
    """Values and gradients, in each type and order of memory."""
    checks = []
    for dtype, bounds in TYPES.items():
        for order, memory_format in ORDERS.items():
            number, side = (2, 8) if place.tiny else (8, 64)
            shapes = {'a batch norm': (number, 64, side, side), 'tokens': (number, side * side, 64)}
            for kind, shape in shapes.items():
                if kind == 'tokens' and order == 'channels_last':
                    continue
                features = made(shape, dtype, place, 3.0)
                features = features.contiguous(memory_format=memory_format) if len(shape) == 4 else features
                dim = 1 if len(shape) == 4 else 2
                checks += compared(f'moments of {kind}', dtype, order, bounds, features,
                                   lambda x, dim=dim: watched(x, dim)[1:], lambda x, dim=dim: plain_moments(x, dim))
            for classes in (7, 21, 151):
                logits = made((number, classes, side, side), dtype, place, 0.0)
                logits = logits.contiguous(memory_format=memory_format)
                r = torch.tensor([0.5, 1, 5, 10, 20], device=place.device)[
                    torch.randint(5, (number, classes), generator=torch.Generator().manual_seed(1)).to(place.device)]
                checks += compared(f'aggregation of {classes} classes', dtype, order, bounds, logits,
                                   lambda x, r=r: (scale_aware_aggregation(x, r), ),
                                   lambda x, r=r: (plain_aggregation(x, r), ))
    return dict(checks=checks)


def made(shape: tuple[int, ...], dtype: torch.dtype, place: Place, mean: float) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + mean
    return values.to(place.device, dtype)


def plain_moments(features: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    rows = features.movedim(dim, -1).reshape(-1, features.shape[dim])
    return rows.mean(0), rows.var(0, unbiased=False)


def plain_aggregation(logits: Tensor, r: Tensor) -> Tensor:
    """Eq. 1."""
    r = r.to(logits.dtype)
    return ((logits.flatten(2) * r[..., None]).logsumexp(-1) - math.log(logits[0, 0].numel())) / r


def compared(what, dtype, order, bounds, given, ours, plain) -> list[dict]:
    """Checks of values and gradient."""
    found, expected = (values_and_gradient(function, x) for function, x in ((ours, given), (plain, given.double())))
    name = f'{what}, {str(dtype)[6:]}, {order.replace("_", " ")}'
    return [check(f'{name}: {of}', distance(a, b), bound)
            for of, a, b, bound in zip(('values', 'gradient'), found, expected, bounds)]


def values_and_gradient(function, given: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    given = given.detach().requires_grad_()
    values = function(given)
    # No sum over anything: each value has a different weight.
    loss = sum((value * torch.linspace(1, 2, value.numel(), device=value.device, dtype=value.dtype).view_as(value)
                ).sum() for value in values)
    return list(values), [torch.autograd.grad(SCALE * loss, given)[0]]
