"""Base class of all methods: a student segmentor and the frozen teacher it continues; fine-tuning and Joint."""
from __future__ import annotations

from typing import Any, Iterator, Mapping, Optional, Union

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
from ..growth import CLASSIFIER_STARTS, grow_classifier, start_network
from ..heads import captured_logits, check_losses, predicted_logits
from ..losses.base import TeacherLoss, build_loss, loss_defaults
from ..student_pass import FREEZE_NORM, freeze_backbone, freeze_norms, fuses, inherits, small_logits


class IncrementalSegmentor(FollowedByOthers, BaseModel):
    """Base class of all methods: a segmentor at one learning step.

    The checkpoint contains only the student, with the keys of a plain segmentor. The teacher is not a submodule: it is
    excluded from checkpoints, optimizers and DDP buckets, and stays in eval mode.

    Hooks see a plain segmentor: ``model.backbone`` is the student's, and parameters, buffers and modules have the names
    that they have in the student (``backbone.conv1.weight``).

    Args:
        student: config of any segmentor with the classes of this step.
        teacher: config of the same segmentor with the classes of the previous step; None at step 0.
        teacher_checkpoint: plain checkpoint of the previous step.
        classifier_start: ``'mib'`` or ``'random'``, see ``grow_tensor``.
        freeze_norm: from step 1 on, norm layers keep the running statistics of the previous step, and normalise with
            them. True: their affine parameters train; ``'all'``: these are frozen, too.
        freeze_backbone: from step 1 on, the backbone keeps the previous step's weights and statistics; neck and heads
            train.
        channels_last: run both networks in channels-last memory format; set by ``channels_last`` of the config.
    """
    # Whether the method uses the previous step's network in addition to its weights.
    needs_teacher = True
    # Whether the method trains on synthetic images in addition to real ones.
    uses_fake_images = False
    # Whether step 0 is plain training, the same as in other methods: a comparison then trains it only once.
    shares_first_step = True
    # Whether the method trains once, on all classes, instead of step by step.
    joint = False
    # Whether the method replaces the per-pixel losses of the heads.
    replaces_losses = False
    # Registered names of the hooks that training requires.
    hooks: tuple[str, ...] = ()

    def __init__(self,
                 student: dict,
                 teacher: Optional[dict] = None,
                 teacher_checkpoint: Optional[str] = None,
                 classifier_start: str = 'mib',
                 freeze_norm: Union[bool, str] = False,
                 freeze_backbone: bool = False,
                 channels_last: bool = False) -> None:
        check_choice('method.classifier_start', classifier_start, CLASSIFIER_STARTS)
        check_choice('method.freeze_norm', freeze_norm, FREEZE_NORM)
        built: nn.Module = MODELS.build(student)
        if freeze_backbone and not hasattr(built, 'backbone'):
            raise UserError(f'method.freeze_backbone=True: {type(built).__name__} has no backbone: remove it.')
        super().__init__()
        self.student = built
        self.data_preprocessor = built.data_preprocessor
        self.classifier_start = classifier_start
        self._hidden_teacher: list[nn.Module] = []
        self.num_old = 0  # channels of the teacher
        self.previous_state: Optional[dict] = None  # ``method_state`` of the previous step
        # Feature statistics of the teacher's training, for its inversion; see replay/recording.py.
        self.teacher_statistics: Optional[dict] = None
        if teacher is not None:
            previous = revert_sync_batchnorm(MODELS.build(teacher))
            checkpoint = load_checkpoint(str(teacher_checkpoint), previous.num_classes)
            _load_strictly(previous, checkpoint['state_dict'], str(teacher_checkpoint))
            self.previous_state = checkpoint.get('method_state')
            self.teacher_statistics = checkpoint.get('feature_statistics')
            self._hidden_teacher = [previous.eval().requires_grad_(False)]
            self.num_old = previous.num_classes
        self.first_step = teacher is None
        self.freeze_norm, self.freeze_backbone = freeze_norm, freeze_backbone
        # Before DDP and the optimizer collect what trains, and whether or not train() is called.
        self._freeze()
        self.channels_last = channels_last
        # Here instead of in a hook: DDP lays out its buckets by the strides it finds.
        self.to(memory_format=self.memory_format)
        rename_in_state(self, 'student.', '')

    @classmethod
    def check_options(cls, options: Mapping) -> None:
        """Raise ``UserError`` if a loss in the options of ``method`` is unusable.

        Called before a run starts.
        """
        for name in loss_defaults(cls):
            if options.get(name) is not None:
                cls.build_loss(name, options[name])

    @classmethod
    def build_loss(cls, option: str, options: Mapping) -> TeacherLoss:
        """Build the loss of a constructor argument whose default is ``dict(type=..., loss_weight=...)``.

        Args:
            option: name of the argument. ``loss_kd`` and ``loss_kd_...`` compare logits, of which the student has more
                channels than the teacher; all others compare maps of the same shape.
            options: its value. Without a ``type``, it overrides options of the default.
        """
        num_new = int(option.startswith('loss_kd'))
        return build_loss(f'method.{option}', options, loss_defaults(cls)[option], num_new)

    @classmethod
    def check_segmentor(cls, segmentor: nn.Module, size: tuple[int, int]) -> None:
        """Raise ``UserError`` if the method cannot train this segmentor. Called before a run starts.

        Args:
            segmentor: segmentor of step 1, built only for this check; it may be modified.
            size: (height, width) of the training images.
        """
        if cls.replaces_losses:
            check_losses(segmentor)

    @property
    def teacher(self) -> Optional[nn.Module]:
        """The frozen network of the previous step; None at step 0."""
        return self._hidden_teacher[0] if self._hidden_teacher else None

    # A property, because torch.save cannot pickle a memory format in an attribute.
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

    # named_parameters() and named_buffers() use it, too.
    def named_modules(self, memo: Optional[set] = None, prefix: str = '', remove_duplicate: bool = True) -> Iterator:
        memo = set() if memo is None else memo
        memo.update(part for child in self.children() if isinstance(child, TeacherLoss) for part in child.modules())
        for name, module in super().named_modules(memo, prefix, remove_duplicate):
            yield _bare_name(name, prefix), module

    def followers(self) -> list[nn.Module]:
        # The teacher is not a submodule, so changes of device and dtype must be forwarded to it.
        return self._hidden_teacher

    def init_weights(self) -> None:
        """Start from the previous step with an extended classifier; at step 0, as configured for the student."""
        if self.first_step:
            # Random weights are drawn in memory order: a seed must give the same weights in every memory format.
            self.student.to(memory_format=torch.contiguous_format)
            start_network(self.student)
            self.student.to(memory_format=self.memory_format)
        elif self.teacher is not None:
            grow_classifier(self.student, self.teacher.state_dict(), self.teacher.num_classes,
                            self.student.num_classes, self.classifier_start)
            if not self.needs_teacher:
                self._hidden_teacher = []

    def train(self, mode: bool = True) -> IncrementalSegmentor:
        """Set the mode of all layers except frozen ones."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.freeze_norm and not self.first_step:
            freeze_norms(self.student, affine=self.freeze_norm == 'all')
        if self.freeze_backbone and not self.first_step:
            freeze_backbone(self.student)

    def forward(self, inputs: Tensor, data_samples=None, mode: str = 'tensor'):
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return self.student(inputs, data_samples, mode=mode)

    def loss(self, inputs: Tensor, data_samples: list) -> dict:
        """Losses of a batch; at step 0, those of the student."""
        if self.first_step:
            return self.student.loss(inputs, data_samples)
        return self.incremental_loss(inputs, data_samples)

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        """Losses of a batch at step 1 or later."""
        raise NotImplementedError(f'{type(self).__name__} must define incremental_loss.')

    def student_loss(self, inputs: Tensor, data_samples: list) -> tuple[dict, Tensor]:
        """The student's losses of a batch and, from the same pass, its (N, C, H, W) logits at label resolution."""
        with captured_logits(self.student, data_samples[0].gt_sem_seg.shape) as captured:
            losses = self.student.loss(inputs, data_samples)
        return losses, captured[0]

    def fuses_losses(self, stand_in: Optional[type] = None) -> bool:
        """Whether ``fused_pass`` can compute the losses without full-resolution logits of both networks.

        Args:
            stand_in: see ``fuses``.
        """
        return inherits(self, IncrementalSegmentor, 'student_loss', 'teacher_logits') and fuses(self.student, stand_in)

    def method_state(self) -> dict:
        """Plain data and tensors that the next step needs in addition to the weights; stored in the checkpoint."""
        return {}

    def plain_weights(self, state_dict: dict) -> dict:
        """The entries of ``state_dict()`` that a plain segmentor has."""
        return state_dict

    def teacher_logits(self, inputs: Tensor) -> Tensor:
        """(N, K, H, W) logits of the teacher at the resolution of ``inputs``, (N, 3, H, W)."""
        with torch.inference_mode():
            logits = predicted_logits(self.teacher, inputs)
        return logits.clone()  # a normal tensor, which autograd can save for backward

    @torch.inference_mode()
    def small_teacher_logits(self, inputs: Tensor) -> Tensor:
        """(N, K, h, w) logits of the teacher before upsampling; only if ``fuses_losses()``."""
        return small_logits(self.teacher, inputs)


