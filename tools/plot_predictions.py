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
    import mmseg_hrhf
    mmseg_hrhf.register_all()
    from mmseg_hrhf.analysis.figures import draw_predictions, step_folders
    from mmseg_hrhf.analysis.finished_step import make_panels
    folders = step_folders(args.runs, args.step)
    draw_predictions(make_panels(folders, args.number, args.images or (), args.device), folders, args.out)
    print(args.out)


if __name__ == '__main__':
    try:
        main()
    except Exception as error:
        from mmseg_hrhf.utils.errors import report_and_exit
        report_and_exit(error)
