"""Dropout and its like, drawn anew by iteration."""
from __future__ import annotations

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ..randomness import EVALUATION, ITERATION, seed_process


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Makes what an iteration or an evaluation draws depend on the seed, the iteration and the rank alone.

    A resumed run therefore draws what the uninterrupted one does, whatever was drawn in between.

    Args:
        seed: of the learning step.
    """
    priority = 'VERY_HIGH'

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        seed_process(self.seed, ITERATION, runner.iter, get_rank())

    def before_val_epoch(self, runner) -> None:
        seed_process(self.seed, EVALUATION, 0, get_rank())

    def before_test_epoch(self, runner) -> None:
        seed_process(self.seed, EVALUATION, 0, get_rank())
