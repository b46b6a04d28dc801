"""DKD: sigmoid heads and distillation of positive and negative reasoning scores."""
from __future__ import annotations

import contextlib
import functools
import math
from typing import Iterator, Mapping

import torch
import torch.nn.functional as F
from mmengine.model import normal_init
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...utils.errors import UserError
from ...utils.randomness import seeded
from ..heads import main_head, predicted_logits, replace_losses
from ..losses.distillation import DistillationLoss, class_binary_cross_entropy, decomposed_logits
from ..losses.upsampling import at_least_float32
from ..student_pass import LARGEST_TRIAL, inherits, stacked_labels
from .base import IncrementalSegmentor
from .lwf import BinaryLoss


@MODELS.register_module()
class DKD(IncrementalSegmentor):
    """Decomposed knowledge distillation (Baek et al., NeurIPS 2022; equation numbers of the review version).

    Each class has a sigmoid, and background is where none reaches ``threshold``. In the network, the logit of
    background is constant zero, and a class has the probability ``sigmoid(logit + log(threshold / (1 - threshold)))``.
    The argmax of a plain segmentor therefore predicts eq. 12.

    An auxiliary classifier in the main head learns that all pixels are negative. It does not train the features. New
    classes start from it in the next step. Auxiliary heads only have the cross-entropy.

    Args:
        loss_kd: distillation of the old classes' logits (eq. 5), without background.
        loss_dkd: distillation of their positive and negative reasoning scores (eq. 7), on twice as many channels.
        positive_weight: gamma of eq. 3 at step 0 and at later steps.
        threshold: tau of eq. 12, between 0 and 1.
        **kwargs: see ``IncrementalSegmentor``; without ``classifier_start``.
    """
    replaces_losses = True
    shares_first_step = False

    def __init__(self,
                 *,
                 loss_kd: dict = dict(type='OldClassBinaryDistillationLoss', loss_weight=5.0),
                 loss_dkd: dict = dict(type='OldClassBinaryDistillationLoss', loss_weight=5.0),
                 positive_weight: tuple[float, float] = (2.0, 1.0),
                 threshold: float = 0.5,
                 **kwargs) -> None:
        if 'classifier_start' in kwargs:
            raise UserError(f"method.classifier_start={kwargs['classifier_start']!r}: DKD's new classes start from its "
                            'auxiliary classifier: remove classifier_start.')
        if not 0 < threshold < 1:
            raise UserError(f'method.threshold={threshold} must be between 0 and 1, both excluded.')
        if not min(positive_weight) > 0:
            raise UserError(f'method.positive_weight={tuple(positive_weight)} must be two positive numbers.')
        # The start of new channels of auxiliary heads: MiB's assumes a softmax.
        super().__init__(classifier_start='random', **kwargs)
        name = type(self).__name__
        state = self.previous_state or {}
        if not self.first_step and state.get('method') != name:
            raise UserError(f'The checkpoint of the previous step has no auxiliary classifier of {name}: train every '
                            f'step, including step 0, with method.type={name}.')
        self._start: dict = state.get('classifier', {})  # of the auxiliary classifier
        self.loss_kd = self.build_loss('loss_kd', loss_kd)
        self.loss_dkd = self.build_loss('loss_dkd', loss_dkd)
        self.shift = math.log(threshold / (1 - threshold))
        weight_at_step_0, weight_later = positive_weight
        replace_losses(self.student, functools.partial(
            NewClassBinaryLoss, first=max(1, self.num_old), shift=self.shift,
            positive_weight=weight_at_step_0 if self.first_step else weight_later))
        classifier = checked_classifier(self.student)
        # In the head, so that an optimizer's options for the head hold for it, too.
        self._head.next_classifier = nn.Conv2d(classifier.in_channels, 1, 1, bias=classifier.bias is not None)

    @classmethod
    def check_options(cls, options: Mapping) -> None:
        super().check_options(options)
        for name in ('loss_kd', 'loss_dkd'):
            if options.get(name) is not None and isinstance(cls.build_loss(name, options[name]), DistillationLoss):
                raise UserError(f'method.{name}={dict(options[name])} merges new classes into background, which DKD '
                                'does not distil: choose a loss of separate classes, such as '
                                "dict(type='OldClassBinaryDistillationLoss').")

    @classmethod
    def check_segmentor(cls, segmentor: nn.Module, size: tuple[int, int]) -> None:
        super().check_segmentor(segmentor, size)
        try_classifier(segmentor, size)

    @property
    def _head(self) -> nn.Module:
        return main_head(self.student)

    def init_weights(self) -> None:
        head, auxiliary = self._head, self._head.next_classifier
        del head.next_classifier  # the teacher has none
        super().init_weights()
        head.next_classifier = auxiliary
        if self.first_step:
            normal_init(auxiliary, std=0.01)  # as mmseg's classifiers
        else:
            auxiliary.load_state_dict(self._start)
            with torch.no_grad():
                for name, tensor in auxiliary.named_parameters():
                    getattr(head.conv_seg, name)[self.num_old:] = tensor
        self._zero_background()

    @torch.no_grad()
    def _zero_background(self) -> None:
        for parameter in self._head.conv_seg.parameters():
            parameter[0] = 0

    def loss(self, inputs: Tensor, data_samples: list) -> dict:
        # No loss trains background's logit, so it stays zero; `load_from` may have set it.
        self._zero_background()
        with classified_features(self.student) as student_features:
            losses, student_logits = self.student_loss(inputs, data_samples)
        head, labels = self._head, stacked_labels(data_samples)
        resized = functools.partial(resize, size=labels.shape[1:], mode='bilinear',
                                    align_corners=self.student.align_corners)
        unseen = resized(head.next_classifier(student_features[0].detach()))[:, 0] + self.shift
        losses['loss_ac'] = (F.softplus(at_least_float32(unseen)) * (labels != head.ignore_index)).mean()
        if self.first_step:
            return losses
        with classified_features(self.teacher) as teacher_features:
            teacher_logits = self.teacher_logits(inputs)
        losses['loss_kd'] = self.loss_kd(student_logits[:, 1:] + self.shift, teacher_logits[:, 1:] + self.shift)
        scores = [resized(decomposed_logits(features, main_head(network).conv_seg.weight[1:self.num_old]))
                  for network, (features, ) in ((self.student, student_features), (self.teacher, teacher_features))]
        losses['loss_dkd'] = self.loss_dkd(*scores)
        return losses

    def method_state(self) -> dict:
        state = self._head.next_classifier.state_dict()
        return dict(method=type(self).__name__, classifier={name: tensor.cpu() for name, tensor in state.items()})

    def plain_weights(self, state_dict: dict) -> dict:
        return {name: tensor for name, tensor in state_dict.items() if '.next_classifier.' not in name}


