"""Hook that ends the process after the first training iteration, for ``speed_start_up.py``."""
import os
import sys

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class EndAfterFirstIteration(Hook):
    """Exits immediately, without the cost of a normal process exit."""
    priority = 'LOWEST'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        print('first iteration done', flush=True)
        sys.stdout.flush()
        os._exit(0)
