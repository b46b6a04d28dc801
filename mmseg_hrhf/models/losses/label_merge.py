"""Labels of all classes from new labels and the teacher's prediction (eq. 4)."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from ...utils.errors import UserError
from .upsampling import at_least_float32


def predicted_class(scores: Tensor) -> Tensor:
    """(N, H, W) int64 channel of the highest of (N, C, H, W) scores, the first of several: ``scores.argmax(1)``.

    Several times faster on a CPU, whose argmax goes through the channels of one pixel after another.
    """
    number = scores.shape[1]
    if number > 255:
        return scores.argmax(1)
    rank = torch.arange(number, 0, -1, dtype=torch.uint8, device=scores.device).view(1, -1, 1, 1)
    first = (scores >= scores.amax(1, keepdim=True)) * rank
    return (number - first.amax(1).long()).clamp(max=number - 1)  # beyond: no score is a number


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
    return torch.where(labels == 0, predicted_class(teacher_logits).to(labels.dtype), labels)


# Its exponential is 0 in every floating type, and no product with it is NaN, as with -inf.
_NEVER = -1e4


def merge_old_classes(logits: Tensor, num_old: int) -> Tensor:
    """Log-probabilities in which background stands for itself and all old classes (MiB, eq. 5).

    The cross-entropy of the result against ``merge_old_labels`` is MiB's unbiased cross-entropy. As its softmax
    gives the same probabilities again, any loss that takes a softmax's logits can be handed it.

    Args:
        logits: (N, C, H, W); channels below ``num_old`` are background and the old classes.
        num_old: K, with ``1 <= K <= C``.
    Returns:
        (N, C, H, W); channel 0 holds the summed probability of the channels below K, the old classes none.
    """
    if not 1 <= num_old <= logits.shape[1]:
        raise UserError(f'num_old={num_old} must lie between 1 and the {logits.shape[1]} classes of the logits.')
    log_prob = at_least_float32(logits).log_softmax(1)
    background = log_prob[:, :num_old].logsumexp(1, keepdim=True)
    old = torch.full_like(log_prob[:, 1:num_old], _NEVER)
    return torch.cat([background, old, log_prob[:, num_old:]], dim=1)


def merge_old_labels(labels: Tensor, num_old: int) -> Tensor:
    """Labels below ``num_old`` as background; the others, 255 among them, as they are."""
    return labels.masked_fill(labels < num_old, 0)


# Entropies are counted in bins of 1 / 1000: finer than any threshold that is used.
NUM_BINS = 1000


def normalised_entropy(logits: Tensor) -> Tensor:
    """(N, H, W) entropy of the softmax over (N, K, H, W) logits, from 0 (sure) to 1 (uniform)."""
    log_prob = at_least_float32(logits).log_softmax(1)
    return -(log_prob.exp() * log_prob).sum(1) / math.log(logits.shape[1])


def entropy_histogram(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Count the teacher's entropies on background pixels, by the class it predicts.

    Args:
        teacher_logits: (N, K, H, W).
        labels: (N, H, W); pixels that are not 0 are left out.
    Returns:
        (K, NUM_BINS) counts.
    """
    background = labels == 0
    predicted = predicted_class(teacher_logits)[background]
    bins = (normalised_entropy(teacher_logits)[background] * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    num_classes = teacher_logits.shape[1]
    return torch.bincount(predicted * NUM_BINS + bins, minlength=num_classes * NUM_BINS).view(num_classes, NUM_BINS)


def median_thresholds(histogram: Tensor, minimum: float) -> Tensor:
    """Median entropy of each class, ``minimum`` where it is lower or the class is never predicted.

    Args:
        histogram: (K, NUM_BINS) counts.
    Returns:
        (K,) float32; linear within a bin.
    """
    below = histogram.double().cumsum(1)
    half = below[:, -1:] / 2
    bins = (below < half).sum(1, keepdim=True).clamp(max=NUM_BINS - 1)
    inside = histogram.gather(1, bins).clamp(min=1)
    within = (half - below.gather(1, bins) + histogram.gather(1, bins)) / inside
    return ((bins + within) / NUM_BINS).squeeze(1).clamp(min=minimum).float()


def pseudo_labels(labels: Tensor, teacher_logits: Tensor, thresholds: Tensor) -> Tensor:
    """Let the teacher name what the labels call background, where its entropy is below its class's threshold.

    Args:
        labels: (N, H, W); 0 where the step names no class, 255 where the pixel is ignored.
        teacher_logits: (N, K, H, W).
        thresholds: (K,) normalised entropies.
    Returns:
        (N, H, W) labels, 255 where the teacher is not sure.
    """
    predicted = predicted_class(teacher_logits)
    sure = normalised_entropy(teacher_logits) < thresholds.to(teacher_logits.device)[predicted]
    named = torch.where(sure, predicted.to(labels.dtype), labels.new_full((), 255))
    return torch.where(labels == 0, named, labels)


def sure_share(labels: Tensor, named: Tensor) -> Tensor:
    """Weight of each image's loss, so that new classes do not outweigh the old (PLOP).

    Args:
        labels: (N, H, W) of the step.
        named: (N, H, W), from ``pseudo_labels``.
    Returns:
        (N,) shares of background on which the teacher is sure; 1 for images without background.
    """
    background = labels == 0
    pixels = background.sum((1, 2))
    share = (background & (named != 255)).sum((1, 2)) / pixels.clamp(min=1)
    return torch.where(pixels > 0, share, torch.ones_like(share))
