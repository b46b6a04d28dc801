"""Where a learning step keeps its files."""
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
from .checkpoint import is_whole, load_checkpoint

# Of ResumeHook, in a step's training folder.
RESUME_FILE = 'resume.pth'


@dataclass(frozen=True)
class StepFiles:
    """Where a learning step keeps its files.

    ``step_<t>/`` holds the plain ``config.py`` and ``checkpoint.pth`` and, once the step is finished,
    ``confusion.csv`` (test pixels by class and predicted class) and ``result.json``;
    ``identity.json`` says what it is made from; ``train/`` is the work dir of its
    mmengine Runner, ``fakes/`` its buffer.
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
    """Result of a finished step, its checkpoint verified; None if the step is not finished.

    A damaged result counts as none where training has left what the step can go on from, to be measured anew.

    Raises:
        UserError: a damaged result that cannot be made again, or a checkpoint that is not the result's.
    """
    if not osp.exists(files.result):
        return None
    try:
        result = read_json(files.result)
        if not isinstance(result, dict) or not set(result) >= _KEYS or result['step'] != files.step:
            raise UserError(f'{files.result} is no result of step {files.step}: delete it to have it made again.')
    except ValueError as error:
        if resume_point(files.train) is None:
            raise
        print_log(f'{error} It is made again.', logger='current', level=logging.WARNING)
        return None
    if not osp.exists(files.checkpoint) or sha256(files.checkpoint) != result['checkpoint_sha256']:
        raise UserError(f'Checkpoint {files.checkpoint} of the finished step {files.step} is missing, truncated or '
                         f'changed: delete {files.result} to have it written again from {files.train}, or the folder '
                         f'{files.folder} to train the step anew.')
    return result


def resume_point(folder: str) -> Optional[str]:
    """The file from which the training in ``folder`` resumes; None where it must begin anew.

    It begins anew where none is written, where it is truncated, and where it is of another number of processes: with
    another global batch, epochs and schedules have another length.

    Raises:
        UserError: the file holds more than data.
    """
    path = osp.join(folder, RESUME_FILE)
    if not os.path.exists(path):
        return None
    if not is_whole(path):
        print_log(f'{path} ({os.path.getsize(path)} bytes) is truncated: the step is trained from its start.',
                  logger='current', level=logging.WARNING)
        return None
    meta = load_checkpoint(path)['meta']
    if meta['world_size'] != get_world_size():
        print_log(f'{path} was written by {meta["world_size"]} processes; by {get_world_size()} the step is trained '
                  'from its start, with the fake images that are there.', logger='current', level=logging.WARNING)
        return None
    return path
