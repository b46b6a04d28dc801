"""A hook that ends the process after its first training iteration, for ``speed_start_up.py``."""
import os
import sys

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class EndAfterFirstIteration(Hook):
    """Leaves at once, without what the end of a process costs."""
    priority = 'LOWEST'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        print('first iteration done', flush=True)
        sys.stdout.flush()
        os._exit(0)
