"""Labels of all classes, from the step's labels and the teacher's predictions (eq. 4)."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from ...utils.errors import UserError
from .upsampling import at_least_float32


def predicted_class(scores: Tensor) -> Tensor:
    """``scores.argmax(1)``: (N, H, W) int64 from (N, C, H, W); of equal scores, the first wins.

    Several times faster on a CPU, where argmax visits the channels pixel by pixel.
    """
    number = scores.shape[1]
    if number > 255:
        return scores.argmax(1)
    rank = torch.arange(number, 0, -1, dtype=torch.uint8, device=scores.device).view(1, -1, 1, 1)
    first = (scores >= scores.amax(1, keepdim=True)) * rank
    return (number - first.amax(1).long()).clamp(max=number - 1)  # number, if all scores are NaN


def merge_labels(labels: Tensor, teacher_logits: Tensor) -> Tensor:
    """Replace background in the step's labels by the teacher's prediction (Label Merge, eq. 4).

    Equivalent to the argmax over the teacher's probabilities and the one-hot new label, except that the new label
    always wins: the literal argmax has a tie where the teacher saturates at 1.0, and picks the old class.

    Args:
        labels: (N, H, W) integers; 0 for background, 255 for ignored pixels.
        teacher_logits: (N, K, H, W).
    Returns:
        (N, H, W) labels with the dtype of ``labels``; 255 stays 255.
    """
    return torch.where(labels == 0, predicted_class(teacher_logits).to(labels.dtype), labels)


# Its exponential is 0 in every floating-point type; unlike with -inf, its products are never NaN.
_NEVER = -1e4


def merge_old_classes(logits: Tensor, num_old: int) -> Tensor:
    """Log-probabilities with all old classes merged into background (MiB, eq. 5).

    The cross-entropy of the result against ``merge_old_labels`` is MiB's unbiased cross-entropy. The softmax of the
    result returns the same probabilities, so every loss that applies a softmax accepts it as logits.

    Args:
        logits: (N, C, H, W); the first ``num_old`` channels are background and the old classes.
        num_old: K, with ``1 <= K <= C``.
    Returns:
        (N, C, H, W); channel 0 has the total probability of the first K channels, the old classes have 0.
    """
    if not 1 <= num_old <= logits.shape[1]:
        raise UserError(f'num_old={num_old} must be between 1 and the {logits.shape[1]} classes of the logits.')
    log_prob = at_least_float32(logits).log_softmax(1)
    background = log_prob[:, :num_old].logsumexp(1, keepdim=True)
    old = torch.full_like(log_prob[:, 1:num_old], _NEVER)
    return torch.cat([background, old, log_prob[:, num_old:]], dim=1)


def merge_old_labels(labels: Tensor, num_old: int) -> Tensor:
    """Set labels below ``num_old`` to background; keep all others, including 255."""
    return labels.masked_fill(labels < num_old, 0)


# Bins of the entropy histogram: 1 / 1000 is finer than any threshold in use.
NUM_BINS = 1000


def normalised_entropy(logits: Tensor) -> Tensor:
    """(N, H, W) entropy of the softmax over (N, K, H, W) logits, from 0 (certain) to 1 (uniform)."""
    log_prob = at_least_float32(logits).log_softmax(1)
    return -(log_prob.exp() * log_prob).sum(1) / math.log(logits.shape[1])


def entropy_histogram(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Histogram of the teacher's entropy on background pixels, for each predicted class.

    Args:
        teacher_logits: (N, K, H, W).
        labels: (N, H, W); only pixels labelled 0 are counted.
    Returns:
        (K, NUM_BINS) counts.
    """
    background = labels == 0
    predicted = predicted_class(teacher_logits)[background]
    bins = (normalised_entropy(teacher_logits)[background] * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    num_classes = teacher_logits.shape[1]
    return torch.bincount(predicted * NUM_BINS + bins, minlength=num_classes * NUM_BINS).view(num_classes, NUM_BINS)


def median_thresholds(histogram: Tensor, minimum: float) -> Tensor:
    """Median entropy of each class, but at least ``minimum``, also for classes that are never predicted.

    Args:
        histogram: (K, NUM_BINS) counts.
    Returns:
        (K,) float32, linearly interpolated within a bin.
    """
    below = histogram.double().cumsum(1)
    half = below[:, -1:] / 2
    bins = (below < half).sum(1, keepdim=True).clamp(max=NUM_BINS - 1)
    inside = histogram.gather(1, bins).clamp(min=1)
    within = (half - below.gather(1, bins) + histogram.gather(1, bins)) / inside
    return ((bins + within) / NUM_BINS).squeeze(1).clamp(min=minimum).float()


def pseudo_labels(labels: Tensor, teacher_logits: Tensor, thresholds: Tensor) -> Tensor:
    """Replace background by the teacher's prediction where its entropy is below the class's threshold.

    Args:
        labels: (N, H, W); 0 for background, 255 for ignored pixels.
        teacher_logits: (N, K, H, W).
        thresholds: (K,) normalised entropies.
    Returns:
        (N, H, W) labels; 255 where the teacher is uncertain.
    """
    predicted = predicted_class(teacher_logits)
    sure = normalised_entropy(teacher_logits) < thresholds.to(teacher_logits.device)[predicted]
    named = torch.where(sure, predicted.to(labels.dtype), labels.new_full((), 255))
    return torch.where(labels == 0, named, labels)


def sure_share(labels: Tensor, named: Tensor) -> Tensor:
    """Weight of each image's loss that keeps new classes from dominating the old ones (PLOP).

    Args:
        labels: (N, H, W) of the step.
        named: (N, H, W), from ``pseudo_labels``.
    Returns:
        (N,) fraction of background pixels on which the teacher is certain; 1 for images without background.
    """
    background = labels == 0
    pixels = background.sum((1, 2))
    share = (background & (named != 255)).sum((1, 2)) / pixels.clamp(min=1)
    return torch.where(pixels > 0, share, torch.ones_like(share))
