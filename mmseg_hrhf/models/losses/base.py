"""Base class of losses between student and teacher, and how a config builds them."""
from __future__ import annotations

import abc
import inspect
from typing import Mapping

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...utils.errors import UserError
from ...utils.options import check_registered
from ...utils.randomness import seeded


class TeacherLoss(nn.Module, abc.ABC):
    """Base class of losses that compare the student's maps with the teacher's.

    A loss option of a method, such as ``method.loss_kd``, can name any subclass registered in mmseg's ``MODELS``.
    Its options are the annotated arguments of its constructor.

    Args:
        loss_weight: weight of the loss.
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
            teacher: (N, K, H, W) logits with K < C, where channel 0 is background; or features of the student's
                shape. It receives no gradient.
        Returns:
            Scalar.
        """


def build_loss(name: str, options: Mapping, default: Mapping, num_new: int = 0) -> TeacherLoss:
    """Build a loss and run it once on small maps, to find errors before training.

    Args:
        name: name of the option, such as ``'method.loss_kd'``.
        options: config of the loss. Without a ``type``, it overrides options of ``default``.
        default: config of the method's default loss.
        num_new: number of channels that the student has in addition to the teacher's.
    Raises:
        UserError: an unknown type or option, a value of the wrong type or out of range, a loss that has state or
            does not return a finite scalar with a gradient.
    """
    held = dict(options) if 'type' in options else dict(default, **options)
    kind = check_registered(name, held, MODELS, TeacherLoss, f'dict(type={default["type"]!r}, loss_weight=1.0)')
    try:
        loss = kind(**{key: value for key, value in held.items() if key != 'type'})
    except ValueError as error:
        raise UserError(f'{name}={dict(options)}: {error}') from error
    if loss.state_dict():
        raise UserError(f'{name}={dict(options)} has {next(iter(loss.state_dict()))!r} in its state_dict, but a '
                        'checkpoint contains only the segmentor: register it as a buffer with persistent=False.')
    try:
        _try(loss, num_new)
    except Exception as error:  # a custom loss may raise anything
        raise UserError(f'{name}={dict(options)} fails on a student map with {2 + num_new} channels and a teacher '
                        f'map with 2: {error}') from error
    return loss


def loss_defaults(method: type) -> dict[str, dict]:
    """Default configs of a method's ``loss_...`` options."""
    defaults = {}
    for parent in reversed(method.__mro__):
        if '__init__' in vars(parent):
            for name, parameter in inspect.signature(parent.__init__).parameters.items():
                if name.startswith('loss_') and isinstance(parameter.default, dict):
                    defaults[name] = parameter.default
    return defaults


def _try(loss: TeacherLoss, num_new: int) -> None:
    with seeded(0), torch.enable_grad():
        student, teacher = torch.randn(2, 2 + num_new, 32, 32, requires_grad=True), torch.randn(2, 2, 32, 32)
        value = loss(student, teacher)
        if not isinstance(value, Tensor) or value.ndim:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f'it returns {shape}, but must return a scalar.')
        gradient, = torch.autograd.grad(value, student)
        if not (value.isfinite() and gradient.isfinite().all()):
            raise UserError('the loss or its gradient is NaN or Inf.')
