"""Memory that is used again."""
from __future__ import annotations

import math

from torch import Tensor


class Workspace:
    """Tensors of one piece of work that the next piece overwrites.

    On a CPU large tensors may come from fresh pages each time they are made, whose first touch takes about as long as
    the arithmetic on them.

    Args:
        like: a tensor of the type and device of all of them.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._held: dict[str, Tensor] = {}

    def tensor(self, name: str, *shape: int) -> Tensor:
        """An uninitialised tensor; the last one of that name is lost."""
        number = math.prod(shape)
        held = self._held.get(name)
        if held is None or held.numel() < number:
            held = self._held[name] = self._like.new_empty(number)
        return held[:number].view(shape)
