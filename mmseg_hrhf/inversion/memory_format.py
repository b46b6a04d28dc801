"""In which order of memory a network is fed."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..methods.logits import predicted_logits


def fastest_memory_format(model: nn.Module, images: Tensor, half: bool = False) -> torch.memory_format:
    """Channels last, in which convolutions and their statistics are faster, where the network and the device take it.

    GPUs gain by it where their tensor cores compute: in half precision from Volta on, and in float32 (as TF32) from
    Ampere on; older ones lose by half. Some heads (DMNet) look at their features through ``view``, which takes the
    memory order of a usual batch only.

    Args:
        model: frozen segmentor.
        images: (N, 3, H, W) for a trial pass forward and backward; two, since a single image has both orders at once.
        half: whether it will compute in half precision.
    """
    if not _gains(images.device, half):
        return torch.contiguous_format
    images = images.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    try:
        torch.autograd.grad(predicted_logits(model, images).sum(), images)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


def _gains(device: torch.device, half: bool) -> bool:
    return device.type != 'cuda' or torch.cuda.get_device_capability(device) >= ((7, 0) if half else (8, 0))
