"""Generate a small dataset in ADE20K's format: patchwork images with labels 0 (void) and 1 to 150.

    python benchmarks/generate_ade20k_like.py DIRECTORY [--train 40] [--val 20]
"""
import argparse
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, PATCHES, CLASSES = 96, 4, 150


def generate(root: Path, num_train: int, num_val: int) -> None:
    """Write ``images`` and ``annotations`` for ``training`` and ``validation``; every class occurs in both."""
    rng = np.random.default_rng(0)
    colours = rng.integers(30, 226, (CLASSES + 1, 3))
    for split, number in (('training', num_train), ('validation', num_val)):
        if number * (PATCHES**2 - 1) < CLASSES:
            raise ValueError(f'{number} images of {split} have too few patches for {CLASSES} classes.')
        folders = [root / kind / split for kind in ('images', 'annotations')]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        # One patch of each image is void; the others cycle through the classes.
        classes = np.resize(np.arange(1, CLASSES + 1), (number, PATCHES**2 - 1))
        for i, row in enumerate(classes):
            patches = np.append(row, 0).astype(np.uint8).reshape(PATCHES, PATCHES)
            mask = np.kron(patches, np.ones((SIDE // PATCHES, SIDE // PATCHES), np.uint8))
            image = np.clip(colours[mask] + rng.normal(0, 12, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
            name = f'ADE_{split[:5]}_{i:08d}'
            Image.fromarray(image).save(folders[0] / f'{name}.jpg')
            Image.fromarray(mask).save(folders[1] / f'{name}.png')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('directory', type=Path)
    parser.add_argument('--train', type=int, default=40)
    parser.add_argument('--val', type=int, default=20)
    args = parser.parse_args()
    generate(args.directory, args.train, args.val)
