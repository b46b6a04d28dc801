"""Input, what each method predicts, ground truth (Fig. 4)."""
from __future__ import annotations

import copy
import os.path as osp
from pathlib import Path
from typing import Mapping, Optional, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmseg.registry import TASK_UTILS

from ..replay.inversion.base import FakeRequest
from ..replay.inversion.pixels import image_size
from ..utils.errors import UserError
from ..utils.io import PathLike, atomic_write, read_json
from .finished_step import FinishedStep


def open_runs(runs: Sequence[str], step: Optional[int], device: str) -> tuple[dict[str, FinishedStep], tuple[str, ...]]:
    """The same step of several runs, and the classes it knows beside those of step 0.

    Args:
        runs: ``NAME=WORK_DIR`` each.
        step: learning step; None for the last.
        device: that the networks run on.
    Raises:
        UserError: a malformed text, or a folder without a finished run.
    """
    methods, new_classes = {}, ()
    for text in runs:
        name, _, folder = text.partition('=')
        if not folder:
            raise UserError(f'{text!r} is not of the form NAME=WORK_DIR.')
        path = osp.join(folder, 'results.json')
        if not osp.exists(path):
            raise UserError(f'{folder} holds no finished run: results.json is missing.')
        results = read_json(path)
        chosen = results['num_steps'] - 1 if step is None else step
        methods[name] = FinishedStep(osp.join(folder, f'step_{chosen}'), device)
        new_classes = methods[name].classes[1 + results['num_base_classes']:]
    return methods, new_classes


def named_images(step: FinishedStep, names: Sequence[str]) -> list[int]:
    """Positions of test images by file name; ``UserError`` for one that is not there."""
    held = step.names()
    missing = [name for name in names if name not in held]
    if missing:
        raise UserError(f'{missing[0]!r} is no test image of {step.folder}.')
    return [held.index(name) for name in names]


def choose_images(step: FinishedStep, number: int, new_classes: Sequence[str]) -> list[int]:
    """Test images that show old and new classes, spread evenly over the list.

    Args:
        step: whose test images are looked through.
        number: at most this many.
        new_classes: learnt after step 0. Images with an old class beside a new one come first, then the
            others that show a class.
    """
    new = {step.classes.index(name) for name in new_classes}

    def interest(index: int) -> int:
        held = set(np.unique(step.labels(index)).tolist()) & set(range(1, len(step.classes)))
        return bool(held & new) + bool(held - new)

    ranks = [interest(i) for i in range(len(step.dataset))]
    chosen: list[int] = []
    for rank in (2, 1):
        held = [i for i, value in enumerate(ranks) if value == rank]
        wanted = min(number - len(chosen), len(held))
        chosen += [held[i * len(held) // wanted] for i in range(wanted)]
    return chosen


def draw_predictions(methods: Mapping[str, FinishedStep], indices: Sequence[int], path: PathLike) -> None:
    """Write a picture: a row per image; columns input, each method, ground truth; the classes' colours below.

    Args:
        methods: the same step of each method, by name; all must know the same classes.
        indices: test images.
        path: of the picture; its suffix names the format.
    Raises:
        UserError: no image, or methods with other classes.
    """
    if not indices:
        raise UserError('No test image shows a class of this step: name some images by --images.')
    first = next(iter(methods.values()))
    for name, step in methods.items():
        if step.classes != first.classes:
            raise UserError(f'{name} knows other classes ({", ".join(step.classes)}) than the first method '
                             f'({", ".join(first.classes)}): compare the same step of the same task.')
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch
    heads = ['input', *methods, 'ground truth']
    figure, axes = plt.subplots(len(indices), len(heads), squeeze=False,
                                figsize=(1.9 * len(heads), 1.6 * len(indices) + 0.6))
    for row, index in zip(axes, indices):
        labels = first.labels(index)
        pictures = [first.image(index)]
        for step in methods.values():
            pictures.append(step.coloured(step.predict(index)))
        pictures.append(first.coloured(labels))
        for axis, picture in zip(row, pictures):
            axis.imshow(picture, interpolation='nearest')
            axis.set_axis_off()
    for axis, head in zip(axes[0], heads):
        axis.set_title(head, fontsize=9)
    patches = [Patch(facecolor=colour / 255, edgecolor='0.5', label=name)
               for name, colour in zip(first.classes, first.palette)]
    figure.tight_layout(pad=0.3)
    figure.legend(handles=patches, loc='upper center', bbox_to_anchor=(0.5, 0.0), ncols=min(8, len(patches)),
                  fontsize=8, frameon=False)
    with atomic_write(path) as file:
        figure.savefig(file, format=Path(path).suffix.lstrip('.'), dpi=130, bbox_inches='tight')
    plt.close(figure)


def inversion_options(cfg: Config) -> dict:
    """``replay.inversion`` of a run's config.

    Raises:
        UserError: the config makes no fake images.
    """
    inversion = (cfg.get('replay') or {}).get('inversion')
    if inversion is None:
        raise UserError(f'{cfg.filename} has no replay.inversion: name the config of a run with fake images.')
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
