"""What a method must remember to go on in the middle of a step."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.registry import HOOKS


@HOOKS.register_module()
class TrainingStateHook(Hook):
    """Carries the model's ``training_state`` in training checkpoints."""

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['method_training_state'] = _model(runner).training_state()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if not runner._resume:
            return  # weights to start from (load_from)
        if 'method_training_state' not in checkpoint:
            raise ValueError(f'The training checkpoint holds no state of {type(_model(runner)).__name__}: another '
                             "method wrote it. Delete this step's train folder to train it from its start.")
        _model(runner).load_training_state(checkpoint['method_training_state'])


def _model(runner) -> BaseModel:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
