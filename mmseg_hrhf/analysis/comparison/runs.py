"""Runs of a comparison as separate processes: in parallel, resumable, with a shared step 0."""
from __future__ import annotations

import contextlib
import os
import os.path as osp
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Mapping, Optional, Sequence

from ...evaluation.summary import number
from ...utils.errors import UserError
from ...utils.io import PathLike, read_json
from ...work_dir.lock import holder_of
from ...work_dir.record import check_steps
from .cell import Cell


@dataclass
class Run:
    """A process to start.

    Args:
        cell: cell of the comparison.
        only_first_step: stop after step 0.
        first_step: run that provides step 0; None to train it.
        same_as: identical run of another setting (Joint), which provides the last step.
        fakes_from: cells with the same step 0 and the same synthetic images at step 1.
        identities: identities of its steps, see ``check_steps``.
    """
    cell: Cell
    only_first_step: bool = False
    first_step: Optional[Run] = None
    same_as: Optional[Run] = None
    fakes_from: Sequence[Cell] = field(default_factory=tuple)
    identities: Mapping[int, dict] = field(default_factory=dict)

    @property
    def first_step_folder(self) -> str:
        return osp.join(self.cell.folder, 'step_0')

    def is_done(self) -> bool:
        if self.only_first_step:
            trained = osp.exists(osp.join(self.first_step_folder, 'result.json'))
        else:
            trained = self.cell.results() is not None
        # Results of another test do not count: the run evaluates again.
        return trained and not check_steps(self.cell.folder, self.identities)

    @property
    def needs(self) -> Optional[Run]:
        """The run that must finish first."""
        return self.first_step or self.same_as

    def prepare(self) -> None:
        """Copy finished steps and existing synthetic images from other runs."""
        if self.first_step is not None:
            adopt(self.first_step.first_step_folder, self.first_step_folder)
        if self.same_as is not None:
            for result in (self.same_as.cell.results() or {})['results']:
                name = f'step_{result["step"]}'
                adopt(osp.join(self.same_as.cell.folder, name), osp.join(self.cell.folder, name))
        fakes = osp.join(self.cell.folder, 'step_1', 'fakes')
        for other in self.fakes_from:
            theirs = osp.join(other.folder, 'step_1', 'fakes')
            if osp.exists(osp.join(theirs, 'manifest.jsonl')):
                adopt(theirs, fakes)
                break


