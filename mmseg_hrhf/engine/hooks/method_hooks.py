"""Hooks for methods: gradients for importance, pseudo-label thresholds, and training state."""
from __future__ import annotations

import torch
from mmengine.dist import all_reduce, get_dist_info
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch.utils.data import DataLoader

from ...models.losses.label_merge import NUM_BINS
from ...models.segmentors.base import unwrapped
from ...utils.errors import UserError
from ...utils.randomness import PSEUDO_LABEL, SampleIndex


@HOOKS.register_module()
class ImportanceHook(Hook):
    """Calls ``before_optimizer_step`` of the model.

    mmengine's ``OptimWrapper.update_params`` runs backward, step and zero_grad in one call, so only a hook on the
    optimizer sees the final gradients. Steps that a loss scaler skips are not seen.
    """

    def before_train(self, runner) -> None:
        model = unwrapped(runner.model)
        optimizer = runner.optim_wrapper.optimizer
        if optimizer.defaults.get('fused') and hasattr(runner.optim_wrapper, 'loss_scaler'):
            raise UserError(f'{type(model).__name__} needs gradients without the loss scale, but a fused optimizer '
                             'removes the scale inside its step: set optim_wrapper.optimizer.fused=False.')
        self._handle = optimizer.register_step_pre_hook(
            lambda optimizer, args, kwargs: model.before_optimizer_step(optimizer))

    def after_train(self, runner) -> None:
        self._handle.remove()


@HOOKS.register_module()
class PseudoLabelHook(Hook):
    """Sets pseudo-label thresholds in one teacher pass over the step's images, split over all processes.

    A resumed step keeps its thresholds.
    """

    def before_train(self, runner) -> None:
        model = unwrapped(runner.model)
        known = model.thresholds
        if model.first_step or known is not None:
            return
        rank, world_size = get_dist_info()
        train = runner.train_dataloader
        loader = DataLoader(
            train.dataset,
            batch_size=train.batch_size,
            sampler=[
                SampleIndex(i, (train.sampler.seed, PSEUDO_LABEL, i))
                for i in range(rank, len(train.dataset), world_size)
            ],
            num_workers=train.num_workers,
            collate_fn=train.collate_fn,
            worker_init_fn=train.worker_init_fn)
        device = next(model.parameters()).device
        histogram = torch.zeros(model.teacher.num_classes, NUM_BINS, dtype=torch.long, device=device)
        for data in loader:
            histogram += model.entropy_histogram(**model.data_preprocessor(data, True))
        all_reduce(histogram)
        model.set_thresholds(histogram)
        found = ', '.join(f'{value:.3f}' for value in model.thresholds.tolist())
        print_log(f'Median entropies of the teacher, background first: {found}', logger='current')


@HOOKS.register_module()
class TrainingStateHook(Hook):
    """Saves and restores the model's ``training_state`` in training checkpoints."""

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['method_training_state'] = unwrapped(runner.model).training_state()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if not runner.cfg.get('resume'):
            return  # initial weights (load_from)
        model = unwrapped(runner.model)
        if 'method_training_state' not in checkpoint:
            raise UserError(f'The training checkpoint has no state of {type(model).__name__}: another '
                            "method wrote it. Delete this step's train folder to train it from scratch.")
        model.load_training_state(checkpoint['method_training_state'])
