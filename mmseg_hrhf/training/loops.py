"""mmengine's two training loops, entered at any iteration.

mmengine resumes an epoch-based loop at an epoch's start only, and an iteration-based one by loading whatever it has
already trained on. The sampler of these loops (``RealFakeSampler``) starts at any position instead.
"""
from __future__ import annotations

from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """Epochs, the first of which may begin in its middle."""

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = self._iter - self._epoch * len(self.dataloader)
        _skip_batches(self.dataloader, done)
        for idx, data_batch in enumerate(self.dataloader, start=done):
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """Iterations over an endless sampler, the first of which may be any."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        # Made anew by `run`: mmengine 0.10 starts its data workers here, before any hook has prepared the data.
        self.dataloader_iterator: Any = None

    def run(self) -> nn.Module:
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        _skip_batches(self.dataloader, self._iter)
        self.dataloader_iterator = iter(self.dataloader)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            if (self.runner.val_loop is not None and self._iter >= self.val_begin
                    and (self._iter % self.val_interval == 0 or self._iter == self._max_iters)):
                self.runner.val_loop.run()
        self.dataloader_iterator = None  # its workers would go on preparing batches that nobody takes
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model


def _skip_batches(dataloader: DataLoader, number: int) -> None:
    dataloader.sampler.skip(number * dataloader.batch_size)
