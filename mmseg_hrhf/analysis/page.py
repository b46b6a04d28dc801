"""One self-contained HTML file: styles, scripts, charts and pictures inside, nothing fetched."""
from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from PIL import Image

from ..scenario import IGNORE
from ..utils.errors import UserError
from ..utils.io import PathLike, write_text
from ..work_dir.checkpoint import load_checkpoint
from .results import RunRecord

_TEMPLATES = Path(__file__).parent / 'templates'


def write_page(path: PathLike, template: str, **values: Any) -> None:
    """Fill a template of this package and write it whole or not at all. Values are escaped unless they are Markup."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True)
    environment.filters['score'] = score
    write_text(path, environment.get_template(template).render(**values))


def score(value) -> str:
    """A percentage with one decimal; a dash for what has no value."""
    return '-' if value is None or value != value else f'{value:.1f}'


def photo_uri(image: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB as a data URI, compressed for the eye."""
    return _uri(Image.fromarray(image), 'webp', quality=85)


def mask_uri(mask: np.ndarray, palette: Sequence[Sequence[int]]) -> str:
    """(H, W) class indices as a data URI: background clear, ignored pixels white."""
    picture = Image.fromarray(mask.astype(np.uint8)).convert('P')
    colours = np.full((256, 3), 255, dtype=np.uint8)
    colours[:len(palette)] = palette
    picture.putpalette(colours.tobytes())
    alpha = bytearray([255] * 256)
    alpha[0], alpha[IGNORE] = 0, 200
    return _uri(picture, 'png', optimize=True, transparency=bytes(alpha))


def _uri(picture: Image.Image, kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return f'data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}'


# Images looked at, at most, to find some that show each class.
_LOOKED_AT = 300
# A class shows well where it takes between these shares of an image.
_SHARE = (0.03, 0.7)


@dataclass
class Panel:
    """A test image and masks of it.

    Args:
        name: file name of the image.
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) uint8 class indices of the last step.
        predictions: (H, W) uint8 by title of the checkpoint.
    """
    name: str
    image: np.ndarray
    truth: np.ndarray
    predictions: dict[str, np.ndarray] = field(default_factory=dict)


def choose_images(shares: Sequence[Sequence[float]], number: int) -> list[int]:
    """Images that together show every class, classes taking turns.

    Args:
        shares: of each image, the share of pixels of each class index.
        number: of images to choose.
    Returns:
        Their positions, in the order of the turns.
    """
    chosen: list[int] = []
    classes = list(range(1, len(shares[0]))) if shares else []
    while classes and len(chosen) < number:
        found = []
        for index in classes:
            good = [i for i, row in enumerate(shares) if i not in chosen and _SHARE[0] <= row[index] <= _SHARE[1]]
            if good and len(chosen) < number:
                chosen.append(good[0])
                found.append(index)
        classes = found
    return chosen


def make_panels(checkpoints: Sequence[tuple[str, RunRecord, int]], number: int) -> list[Panel]:
    """Run checkpoints on some test images.

    Args:
        checkpoints: ``(title, run, step)``; the first run's last step gives images and ground truth.
        number: of images.
    Raises:
        UserError: data or a checkpoint is missing.
    """
    run = checkpoints[0][1]
    cfg = run.plain_config(run.last['step'])
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    try:
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        order = np.random.default_rng(0).permutation(len(dataset))[:_LOOKED_AT]
        shares = [_class_shares(dataset.get_data_info(int(i)), len(run.classes)) for i in order]
    except OSError as error:
        raise UserError(f'the test images are not where the run had them ({error})') from error
    samples = [dataset[int(order[i])] for i in choose_images(shares, number)]
    panels = []
    for sample in samples:
        path = sample['data_samples'].img_path
        with Image.open(path) as image:
            pixels = np.asarray(image.convert('RGB'))
        truth = sample['data_samples'].gt_sem_seg.data[0].numpy().astype(np.uint8)
        panels.append(Panel(path.replace('\\', '/').rsplit('/', 1)[-1], pixels, truth))
    for title, each, step in checkpoints:
        model = load_segmentor(each, step)
        for panel, sample in zip(panels, samples):
            with torch.no_grad():
                output, = model.test_step(pseudo_collate([sample]))
            panel.predictions[title] = output.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)
    return panels


def load_segmentor(run: RunRecord, step: int) -> torch.nn.Module:
    """The network of a finished step, in eval mode, on a GPU if there is one."""
    cfg = run.plain_config(step)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    path = run.files(step).checkpoint
    try:
        model.load_state_dict(load_checkpoint(path)['state_dict'])
    except RuntimeError as error:
        raise UserError(f'{path} does not fit the config beside it: {error}') from error
    return model.to('cuda' if torch.cuda.is_available() else 'cpu').eval().requires_grad_(False)


def _class_shares(info: dict, num_classes: int) -> list[float]:
    """Share of an image's pixels that have each class index; labels are mapped as the annotation loader maps them."""
    with Image.open(info['seg_map_path']) as mask:
        counts = np.bincount(np.asarray(mask, dtype=np.uint8).ravel(), minlength=256)
    shares = np.zeros(256)
    for raw, count in enumerate(counts):
        shares[(info['label_map'] or {}).get(raw, raw)] += count / counts.sum()
    return shares[:num_classes].tolist()


def row_shares(counts: np.ndarray) -> np.ndarray:
    """(C, C) pixel counts as percentages of each true class; NaN in rows without a pixel."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(100.0 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)


def largest_confusions(classes: Sequence[str], counts: np.ndarray, number: int) -> list[tuple[str, str, float]]:
    """``(class, taken for, percentage of the class's pixels)``, the largest shares first; at least 1 %."""
    shares = np.nan_to_num(row_shares(counts))
    np.fill_diagonal(shares, 0)
    order = np.argsort(-shares, axis=None, kind='stable')[:number]
    pairs = [np.unravel_index(i, shares.shape) for i in order]
    return [(classes[i], classes[j], float(shares[i, j])) for i, j in pairs if shares[i, j] >= 1]
