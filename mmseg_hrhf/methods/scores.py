"""Per-pixel log-probabilities of query-based networks (MaskFormer, Mask2Former, SAN)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Far below the share of a class that no query claims, far above where the gradient of the logarithm overflows.
_LEAST = 1e-6


def log_probability(scores: Tensor) -> Tensor:
    """Normalise class scores over the channels and take the logarithm, in float32 at least.

    Args:
        scores: (N, C, H, W), non-negative; less than 1e-6 counts as 1e-6.
    Returns:
        (N, C, H, W) in nats; ``softmax`` over the channels gives the normalised scores back.
    """
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    scores = scores.clamp(min=_LEAST)
    return scores.log() - scores.sum(1, keepdim=True).log()


def query_log_probability(class_logits: Tensor, mask_logits: Tensor, targets: list) -> Tensor:
    """Log-probabilities of the pixels, from what a query-based head hands to its loss.

    As in its prediction: each query's class probability (no-object, the last, left out) times its mask, summed over the
    queries. Masks are up-sampled before the sigmoid, so the result is that of a prediction of the same size.

    Args:
        class_logits: (N, Q, C + 1).
        mask_logits: (N, Q, h, w).
        targets: for each image, instances whose ``masks`` are (number, H, W).
    Returns:
        (N, C, H, W).
    """
    size = targets[0].masks.shape[-2:]
    masks = F.interpolate(mask_logits, size=size, mode='bilinear', align_corners=False).sigmoid()
    return log_probability(torch.einsum('nqc,nqhw->nchw', class_logits.softmax(-1)[..., :-1], masks))
