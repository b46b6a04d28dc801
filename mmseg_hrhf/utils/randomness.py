"""Randomness as a function of seed and position, so that resuming needs no generator state."""
from __future__ import annotations

import contextlib
import random
from typing import ContextManager, Iterator

import numpy as np
import torch

# Purposes of random numbers. A draw depends only on its purpose, the seed and a position.
REAL_ORDER, FAKE_ORDER, REAL_SAMPLE, FAKE_SAMPLE, ITERATION, EVALUATION, INVERSION, PSEUDO_LABEL = range(8)
FEATURE_STATISTICS = 8


class SampleIndex(int):
    """Dataset index that carries the seed of the sample's augmentation.

    Args:
        value: the index.
        entropy: non-negative numbers that uniquely identify this position in the sample stream.
    """
    entropy: tuple[int, ...]

    def __new__(cls, value: int, entropy: tuple[int, ...] = ()) -> SampleIndex:
        index = super().__new__(cls, value)
        index.entropy = entropy
        return index


def seed_process(*entropy: int) -> None:
    """Seed Python, NumPy and torch (including accelerators) with non-negative numbers."""
    python, array, tensor = _seeds(entropy)
    random.seed(python)
    np.random.seed(array)
    torch.manual_seed(tensor)


@contextlib.contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Seed the CPU generators of Python, NumPy and torch inside the block; restore their states afterwards."""
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
    """Context for augmenting sample ``index``: seeded for a ``SampleIndex``, otherwise a no-op."""
    return seeded(*index.entropy) if isinstance(index, SampleIndex) else contextlib.nullcontext()


def _seeds(entropy: tuple[int, ...]) -> list[int]:
    return np.random.SeedSequence(entropy).generate_state(3).tolist()
