"""Hooks that check the losses of training, and seed every iteration."""
from __future__ import annotations

import logging
import math
from typing import Optional

import numpy as np
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from ...utils.errors import UserError
from ...utils.randomness import EVALUATION, ITERATION, seed_process

# Means of fewer iterations are too noisy.
_LEAST_ITERATIONS = 20


def has_fallen(losses: np.ndarray) -> bool:
    """Whether the mean of the last quarter may be below that of the first twentieth, or of the first 20 iterations.

    Args:
        losses: (T,) total loss of each iteration of a step; for T < 80, the result is True.
    Returns:
        False if the difference is not below 2 standard errors.
    """
    if len(losses) // 4 < _LEAST_ITERATIONS:
        return True
    first, last = losses[:max(_LEAST_ITERATIONS, len(losses) // 20)], losses[-(len(losses) // 4):]
    scatter = math.sqrt(first.var() / len(first) + last.var() / len(last))
    return bool(last.mean() - first.mean() < 2 * scatter)


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training at the first iteration with a loss that is NaN or Inf; warns of a loss that has not fallen.

    It runs after mmengine fetched the losses for its log and before anything is saved, so it does not synchronise the
    device and keeps the last resume point. Losses are checked before an AMP scaler multiplies them; the scaler handles
    overflowing gradients. Every rank checks its own losses: a rank with finite losses receives
    gradients that are not, and stops at its next losses.

    Args:
        step: learning step, for the error message.
    """
    priority = 'HIGH'  # after RuntimeInfoHook (VERY_HIGH), before averaging, logging and saving

    def __init__(self, step: int) -> None:
        self.step = step

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: Optional[dict] = None) -> None:
        scalars = runner.message_hub.log_scalars
        current = {name: scalars[f'train/{name}'].current() for name in outputs or {} if 'loss' in name}
        broken = {name: value for name, value in current.items() if not math.isfinite(value)}
        if broken:
            terms = ', '.join(f'{name}={value}' for name, value in broken.items() if name != 'loss' or len(broken) == 1)
            raise UserError(
                f'Step {self.step}, iteration {runner.iter + 1}: {terms} is not finite, so training stops. Earlier '
                f'checkpoints are kept in {runner.work_dir}. Lower the learning rate, clip gradients '
                '(optim_wrapper.clip_grad) or turn off AMP, with a new --work-dir: resuming would repeat the same '
                'numbers.')

    def after_train(self, runner) -> None:
        history = runner.message_hub.log_scalars.get('train/loss')
        # A resumed run does not have the first losses.
        if history is not None and len(history.data[0]) == runner.iter and not has_fallen(history.data[0]):
            print_log(f'The loss of step {self.step} is no lower than in its first iterations. If the new classes '
                      'score low, the learning rate is too high: lower it, or clip gradients by '
                      'optim_wrapper.clip_grad=dict(max_norm=1), above all with frozen norm layers.',
                      logger=runner.logger, level=logging.WARNING)


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Makes random draws depend only on the seed, the iteration and the rank.

    A resumed run therefore draws the same as an uninterrupted one.

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
