"""HTML page and image grids of a run's synthetic images."""
from __future__ import annotations

import os.path as osp
from pathlib import Path
from typing import Optional, Sequence

import numpy as np
import torch
from PIL import Image

from ..replay.buffer import FakeImageBuffer
from ..replay.inspection import label_images
from ..utils.errors import UserError
from ..utils.io import PathLike, atomic_write
from ..utils.pictures import fit, image_grid, overlay
from .charts import css_colour, inversion_curves, mask_uri, photo_uri, write_page
from .finished_step import FinishedStep
from .results import RunRecord

# Size of an image on the page; number, columns and size of the images in a PNG grid.
_PICTURE, _GRID_IMAGES, _GRID_COLUMNS, _GRID_PICTURE = (224, 224), 64, 8, (160, 160)


def write_fake_browser(run: RunRecord, out_dir: PathLike, max_images: int = 60) -> Path:
    """Write ``fakes.html`` and ``fakes_step_<t>_<class>[_mask].png`` into ``out_dir``.

    Args:
        run: run with at least one complete buffer.
        out_dir: output folder.
        max_images: maximum number of images per step and class on the page; a grid shows the first 64.
    Returns:
        Path of the page.
    Raises:
        UserError: the run has no synthetic images.
    """
    buffers = {result['step']: FakeImageBuffer(run.files(result['step']).fakes, result['num_fake_images'])
               for result in run.results if result['num_fake_images']}
    if not buffers:
        raise UserError(f'{run.work_dir} has no synthetic images: use a run of HRHF that has finished step 1.')
    palette, items, steps = run.palette(), [], []
    for step, buffer in buffers.items():
        records = buffer.records()
        teacher = FinishedStep(run.files(step - 1).folder).model
        teacher.pixel_map = buffer.pixel_map
        taught = run.classes[:teacher.num_classes]
        chosen = choose_records(records, max(max_images, _GRID_IMAGES))
        images = {i: buffer.load(i) for i in chosen}
        masks = _masks(teacher, images)
        _write_grids(Path(out_dir), step, taught, records, images, masks, palette)
        shown = choose_records(records, max_images)
        items += [_item(step, i, records[i], images[i], masks[i], run.classes, palette) for i in shown]
        curves = buffer.curves()
        steps.append(dict(
            step=step, count=len(records), shown=len(shown), rows=class_summary(records, taught),
            folder=osp.relpath(buffer.folder, run.work_dir),
            curves=inversion_curves(curves, f's{step}') if curves else None))
    path = Path(out_dir) / 'fakes.html'
    classes = [(name, css_colour(colour)) for name, colour in zip(run.classes, palette)]
    title = f'Synthetic images of {run.method}: {run.column}'
    write_page(path, 'fakes.html', title=title, run=run, items=items, steps=steps,
               classes=classes, used=sorted({c for item in items for c in item['classes']}))
    return path


def choose_records(records: Sequence[dict], number: int) -> list[int]:
    """Positions of the first ``number`` images of each class, in buffer order."""
    held: dict[int, int] = {}
    chosen = []
    for i, record in enumerate(records):
        if any(held.get(c, 0) < number for c in record['classes']):
            chosen.append(i)
            for c in record['classes']:
                held[c] = held.get(c, 0) + 1
    return chosen


def class_summary(records: Sequence[dict], classes: Sequence[str]) -> list[dict]:
    """For each requested class: number of images, share in which the teacher predicts it, and its mean area.

    Args:
        records: records of the buffer.
        classes: names by class index.
    """
    rows = []
    for index, name in enumerate(classes):
        areas = [record['teacher_share'][record['classes'].index(index)] for record in records
                 if index in record['classes']]
        if areas:
            rows.append(dict(name=name, index=index, count=len(areas),
                             found=100 * sum(area > 0 for area in areas) / len(areas),
                             area=100 * sum(areas) / len(areas)))
    return rows


def _masks(teacher: torch.nn.Module, images: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    masks: dict[int, np.ndarray] = {}
    positions = list(images)
    for start in range(0, len(positions), 8):
        batch = positions[start:start + 8]
        labels = label_images(teacher, torch.from_numpy(np.stack([images[i] for i in batch]))).numpy()
        masks.update(zip(batch, labels))
    return masks


def _write_grids(folder: Path, step: int, classes: Sequence[str], records: Sequence[dict], images: dict, masks: dict,
                 palette: Sequence) -> None:
    for index, name in enumerate(classes):
        held = [i for i in images if index in records[i]['classes']][:_GRID_IMAGES]
        if not held:
            continue
        stem = f'fakes_step_{step}_{"".join(c if c.isalnum() else "-" for c in name)}'
        for suffix, pictures in (('', [images[i] for i in held]),
                                 ('_mask', [overlay(images[i], masks[i], palette) for i in held])):
            cell = tuple(min(side, most) for side, most in zip(pictures[0].shape[:2], _GRID_PICTURE))
            grid = image_grid(pictures, min(_GRID_COLUMNS, len(held)), cell)
            with atomic_write(folder / f'{stem}{suffix}.png') as file:
                Image.fromarray(grid).save(file, format='PNG')


def _item(step: int, index: int, record: dict, image: np.ndarray, mask: np.ndarray, classes: Sequence[str],
          palette: Sequence) -> dict:
    small = fit(image, _PICTURE)
    asked: list[dict] = []
    for at, c in enumerate(record['classes']):
        r: Optional[float] = record['r'][at] if record['r'] else None
        asked.append(dict(name=classes[c], r=r, share=100 * record['teacher_share'][at]))
    return dict(step=step, index=index, image=record['image'], asked=asked, losses=record['losses'],
                classes=record['classes'], photo=photo_uri(small), mask=mask_uri(mask, palette, small.shape[:2]),
                found=min(a['share'] for a in asked), loss=record['losses'].get('classification'))
