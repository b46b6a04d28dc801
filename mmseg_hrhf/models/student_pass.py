"""Student pass: fused losses for mmseg's standard heads, feature maps for distillation, and frozen layers."""
from __future__ import annotations

import contextlib
from typing import Callable, Iterator, NamedTuple, Optional, Sequence

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.models.segmentors import EncoderDecoder
from mmseg.utils import add_prefix
from torch import Tensor, nn

from ..utils.compat import TRAINING_PARTS
from ..utils.errors import UserError
from .heads import HeadLoss, has_plain_logits
from .losses.distillation import DistillationLoss
from .losses.fused import FusedTerms, fused_losses

# Values of the option `freeze_norm`.
FREEZE_NORM = (False, True, 'all')
# Metainfo of the data sample of a synthetic image.
SYNTHETIC = 'synthetic'
# mmseg adds it to denominators.
_EPS = torch.finfo(torch.float32).eps


def fuses(segmentor: nn.Module, stand_in: Optional[type] = None) -> bool:
    """Whether ``fused_pass`` computes the same as the segmentor's own ``loss``.

    This requires mmseg's standard segmentor and decode head (logits up-sampled to the labels' size, no pixel sampler)
    and plain cross-entropy.

    Args:
        stand_in: class of ``HeadLoss`` that the options of ``fused_pass`` implement; None: the heads keep their
            original losses.
    """
    return (inherits(segmentor, EncoderDecoder, 'loss', 'encode_decode', *TRAINING_PARTS)
            and _is_plain(segmentor.decode_head, stand_in))


def fuses_distillation(loss: nn.Module) -> bool:
    """Whether a loss is made of what ``fused_pass`` computes of distillation."""
    return inherits(loss, DistillationLoss, 'forward')


def small_logits(segmentor: nn.Module, inputs: Tensor) -> Tensor:
    """(N, C, h, w) logits of a segmentor that ``fuses``, before up-sampling."""
    return segmentor.decode_head.forward(segmentor.extract_feat(inputs))


class Part(NamedTuple):
    """Images of a batch, and what ``fused_losses`` computes for them."""
    images: slice = slice(None)
    relabel: Optional[Callable[[Tensor, Tensor], Tensor]] = None
    distil: bool = False
    num_merged: int = 0
    skip_new: bool = False


def fused_pass(student: nn.Module,
               inputs: Tensor,
               data_samples: list,
               teacher_logits: Tensor,
               *parts: Part,
               weigh: Optional[Callable[[Tensor, Tensor], Tensor]] = None,
               stand_in: Optional[type] = None) -> tuple[dict, FusedTerms, Tensor]:
    """Losses of all heads of a student that ``fuses``.

    Args:
        teacher_logits: (N, K, h, w), see ``small_logits``.
        parts: consecutive parts of the batch, which together contain all images; only the main head is distilled.
        weigh: maps (N, H, W) labels before and after ``relabel`` to (N,) weights of the images' cross-entropy.
        stand_in: see ``fuses``.
    Returns:
        The losses as the student's own ``loss`` returns them, the terms of the main head, and its (N, C, h, w) logits.
    """
    features = student.extract_feat(inputs)
    head, labels = student.decode_head, stacked_labels(data_samples)
    logits = head.forward(features)
    terms = _terms(head, logits, labels, teacher_logits, parts)
    weight = None if weigh is None else weigh(labels, terms.labels)
    losses = add_prefix(_losses(head, terms, parts, weight), 'decode')
    of_auxiliary = [part._replace(relabel=None, distil=False) for part in parts]
    for name, auxiliary in _auxiliary_heads(student):
        # A head with other classes keeps its own loss.
        if auxiliary.num_classes == head.num_classes and _is_plain(auxiliary, stand_in):
            own = _terms(auxiliary, auxiliary.forward(features), terms.labels, None, of_auxiliary)
            found = _losses(auxiliary, own, parts, weight)
        else:
            found = auxiliary.loss(features, with_labels(data_samples, terms.labels), student.train_cfg)
        losses.update(add_prefix(found, name))
    return losses, terms, logits


def _terms(head: nn.Module, logits: Tensor, labels: Tensor, teacher: Optional[Tensor],
           parts: Sequence[Part]) -> FusedTerms:
    found = [
        fused_losses(logits[part.images], labels[part.images], None if teacher is None else teacher[part.images],
                     *part[1:], head.align_corners, head.ignore_index) for part in parts
    ]
    return found[0] if len(found) == 1 else FusedTerms(*map(torch.cat, zip(*found)))


def _losses(head: nn.Module, terms: FusedTerms, parts: Sequence[Part], weight: Optional[Tensor]) -> dict:
    """Sum of the parts' mean losses, and accuracy in percent, as ``BaseDecodeHead.loss_by_feat`` returns them."""
    loss, kept = _plain_loss(head), terms.labels != head.ignore_index
    cross_entropy = terms.cross_entropy if weight is None else weight * terms.cross_entropy
    means = []
    for part in parts:
        labels = terms.labels[part.images]
        number = kept[part.images].sum() if loss.avg_non_ignore else labels.numel()
        means.append(cross_entropy[part.images].sum() / (number + _EPS))
    accuracy = (terms.correct.sum() + _EPS) * (100. / (kept.sum() + _EPS))
    return {loss.loss_name: loss.loss_weight * sum(means), 'acc_seg': accuracy.reshape(1)}


def _auxiliary_heads(segmentor: nn.Module) -> list[tuple[str, nn.Module]]:
    """Auxiliary heads with the prefixes of their losses in mmseg."""
    heads = getattr(segmentor, 'auxiliary_head', None)
    if isinstance(heads, nn.ModuleList):
        return [(f'aux_{i}', head) for i, head in enumerate(heads)]
    return [] if heads is None else [('aux', heads)]


