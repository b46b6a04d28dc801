"""Draw input, each system's prediction and ground truth side by side (Fig. 4).

    python tools/plot_predictions.py FT=RUNS/FT MiB=RUNS/MiB HRHF=RUNS/HRHF --out predictions.png
"""
import argparse
import os
import os.path as osp
import sys


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='NAME=WORK_DIR', help='finished runs of the same task')
    parser.add_argument('--step', type=int, help='learning step (default: the last)')
    parser.add_argument('--images', nargs='+', metavar='NAME', help='test images by file name (default: chosen)')
    parser.add_argument('--number', type=int, default=5, help='images to choose')
    parser.add_argument('--out', default='predictions.png', help='picture to write (.png, .svg, .pdf)')
    parser.add_argument('--device', default='cpu')
    return parser.parse_args()


def main():
    args = parse_args()
    from mmseg_hrhf.figures.finished_step import FinishedStep
    from mmseg_hrhf.figures.predictions import choose_images, draw_predictions
    from mmseg_hrhf.files import read_json
    systems, new_classes = {}, ()
    for text in args.runs:
        name, _, folder = text.partition('=')
        if not folder:
            raise ValueError(f'{text!r} is not of the form NAME=WORK_DIR.')
        path = osp.join(folder, 'results.json')
        if not osp.exists(path):
            raise ValueError(f'{folder} holds no finished run: results.json is missing.')
        results = read_json(path)
        step = results['num_steps'] - 1 if args.step is None else args.step
        systems[name] = FinishedStep(osp.join(folder, f'step_{step}'), args.device)
        new_classes = systems[name].classes[1 + results['num_base_classes']:]
    first = next(iter(systems.values()))
    if args.images:
        names = first.names()
        missing = [name for name in args.images if name not in names]
        if missing:
            raise ValueError(f'{missing[0]!r} is no test image of this step.')
        indices = [names.index(name) for name in args.images]
    else:
        indices = choose_images(first, args.number, new_classes)
    draw_predictions(systems, indices, args.out)
    print(args.out)


if __name__ == '__main__':
    try:
        main()
    except ValueError as error:
        if os.environ.get('HRHF_TRACEBACK'):
            raise
        sys.exit(f'error: {error}')
