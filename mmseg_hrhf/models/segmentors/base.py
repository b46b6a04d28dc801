"""What all methods share: a student segmentor, and the frozen teacher it continues."""
from __future__ import annotations

import inspect
from typing import Any, Iterator, Mapping, Optional

import torch
from mmengine.model import BaseModel, is_model_wrapper, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmseg.registry import MODELS
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMSEG_CONSTRUCTORS
from torch import Tensor, nn

from ...utils.compat import FollowedByOthers, rename_in_state
from ...utils.errors import UserError
from ...utils.options import check_choice
from ...work_dir.checkpoint import load_checkpoint
from ..growth import CLASSIFIER_STARTS, grow_classifier
from ..heads import captured_logits, check_losses, predicted_logits
from ..losses.base import TeacherLoss, build_loss
from ..student_pass import fuses, inherits, small_logits


class IncrementalSegmentor(FollowedByOthers, BaseModel):
    """A segmentor at one learning step.

    Its checkpoint is the student's alone, with the keys of a bare segmentor. The teacher is not a submodule: it is in
    no checkpoint, optimizer or DDP bucket, and stays in eval mode.

    To hooks it looks like the bare segmentor: ``model.backbone`` is the student's, and parameters, buffers and modules
    are listed by the names that they have there (``backbone.conv1.weight``).

    Args:
        student: config of any segmentor with the classes of this step.
        teacher: config of the same segmentor with the classes of the previous step; None at step 0.
        teacher_checkpoint: plain checkpoint of the previous step.
        classifier_start: ``'mib'`` or ``'random'``, see ``grow_tensor``.
        channels_last: whether both networks compute in channels last, set by ``channels_last`` of the config.
    """
    # Whether the method uses the previous step's network beyond its weights.
    needs_teacher = True
    # Whether the method trains on fake images beside the real ones.
    uses_fake_images = False
    # Whether step 0 is the plain training that other methods begin with too: a comparison then trains it once.
    shares_first_step = True
    # Whether there is a single step, on all classes at once, in place of the last one.
    joint = False
    # Whether it puts its own loss in the place of the heads' per-pixel losses.
    replaces_losses = False
    # Registered names of the hooks it needs in training.
    hooks: tuple[str, ...] = ()

    def __init__(self,
                 student: dict,
                 teacher: Optional[dict] = None,
                 teacher_checkpoint: Optional[str] = None,
                 classifier_start: str = 'mib',
                 channels_last: bool = False) -> None:
        check_choice('method.classifier_start', classifier_start, CLASSIFIER_STARTS)
        built: nn.Module = MODELS.build(student)
        super().__init__()
        self.student = built
        self.data_preprocessor = built.data_preprocessor
        self.classifier_start = classifier_start
        self._hidden_teacher: list[nn.Module] = []
        self.num_old = 0  # channels of the teacher
        self._previous_state: Optional[dict] = None
        # What the teacher's layers saw in training, for its inversion; see inversion/recording.py.
        self.teacher_statistics: Optional[dict] = None
        if teacher is not None:
            previous = revert_sync_batchnorm(MODELS.build(teacher))
            checkpoint = load_checkpoint(str(teacher_checkpoint), previous.num_classes)
            _load_strictly(previous, checkpoint['state_dict'], str(teacher_checkpoint))
            self._previous_state = checkpoint.get('method_state')
            self.teacher_statistics = checkpoint.get('feature_statistics')
            self._hidden_teacher = [previous.eval().requires_grad_(False)]
            self.num_old = previous.num_classes
        self.first_step = teacher is None
        self.channels_last = channels_last
        # Now, and not in a hook: DDP lays out its buckets by the strides that it finds.
        self.to(memory_format=self.memory_format)
        rename_in_state(self, 'student.', '')

    @classmethod
    def check_options(cls, options: Mapping) -> None:
        """Raise ``UserError`` for a loss among the options of ``method`` that cannot be used.

        Asked before a run begins.
        """
        for name in _loss_defaults(cls):
            if options.get(name) is not None:
                cls.build_loss(name, options[name])

    @classmethod
    def build_loss(cls, option: str, options: Mapping) -> TeacherLoss:
        """The loss of a constructor's argument whose default is ``dict(type=..., loss_weight=...)``.

        Args:
            option: name of the argument: ``loss_kd`` compares logits, of which the student has more channels than the
                teacher, any other maps of one shape.
            options: its value; without a ``type`` it changes options of the default.
        """
        return build_loss(f'method.{option}', options, _loss_defaults(cls)[option], num_new=int(option == 'loss_kd'))

    @classmethod
    def check_segmentor(cls, segmentor: nn.Module, size: tuple[int, int]) -> None:
        """Raise ``UserError`` for a segmentor that the method cannot train. Asked before a run begins.

        Args:
            segmentor: of step 1, for this alone: it may be changed.
            size: (height, width) of the images that it trains on.
        """
        if cls.replaces_losses:
            check_losses(segmentor)

    @property
    def teacher(self) -> Optional[nn.Module]:
        """The frozen network of the previous step; None at step 0."""
        return self._hidden_teacher[0] if self._hidden_teacher else None

    # No attribute: torch.save of a module cannot pickle it.
    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            student = None if name == 'student' else getattr(self, 'student', None)
            if student is None or not hasattr(student, name):
                raise
            return getattr(student, name)

    def __setattr__(self, name: str, value: Any) -> None:
        student = getattr(self, 'student', None)
        if isinstance(getattr(student, name, None), nn.Module) and name not in dict(self.named_children()):
            setattr(student, name, value)  # as in `runner.model.backbone = ...`
        else:
            super().__setattr__(name, value)

    # Parameters and buffers are listed through it, too.
    def named_modules(self, memo: Optional[set] = None, prefix: str = '', remove_duplicate: bool = True) -> Iterator:
        memo = set() if memo is None else memo
        memo.update(part for child in self.children() if isinstance(child, TeacherLoss) for part in child.modules())
        for name, module in super().named_modules(memo, prefix, remove_duplicate):
            yield _bare_name(name, prefix), module

    def followers(self) -> list[nn.Module]:
        # Not a submodule, the teacher must be told to change device or type.
        return self._hidden_teacher

    def init_weights(self) -> None:
        """Start from the previous step with a grown classifier, or, at step 0, as the student's config says."""
        if self.first_step:
            # Random weights are drawn in the order of memory: a seed means the same ones in every order.
            self.student.to(memory_format=torch.contiguous_format)
            _start(self.student)
            self.student.to(memory_format=self.memory_format)
        elif self.teacher is not None:
            grow_classifier(self.student, self.teacher.state_dict(), self.teacher.num_classes,
                            self.student.num_classes, self.classifier_start)
            if not self.needs_teacher:
                self._hidden_teacher = []

    def forward(self, inputs: Tensor, data_samples=None, mode: str = 'tensor'):
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return self.student(inputs, data_samples, mode=mode)

    def loss(self, inputs: Tensor, data_samples: list) -> dict:
        """Losses of a batch; at step 0 the student's own."""
        if self.first_step:
            return self.student.loss(inputs, data_samples)
        return self.incremental_loss(inputs, data_samples)

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        """Losses of a batch at a step that has a predecessor."""
        raise NotImplementedError(f'{type(self).__name__} must define incremental_loss.')

    def student_loss(self, inputs: Tensor, data_samples: list) -> tuple[dict, Tensor]:
        """The student's own losses of a batch and, of the same pass, its (N, C, H, W) logits at the labels' size."""
        with captured_logits(self.student, data_samples[0].gt_sem_seg.shape) as captured:
            losses = self.student.loss(inputs, data_samples)
        return losses, captured[0]

    def fuses_losses(self, stand_in: Optional[type] = None) -> bool:
        """Whether losses can be had from ``fused_pass`` instead of full logits of both networks.

        Args:
            stand_in: see ``fuses``.
        """
        return inherits(self, IncrementalSegmentor, 'student_loss', 'teacher_logits') and fuses(self.student, stand_in)

    def method_state(self) -> dict:
        """What the next step needs beside the weights, as plain data and tensors; the checkpoint keeps it."""
        return {}

    def teacher_logits(self, inputs: Tensor) -> Tensor:
        """(N, K, H, W) logits of the teacher, at the size of ``inputs`` (N, 3, H, W)."""
        with torch.inference_mode():
            logits = predicted_logits(self.teacher, inputs)
        return logits.clone()  # an ordinary tensor again, which a loss may keep for its backward pass

    @torch.inference_mode()
    def small_teacher_logits(self, inputs: Tensor) -> Tensor:
        """(N, K, h, w) logits of a teacher whose student ``fuses``, before up-sampling."""
        return small_logits(self.teacher, inputs)


