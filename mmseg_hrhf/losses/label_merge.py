"""Labels of all classes from new labels and the teacher's prediction (eq. 4)."""
from __future__ import annotations

import torch
from torch import Tensor


def merge_labels(labels: Tensor, teacher_logits: Tensor) -> Tensor:
    """Let the teacher name what the step's labels call background (Label Merge, eq. 4).

    Equivalent to the argmax over the teacher's probabilities beside the one-hot new label, but the new label wins
    outright: literally taken, the argmax ties where the teacher saturates at 1.0 and picks the old class.

    Args:
        labels: (N, H, W) integers; 0 where the step names no class, 255 where the pixel is ignored.
        teacher_logits: (N, K, H, W).
    Returns:
        (N, H, W) labels of the type of ``labels``; 255 stays 255.
    """
    return torch.where(labels == 0, teacher_logits.argmax(1).to(labels.dtype), labels)
