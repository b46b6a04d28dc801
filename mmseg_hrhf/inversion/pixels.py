"""Between pixels (0..255 RGB, as stored) and what a network is fed."""
from __future__ import annotations

import torch
from torch import Tensor, nn


def _swaps_channels(data_preprocessor: nn.Module) -> bool:
    for name in ('_channel_conversion', 'channel_conversion'):  # maintained line, upstream line
        if hasattr(data_preprocessor, name):
            return bool(getattr(data_preprocessor, name))
    return False


class PixelSpace:
    """The normalised space in which images are optimised, and its ways to the network and to pixels.

    Args:
        data_preprocessor: of the segmentor; its mean, std and channel order are used.
        device: of the images.
    """

    def __init__(self, data_preprocessor: nn.Module, device: torch.device) -> None:
        self.normalised_input = bool(getattr(data_preprocessor, '_enable_normalize', False))
        if self.normalised_input:
            mean, std = data_preprocessor.mean, data_preprocessor.std
        else:
            # A network fed raw pixels is still inverted in a space of unit scale.
            mean, std = torch.full((3, 1, 1), 127.5), torch.full((3, 1, 1), 64.0)
        self.mean, self.std = mean.to(device).view(1, -1, 1, 1), std.to(device).view(1, -1, 1, 1)
        # mmcv decodes to BGR; the preprocessor swaps where the network wants RGB.
        self.network_is_rgb = _swaps_channels(data_preprocessor)
        self.low, self.high = (0 - self.mean) / self.std, (255 - self.mean) / self.std
        self._ranges = list(zip(self.low.flatten().tolist(), self.high.flatten().tolist()))

    def clamp_(self, images: Tensor) -> Tensor:
        """Clamp (N, 3, H, W) in place to the range of real pixels."""
        # By numbers: bounds in tensors make it many times as slow.
        for channel, (low, high) in enumerate(self._ranges):
            images[:, channel].clamp_(low, high)
        return images

    def to_network(self, images: Tensor) -> Tensor:
        return images if self.normalised_input else images * self.std + self.mean

    def to_pixels(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB on the CPU."""
        pixels = (images * self.std + self.mean).round().clamp(0, 255).to(torch.uint8)
        if not self.network_is_rgb:
            pixels = pixels.flip(1)
        return pixels.permute(0, 2, 3, 1).contiguous().cpu()

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Inverse of :meth:`to_pixels`, up to rounding."""
        # Some heads (DMNet) look at their features through `view`, which takes the memory order of a usual batch only.
        images = pixels.permute(0, 3, 1, 2).to(self.mean).contiguous()
        if not self.network_is_rgb:
            images = images.flip(1)
        return (images - self.mean) / self.std
