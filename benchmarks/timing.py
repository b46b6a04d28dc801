"""Times variants of the same work alternately in one process, so that other load slows all of them.

    rounds = interleaved(dict(floor=f, ours=g), rounds=15)     # two callables that do the same work
    rounds.ratio('ours', 'floor')                              # Ratio(value=1.02, low=1.01, high=1.04, rounds=15)
    return dict(rows=[row('iteration, HRHF', rounds.ratio('ours', 'floor'), at_most=1.03)], **anything_for_the_curve)

If the work is not a callable, as in a training loop, fill ``Rounds`` manually:
``with rounds.time('ours'): ...``.

A part of ``benchmarks/speed.py`` is a module ``speed_NAME.py`` with ``measure(device, out) -> dict`` of JSON data,
whose ``rows`` come from ``row``; optionally also ``draw(figures, path)``, which writes a PNG to ``path`` from the
result of ``measure`` (``figures`` are read from JSON: keys are strings).
"""
from __future__ import annotations

import contextlib
import statistics
import time
from collections import defaultdict
from typing import Callable, Hashable, Iterator, Mapping, NamedTuple, Optional, Union

import torch


class Ratio(NamedTuple):
    """Median and quartiles over the rounds."""
    value: float
    low: float
    high: float
    rounds: int

    def times(self, factor: float) -> Ratio:
        """The same ratio for other units of work."""
        return Ratio(factor * self.value, factor * self.low, factor * self.high, self.rounds)


class Rounds:
    """Seconds of each variant, round by round.

    Args:
        device: an accelerator is synchronised before reading the clock.
        own_time: on a CPU, measure process time (all threads, no children) instead of wall time.
    """

    def __init__(self, device: Union[str, torch.device] = 'cpu', own_time: bool = False) -> None:
        self.device = torch.device(device)
        self.clock = time.process_time if own_time and self.device.type == 'cpu' else time.perf_counter
        self.seconds: dict[Hashable, list[float]] = defaultdict(list)

    def now(self) -> float:
        """Clock in seconds, after synchronising the device."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return self.clock()

    @contextlib.contextmanager
    def time(self, name: Hashable) -> Iterator[None]:
        """Add the time of the block as one round of ``name``."""
        began = self.now()
        yield
        self.seconds[name].append(self.now() - began)

    def median(self, name: Hashable) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: Hashable, floor: Hashable) -> Ratio:
        """Time of ``name`` over that of ``floor`` in the same round."""
        pairs = [a / b for a, b in zip(self.seconds[name], self.seconds[floor])]
        low, _, high = statistics.quantiles(pairs, n=4) if len(pairs) > 1 else pairs * 3
        return Ratio(statistics.median(pairs), low, high, len(pairs))


def interleaved(variants: Mapping[Hashable, Callable[[], object]], rounds: int = 15, calls: int = 1, warmup: int = 2,
                device: Union[str, torch.device] = 'cpu', own_time: bool = False) -> Rounds:
    """Time ``rounds`` rounds, each with ``calls`` consecutive calls of every variant, in changing order.

    Args:
        variants: callables by name.
        rounds: timed rounds.
        calls: calls of a variant per round; seconds are per call.
        warmup: untimed rounds at the start.
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
    """A row of the table: a figure and its bar (without a bar: for information)."""
    value, low, high, rounds = ratio if isinstance(ratio, Ratio) else (ratio, ratio, ratio, 1)
    return dict(what=what, value=value, low=low, high=high, rounds=rounds, at_most=at_most, at_least=at_least)
