"""Build the standard VOC split (10,582 + 1,449 images) from the downloaded VOC 2012 and SBD archives.

    python tools/prepare_voc.py VOCtrainval_11-May-2012.tar benchmark.tgz

Accepts the archives or their unpacked folders; downloads nothing. Run it again to continue. Needs scipy (pip install
scipy) for SBD's MATLAB files.
"""
import argparse


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('voc', metavar='VOC', help='VOCtrainval_11-May-2012.tar, or its unpacked folder')
    parser.add_argument('sbd', metavar='SBD', help='benchmark.tgz, or its unpacked folder')
    parser.add_argument('--target', default='data/VOCdevkit/VOC2012',
                        help='folder to fill (default: data/VOCdevkit/VOC2012)')
    return parser.parse_args()


def main():
    args = parse_args()
    import mmseg_hrhf
    mmseg_hrhf.register_all()
    from mmseg_hrhf.datasets.preparation.voc import prepare_voc
    print(prepare_voc(args.voc, args.sbd, args.target))


if __name__ == '__main__':
    try:
        main()
    except Exception as error:
        from mmseg_hrhf.utils.errors import report_and_exit
        report_and_exit(error)
