"""Fake images and the losses of their inversion, to whatever backends mmengine's Visualizer writes to."""
from __future__ import annotations

from typing import Sequence

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.visualization import Visualizer
from torch import nn

from ..visualization.grid import image_grid, overlay
from .buffer import FakeImageBuffer
from .loss_curve import mean_curve
from .recognition import label_images

_SHOWN, _COLUMNS, _CELL = 32, 8, 160


@master_only
def show_buffer(buffer: FakeImageBuffer, teacher: nn.Module, palette: Sequence[Sequence[int]],
                visualizer: Visualizer) -> None:
    """Send the first fakes, with and without the teacher's mask over them, and the curves of the losses.

    Args:
        buffer: full.
        teacher: network that the fakes were made with.
        palette: RGB colour of each of its class indices.
        visualizer: of the step's Runner.
    """
    images = np.stack([buffer.load(i) for i in range(min(_SHOWN, buffer.num_images))])
    masks = torch.cat([label_images(teacher, batch) for batch in torch.from_numpy(images).split(8)]).numpy()
    painted = [overlay(image, mask, palette) for image, mask in zip(images, masks)]
    cell = min(images.shape[1], _CELL), min(images.shape[2], _CELL)
    visualizer.add_image('fakes', image_grid(list(images), _COLUMNS, cell))
    visualizer.add_image('fakes_as_the_teacher_sees_them', image_grid(painted, _COLUMNS, cell))
    for losses in mean_curve(buffer.curves()):
        iteration = int(losses.pop('iteration'))
        visualizer.add_scalars({f'inversion/{name}': value for name, value in losses.items()}, step=iteration)
