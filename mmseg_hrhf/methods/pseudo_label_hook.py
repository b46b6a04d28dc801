"""Finds how sure the teacher must be, before a step's first iteration."""
from __future__ import annotations

import torch
from mmengine.dist import all_reduce, get_dist_info
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch.utils.data import DataLoader

from ..losses.pseudo_labels import NUM_BINS
from ..randomness import PSEUDO_LABEL, SampleIndex


@HOOKS.register_module()
class PseudoLabelHook(Hook):
    """One pass of the teacher over the step's images, shared by all processes; a resumed step keeps what it found."""

    def before_train(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
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
