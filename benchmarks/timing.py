"""Times of several variants of one work, taken in turns in one process: what else the machine does then slows all.

    rounds = interleaved(dict(floor=f, ours=g), rounds=15)     # two callables that do one piece of work each
    rounds.ratio('ours', 'floor')                              # Ratio(value=1.02, low=1.01, high=1.04, rounds=15)
    return dict(rows=[row('iteration, HRHF', rounds.ratio('ours', 'floor'), at_most=1.03)], **anything_for_the_curve)

Where the work cannot be called, as within a training loop, ``Rounds`` is filled by hand:
``with rounds.time('ours'): ...``.

A part of ``benchmarks/speed.py`` is a module ``speed_NAME.py`` with ``measure(device, out) -> dict`` of JSON data,
whose ``rows`` come from ``row``; where there is a curve, also ``draw(figures, path)``, which writes a PNG to
``path`` from what ``measure`` returned (``figures`` read back from JSON: keys are strings).
"""
from __future__ import annotations

import contextlib
import statistics
import time
from collections import defaultdict
from typing import Callable, Hashable, Iterator, Mapping, NamedTuple, Optional, Union

import torch


class Ratio(NamedTuple):
    """Median over the rounds, and the quartiles of the rounds."""
    value: float
    low: float
    high: float
    rounds: int

    def times(self, factor: float) -> Ratio:
        """Of other units of work."""
        return Ratio(factor * self.value, factor * self.low, factor * self.high, self.rounds)


class Rounds:
    """Seconds of each variant, round by round.

    Args:
        device: waited for before a clock is read, where it is an accelerator.
        own_time: on a CPU, count the time in which the process ran (all its threads, none of its children) instead of
            that on the wall.
    """

    def __init__(self, device: Union[str, torch.device] = 'cpu', own_time: bool = False) -> None:
        self.device = torch.device(device)
        self.clock = time.process_time if own_time and self.device.type == 'cpu' else time.perf_counter
        self.seconds: dict[Hashable, list[float]] = defaultdict(list)

    def now(self) -> float:
        """Seconds on a clock, once the device has done what it was given."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return self.clock()

    @contextlib.contextmanager
    def time(self, name: Hashable) -> Iterator[None]:
        """Add what the block takes as one round of ``name``."""
        began = self.now()
        yield
        self.seconds[name].append(self.now() - began)

    def median(self, name: Hashable) -> float:
        """Seconds of a round."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: Hashable, floor: Hashable) -> Ratio:
        """Time of ``name`` over that of ``floor`` in the same round."""
        pairs = [a / b for a, b in zip(self.seconds[name], self.seconds[floor])]
        low, _, high = statistics.quantiles(pairs, n=4) if len(pairs) > 1 else pairs * 3
        return Ratio(statistics.median(pairs), low, high, len(pairs))


def interleaved(variants: Mapping[Hashable, Callable[[], object]], rounds: int = 15, calls: int = 1, warmup: int = 2,
                device: Union[str, torch.device] = 'cpu', own_time: bool = False) -> Rounds:
    """Time each variant ``calls`` times in a row, one after another, ``rounds`` times over, in changing order.

    Args:
        variants: by name, what does the work.
        rounds: to be timed.
        calls: of a variant in a round; seconds are of one call.
        warmup: rounds before the first that is timed.
        device, own_time: see ``Rounds``.
    """
    timed, names = Rounds(device, own_time), list(variants)
    for number in range(-warmup, rounds):
        for name in names if number % 2 else reversed(names):
            began = timed.now()
            for _ in range(calls):
                variants[name]()
            if number >= 0:
                timed.seconds[name].append((timed.now() - began) / calls)
    return timed


def row(what: str, ratio: Union[Ratio, float], at_most: Optional[float] = None,
        at_least: Optional[float] = None) -> dict:
    """A line of the table: a figure and the bar that it is held against (neither: for information)."""
    value, low, high, rounds = ratio if isinstance(ratio, Ratio) else (ratio, ratio, ratio, 1)
    return dict(what=what, value=value, low=low, high=high, rounds=rounds, at_most=at_most, at_least=at_least)
