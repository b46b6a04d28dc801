"""The weight of a loss term, as a config gives it."""
from __future__ import annotations


def check_weight(name: str, value: float) -> float:
    """``value``; raise ``ValueError`` naming the option if it is negative or no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f'method.{name}={value!r} must not be negative; 0 leaves the term out.')
    return value
