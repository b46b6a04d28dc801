"""In which order of memory a network is fed."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..methods.logits import predicted_logits


def fastest_memory_format(model: nn.Module, images: Tensor) -> torch.memory_format:
    """Channels last, in which convolutions and their statistics are faster, where the network takes it.

    Some heads (DMNet) look at their features through ``view``, which takes the memory order of a usual batch only.

    Args:
        model: frozen segmentor.
        images: (N, 3, H, W) for a trial pass forward and backward; two, since a single image has both orders at once.
    """
    images = images.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    try:
        torch.autograd.grad(predicted_logits(model, images).sum(), images)
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last
