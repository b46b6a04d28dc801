"""File layout of a work dir."""
from __future__ import annotations

import logging
import os
import os.path as osp
from dataclasses import dataclass
from typing import Optional

from mmengine.dist import get_world_size
from mmengine.logging import print_log

from ..utils.errors import UserError
from ..utils.io import read_json, sha256
from .checkpoint import is_intact, load_checkpoint

# Written by ResumeHook into a step's training folder.
RESUME_FILE = 'resume.pth'


@dataclass(frozen=True)
class StepFiles:
    """Paths of the files of a learning step.

    ``step_<t>/`` holds the plain ``config.py`` and ``checkpoint.pth`` and, once the step is finished, ``confusion.csv``
    (test pixels by class and predicted class) and ``result.json``. ``identity.json`` records the step's inputs,
    ``train/`` is the work dir of its mmengine Runner, and ``fakes/`` is its buffer.
    """
    work_dir: str
    step: int

    @property
    def folder(self) -> str:
        return osp.join(self.work_dir, f'step_{self.step}')

    @property
    def config(self) -> str:
        return osp.join(self.folder, 'config.py')

    @property
    def checkpoint(self) -> str:
        return osp.join(self.folder, 'checkpoint.pth')

    @property
    def result(self) -> str:
        return osp.join(self.folder, 'result.json')

    @property
    def confusion(self) -> str:
        return osp.join(self.folder, 'confusion.csv')

    @property
    def train(self) -> str:
        return osp.join(self.folder, 'train')

    @property
    def resume_point(self) -> str:
        return osp.join(self.train, 'resume.pth')

    @property
    def identity(self) -> str:
        return osp.join(self.folder, 'identity.json')

    @property
    def fakes(self) -> str:
        return osp.join(self.folder, 'fakes')

    def previous(self) -> StepFiles:
        return StepFiles(self.work_dir, self.step - 1)


_KEYS = {
    'step', 'classes', 'new_classes', 'metrics', 'num_train_images', 'num_fake_images', 'seconds', 'checkpoint_sha256'
}


def read_result(files: StepFiles) -> Optional[dict]:
    """Result of a finished step with a verified checkpoint; None if the step is not finished.

    A damaged result counts as missing if there is a resume point: the step is then measured again.

    Raises:
        UserError: a damaged result that cannot be regenerated, or a checkpoint that does not match the result.
    """
    if not osp.exists(files.result):
        return None
    try:
        result = read_json(files.result)
        if not isinstance(result, dict) or not set(result) >= _KEYS or result['step'] != files.step:
            raise UserError(f'{files.result} is not a result of step {files.step}: delete it to regenerate it.')
    except ValueError as error:
        if resume_point(files.train) is None:
            raise
        print_log(f'{error} It is regenerated.', logger='current', level=logging.WARNING)
        return None
    if not osp.exists(files.checkpoint) or sha256(files.checkpoint) != result['checkpoint_sha256']:
        raise UserError(f'Checkpoint {files.checkpoint} of the finished step {files.step} is missing, truncated or '
                         f'changed: delete {files.result} to write it again from {files.train}, or the folder '
                         f'{files.folder} to train the step again.')
    return result


def resume_point(folder: str) -> Optional[str]:
    """File from which the training in ``folder`` resumes; None if it must start from scratch.

    It starts from scratch if the file is missing, truncated, or written by another number of processes: with another
    global batch size, epochs and schedules have different lengths.

    Raises:
        UserError: the file contains more than data.
    """
    path = osp.join(folder, RESUME_FILE)
    if not os.path.exists(path):
        return None
    if not is_intact(path):
        print_log(f'{path} ({os.path.getsize(path)} bytes) is truncated: the step is trained from scratch.',
                  logger='current', level=logging.WARNING)
        return None
    meta = load_checkpoint(path)['meta']
    if meta['world_size'] != get_world_size():
        print_log(f'{path} was written by {meta["world_size"]} processes, now there are {get_world_size()}: the step '
                  'is trained from scratch with existing synthetic images.', logger='current', level=logging.WARNING)
        return None
    return path
