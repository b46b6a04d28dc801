"""Where a learning step keeps its files, and which of them a stopped step goes on from."""
from __future__ import annotations

import logging
import os.path as osp
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from mmengine.logging import print_log

from .checkpoint import is_whole


@dataclass(frozen=True)
class StepFiles:
    """Where a learning step keeps its files.

    ``step_<t>/`` holds the plain ``config.py`` and ``checkpoint.pth`` and, once the step is finished,
    ``confusion.csv`` (test pixels by class and predicted class) and ``result.json``; ``train/`` is the work dir of its
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
    def fakes(self) -> str:
        return osp.join(self.folder, 'fakes')

    def previous(self) -> StepFiles:
        return StepFiles(self.work_dir, self.step - 1)


def latest_training_checkpoint(folder: str) -> Optional[str]:
    """The checkpoint that a stopped step resumes from; None if it has written none.

    ``last_checkpoint`` holds an absolute path: only its file name is used, so that a copied work dir goes on by itself.
    Where that file is missing or truncated (a job killed while it saved), the newest whole one of its kind is taken.

    Raises:
        ValueError: no checkpoint is whole; names the one that should be.
    """
    folder = Path(folder)
    pointer = folder / 'last_checkpoint'
    if not pointer.exists():
        return None
    named = folder / Path(pointer.read_text().strip()).name
    others = folder.glob(f'{named.name.split("_")[0]}_*.pth')
    newest_first = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
    for path in (named, *newest_first):
        if path.exists() and is_whole(path):
            if path != named:
                print_log(f'{named} is missing or truncated: resuming from {path}', logger='current',
                          level=logging.WARNING)
            return str(path)
    raise ValueError(f'Training checkpoint {named}, from which this step would resume, is missing or truncated, and '
                     f'there is no other: delete {pointer} to train the step from its start.')
