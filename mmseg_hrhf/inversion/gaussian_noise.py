"""Noise in place of fakes: what replay is worth without inversion (Table 2, "+Noise")."""
from __future__ import annotations

from typing import Callable, Optional

import torch
from mmseg.registry import TASK_UTILS
from torch import nn

from .feature_statistics import RecordedStatistics
from .pixels import PixelSpace
from .request import FakeRequest
from .seg_inversion import FakeBatch, image_size


@TASK_UTILS.register_module()
class GaussianNoise:
    """Images of independent normal pixels, the start of every inversion.

    Args:
        size: side, or (height, width), of the images in pixels.
        batch_size: images made at once.
    """
    classes_per_image = (1, )

    def __init__(self, size, batch_size: int = 16) -> None:
        self.size = image_size(size)
        self.batch_size = batch_size

    def iterations(self) -> int:
        return 1

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
