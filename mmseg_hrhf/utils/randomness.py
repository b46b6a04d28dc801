"""Randomness as a function of the place where it is used, so that no generator's state has to outlive a stop."""
from __future__ import annotations

import contextlib
import random
from typing import ContextManager, Iterator

import numpy as np
import torch

# What a random number is drawn for. Together with a run's seed and a position it is all that a draw depends on.
REAL_ORDER, FAKE_ORDER, REAL_SAMPLE, FAKE_SAMPLE, ITERATION, EVALUATION, INVERSION, PSEUDO_LABEL = range(8)
FEATURE_STATISTICS = 8


class SampleIndex(int):
    """Index into a dataset that brings along the seed of the sample's augmentation.

    Args:
        value: the index.
        entropy: non-negative numbers that stand for this place in the stream of samples and no other.
    """
    entropy: tuple[int, ...]

    def __new__(cls, value: int, entropy: tuple[int, ...] = ()) -> SampleIndex:
        index = super().__new__(cls, value)
        index.entropy = entropy
        return index


def seed_process(*entropy: int) -> None:
    """Seed Python, NumPy and torch, accelerators included, by non-negative numbers."""
    python, array, tensor = _seeds(entropy)
    random.seed(python)
    np.random.seed(array)
    torch.manual_seed(tensor)


@contextlib.contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generator within the block; after it they go on as if it had not been."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    python, array, tensor = _seeds(entropy)
    random.seed(python)
    np.random.seed(array)
    torch.default_generator.manual_seed(tensor)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def sample_randomness(index: int) -> ContextManager[None]:
    """What a dataset augments sample ``index`` in: seeded by a ``SampleIndex``, left alone by a plain one."""
    return seeded(*index.entropy) if isinstance(index, SampleIndex) else contextlib.nullcontext()


def _seeds(entropy: tuple[int, ...]) -> list[int]:
    return np.random.SeedSequence(entropy).generate_state(3).tolist()
