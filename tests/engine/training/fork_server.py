"""Runs training jobs in processes that can be killed, without importing the toolbox anew for each.

Reads one JSON object a line: ``config`` (file), ``work_dir``, ``options`` (KEY=VALUE), ``ranks``, ``kill_at``: the
seconds of processor time after which the kernel ends the job's processes, or null, and ``kill_at_mask``: the number of
the mask at which the scan of the class index is killed, or null. Where ``tool`` is not empty, tools/train.py runs with
these arguments, the first of which is its path, and config and options are not read. Answers with one JSON object: the
``signal`` that ended the job (0: none), its exit ``code`` and, if it ended by itself, the ``seconds`` of processor time
that rank 0 took.
"""
import contextlib
import gc
import importlib
import itertools
import json
import os
import runpy
import signal
import sys
import threading
import time
import traceback

import yapf.yapflib.yapf_api

# The layout of logged configs would take three quarters of a tiny job's time. Replaced before mmengine looks it up.
yapf.yapflib.yapf_api.FormatCode = lambda text, **kwargs: (text, True)

# ruff: noqa: E402
import mmseg.models  # noqa: F401
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, init_default_scope
from mmseg.registry import RUNNERS

import mmseg_hrhf  # noqa: F401
from mmseg_hrhf.config.load import load_config


@HOOKS.register_module()
class DieOnce(Hook):
    """Ends the process in step 1, before an iteration, unless the file ``marker`` says that it has."""

    def __init__(self, iteration, marker):
        self.iteration, self.marker = iteration, marker

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration and 'step_1' in runner.work_dir and not os.path.exists(self.marker):
            open(self.marker, 'w').close()
            os.kill(os.getpid(), signal.SIGKILL)


def die_at_mask(number):
    # The package exports a function of the module's name.
    class_index = importlib.import_module('mmseg_hrhf.datasets.class_index')
    label_counts, count = class_index.label_counts, itertools.count()

    def count_or_die(*args):
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return label_counts(*args)

    class_index.label_counts = count_or_die


def train(job):
    """Processor time of a job."""
    init_default_scope('mmseg')
    began = time.process_time()
    if job['tool']:
        sys.argv = job['tool']
        runpy.run_path(sys.argv[0], run_name='__main__')
        return time.process_time() - began
    if job['kill_at']:
        # No handler is installed, so the signal ends the process at once, whatever it is doing, as SIGKILL does.
        signal.setitimer(signal.ITIMER_PROF, job['kill_at'])
    if job['kill_at_mask'] is not None:
        die_at_mask(job['kill_at_mask'])
    cfg = load_config(job['config'], job['options'])
    cfg.work_dir = job['work_dir']
    cfg.launcher = 'pytorch' if job['ranks'] > 1 else 'none'
    RUNNERS.build(cfg).train()
    signal.setitimer(signal.ITIMER_PROF, 0)
    return time.process_time() - began


def join_ranks(job, rank):
    """Stand in for torchrun, of which every process would import the toolbox."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(job['ranks']), MASTER_ADDR='127.0.0.1',
                      MASTER_PORT=str(job['port']))


def in_child(job, rank, pipe):
    log = os.open(f'{job["work_dir"]}.log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        if job['ranks'] > 1:
            join_ranks(job, rank)
        seconds = train(job)
        if rank == 0:
            os.write(pipe, str(seconds).encode())
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def main():
    if threading.active_count() > 1:
        sys.exit('Forking a process of several threads is not safe.')
    gc.freeze()  # datasets collect garbage when they are built, which need not look through all imported modules
    for line in sys.stdin:
        job = json.loads(line)
        read, write = os.pipe()
        pids, seconds = [], b''
        for rank in range(job['ranks']):
            pids.append(os.fork())
            if pids[-1] == 0:
                in_child(job, rank, write)
        os.close(write)
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        # Data workers of a killed job may live on for a few seconds: nobody waits for their end of the pipe.
        os.set_blocking(read, False)
        with contextlib.suppress(BlockingIOError):
            seconds = os.read(read, 100)
        os.close(read)
        answer = dict(
            signal=max(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0 for status in statuses),
            code=max(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0 for status in statuses),
            seconds=float(seconds or 0))
        print('ANSWER', json.dumps(answer), flush=True)


if __name__ == '__main__':
    main()
