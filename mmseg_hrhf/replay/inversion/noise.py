"""Noise in place of synthetic images: what replay is worth without inversion (Table 2, "+Noise")."""
from __future__ import annotations

from typing import Callable, Optional, Sequence, Union

import torch
from mmseg.registry import TASK_UTILS
from torch import nn

from .base import FakeBatch, FakeRequest, Inversion, RecordedStatistics
from .pixels import PixelSpace


@TASK_UTILS.register_module()
class GaussianNoise(Inversion):
    """Images of independent normal pixels, the start of every inversion.

    Args:
        size: side, or (height, width), of the images in pixels.
        batch_size: images made at once.
    """

    def __init__(self, size: Union[int, Sequence[int]], batch_size: int = 16) -> None:
        super().__init__(size, batch_size)

    def __call__(self,
                 model: nn.Module,
                 request: FakeRequest,
                 on_iteration: Optional[Callable[[dict], None]] = None,
                 recorded: Optional[RecordedStatistics] = None) -> FakeBatch:
        device = next(model.parameters()).device
        space = PixelSpace.of(model)
        noise = torch.randn((len(request), 3) + self.size, generator=torch.Generator().manual_seed(request.seed))
        if on_iteration is not None:
            on_iteration({})
        return FakeBatch(space.to_pixels(space.clamp_(noise.to(device))), [[] for _ in range(len(request))], {})
