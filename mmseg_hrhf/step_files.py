"""Where a learning step keeps its files."""
from __future__ import annotations

import os.path as osp
from dataclasses import dataclass


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
