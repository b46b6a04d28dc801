"""Feature maps of a segmentor's backbone, taken from a pass that happens anyway."""
from __future__ import annotations

import contextlib
from typing import Iterator, Optional, Sequence

import torch
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

# Pixels of a side of the images that a backbone is tried on.
_LARGEST_TRIAL = 128


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


def paired_stages(new: Sequence[Tensor], old: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Maps of the student, which trains, with those of the teacher, which is in eval mode.

    Raises:
        ValueError: they are not as many, or of other shapes.
    """
    trained, frozen = ([tuple(stage.shape[1:]) for stage in stages] for stages in (new, old))
    if trained != frozen:
        raise ValueError(f'The backbone returns feature maps of (C, h, w) {trained} in training and of {frozen} in '
                         'eval mode, so the old network\'s cannot be distilled: choose a method without feature '
                         'distillation, such as MiB.')
    return list(zip(new, old))


@torch.no_grad()
def check_stages(segmentor: nn.Module, size: Sequence[int], last: Optional[int] = None) -> None:
    """Raise ``ValueError`` if the backbone's maps in training cannot be compared with those in eval mode.

    Args:
        segmentor: changed: its batch norms see images, and are not synchronised any more.
        size: (height, width) of the images that it trains on.
        last: number of maps that are compared, from the last; None: all.
    """
    segmentor = revert_sync_batchnorm(segmentor)
    images = torch.zeros(2, 3, *(min(side, _LARGEST_TRIAL) for side in size))
    maps = []
    for training in (True, False):
        with captured_stages(segmentor.train(training)) as stages:
            try:
                segmentor.backbone(images)
            except (RuntimeError, NotImplementedError, AssertionError):
                return  # needs other images, or operators that a CPU does not have
        maps.append(stages if last is None else stages[-last:])
    paired_stages(*maps)