@MODELS.register_module(name=['FineTuning', 'FT'])
class FineTuning(IncrementalSegmentor):
    """Fine-tuning on the new labels; all other pixels are background (Table 1, FT)."""
    needs_teacher = False

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        return self.student.loss(inputs, data_samples)


@MODELS.register_module()
class Joint(IncrementalSegmentor):
    """Training once, on the images and labels of all classes (Table 1, Joint).

    Joint replaces the last step, uses the schedule of step 0 and is evaluated like the last step.
    """
    joint = True
    needs_teacher = False
    shares_first_step = False


def _bare_name(name: str, prefix: str) -> str:
    """Name of a member of the student in the plain segmentor."""
    start = f'{prefix}.' if prefix else ''
    return start + name[len(start) + len('student.'):] if name.startswith(f'{start}student.') else name


def _load_strictly(model: nn.Module, state: dict, path: str) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f'Checkpoint {path} does not match the network of the previous step: {error}') from error


def unwrapped(model: nn.Module) -> Any:
    """The model inside mmengine's wrapper for distributed training, or ``model`` itself."""
    return model.module if is_model_wrapper(model) else model


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class StudentOptimWrapperConstructor:
    """Applies another constructor to the student, such as mmseg's layer-wise decay, which requires ``backbone``.

    Args:
        optim_wrapper_cfg: the user's config plus ``student_constructor``, the type of that constructor.
        paramwise_cfg: the user's config.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: Optional[dict] = None) -> None:
        cfg = dict(optim_wrapper_cfg)
        kind = cfg.pop('student_constructor')
        self.constructor = MMSEG_CONSTRUCTORS.build(
            dict(type=kind, optim_wrapper_cfg=cfg, paramwise_cfg=paramwise_cfg))

    def __call__(self, model: nn.Module) -> OptimWrapper:
        return self.constructor(unwrapped(model).student)
