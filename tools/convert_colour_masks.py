"""Convert masks in the colours of a config's palette to label masks for training.

    python tools/convert_colour_masks.py CONFIG COLOUR_FOLDER LABEL_FOLDER [--ignore 255 255 255]

Labels are those of the config's training data: with reduce_zero_label, the first class has label 1.
"""
import argparse
from pathlib import Path


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config with classes and palette in its train_dataloader')
    parser.add_argument('colours', type=Path, help='folder of RGB masks (PNG, BMP, TIFF), searched recursively')
    parser.add_argument('labels', type=Path, help='folder for the label masks, written as PNG with the same names')
    parser.add_argument('--ignore', type=int, nargs=3, metavar=('R', 'G', 'B'),
                        help='colour of unlabelled pixels, whose label is 0 with reduce_zero_label, else 255')
    return parser.parse_args()


def main():
    args = parse_args()
    # Imported only now: --help must not wait for the toolbox.
    import numpy as np
    from mmengine.registry import init_default_scope
    from PIL import Image
    from tqdm import tqdm

    from mmseg_hrhf.config.load import load_config
    from mmseg_hrhf.datasets.preparation.colour_masks import colour_code, labels_of_colours
    from mmseg_hrhf.utils.errors import UserError
    from mmseg_hrhf.utils.io import atomic_write
    cfg = load_config(args.config)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    code = colour_code(cfg)
    paths = sorted(path for path in args.colours.rglob('*') if path.suffix.lower() in ('.png', '.bmp', '.tif', '.tiff'))
    if not paths:
        raise UserError(f'{args.colours} contains no PNG, BMP or TIFF files.')
    for path in tqdm(paths, unit='mask'):
        with Image.open(path) as image:
            if image.mode in ('L', 'P'):
                raise UserError(f'{path} already contains labels (mode {image.mode}): train on it directly.')
            try:
                labels = labels_of_colours(np.asarray(image.convert('RGB')), code.palette, args.ignore, code.labels,
                                           code.unlabelled)
            except ValueError as error:
                raise UserError(f'{path}: {error}. (Set the colour of unlabelled pixels by --ignore R G B.)') from error
        with atomic_write(args.labels / path.relative_to(args.colours).with_suffix('.png')) as file:
            Image.fromarray(labels).save(file, format='PNG')
    print(f'Wrote {len(paths)} label masks to {args.labels}: labels {min(code.labels)} to {max(code.labels)}, '
          f'unlabelled {code.unlabelled}.')


if __name__ == '__main__':
    try:
        main()
    except Exception as error:
        from mmseg_hrhf.utils.errors import report_and_exit
        report_and_exit(error)
