"""One yes-or-no question per class and pixel."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32


def class_binary_cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Binary cross-entropy of every class against the one-hot label, summed over classes (LwF-MC).

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W) integers below C, or ``ignore_index``.
    Returns:
        (N, H, W), 0 on ignored pixels.
    """
    logits = at_least_float32(logits)
    known = labels != ignore_index
    one_hot = F.one_hot(labels.where(known, labels.new_zeros(())), logits.shape[1]).movedim(-1, 1).to(logits)
    return F.binary_cross_entropy_with_logits(logits, one_hot, reduction='none').sum(1) * known
