"""Generated data in VOC's layout, on which the complete method runs in minutes on a CPU."""
from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Sequence

import numpy as np
from mmengine.dist import barrier, is_main_process
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ('disc', 'square', 'triangle', 'cross', 'ring')
PALETTE = ([0, 0, 0], [214, 69, 65], [38, 120, 178], [46, 148, 82], [240, 173, 44], [142, 82, 168])
# Mean colour of each class, around which objects vary; backgrounds have any colour.
_COLOURS = np.array([[200, 60, 60], [50, 100, 200], [60, 170, 80], [220, 180, 50], [160, 80, 190]], dtype=float)
SIDE = 96
# Classes of each training image: base classes, then each later class.
_TRAIN = ((0, 1, 2), ) * 600 + ((3, ), ) * 200 + ((4, ), ) * 200
_VAL = 200
# Share of images of a later class that also contain an old class.
_OLD_BESIDE_NEW = 0.05


@DATASETS.register_module()
class ShapesDataset(BaseSegDataset):
    """Textured shapes of many scales on textured backgrounds: disc, square, triangle, cross, ring.

    The data are generated in ``data_root`` on first use (1,200 images of 96 x 96 pixels, about 10 seconds). Images of
    cross and ring rarely contain other classes, so that plain fine-tuning on them causes forgetting.
    """
    METAINFO = dict(classes=('background', ) + CLASSES, palette=[list(colour) for colour in PALETTE])

    def __init__(self, img_suffix: str = '.png', seg_map_suffix: str = '.png', **kwargs) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    @staticmethod
    def prepare(data_root: str) -> None:
        """Generate the data if they do not exist; rank 0 does so while the other ranks wait."""
        if is_main_process() and not os.path.isdir(data_root):
            generate(data_root)
        barrier()


def generate(data_root: str) -> None:
    """Write images, masks and lists (``train.txt``, ``val.txt``) in VOC's layout, atomically."""
    target = Path(data_root).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f'.{target.name}.'))
    try:
        for sub in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
            (folder / sub).mkdir(parents=True)
        rng = np.random.default_rng(2101)
        train = [_write(folder, f'train_{i:04d}', classes, rng) for i, classes in enumerate(_TRAIN)]
        val = [_write(folder, f'val_{i:04d}', tuple(range(len(CLASSES))), rng) for i in range(_VAL)]
        for name, names in (('train', train), ('val', val)):
            (folder / f'ImageSets/Segmentation/{name}.txt').write_text('\n'.join(names) + '\n')
        folder.chmod(0o755)
        try:
            folder.rename(target)
        except OSError:  # a concurrent run may have written the same files first
            if not (target / 'ImageSets/Segmentation/val.txt').is_file():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, name: str, classes: Sequence[int], rng: np.random.Generator) -> str:
    image, mask = draw(classes, rng)
    Image.fromarray(image).save(folder / 'JPEGImages' / f'{name}.png')
    labels = Image.fromarray(mask)
    labels.putpalette([channel for colour in PALETTE for channel in colour])
    labels.save(folder / 'SegmentationClass' / f'{name}.png')
    return name


def draw(classes: Sequence[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw an image with one to three objects of the given classes (indices into ``CLASSES``).

    Returns:
        (96, 96, 3) uint8 RGB image and (96, 96) uint8 mask, labels 0 (background) to 5.
    """
    chosen = list(rng.choice(classes, size=rng.integers(1, 4)))
    if len(classes) == 1 and classes[0] > 0 and rng.random() < _OLD_BESIDE_NEW:
        chosen.insert(0, rng.integers(classes[0]))
    image = _texture(rng.uniform(30, 225, 3), rng, contrast=35)
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for kind in chosen:
        silhouette = _silhouette(kind, rng)
        colour = np.clip(_COLOURS[kind] + rng.normal(0, 22, 3), 0, 255)
        image = np.where(silhouette[..., None], _texture(colour, rng, contrast=25), image)
        mask[silhouette] = kind + 1
    image = image + rng.normal(0, 4, image.shape)
    smooth = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))
    return np.asarray(smooth), mask


def _texture(colour: np.ndarray, rng: np.random.Generator, contrast: float) -> np.ndarray:
    """(96, 96, 3) float: waves with random direction and period, plus smooth noise around ``colour``."""
    y, x = np.mgrid[:SIDE, :SIDE]
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 40)
    waves = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period + rng.uniform(0, 6.28))
    coarse = Image.fromarray(rng.normal(0, 1, (6, 6)).astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return colour + contrast * (0.5 * waves + 0.5 * np.asarray(coarse))[..., None] * rng.uniform(0.6, 1.4, 3)


def _silhouette(kind: int, rng: np.random.Generator) -> np.ndarray:
    """(96, 96) bool: a shape with random position, angle and scale (radius 9 to 38 pixels, log-uniform)."""
    radius = 9 * (38 / 9)**rng.random()
    centre = rng.uniform(0.15 * SIDE, 0.85 * SIDE, 2)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:SIDE, :SIDE] - centre[:, None, None]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    name = CLASSES[kind]
    if name == 'disc':
        return u**2 + v**2 < radius**2
    if name == 'ring':
        return (u**2 + v**2 < radius**2) & (u**2 + v**2 > (0.55 * radius)**2)
    if name == 'square':
        return np.maximum(abs(u), abs(v)) < 0.8 * radius
    if name == 'cross':
        return (np.maximum(abs(u), abs(v)) < radius) & (np.minimum(abs(u), abs(v)) < 0.3 * radius)
    corners = [(np.cos(a) * radius + centre[1], np.sin(a) * radius + centre[0]) for a in angle + np.arange(3) * 2.0944]
    canvas = Image.new('1', (SIDE, SIDE))
    ImageDraw.Draw(canvas).polygon(corners, fill=1)
    return np.array(canvas)
