"""Per-pixel logits of any segmentor, captured from its loss or computed separately."""
from __future__ import annotations

import contextlib
from typing import Callable, Iterator, Optional

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..utils.compat import replaced_loss
from ..utils.errors import UserError


def _item(index: int) -> Callable:
    """The output at ``index``; heads such as EncHead return one or several, depending on their options."""
    return lambda output, *_: output if isinstance(output, Tensor) else output[index]


def _of_queries(classes, masks, targets, *_) -> Tensor:
    return query_log_probability(classes[-1], masks[-1], targets)


# Extract the main logits from the positional arguments that each decode head family passes to `loss_by_feat`.
_ADAPTERS: dict[str, Callable] = {
    'DAHead': _item(0),
    'EncHead': _item(0),
    'DDRHead': _item(0),
    'PIDHead': _item(1),
    'IterativeDecodeHead': _item(-1),
    'MaskFormerHead': _of_queries,
    'Mask2FormerHead': _of_queries,
    'SideAdapterCLIPHead': _of_queries,
}
# Heads that refine only some points; the previous head has the logits of the full image.
_REFINE_POINTS = ('PointHead', )
# Heads that predict a sum of probabilities over queries: non-negative scores, not normalised.
_PREDICT_SCORES = ('MaskFormerHead', 'Mask2FormerHead', 'SideAdapterCLIPHead')


def register_logits_adapter(head: str, adapter: Callable) -> None:
    """Register how to extract a decode head's logits.

    Args:
        head: class name of the head.
        adapter: maps the positional arguments of its ``loss_by_feat`` to (N, C, h, w) logits.
    """
    _ADAPTERS[head] = adapter


def main_logits(head: nn.Module, *outputs) -> Tensor:
    """(N, C, h, w) logits, or log-probabilities of a query-based head, from the arguments of its ``loss_by_feat``.

    Raises:
        UserError: no adapter knows how to extract them; names the head and the remedy.
    """
    check_head(head)
    adapter = _adapter(head)
    if adapter is not None:
        return adapter(*outputs)
    if isinstance(outputs[0], Tensor) and outputs[0].ndim == 4:
        return outputs[0]
    raise _no_adapter(head, type(outputs[0]).__name__)


def has_plain_logits(head: nn.Module) -> bool:
    """Whether a head, as far as known, passes only its logits to its ``loss_by_feat``."""
    return _adapter(head) is None and not _is_any(head, _REFINE_POINTS)


def _adapter(head: nn.Module) -> Optional[Callable]:
    return next((_ADAPTERS[parent.__name__] for parent in type(head).__mro__ if parent.__name__ in _ADAPTERS), None)


def main_head(segmentor: nn.Module) -> nn.Module:
    """The decode head that predicts the full image: in a cascade, the last one that does."""
    head = segmentor.decode_head
    if not isinstance(head, nn.ModuleList):
        return head
    return next((stage for stage in reversed(head) if not _is_any(stage, _REFINE_POINTS)), head[-1])


def check_head(head: nn.Module) -> None:
    """Raise ``UserError`` for a head that is known not to pass per-pixel logits to its loss."""
    if _is_any(head, _REFINE_POINTS) and not _is_any(head, _ADAPTERS):
        raise _no_adapter(head, 'logits of some points')


def predicted_logits(segmentor: nn.Module, inputs: Tensor) -> Tensor:
    """(N, C, H, W) logits that a segmentor predicts for ``inputs`` (N, 3, H, W), at their size.

    A query-based network predicts non-negative scores; returns their log-probabilities.
    """
    shape = inputs.shape[2:]
    metas = [dict(ori_shape=shape, img_shape=shape, pad_shape=shape, padding_size=[0] * 4) for _ in range(len(inputs))]
    output = segmentor.encode_decode(inputs, metas)
    return log_probability(output) if predicts_scores(main_head(segmentor)) else output


def predicts_scores(head: nn.Module) -> bool:
    """Whether a head predicts non-negative scores over queries instead of per-pixel logits."""
    return _is_any(head, _PREDICT_SCORES)


def _is_any(head: nn.Module, names) -> bool:
    return any(parent.__name__ in names for parent in type(head).__mro__)


def _no_adapter(head: nn.Module, what: str) -> UserError:
    name = type(head).__name__
    return UserError(
        f'{name} passes {what} to loss_by_feat, and no adapter extracts its per-pixel logits. Register one:\n'
        '    from mmseg_hrhf.models.heads import register_logits_adapter\n'
        f"    register_logits_adapter('{name}', lambda output, *_: output[0])")


