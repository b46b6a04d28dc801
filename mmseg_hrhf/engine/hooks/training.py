"""A run whose loss is no number any more stops at once."""
from __future__ import annotations

import math
from typing import Optional

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ...utils.errors import UserError
from ...utils.randomness import EVALUATION, ITERATION, seed_process


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training at the first iteration with a loss that is not finite.

    It runs after mmengine has fetched the losses for its log and before anything is saved, so it waits for no device
    and leaves the last resume point as it is. Losses are looked at before an AMP scaler multiplies them: gradients
    that overflow are the scaler's to handle. Every rank looks at its own losses; a rank whose losses are finite
    receives the gradients of one whose are not, and its next losses stop it.

    Args:
        step: learning step, for the message.
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
                f'Step {self.step}, iteration {runner.iter + 1}: {terms} is not finite, and training stops. What was '
                f'saved before is kept in {runner.work_dir}. Lower the learning rate, clip gradients '
                '(optim_wrapper.clip_grad) or leave AMP out, with a new --work-dir: from the last resume point the '
                'same numbers would come again.')


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
