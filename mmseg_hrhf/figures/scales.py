"""The same noise inverted with different r: objects of different scale (Fig. 3)."""
from __future__ import annotations

import copy
from pathlib import Path
from typing import Sequence

import torch
from mmengine.config import Config
from mmseg.registry import TASK_UTILS

from ..files import PathLike, atomic_write
from ..inversion.request import FakeRequest
from ..inversion.seg_inversion import image_size
from .finished_step import FinishedStep


def inversion_options(cfg: Config) -> dict:
    """``replay.inversion`` of a run's config.

    Raises:
        ValueError: the config makes no fake images.
    """
    inversion = (cfg.get('replay') or {}).get('inversion')
    if inversion is None:
        raise ValueError(f'{cfg.filename} has no replay.inversion: name the config of a run with fake images.')
    return inversion


def invert_scales(step: FinishedStep, inversion: dict, classes: Sequence[Sequence[int]], r_values: Sequence[float],
                  seed: int) -> dict[float, torch.Tensor]:
    """Fake images from the same noise, rolls and flips for each r.

    Args:
        step: whose network is inverted.
        inversion: config of the ``SegInversion``; its aggregation is replaced.
        classes: class indices of each image.
        r_values: of eq. 1.
        seed: of the noise.
    Returns:
        By r, (N, H, W, 3) uint8 RGB.
    """
    step.measure_pixels(image_size(inversion['size']))
    request, images = FakeRequest(tuple(map(tuple, classes)), seed), {}
    for r in r_values:
        fixed = copy.deepcopy(inversion)
        fixed['aggregation'] = dict(type='ScaleAwareAggregation', r=r)
        images[r] = TASK_UTILS.build(fixed)(step.model, request, recorded=step.feature_statistics).images
    return images


def draw_scales(images: dict[float, torch.Tensor], shares: dict[float, torch.Tensor], classes: Sequence[Sequence[str]],
                path: PathLike) -> None:
    """Write a picture: a row per image, a column per r; under each the share of pixels the teacher gives the classes.

    Args:
        images: by r, (N, H, W, 3) uint8 RGB.
        shares: by r, (N, ) share of the asked-for classes' pixels in the teacher's mask.
        classes: names asked for in each image.
        path: of the picture; its suffix names the format.
    """
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(len(classes), len(images), squeeze=False,
                                figsize=(1.7 * len(images), 1.9 * len(classes) + 0.3))
    for j, (r, batch) in enumerate(images.items()):
        for i, picture in enumerate(batch.numpy()):
            axis = axes[i][j]
            axis.imshow(picture)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f'{100 * float(shares[r][i]):.0f} %', fontsize=8)
            if i == 0:
                axis.set_title(f'r = {r:g}', fontsize=9)
            if j == 0:
                axis.set_ylabel('\n'.join(classes[i]), fontsize=8)
    figure.tight_layout(pad=0.4)
    with atomic_write(path) as file:
        figure.savefig(file, format=Path(path).suffix.lstrip('.'), dpi=130, bbox_inches='tight')
    plt.close(figure)
