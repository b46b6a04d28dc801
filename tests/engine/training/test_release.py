"""What a step leaves behind: no data worker, thread or open file, and nobody waits for a worker to end."""
import builtins
import gc
import multiprocessing
import os
import threading
import time
from multiprocessing.process import BaseProcess

import pytest
import torch.utils.data._utils.worker
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmseg.registry import RUNNERS

from mmseg_hrhf import IncrementalRunner
from mmseg_hrhf.engine.testing import run_test

# Seconds that torch waits for a worker which was not told to end, in place of its 5: not to be mistaken for a busy CPU.
_TOLD_NOTHING = 30


@HOOKS.register_module()
class FailAt(Hook):
    """Fails in the middle of training, where every loader has workers."""

    def __init__(self, iteration, error):
        self.iteration, self.error = iteration, error

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            raise getattr(builtins, self.error)


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Processes that were waited for: how long, and whether they had ended then."""
    seen, join = [], BaseProcess.join

    def timed_join(process, timeout=None):
        began = time.monotonic()
        join(process, timeout)
        seen.append((time.monotonic() - began, process.is_alive()))

    monkeypatch.setattr(BaseProcess, 'join', timed_join)
    for module in (torch.utils.data._utils, torch.utils.data._utils.worker):
        monkeypatch.setattr(module, 'MP_STATUS_CHECK_INTERVAL', _TOLD_NOTHING)
    return seen


@pytest.fixture
def config(tiny_iter_config):
    """Two steps of six iterations, two workers in each of the three loaders."""
    cfg = tiny_iter_config
    cfg.val_dataloader, cfg.val_evaluator, cfg.val_cfg = cfg.test_dataloader, cfg.test_evaluator, dict(type='ValLoop')
    cfg.train_cfg.val_interval = 3
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers = 2
    return cfg


def make_persistent(cfg):
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.persistent_workers = True


def open_files():
    held = []
    for name in os.listdir('/proc/self/fd'):
        try:
            held.append(os.readlink(f'/proc/self/fd/{name}'))
        except FileNotFoundError:  # that of the listing
            continue
    return held


def threads():
    """Threads that stay. One of a queue that was closed ends a moment later; tqdm keeps one for all its bars."""
    deadline = time.monotonic() + 10
    while True:
        names = [thread.name for thread in threading.enumerate()]
        names = [name for name in names if name not in ('MainThread', 'tqdm_monitor')]
        if not names or time.monotonic() > deadline:
            return names
        time.sleep(0.01)


def assert_nothing_left(waits, least_workers):
    assert multiprocessing.active_children() == []
    assert len(waits) >= least_workers
    assert not any(alive for _, alive in waits)
    assert max(seconds for seconds, _ in waits) < _TOLD_NOTHING / 3


@pytest.mark.parametrize('persistent', [False, True])
def test_after_each_step(config, waits, persistent):
    if persistent:
        make_persistent(config)
    left = []

    class Watched(IncrementalRunner):

        def _run_step(self, step):
            super()._run_step(step)
            left.append((multiprocessing.active_children(), threads(), sorted(open_files())))

    before = open_files()
    assert len(Watched(config).train()) == 2
    assert [children for children, _, _ in left] == [[], []]
    assert [names for _, names, _ in left] == [[], []]
    assert left[0][2] == left[1][2]
    new = [name for name in left[0][2] if name not in before]
    assert {os.path.basename(name) for name in new} <= {'run.log', '.lock'}
    # At least two for training, validation and test of each step.
    assert_nothing_left(waits, least_workers=12)


def test_pseudo_labels(config, waits):
    make_persistent(config)
    config.method = dict(type='PLOP')
    config.replay = None
    assert len(RUNNERS.build(config).train()) == 2
    assert_nothing_left(waits, least_workers=14)


@pytest.mark.parametrize('persistent', [False, True])
@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_a_step_that_fails(config, waits, persistent, error):
    if persistent:
        make_persistent(config)
    config.custom_hooks = [dict(type='FailAt', iteration=5, error=error.__name__)]
    before = open_files()
    runner = RUNNERS.build(config)
    with pytest.raises(error) as info:
        runner.train()
    assert info.tb is not None  # it still holds the frames of the loops
    assert_nothing_left(waits, least_workers=4)
    assert threads() == []
    del info, runner  # with the batch in shared memory
    gc.collect()
    new = [name for name in open_files() if name not in before]
    assert {os.path.basename(name) for name in new} <= {'run.log'}


def test_the_test_tool(config, waits):
    config.only_step = 0
    RUNNERS.build(config).train()
    waits.clear()
    make_persistent(config)
    before = sorted(open_files())
    run_test(config, os.path.join(config.work_dir, 'step_0', 'checkpoint.pth'))
    assert_nothing_left(waits, least_workers=2)
    assert threads() == [] and sorted(open_files()) == before
