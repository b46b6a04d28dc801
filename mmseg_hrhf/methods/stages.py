"""Feature maps of a segmentor's backbone, taken from a pass that happens anyway."""
from __future__ import annotations

import contextlib
from typing import Iterator

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def captured_stages(segmentor: nn.Module) -> Iterator[list]:
    """Collect what ``segmentor.backbone`` returns while it runs once inside the block.

    Yields:
        A list that the pass fills with the (N, C, h, w) maps of the backbone's ``out_indices``, first to last.
    """
    stages: list[Tensor] = []

    def keep(module, args, output) -> None:
        outputs = output if isinstance(output, (list, tuple)) else [output]
        with torch.inference_mode(False):
            # What a teacher computes in inference mode is made an ordinary tensor, which a loss may keep.
            stages[:] = [item.clone() if item.is_inference() else item for item in outputs
                         if isinstance(item, Tensor) and item.ndim == 4]
        if not stages:
            raise ValueError(f'{type(module).__name__} returns no (N, C, h, w) feature map to distil: choose a method '
                             'without feature distillation, such as MiB.')

    handle = segmentor.backbone.register_forward_hook(keep)
    try:
        yield stages
    finally:
        handle.remove()
