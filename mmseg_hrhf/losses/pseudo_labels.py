"""Labels from the teacher where it is sure enough (PLOP)."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from .label_merge import predicted_class
from .precision import at_least_float32

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
        named: (N, H, W), from :func:`pseudo_labels`.
    Returns:
        (N,) shares of background on which the teacher is sure; 1 for images without background.
    """
    background = labels == 0
    pixels = background.sum((1, 2))
    share = (background & (named != 255)).sum((1, 2)) / pixels.clamp(min=1)
    return torch.where(pixels > 0, share, torch.ones_like(share))
