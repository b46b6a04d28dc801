"""Hooks of ``configs/gpu_check.py``: a kill in the middle of a step, and what every rank holds at its end."""
from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

# Of step 1; set in the environment, since a run that is continued must have the same config.
KILL_AT = 'GPU_CHECK_KILL_AT'


@HOOKS.register_module()
class StopHook(Hook):
    """Kills its process after the iteration of step 1 that the environment names."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if model.teacher is not None and str(runner.iter + 1) == os.environ.get(KILL_AT):
            os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class WeightsOfRanksHook(Hook):
    """Writes a hash of the weights that each process ends with."""

    def after_train(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        digest = hashlib.sha256()
        for parameter in model.parameters():
            digest.update(parameter.detach().cpu().numpy().tobytes())
        Path(runner.work_dir, f'rank_{get_rank()}.sha256').write_text(digest.hexdigest())