def adopt(source: str, target: str) -> None:
    """Copy a finished folder atomically, with hard links if the file system supports them.

    Hard links are safe, since files of finished folders are replaced and never modified in place.
    """
    if osp.exists(target):
        return
    aside = f'{target}.adopting'
    shutil.rmtree(aside, ignore_errors=True)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    # Training checkpoints of step 0 are not needed to continue from it.
    shutil.copytree(source, aside, copy_function=_link, ignore=shutil.ignore_patterns('train', '.*'))
    os.replace(aside, target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


class Scheduler:
    """Runs up to ``jobs`` runs in parallel, each in its own process and with its own log.

    Args:
        train_script: path of ``tools/train.py``.
        jobs: number of parallel runs.
        gpus: total number of GPUs; 0 on a CPU-only machine. Each run gets ``gpus // jobs`` of them.
        report: called with each line of progress.
    """

    def __init__(self, train_script: PathLike, jobs: int, gpus: int, report: Callable[[str], None]) -> None:
        if jobs < 1:
            raise UserError(f'--jobs {jobs} must be at least 1.')
        if gpus and (jobs > gpus or gpus % jobs):
            raise UserError(f'--jobs {jobs} does not divide the {gpus} GPUs: each run must get the same number.')
        self.train_script, self.jobs, self.gpus, self.report = str(train_script), jobs, gpus, report
        self._running: dict[int, tuple[Run, subprocess.Popen, float]] = {}
        self._awaited: set[Cell] = set()

    @property
    def processes(self) -> int:
        """Number of processes per run, one per GPU; 1 on CPU."""
        return max(1, self.gpus // self.jobs)

    def run(self, runs: Sequence[Run]) -> list[Run]:
        """Execute all runs. Returns those that failed, and those that depend on them."""
        waiting = deque(run for run in runs if not run.is_done())
        failed: list[Run] = []
        if len(waiting) < len(runs):
            self.report(f'{len(runs) - len(waiting)} of {len(runs)} runs are already finished.')

        def ended() -> str:
            return f'[{len(runs) - len(waiting) - len(self._running)}/{len(runs)}]'

        numbers = [signal.SIGTERM, signal.SIGINT]
        # Sent when the terminal closes; under nohup, it is ignored and must stay ignored.
        if hasattr(signal, 'SIGHUP') and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        previous = {number: signal.signal(number, _interrupted) for number in numbers}
        try:
            while waiting or self._running:
                self._start(waiting, failed)
                for job, (run, process, began) in list(self._running.items()):
                    if process.poll() is None:
                        continue
                    del self._running[job]
                    if process.returncode or not run.is_done():
                        failed.append(run)
                        self.report(f'{ended()} {run.cell.name} FAILED: {_last_line(run)} (see {_log(run)})')
                    else:
                        self.report(f'{ended()} {run.cell.name}: {_outcome(run)}, {time.time() - began:.0f} s')
                time.sleep(0.2)
        finally:
            self._stop()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return failed

    def _start(self, waiting: deque, failed: list) -> None:
        for _ in range(len(waiting)):
            if len(self._running) == self.jobs:
                return
            run = waiting.popleft()
            if run.is_done():  # by another process
                self.report(f'{run.cell.name}: {_outcome(run)}')
            elif run.needs in failed:
                failed.append(run)
                self.report(f'{run.cell.name} is skipped: {"its step 0" if run.first_step else run.needs.cell.name} '
                            'failed.')
            elif run.needs is not None and not run.needs.is_done():
                waiting.append(run)
            elif (holder := holder_of(run.cell.folder)) is not None:
                # Started by the user or by a killed comparison: continue it, or read its results, once it has ended.
                if run.cell not in self._awaited:
                    self.report(f'{run.cell.name} is being trained by {holder}: waiting for it.')
                self._awaited.add(run.cell)
                waiting.append(run)
            else:
                place = next(i for i in range(self.jobs) if i not in self._running)
                run.prepare()
                self._running[place] = run, self._process(run, place), time.time()

    def _process(self, run: Run, place: int) -> subprocess.Popen:
        cell, env, launcher = run.cell, dict(os.environ), [sys.executable]
        each = self.processes
        if self.gpus:
            env['CUDA_VISIBLE_DEVICES'] = ','.join(map(str, _devices()[place * each:(place + 1) * each]))
        if each > 1:
            launcher += ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={each}']
        else:
            # Oversubscribed cores make processes many times slower.
            env.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // self.jobs)))
        command = [*launcher, self.train_script, cell.config, '--work-dir', cell.folder, '--seed', str(cell.seed)]
        command += ['--step', '0'] if run.only_first_step else []
        command += ['--launcher', 'pytorch'] if each > 1 else []
        Path(cell.folder).mkdir(parents=True, exist_ok=True)
        with open(_log(run), 'ab') as log:
            # A separate session: _stop() forwards an interrupt once, to the process and all its workers.
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True)

    def _stop(self) -> None:
        for _, process, _ in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for _, process, _ in self._running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        self._running.clear()


def _interrupted(number: int, frame) -> None:
    raise KeyboardInterrupt


def _devices() -> list[str]:
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible:
        return visible.split(',')
    import torch
    return [str(i) for i in range(torch.cuda.device_count())]


def _log(run: Run) -> str:
    return f'{run.cell.folder}.log'


def _last_line(run: Run) -> str:
    lines = Path(_log(run)).read_text(encoding='utf-8', errors='replace').strip().splitlines()
    return lines[-1] if lines else 'no output'


def _outcome(run: Run) -> str:
    if run.only_first_step:
        metrics = read_json(osp.join(run.first_step_folder, 'result.json'))['metrics']
        return f'shared step 0, all {number(metrics["mIoU_all"])}'
    last = (run.cell.results() or {})['results'][-1]['metrics']
    return f'old {number(last["mIoU_old"])}, all {number(last["mIoU_all"])}'
