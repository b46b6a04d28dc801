"""Check that a dataset is complete and where the configs expect it; print what is missing and where to download it.

    python tools/check_data.py voc [data/VOCdevkit/VOC2012]
    python tools/check_data.py ade [data/ade/ADEChallengeData2016]
"""
import argparse

ROOTS = dict(voc='data/VOCdevkit/VOC2012', ade='data/ade/ADEChallengeData2016')


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('dataset', choices=list(ROOTS))
    parser.add_argument('root', nargs='?', help='folder of the dataset (default: as in the configs)')
    return parser.parse_args()


def main():
    args = parse_args()
    import mmseg_hrhf
    mmseg_hrhf.register_all()
    from mmseg_hrhf.datasets.preparation.check import check_ade, check_voc
    check = dict(voc=check_voc, ade=check_ade)[args.dataset]
    print(check(args.root or ROOTS[args.dataset]))


if __name__ == '__main__':
    try:
        main()
    except Exception as error:
        from mmseg_hrhf.utils.errors import report_and_exit
        report_and_exit(error)
