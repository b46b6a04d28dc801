"""How far a result in some precision is from that in float64."""
from __future__ import annotations

from typing import Sequence

import torch
from torch import Tensor

from .parts import check

# A result may be so many times as far from float64 as the readable form in the same precision is.
FACTOR = 2.0
# By which losses are multiplied for their gradients, as in mixed precision: float16 has too little range for those of a
# mean over many pixels. A power of two, it rounds nothing.
SCALE = 1024.0


def distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Norm of the differences over that of what was expected, all tensors taken together."""
    found, expected = (torch.cat([each.detach().double().flatten() for each in held]) for held in (found, expected))
    return float((found - expected).norm() / expected.norm().clamp(min=1e-300))


def against_readable(what: str, fused: float, readable: float, floor: float, bound: float) -> list[dict]:
    """Checks of a distance: within a bound, and not much beyond that of the readable form.

    Args:
        what: is compared.
        fused, readable: distances from float64.
        floor: what rounding alone may make of it.
        bound: the most that is right in this precision.
    """
    return [check(f'{what}: distance from float64', fused, bound),
            check(f'{what}: the same over {FACTOR:g} x that of the readable form', fused,
                  FACTOR * readable + floor)]
