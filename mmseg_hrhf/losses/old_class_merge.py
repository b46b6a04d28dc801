"""MiB's reading of a step's labels: what they call background is background or any old class."""
from __future__ import annotations

import torch
from torch import Tensor

from .precision import at_least_float32

# Its exponential is 0 in every floating type, and no product with it is NaN, as with -inf.
_NEVER = -1e4


def merge_old_classes(logits: Tensor, num_old: int) -> Tensor:
    """Log-probabilities in which background stands for itself and all old classes (MiB, eq. 5).

    The cross-entropy of the result against :func:`merge_old_labels` is MiB's unbiased cross-entropy. As its softmax
    gives the same probabilities again, any loss that takes a softmax's logits can be handed it.

    Args:
        logits: (N, C, H, W); channels below ``num_old`` are background and the old classes.
        num_old: K, with ``1 <= K <= C``.
    Returns:
        (N, C, H, W); channel 0 holds the summed probability of the channels below K, the old classes none.
    """
    if not 1 <= num_old <= logits.shape[1]:
        raise ValueError(f'num_old={num_old} must lie between 1 and the {logits.shape[1]} classes of the logits.')
    log_prob = at_least_float32(logits).log_softmax(1)
    background = log_prob[:, :num_old].logsumexp(1, keepdim=True)
    old = torch.full_like(log_prob[:, 1:num_old], _NEVER)
    return torch.cat([background, old, log_prob[:, num_old:]], dim=1)


def merge_old_labels(labels: Tensor, num_old: int) -> Tensor:
    """Labels below ``num_old`` as background; the others, 255 among them, as they are."""
    return labels.masked_fill(labels < num_old, 0)
