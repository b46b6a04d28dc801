"""Losses of an inversion's iterations, read from the device some at a time."""
from __future__ import annotations

import math
from typing import Callable, Mapping, Optional

import torch
from torch import Tensor

from .request import FakeRequest

# Iterations whose losses are read together: to read makes the host wait for an accelerator.
_EVERY = 16


class RunningLosses:
    """Checks and reports the losses of each iteration, up to 15 iterations late.

    Args:
        request: what is being synthesised; named in errors.
        on_iteration: called with the losses of each iteration.
        at_once: read the losses of every iteration as it ends.
    Attributes:
        last: losses of the latest iteration that was read.
    """

    def __init__(self, request: FakeRequest, on_iteration: Optional[Callable[[dict], None]], at_once: bool) -> None:
        self.request = request
        self.on_iteration = on_iteration
        self.every = 1 if at_once else _EVERY
        self.last: dict[str, float] = {}
        self._unread: list[tuple[int, list[str], Tensor]] = []

    def add(self, iteration: int, terms: Mapping[str, Tensor], total: Tensor, gradient: Tensor) -> None:
        """Keep an iteration's scalars.

        Args:
            iteration: of the stage.
            terms: of the objective.
            total: weighted sum of the terms.
            gradient: sum over the gradient of the images, which is finite only if all of it is.
        """
        values = torch.stack([term.detach() for term in (*terms.values(), total, gradient)])
        self._unread.append((iteration, list(terms), values))
        if len(self._unread) >= self.every:
            self.read()

    def read(self) -> None:
        """Check and report what has been kept.

        Raises:
            FloatingPointError: a loss or a gradient is not finite; names batch, classes and iteration.
        """
        unread, self._unread = self._unread, []
        values = torch.stack([scalars for _, _, scalars in unread]).tolist() if unread else []
        for (iteration, names, _), (*terms, total, gradient) in zip(unread, values):
            losses = dict(zip(names, terms))
            where = f'at iteration {iteration} of the batch with seed {self.request.seed}'
            if not math.isfinite(total):
                raise FloatingPointError(f'SegInversion: the loss is not finite {where} and classes '
                                         f'{list(self.request.classes)}: {losses}. Lower lr, or switch amp off.')
            if not math.isfinite(gradient):
                raise FloatingPointError(f'SegInversion: the gradient is not finite {where}. Lower lr, or switch amp '
                                         'off.')
            self.last = losses
            if self.on_iteration is not None:
                self.on_iteration(losses)