@contextlib.contextmanager
def captured_logits(segmentor: nn.Module, size: Optional[tuple[int, int]] = None) -> Iterator[list]:
    """Collect the main decode head's logits while ``segmentor.loss`` runs inside the block.

    Args:
        size: (H, W) of the labels, to which logits are up-sampled. If the head uses mmseg's standard loss, the loss
            gets the up-sampled logits, so that they are not up-sampled twice.
    """
    head, captured = main_head(segmentor), []

    def capturing(own: Callable) -> Callable:

        def loss_by_feat(*args, **kwargs):
            logits = main_logits(head, *args)
            if size is not None:
                logits = resize(logits, size=size, mode='bilinear', align_corners=segmentor.align_corners)
                if has_plain_logits(head) and type(head).loss_by_feat is BaseDecodeHead.loss_by_feat:
                    args = logits, *args[1:]
            captured.append(logits)
            return own(*args, **kwargs)

        return loss_by_feat

    with replaced_loss(head, capturing):
        yield captured


# Far below the score of a class that no query predicts, far above where the gradient of the logarithm overflows.
_LEAST = 1e-6


def log_probability(scores: Tensor) -> Tensor:
    """Normalise class scores over the channels and take the logarithm, at least in float32.

    Args:
        scores: (N, C, H, W), non-negative; clamped to at least 1e-6.
    Returns:
        (N, C, H, W) in nats; ``softmax`` over the channels returns the normalised scores.
    """
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    scores = scores.clamp(min=_LEAST)
    return scores.log() - scores.sum(1, keepdim=True).log()


def query_log_probability(class_logits: Tensor, mask_logits: Tensor, targets: list) -> Tensor:
    """Per-pixel log-probabilities from the arguments of a query-based head's loss.

    As in its prediction: each query's class probabilities (without no-object, the last) times its mask, summed over the
    queries. Masks are up-sampled before the sigmoid, so the result equals a prediction of the same size.

    Args:
        class_logits: (N, Q, C + 1).
        mask_logits: (N, Q, h, w).
        targets: for each image, instances with ``masks`` of shape (number, H, W).
    Returns:
        (N, C, H, W).
    """
    size = targets[0].masks.shape[-2:]
    masks = F.interpolate(mask_logits, size=size, mode='bilinear', align_corners=False).sigmoid()
    return log_probability(torch.einsum('nqc,nqhw->nchw', class_logits.softmax(-1)[..., :-1], masks))


class HeadLoss(nn.Module):
    """Wraps a head's ``loss_decode``.

    Args:
        inner: the head's original loss.
        num_classes: channels of the step; outputs with another number (boundaries of STDC and PIDNet) go directly to
            ``inner``.
    """

    def __init__(self, inner: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.inner = inner
        self.num_classes = num_classes

    @property
    def loss_name(self) -> str:
        return self.inner.loss_name

    def forward(self, logits: Tensor, labels: Tensor, **kwargs) -> Tensor:
        if logits.shape[1] != self.num_classes:
            return self.inner(logits, labels, **kwargs)
        return self.class_loss(logits, labels, **kwargs)

    def class_loss(self, logits: Tensor, labels: Tensor, **kwargs) -> Tensor:
        """The loss on (N, C, H, W) logits and (N, H, W) labels."""
        raise NotImplementedError(f'{type(self).__name__} must implement class_loss.')


def replace_losses(segmentor: nn.Module, make: Callable[[nn.Module, int], HeadLoss]) -> None:
    """Replace every ``loss_decode`` of the decode and auxiliary heads that predict the step's classes.

    Args:
        segmentor: student.
        make: maps a loss and the number of classes to its replacement.
    """
    check_losses(segmentor)
    for head in class_heads(segmentor):
        made = [make(loss, head.num_classes) for loss in losses_of(head)]
        head.loss_decode = nn.ModuleList(made) if isinstance(head.loss_decode, nn.ModuleList) else made[0]


def check_losses(segmentor: nn.Module) -> None:
    """Raise ``UserError`` for a head whose loss is not computed on per-pixel logits and cannot be replaced."""
    for head in class_heads(segmentor):
        if predicts_scores(head) or not hasattr(head, 'loss_decode'):
            raise UserError(f'{type(head).__name__} has no per-pixel loss that this method could replace: '
                             'choose a method that keeps the losses of the heads, such as HRHF or LwF.')


def losses_of(head: nn.Module) -> list[nn.Module]:
    """One or several losses of a head."""
    return list(head.loss_decode) if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]


def class_heads(segmentor: nn.Module) -> Iterator[nn.Module]:
    """Decode and auxiliary heads with as many classes as the main head."""
    num_classes = main_head(segmentor).num_classes
    for name in ('decode_head', 'auxiliary_head'):
        heads = getattr(segmentor, name, None)
        if heads is None:
            continue
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            if head.num_classes == num_classes:
                # All stages of K-Net share the loss of its first head.
                yield getattr(head, 'kernel_generate_head', head)
