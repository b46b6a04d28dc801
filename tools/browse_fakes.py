"""Write a self-contained HTML page, and PNG grids, of the synthetic images of a run.

    python tools/browse_fakes.py work_dirs/voc_15-1
"""
import argparse
import os.path as osp


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dir', metavar='WORK_DIR', help='work dir of tools/train.py')
    parser.add_argument('--out', metavar='DIR', help='folder for fakes.html and the grids (default: WORK_DIR/fakes)')
    parser.add_argument('--images', type=int, default=60, metavar='N',
                        help='maximum number of images per step and class on the page (default: 60)')
    return parser.parse_args()


def main():
    args = parse_args()
    # Imported only now: --help must not wait for the toolbox.
    import mmseg_hrhf
    mmseg_hrhf.register_all()
    from mmseg_hrhf.analysis.fake_browser import write_fake_browser
    from mmseg_hrhf.analysis.results import read_run
    print(write_fake_browser(read_run(args.work_dir), args.out or osp.join(args.work_dir, 'fakes'), args.images))


if __name__ == '__main__':
    try:
        main()
    except Exception as error:
        from mmseg_hrhf.utils.errors import report_and_exit
        report_and_exit(error)
