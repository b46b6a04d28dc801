"""Putting a method's rule between a segmentor's heads and their own losses."""
from __future__ import annotations

from typing import Callable, Iterator

from torch import Tensor, nn

from .logits import main_head, predicts_scores


class HeadLoss(nn.Module):
    """Stands in for a head's ``loss_decode`` and hands on to it.

    Args:
        inner: the head's own loss.
        num_classes: channels of the step; what has another number (STDC's and PIDNet's boundary outputs) goes to
            ``inner`` as it is.
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
        raise NotImplementedError(f'{type(self).__name__} must define class_loss.')


def replace_losses(segmentor: nn.Module, make: Callable[[nn.Module, int], HeadLoss]) -> None:
    """Replace every ``loss_decode`` of the decode and auxiliary heads that classify the step's classes.

    Args:
        segmentor: student.
        make: from a loss and the number of classes to what stands in for it.
    """
    check_losses(segmentor)
    for head in class_heads(segmentor):
        made = [make(loss, head.num_classes) for loss in losses_of(head)]
        head.loss_decode = nn.ModuleList(made) if isinstance(head.loss_decode, nn.ModuleList) else made[0]


def check_losses(segmentor: nn.Module) -> None:
    """Raise ``ValueError`` for a head whose loss is not one on per-pixel logits, and so cannot be replaced."""
    for head in class_heads(segmentor):
        if predicts_scores(head) or not hasattr(head, 'loss_decode'):
            raise ValueError(f'{type(head).__name__} has no per-pixel loss that this method could replace by its own: '
                             'choose a method that leaves losses as they are, such as HRHF or LwF.')


def losses_of(head: nn.Module) -> list[nn.Module]:
    """The losses of a head, one or several."""
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
                # K-Net's stages share the loss of its first part.
                yield getattr(head, 'kernel_generate_head', head)
