"""Plot inputs, the predictions of each method and the ground truth side by side (Fig. 4).

    python tools/plot_predictions.py FT=RUNS/FT MiB=RUNS/MiB HRHF=RUNS/HRHF --out predictions.png
"""
import argparse


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='NAME=WORK_DIR', help='finished runs of the same task')
    parser.add_argument('--step', type=int, help='learning step (default: the last)')
    parser.add_argument('--images', nargs='+', metavar='NAME', help='file names of test images (default: automatic)')
    parser.add_argument('--number', type=int, default=5, help='number of images to choose automatically (default: 5)')
    parser.add_argument('--out', default='predictions.png', help='picture to write (.png, .svg, .pdf)')
    parser.add_argument('--device', default='cpu')
    return parser.parse_args()


def main():
    args = parse_args()
    from mmseg_hrhf.analysis.figures import choose_images, draw_predictions, named_images, open_runs
    runs, new_classes = open_runs(args.runs, args.step, args.device)
    first = next(iter(runs.values()))
    indices = named_images(first, args.images) if args.images else choose_images(first, args.number, new_classes)
    draw_predictions(runs, indices, args.out)
    print(args.out)


if __name__ == '__main__':
    try:
        main()
    except Exception as error:
        from mmseg_hrhf.utils.errors import report_and_exit
        report_and_exit(error)
