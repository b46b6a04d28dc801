"""What a segmentor sees in stored images."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..inversion.pixels import PixelSpace
from ..methods.logits import predicted_logits


@torch.no_grad()
def label_images(model: nn.Module, images: Tensor) -> Tensor:
    """Class index that ``model`` gives each pixel.

    Args:
        model: segmentor.
        images: (N, H, W, 3) uint8 RGB, as stored.
    Returns:
        (N, H, W) uint8 on the CPU.
    """
    space = PixelSpace.of(model)
    logits = predicted_logits(model, space.to_network(space.from_pixels(images)))
    return logits.argmax(1).to(torch.uint8).cpu()


def recognised(model: nn.Module, images: Tensor) -> Tensor:
    """Share of pixels that ``model`` gives each class.

    Args:
        model: segmentor.
        images: (N, H, W, 3) uint8 RGB, as stored.
    Returns:
        (N, K) shares on the CPU; rows sum to 1.
    """
    labels = label_images(model, images).flatten(1)
    return torch.stack([(labels == c).float().mean(1) for c in range(model.num_classes)], dim=1)
