"""Write a self-contained HTML report of one run, or of several side by side.

    python tools/report.py work_dirs/voc_15-1
    python tools/report.py HRHF=work_dirs/hrhf FT=work_dirs/ft --out compared.html
    python tools/report.py work_dirs/compare_voc_15-1
"""
import argparse
import os.path as osp


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dir', nargs='+', metavar='[NAME=]WORK_DIR',
                        help='work dir of tools/train.py, or a folder that contains finished runs at any depth')
    parser.add_argument('--out', help='HTML file to write (default: report.html in the first work dir)')
    parser.add_argument('--images', type=int, default=8, help='number of test images to show; 0: none (default: 8)')
    parser.add_argument('--published', action='store_true', help='add published figures of the same tasks and settings')
    return parser.parse_args()


def main():
    args = parse_args()
    # Imported only now: --help must not wait for the toolbox.
    import mmseg_hrhf
    mmseg_hrhf.register_all()
    from mmseg_hrhf.analysis.comparison.table import read_published
    from mmseg_hrhf.analysis.report import write_report
    from mmseg_hrhf.analysis.results import find_runs
    runs = find_runs(args.work_dir)
    out = args.out or osp.join(args.work_dir[0].split('=')[-1], 'report.html')
    published = read_published({run.column for run in runs}) if args.published else None
    write_report(out, runs, args.images, published)
    print(out)


if __name__ == '__main__':
    try:
        main()
    except Exception as error:
        from mmseg_hrhf.utils.errors import report_and_exit
        report_and_exit(error)