def _loss_defaults(method: type) -> dict[str, dict]:
    defaults = {}
    for parent in reversed(method.__mro__):
        if '__init__' in vars(parent):
            for name, parameter in inspect.signature(parent.__init__).parameters.items():
                if name.startswith('loss_') and isinstance(parameter.default, dict):
                    defaults[name] = parameter.default
    return defaults


def _bare_name(name: str, prefix: str) -> str:
    """The name that a member of the student has in the bare segmentor."""
    start = f'{prefix}.' if prefix else ''
    return start + name[len(start) + len('student.'):] if name.startswith(f'{start}student.') else name


def _start(student: nn.Module) -> None:
    try:
        student.init_weights()
    except (OSError, RuntimeError, EOFError) as error:  # no network, no such file, a file of something else
        wanted = sorted({cfg['checkpoint'] for module in student.modules()
                         for cfg in _inits(getattr(module, 'init_cfg', None)) if cfg.get('checkpoint')})
        if not wanted:
            raise
        raise UserError(f'The pretrained weights {", ".join(wanted)} cannot be loaded: {error}. Give a file that you '
                         'have as init_cfg.checkpoint (or pretrained), or train from scratch: model.pretrained=None '
                         'model.backbone.init_cfg=None.') from error


def _inits(init_cfg) -> list:
    return list(init_cfg) if isinstance(init_cfg, (list, tuple)) else [init_cfg] if init_cfg else []


def _load_strictly(model: nn.Module, state: dict, path: str) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f'Checkpoint {path} does not fit the network of the previous step: {error}') from error


def unwrapped(model: nn.Module) -> Any:
    """The model in mmengine's wrapper for distributed training, or ``model`` itself."""
    return model.module if is_model_wrapper(model) else model


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class StudentOptimWrapperConstructor:
    """Builds with ``student_constructor`` on the student, such as mmseg's layer-wise decay, which reads ``backbone``.

    Args:
        optim_wrapper_cfg: of the user, with ``student_constructor``.
        paramwise_cfg: of the user.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: Optional[dict] = None) -> None:
        cfg = dict(optim_wrapper_cfg)
        kind = cfg.pop('student_constructor')
        self.constructor = MMSEG_CONSTRUCTORS.build(
            dict(type=kind, optim_wrapper_cfg=cfg, paramwise_cfg=paramwise_cfg))

    def __call__(self, model: nn.Module) -> OptimWrapper:
        return self.constructor(unwrapped(model).student)
