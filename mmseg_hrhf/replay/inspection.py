"""Predictions on stored images, and loss curves of the inversion, for visualisation."""
from __future__ import annotations

from typing import Sequence

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.visualization import Visualizer
from torch import Tensor, nn

from ..models.heads import predicted_logits
from ..utils.pictures import image_grid, overlay
from .buffer import FakeImageBuffer
from .inversion.pixels import PixelSpace


@torch.no_grad()
def label_images(model: nn.Module, images: Tensor) -> Tensor:
    """Predicted class index of each pixel.

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
    """Fraction of pixels predicted as each class.

    Args:
        model: segmentor.
        images: (N, H, W, 3) uint8 RGB, as stored.
    Returns:
        (N, K) fractions on the CPU; rows sum to 1.
    """
    labels = label_images(model, images).flatten(1)
    return torch.stack([(labels == c).float().mean(1) for c in range(model.num_classes)], dim=1)


_SHOWN, _COLUMNS, _CELL = 32, 8, 160


@master_only
def show_buffer(buffer: FakeImageBuffer, teacher: nn.Module, palette: Sequence[Sequence[int]],
                visualizer: Visualizer) -> None:
    """Log the first synthetic images, with and without the teacher's mask, and the loss curves.

    Args:
        buffer: complete buffer.
        teacher: network that was inverted.
        palette: RGB colour of each class index.
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


# Maximum number of points of a curve.
MAX_POINTS = 50


def thin_curve(losses: Sequence[dict[str, float]], max_points: int = MAX_POINTS) -> dict[str, list[float]]:
    """Reduce losses to at most ``max_points`` evenly spaced iterations, including the first and the last.

    Args:
        losses: losses of each iteration, by term.
        max_points: at least 2.
    Returns:
        Lists of equal length: ``iteration`` (from 1) and each term of the last iteration. Empty without iterations.
    """
    if not losses:
        return {}
    kept = np.unique(np.linspace(0, len(losses) - 1, max_points).round().astype(int)).tolist()
    curve: dict[str, list[float]] = dict(iteration=[i + 1 for i in kept])
    for name in losses[-1]:
        curve[name] = [float(f'{losses[i][name]:.5g}') for i in kept]
    return curve


def mean_curve(curves: Sequence[dict[str, list[float]]]) -> list[dict[str, float]]:
    """Average curves of ``thin_curve`` over batches, one dict per iteration.

    Batches that stopped early have other iterations: each mean is over the batches that have the iteration.
    """
    points: dict[int, list[dict[str, float]]] = {}
    for curve in curves:
        terms = [name for name in curve if name != 'iteration']
        for at, iteration in enumerate(curve['iteration']):
            points.setdefault(int(iteration), []).append({name: curve[name][at] for name in terms})
    means = []
    for iteration in sorted(points):
        rows = points[iteration]
        mean = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        means.append(dict(mean, iteration=iteration))
    return means
