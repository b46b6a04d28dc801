"""mmengine's two training loops, resumable at any iteration.

mmengine can resume an epoch-based loop only at the start of an epoch, and resumes an iteration-based loop by reloading
all earlier batches. The sampler of these loops (``RealFakeSampler``) can start at any position.
"""
from __future__ import annotations

import bisect
from typing import Any, Sequence

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from ..utils.compat import end_data_workers, forget


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """Epoch-based loop whose first epoch may start at any iteration."""

    def run_epoch(self) -> None:
        self.done = self.iter - self.epoch * len(self.dataloader)
        _skip_batches(self.dataloader, self.done)
        super().run_epoch()

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        super().run_iter(self.done + idx, data_batch)


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """Iteration-based loop over an infinite sampler that may start at any iteration."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        # `run` creates a new one: mmengine 0.10 starts its data workers here, before any hook has prepared the data.
        self.dataloader_iterator: Any = None

    def run(self) -> nn.Module:
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        _skip_batches(self.dataloader, self.iter)
        self.dataloader_iterator = iter(self.dataloader)
        while self.iter < self.max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self.val_interval = self.dynamic_intervals[bisect.bisect(self.dynamic_milestones, self.iter + 1) - 1]
            if (self.runner.val_loop is not None and self.iter >= self.val_begin
                    and (self.iter % self.val_interval == 0 or self.iter == self.max_iters)):
                self.runner.val_loop.run()
        self.dataloader_iterator = None  # its workers would keep preparing batches that nobody uses
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model


def _skip_batches(dataloader: DataLoader, number: int) -> None:
    dataloader.sampler.skip(number * dataloader.batch_size)


def release(runner: Runner) -> None:
    """Stop the data workers of a Runner, close its log file, and release its logger, message hub and visualizer.

    mmengine holds the last three by name, one set per Runner. Over many learning steps, open files, histories of logged
    values and pictures would accumulate.
    """
    end_data_workers(runner)
    # Some are missing if the Runner could not be built.
    logger, message_hub, visualizer = (getattr(runner, name, None) for name in ('logger', 'message_hub', 'visualizer'))
    if visualizer is not None:
        visualizer.close()  # TensorBoard's thread and file, if the Runner did not finish
    if logger is not None:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
    for thing in filter(None, (logger, message_hub, visualizer)):
        forget(thing)
