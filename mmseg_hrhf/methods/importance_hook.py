"""Lets a method that gathers importance see the gradients that the optimizer steps by."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS


@HOOKS.register_module()
class ImportanceHook(Hook):
    """Calls ``before_optimizer_step`` of the model.

    mmengine's ``OptimWrapper.update_params`` runs backward, step and zero_grad in one call: only the optimizer itself
    sees the gradient that it steps by. A step that a loss scaler skips is not seen, nor are its gradients.
    """

    def before_train(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        optimizer = runner.optim_wrapper.optimizer
        if optimizer.defaults.get('fused') and hasattr(runner.optim_wrapper, 'loss_scaler'):
            raise ValueError(f'{type(model).__name__} needs gradients without a loss scale, which a fused optimizer '
                             'divides out inside its step: set optim_wrapper.optimizer.fused=False.')
        self._handle = optimizer.register_step_pre_hook(
            lambda optimizer, args, kwargs: model.before_optimizer_step(optimizer))

    def after_train(self, runner) -> None:
        self._handle.remove()
