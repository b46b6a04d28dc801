"""What the toolbox says while it is imported, before any config or data are known: optional parts that are missing."""
from __future__ import annotations

import contextlib
import sys
import warnings
from typing import Iterator

from .rank_failure import rank


class _Muted:
    """A stream that can be muted. A log handler made meanwhile may keep it: it writes again afterwards."""

    def __init__(self, stream) -> None:
        self.stream, self.muted = stream, True

    def write(self, text: str) -> int:
        return len(text) if self.muted else self.stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Print nothing, and of several processes let only the first warn."""
    stdout, sys.stdout = sys.stdout, _Muted(sys.stdout)
    # The filters stay as they are: modules add theirs when they are imported.
    show = warnings.showwarning
    if rank() != 0:
        warnings.showwarning = lambda *args, **kwargs: None
    try:
        yield
    finally:
        sys.stdout.muted = False
        sys.stdout, warnings.showwarning = stdout, show
