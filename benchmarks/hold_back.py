"""Split a list of training images in two, for tuning without the test images.

    python benchmarks/hold_back.py IMAGE_LIST --out DIR [--share 0.15] [--seed 0]

Writes DIR/kept.txt and DIR/held_back.txt. Tuning trains on the first and evaluates on the second.
"""
import argparse
from pathlib import Path

import numpy as np


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('image_list', type=Path)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--share', type=float, default=0.15, help='held back')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    names = args.image_list.read_text().split()
    held_back = np.zeros(len(names), dtype=bool)
    chosen = np.random.default_rng(args.seed).choice(len(names), round(args.share * len(names)), replace=False)
    held_back[chosen] = True
    args.out.mkdir(parents=True, exist_ok=True)
    for name, mask in (('kept', ~held_back), ('held_back', held_back)):
        (args.out / f'{name}.txt').write_text('\n'.join(np.array(names)[mask]) + '\n')
        print(f'{mask.sum()} images: {args.out / name}.txt')


if __name__ == '__main__':
    main()
