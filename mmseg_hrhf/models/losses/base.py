"""What a loss between student and teacher is, and how a config names it."""
from __future__ import annotations

import abc
from typing import Mapping

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...utils.errors import UserError
from ...utils.options import check_registered
from ...utils.randomness import seeded


class TeacherLoss(nn.Module, abc.ABC):
    """A loss of the student's maps against the teacher's.

    A subclass registered in mmseg's ``MODELS`` can be named in a loss option of a method, such as ``method.loss_kd``.
    Its options are the annotated arguments of its constructor.

    Args:
        loss_weight: factor of the loss.
    Raises:
        UserError: a negative weight.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        if not loss_weight >= 0:
            raise UserError(f'loss_weight={loss_weight} must not be negative.')
        self.loss_weight = loss_weight

    @abc.abstractmethod
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the weighted loss.

        Args:
            student: (N, C, H, W) logits, or (N, C, h, w) features.
            teacher: (N, K, H, W) logits with K < C, channel 0 is background; or features of the student's shape. No
                gradient flows into it.
        Returns:
            Scalar.
        """


def build_loss(name: str, options: Mapping, default: Mapping, num_new: int = 0) -> TeacherLoss:
    """Build a loss and try it once on small maps, so that no mistake shows hours later, at step 1.

    Args:
        name: of the option, such as ``'method.loss_kd'``.
        options: config of the loss. Without a ``type`` it changes options of ``default``.
        default: config of the method's own loss.
        num_new: channels that the student has and the teacher lacks.
    Raises:
        UserError: an unknown type or option, a value of the wrong type or out of range, a loss that keeps a state or
            gives no finite scalar with a gradient; names it.
    """
    held = dict(options) if 'type' in options else dict(default, **options)
    kind = check_registered(name, held, MODELS, TeacherLoss, f'dict(type={default["type"]!r}, loss_weight=1.0)')
    try:
        loss = kind(**{key: value for key, value in held.items() if key != 'type'})
    except ValueError as error:
        raise UserError(f'{name}={dict(options)}: {error}') from error
    if loss.state_dict():
        raise UserError(f'{name}={dict(options)} keeps {next(iter(loss.state_dict()))!r}, but a checkpoint holds the '
                        'segmentor alone: make it a buffer with persistent=False.')
    try:
        _try(loss, num_new)
    except Exception as error:  # whatever a user's loss raises
        raise UserError(f'{name}={dict(options)} fails on maps of {2 + num_new} channels of the student and 2 of the '
                        f'teacher: {error}') from error
    return loss


def _try(loss: TeacherLoss, num_new: int) -> None:
    with seeded(0), torch.enable_grad():
        student, teacher = torch.randn(2, 2 + num_new, 32, 32, requires_grad=True), torch.randn(2, 2, 32, 32)
        value = loss(student, teacher)
        if not isinstance(value, Tensor) or value.ndim:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f'it gives {shape}, but must give a scalar.')
        gradient, = torch.autograd.grad(value, student)
        if not (value.isfinite() and gradient.isfinite().all()):
            raise UserError('the loss or its gradient is NaN or Inf.')