def _is_plain(head: nn.Module, stand_in: Optional[type]) -> bool:
    """Whether a head's loss is the mean cross-entropy of its logits, up-sampled to the labels' size."""
    if not inherits(head, BaseDecodeHead, 'loss', 'loss_by_feat', 'predict', 'predict_by_feat'):
        return False
    if isinstance(head.loss_decode, HeadLoss) and type(head.loss_decode) is not stand_in:
        return False
    loss = _plain_loss(head)
    return (has_plain_logits(head) and head.sampler is None and head.out_channels == head.num_classes
            and type(loss) is CrossEntropyLoss and not (loss.use_sigmoid or loss.use_mask)
            and loss.class_weight is None and loss.reduction == 'mean')


def _plain_loss(head: nn.Module) -> nn.Module:
    return head.loss_decode.inner if isinstance(head.loss_decode, HeadLoss) else head.loss_decode


def inherits(module: nn.Module, base: type, *methods: str) -> bool:
    """Whether a module uses these methods of ``base`` unchanged, neither overridden nor patched."""
    return isinstance(module, base) and all(
        getattr(type(module), name) is getattr(base, name) and name not in vars(module) for name in methods)


def stacked_labels(data_samples: list) -> Tensor:
    """(N, H, W) ground truth of a batch."""
    return torch.stack([sample.gt_sem_seg.data[0] for sample in data_samples])


def num_real(data_samples: list) -> int:
    """Number of real images in a batch; synthetic ones come after them (``RealFakeSampler``)."""
    return next((i for i, sample in enumerate(data_samples) if sample.get(SYNTHETIC)), len(data_samples))


def with_labels(data_samples: list, labels: Tensor) -> list:
    """Copies of the samples with other ground truth (N, H, W)."""
    relabelled = []
    for sample, label in zip(data_samples, labels):
        sample = sample.new()  # a shallow copy would share its list of fields with the original
        sample.gt_sem_seg = PixelData(data=label[None])
        relabelled.append(sample)
    return relabelled


def norms_with_statistics(network: nn.Module) -> list[nn.Module]:
    """Norm layers with running statistics: batch norms, and instance norms with ``track_running_stats``."""
    return [layer for layer in network.modules() if getattr(layer, 'running_mean', None) is not None]


def freeze_norms(network: nn.Module, affine: bool) -> None:
    """Switch ``norms_with_statistics`` to eval mode and, with ``affine``, stop training their weights and biases.

    A synchronised batch norm in eval mode normalises with its running statistics, without synchronising.
    """
    for layer in norms_with_statistics(network):
        layer.eval()
        if affine:
            layer.requires_grad_(False)


def freeze_backbone(network: nn.Module) -> None:
    """Switch a segmentor's backbone to eval mode and stop training its weights."""
    network.backbone.eval()  # returns None for mmseg's backbones
    network.backbone.requires_grad_(False)


# Maximum side, in pixels, of the images for trying a network.
LARGEST_TRIAL = 128


@contextlib.contextmanager
def captured_stages(segmentor: nn.Module) -> Iterator[list]:
    """Collect the output of ``segmentor.backbone`` in one pass inside the block.

    Yields:
        A list that the pass fills with the (N, C, h, w) maps of the backbone's ``out_indices``, in order.
    """
    stages: list[Tensor] = []

    def keep(module, args, output) -> None:
        outputs = output if isinstance(output, (list, tuple)) else [output]
        with torch.inference_mode(False):
            # Autograd cannot save inference tensors of the teacher, so clone them to normal tensors.
            stages[:] = [item.clone() if item.is_inference() else item for item in outputs
                         if isinstance(item, Tensor) and item.ndim == 4]
        if not stages:
            raise UserError(f'{type(module).__name__} returns no (N, C, h, w) feature map to distil: choose a method '
                             'without feature distillation, such as MiB.')

    handle = segmentor.backbone.register_forward_hook(keep)
    try:
        yield stages
    finally:
        handle.remove()


def paired_stages(new: Sequence[Tensor], old: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pair the feature maps of the student (training mode) and the teacher (eval mode).

    Raises:
        UserError: their numbers or shapes differ.
    """
    trained, frozen = ([tuple(stage.shape[1:]) for stage in stages] for stages in (new, old))
    if trained != frozen:
        raise UserError(f'The backbone returns feature maps of shape (C, h, w) {trained} in training mode, but '
                         f'{frozen} in eval mode, so they cannot be distilled: choose a method without feature '
                         'distillation, such as MiB.')
    return list(zip(new, old))


@torch.no_grad()
def check_stages(segmentor: nn.Module, size: Sequence[int], last: Optional[int] = None) -> None:
    """Raise ``UserError`` if the backbone's maps in training mode cannot be compared with those in eval mode.

    Args:
        segmentor: modified: its batch norms are updated and no longer synchronised.
        size: (height, width) of the training images.
        last: number of maps to compare, counted from the last; None: all.
    """
    segmentor = revert_sync_batchnorm(segmentor)
    images = torch.zeros(2, 3, *(min(side, LARGEST_TRIAL) for side in size))
    maps = []
    for training in (True, False):
        with captured_stages(segmentor.train(training)) as stages:
            try:
                segmentor.backbone(images)
            except (RuntimeError, NotImplementedError, AssertionError):
                return  # needs other images, or operators missing on the CPU
        maps.append(stages if last is None else stages[-last:])
    paired_stages(*maps)
