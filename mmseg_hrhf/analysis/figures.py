"""Fig. 3 and Fig. 4 of the paper: synthetic images by r; input, predictions of each method, ground truth."""
from __future__ import annotations

import copy
from typing import Mapping, Optional, Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmseg.registry import TASK_UTILS

from ..config.run import RunConfig
from ..replay.inversion.base import FakeRequest
from ..replay.inversion.pixels import image_size
from ..utils.errors import UserError
from ..utils.io import PathLike
from ..work_dir.layout import StepFiles
from .charts import save_figure
from .finished_step import FinishedStep, Panel
from .results import read_results


def step_folders(runs: Sequence[str], step: Optional[int]) -> dict[str, str]:
    """Folders of the same step of several runs, by name of the run.

    Args:
        runs: strings ``NAME=WORK_DIR``.
        step: learning step; None for the last.
    Raises:
        UserError: a malformed string, or a folder without a finished run.
    """
    folders = {}
    for text in runs:
        name, _, folder = text.partition('=')
        if not folder:
            raise UserError(f'{text!r} is not of the form NAME=WORK_DIR.')
        results = read_results(folder)
        if results is None:
            raise UserError(f'{folder} contains no finished run: results.json is missing.')
        folders[name] = StepFiles(folder, results['num_steps'] - 1 if step is None else step).folder
    return folders


def draw_predictions(panels: Sequence[Panel], folders: Mapping[str, str], path: PathLike) -> None:
    """Write a figure with one row per image and the columns input, each method, ground truth, plus a legend.

    Args:
        panels: see ``make_panels``.
        folders: step folders by method name; all must have the same classes.
        path: output file; its suffix selects the format.
    Raises:
        UserError: methods with different classes.
    """
    steps = {name: FinishedStep(folder) for name, folder in folders.items()}
    first = next(iter(steps.values()))
    for name, step in steps.items():
        if step.classes != first.classes:
            raise UserError(f'{name} has other classes ({", ".join(step.classes)}) than the first method '
                            f'({", ".join(first.classes)}): compare the same step of the same task.')
    heads = ['input', *steps, 'ground truth']
    figure = Figure(figsize=(1.9 * len(heads), 1.6 * len(panels) + 0.6))
    axes = figure.subplots(len(panels), len(heads), squeeze=False)
    for row, panel in zip(axes, panels):
        masks = [*(panel.predictions[name] for name in steps), panel.truth]
        for axis, picture in zip(row, [panel.image, *map(first.coloured, masks)]):
            axis.imshow(picture, interpolation='nearest')
            axis.set_axis_off()
    for axis, head in zip(axes[0], heads):
        axis.set_title(head, fontsize=9)
    patches = [Patch(facecolor=colour / 255, edgecolor='0.5', label=name)
               for name, colour in zip(first.classes, first.palette)]
    figure.tight_layout(pad=0.3)
    figure.legend(handles=patches, loc='upper center', bbox_to_anchor=(0.5, 0.0), ncols=min(8, len(patches)),
                  fontsize=8, frameon=False)
    save_figure(figure, path)


def inversion_options(run: RunConfig) -> dict:
    """``replay.inversion`` of a run.

    Raises:
        UserError: the run has no inversion.
    """
    if run.replay is None:
        raise UserError(f'{run.user.filename} has no replay.inversion: use the config of a run with synthetic images.')
    return dict(run.replay.inversion)


def invert_scales(step: FinishedStep, inversion: dict, classes: Sequence[Sequence[int]], r_values: Sequence[float],
                  seed: int) -> dict[float, torch.Tensor]:
    """Synthetic images for each r, from the same noise, rolls and flips.

    Args:
        step: step whose network is inverted.
        inversion: config of ``SegInversion``; its aggregation is replaced by ScaleAwareAggregation.
        classes: class indices of each image.
        r_values: values of r in eq. 1.
        seed: seed of the noise.
    Returns:
        (N, H, W, 3) uint8 RGB images by r.
    """
    step.measure_pixels(image_size(inversion['size']))
    request, images = FakeRequest(tuple(map(tuple, classes)), seed), {}
    background_r = (inversion.get('aggregation') or {}).get('background_r')
    for r in r_values:
        fixed = copy.deepcopy(inversion)
        fixed['aggregation'] = dict(type='ScaleAwareAggregation', r=r, background_r=background_r)
        images[r] = TASK_UTILS.build(fixed)(step.model, request, recorded=step.feature_statistics).images
    return images


def draw_scales(images: dict[float, torch.Tensor], shares: dict[float, torch.Tensor], classes: Sequence[Sequence[str]],
                path: PathLike) -> None:
    """Write a figure with one row per image and one column per r, captioned with the area of the requested classes.

    Args:
        images: by r, (N, H, W, 3) uint8 RGB.
        shares: by r, (N, ) fraction of pixels that the teacher predicts as the requested classes.
        classes: names of the requested classes of each image.
        path: output file; its suffix selects the format.
    """
    figure = Figure(figsize=(1.7 * len(images), 1.9 * len(classes) + 0.3))
    axes = figure.subplots(len(classes), len(images), squeeze=False)
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
    save_figure(figure, path)
