"""Turn masks painted in the colours of a config's palette into label masks, which training reads.

    python tools/convert_colour_masks.py CONFIG COLOUR_FOLDER LABEL_FOLDER [--ignore 255 255 255]
"""
import argparse
import sys
from pathlib import Path


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config whose train_dataloader.dataset.metainfo.palette names the colours')
    parser.add_argument('colours', type=Path, help='folder of RGB masks (PNG, BMP, TIFF), searched with its subfolders')
    parser.add_argument('labels', type=Path, help='folder for the label masks, as PNG under the same names')
    parser.add_argument('--ignore', type=int, nargs=3, metavar=('R', 'G', 'B'), help='colour that becomes 255')
    return parser.parse_args()


def main():
    args = parse_args()
    import numpy as np
    from PIL import Image
    from tqdm import tqdm

    from mmseg_hrhf.config_file import load_config
    from mmseg_hrhf.datasets.colour_masks import labels_of_colours
    from mmseg_hrhf.files import atomic_write
    palette = (load_config(args.config).train_dataloader.dataset.get('metainfo') or {}).get('palette')
    if not palette:
        raise ValueError(f'{args.config} has no train_dataloader.dataset.metainfo.palette: list the colour of each '
                         'class.')
    paths = sorted(path for path in args.colours.rglob('*') if path.suffix.lower() in ('.png', '.bmp', '.tif', '.tiff'))
    if not paths:
        raise ValueError(f'{args.colours} holds no PNG, BMP or TIFF file.')
    for path in tqdm(paths, unit='mask'):
        with Image.open(path) as image:
            if image.mode in ('L', 'P'):
                raise ValueError(f'{path} holds labels already (mode {image.mode}): train on it as it is.')
            try:
                labels = labels_of_colours(np.asarray(image.convert('RGB')), palette, args.ignore)
            except ValueError as error:
                raise ValueError(f'{path}: {error}.') from error
        with atomic_write(args.labels / path.relative_to(args.colours).with_suffix('.png')) as file:
            Image.fromarray(labels).save(file, format='PNG')
    print(f'{len(paths)} label masks are in {args.labels}.')


if __name__ == '__main__':
    try:
        main()
    except ValueError as error:
        sys.exit(f'error: {error}')
