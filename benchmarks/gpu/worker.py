"""A process that runs parts, and is replaced when one ends badly: an error on a GPU can spoil what comes after."""
from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import signal
import sys
import traceback
from typing import Optional

from .parts import Overtime, Part
from .place import Place


class Worker:
    """Runs parts in a separate process, one after another.

    Args:
        place: where they run.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._process: Optional[multiprocessing.process.BaseProcess] = None
        self._pipe = None

    def __call__(self, part: Part, seconds: float) -> dict:
        """What the part returns.

        Raises:
            Overtime: it took more than ``seconds``.
            RuntimeError: its traceback, or how its process ended.
        """
        if self._process is not None and not self._process.is_alive():
            self.close()
        if self._process is None:
            self._start()
        self._pipe.send(part)
        if not self._pipe.poll(seconds):
            self.close()
            raise Overtime
        try:
            result, error = self._pipe.recv()
        except EOFError:
            self._process.join()
            error = f'Its process ended with {self._process.exitcode}.'
        if error is not None:
            self.close()
            raise RuntimeError(error)
        return result

    def close(self) -> None:
        """End the process and what it started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # where it had not yet become the head of its group
        self._process.join()
        self._pipe.close()
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context('spawn')
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, self.place))
        self._process.start()
        other.close()


def serve(pipe, place: Place) -> None:
    """Run the parts that arrive. Answers with a result or a traceback."""
    os.setsid()
    while True:
        try:
            part = pipe.recv()
        except EOFError:
            return
        try:
            module, name = part.work.split(':')
            work = getattr(importlib.import_module(module), name)
            _as_at_start(place)
            answer = work(place, **part.options), None
        except BaseException:
            answer = None, traceback.format_exc()
        pipe.send(answer)


def _as_at_start(place: Place) -> None:
    """Undo what an earlier part set, and drop what it left; without torch there is nothing."""
    if 'torch' not in sys.modules:
        return
    import torch
    from mmengine.registry import init_default_scope

    import mmseg_hrhf
    mmseg_hrhf.register_all()
    init_default_scope('mmseg')
    gc.collect()
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    place.precision('float32')
    torch.manual_seed(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.reset_peak_memory_stats()
