"""Conversion between stored pixels (0..255 RGB) and network inputs."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from ...models.heads import predicted_logits
from ...utils.compat import swaps_channels
from ...utils.errors import UserError

# If one unit of network input is this many pixel levels, images are optimised directly in the input space.
_STD = 32.0, 128.0


@dataclass(frozen=True)
class PixelMap:
    """Network input of an 8-bit pixel: ``scale * pixel + offset`` for each input channel.

    Args:
        channels: RGB channel of the image that each input channel is made from.
        scale, offset: of each input channel.
    """
    channels: tuple[int, int, int]
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]

    @classmethod
    def of(cls, data_preprocessor: nn.Module) -> PixelMap:
        """Map of a pipeline that does not change pixels, from the preprocessor's mean, std and channel order."""
        # mmcv decodes to BGR; the preprocessor swaps channels for networks that expect RGB.
        channels = (0, 1, 2) if swaps_channels(data_preprocessor) else (2, 1, 0)
        mean, std = torch.zeros(3), torch.ones(3)
        if getattr(data_preprocessor, 'mean', None) is not None:
            mean, std = (value.detach().cpu().float().flatten().expand(3)
                         for value in (data_preprocessor.mean, data_preprocessor.std))
        return cls(channels, tuple((1 / std).tolist()), tuple((-mean / std).tolist()))

    @classmethod
    def from_plain(cls, fields: Mapping) -> PixelMap:
        """From a dict of lists, as stored in JSON and configs."""
        return cls(**{name: tuple(values) for name, values in fields.items()})


class PixelSpace:
    """Normalised space in which images are optimised, with conversions to network inputs and to pixels.

    Args:
        data_preprocessor: preprocessor of the segmentor, which defines mean, std and channel order.
        device: of the images.
        pixel_map: map from pixels to network input, if the pipeline changes pixels as well; otherwise None.
    """

    def __init__(self,
                 data_preprocessor: nn.Module,
                 device: torch.device,
                 pixel_map: Optional[PixelMap] = None) -> None:
        held = PixelMap.of(data_preprocessor) if pixel_map is None else pixel_map
        # RGB channel of each network channel.
        self.channels = list(held.channels)
        if pixel_map is None and getattr(data_preprocessor, 'mean', None) is not None:
            mean, std = data_preprocessor.mean.flatten(), data_preprocessor.std.flatten()
        else:
            mean, std = (torch.tensor([-b / a for a, b in zip(held.scale, held.offset)]),
                         torch.tensor([1 / a for a in held.scale]))
        # The network input is (pixel - mean) / std.
        self._input_mean, self._input_std = (value.to(device).float().view(1, -1, 1, 1) for value in (mean, std))
        self._is_input = bool(((std.abs() > _STD[0]) & (std.abs() < _STD[1])).all())
        self.mean, self.std = self._input_mean, self._input_std
        if not self._is_input:
            # For network inputs in 0..255 or 0..1, images are still optimised in a space of unit scale.
            self.mean, self.std = torch.full_like(self.mean, 127.5), torch.full_like(self.std, 64.0)
        bounds = torch.cat([(0 - self.mean) / self.std, (255 - self.mean) / self.std])
        self.low, self.high = bounds.amin(0, keepdim=True), bounds.amax(0, keepdim=True)
        self._ranges = list(zip(self.low.flatten().tolist(), self.high.flatten().tolist()))

    @classmethod
    def of(cls, model: nn.Module) -> PixelSpace:
        """Pixel space of a segmentor; its optional attribute ``pixel_map`` describes its pipeline."""
        device = next(model.parameters()).device
        return cls(model.data_preprocessor, device, getattr(model, 'pixel_map', None))

    def clamp_(self, images: Tensor) -> Tensor:
        """Clamp (N, 3, H, W) in place to the range of real pixels."""
        # Scalar bounds: clamping with tensor bounds is many times slower.
        for channel, (low, high) in enumerate(self._ranges):
            images[:, channel].clamp_(low, high)
        return images

    def to_network(self, images: Tensor) -> Tensor:
        if self._is_input:
            return images
        return (images * self.std + self.mean - self._input_mean) / self._input_std

    def to_pixels(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB on the CPU."""
        pixels = (images * self.std + self.mean).round().clamp(0, 255).to(torch.uint8)
        stored = torch.empty_like(pixels)
        stored[:, self.channels] = pixels
        return stored.permute(0, 2, 3, 1).contiguous().cpu()

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Inverse of ``to_pixels``, up to rounding."""
        # Some heads (DMNet) call `view` on features, which requires contiguous memory.
        images = pixels.permute(0, 3, 1, 2)[:, self.channels].to(self.mean).contiguous()
        return (images - self.mean) / self.std


def fastest_memory_format(model: nn.Module, images: Tensor, half: bool = False) -> torch.memory_format:
    """Channels last, if the network supports it and it is faster on the device; otherwise contiguous.

    GPUs benefit where they use tensor cores: in half precision since Volta, and in float32 (as TF32) since Ampere.
    Older ones lose half their speed. Some heads (DMNet) call ``view`` on features, which requires contiguous memory.

    Args:
        model: frozen segmentor.
        images: (N, 3, H, W) for a trial forward and backward pass; N >= 2, since a single image has both formats.
        half: whether the network will run in half precision.
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


def image_size(size: Union[int, Sequence[int]]) -> tuple[int, int]:
    """(height, width) from a side length or a pair."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise UserError(f'replay.inversion.size={size!r} must be positive.')
    return int(height), int(width)