class NewClassBinaryLoss(BinaryLoss):
    """Replaces a head's loss by the binary cross-entropy of the step's classes (eq. 3).

    Args:
        inner, num_classes: see ``HeadLoss``.
        first: the step's first class.
        positive_weight: gamma.
        shift: added to all logits.
    """

    def __init__(self, inner: nn.Module, num_classes: int, first: int, positive_weight: float, shift: float) -> None:
        super().__init__(inner, num_classes)
        self.first, self.positive_weight, self.shift = first, positive_weight, shift

    def pixel_loss(self, logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
        return class_binary_cross_entropy(logits + self.shift, labels, ignore_index, self.first, self.positive_weight)


@contextlib.contextmanager
def classified_features(segmentor: nn.Module) -> Iterator[list]:
    """Collect the (N, D, h, w) features that the main head classifies by ``conv_seg`` inside the block."""
    features: list[Tensor] = []

    def keep(module, args) -> None:
        with torch.inference_mode(False):
            # Autograd cannot save inference tensors of the teacher, so clone them to normal tensors.
            features.append(args[0].clone() if args[0].is_inference() else args[0])

    handle = main_head(segmentor).conv_seg.register_forward_pre_hook(keep)
    try:
        yield features
    finally:
        handle.remove()


def checked_classifier(segmentor: nn.Module) -> nn.Conv2d:
    """The main head's ``conv_seg``.

    Raises:
        UserError: the main head does not classify by mmseg's ``conv_seg``.
    """
    head = main_head(segmentor)
    classifier = getattr(head, 'conv_seg', None)
    if not (inherits(head, BaseDecodeHead, 'cls_seg') and isinstance(classifier, nn.Conv2d)
            and classifier.kernel_size == (1, 1) and classifier.out_channels == head.num_classes):
        raise _unsuitable(head)
    return classifier


@torch.no_grad()
def try_classifier(segmentor: nn.Module, size: tuple[int, int]) -> None:
    """Raise ``UserError`` unless a segmentor predicts the up-sampled output of its main head's ``conv_seg``.

    Args:
        segmentor: switched to eval mode.
        size: (height, width) of the training images.
    """
    classifier = checked_classifier(segmentor)
    segmentor.eval()
    with seeded(0):
        images = torch.rand(1, 3, *(min(side, LARGEST_TRIAL) for side in size))
    with classified_features(segmentor) as features:
        try:
            predicted = predicted_logits(segmentor, images)
        except (RuntimeError, NotImplementedError, AssertionError):
            return  # needs other images, or operators missing on the CPU
    if len(features) == 1:
        logits = resize(classifier(features[0]), images.shape[2:], mode='bilinear',
                        align_corners=segmentor.align_corners)
        if torch.allclose(logits, predicted, rtol=1e-3, atol=1e-4, equal_nan=True):
            return
    raise _unsuitable(main_head(segmentor))


def _unsuitable(head: nn.Module) -> UserError:
    return UserError(f"{type(head).__name__} does not classify by mmseg's conv_seg alone, a 1x1 convolution for all "
                     'classes, whose logits DKD decomposes: choose another head, such as FCNHead or ASPPHead, or '
                     'another method, such as MiB.')
