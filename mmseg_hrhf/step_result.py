"""What a finished step leaves: its figures, bound to its checkpoint by hash."""
from __future__ import annotations

import logging
import os.path as osp
from typing import Optional

from mmengine.logging import print_log

from .files import read_json, sha256
from .step_files import StepFiles
from .training import resume_point

_KEYS = {
    'step', 'classes', 'new_classes', 'metrics', 'num_train_images', 'num_fake_images', 'seconds', 'checkpoint_sha256'
}


def read_result(files: StepFiles) -> Optional[dict]:
    """Result of a finished step, its checkpoint verified; None if the step is not finished.

    A damaged result counts as none where training has left what the step can go on from, to be measured anew.

    Raises:
        ValueError: a damaged result that cannot be made again, or a checkpoint that is not the result's.
    """
    if not osp.exists(files.result):
        return None
    try:
        result = read_json(files.result)
        if not isinstance(result, dict) or not set(result) >= _KEYS or result['step'] != files.step:
            raise ValueError(f'{files.result} is no result of step {files.step}: delete it to have it made again.')
    except ValueError as error:
        if resume_point(files.train) is None:
            raise
        print_log(f'{error} It is made again.', logger='current', level=logging.WARNING)
        return None
    if not osp.exists(files.checkpoint) or sha256(files.checkpoint) != result['checkpoint_sha256']:
        raise ValueError(f'Checkpoint {files.checkpoint} of the finished step {files.step} is missing, truncated or '
                         f'changed: delete {files.result} to have it written again from {files.train}, or the folder '
                         f'{files.folder} to train the step anew.')
    return result
