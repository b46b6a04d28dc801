"""Convert a published in-place ABN checkpoint to mmseg weights.

    python tools/convert_iabn.py SRC DST

SRC: an ImageNet ResNet of inplace_abn (for a LeakyResNet: init_cfg=dict(type='Pretrained', checkpoint=DST)), or a
DeepLabV3 of MiB (for configs/_base_/models/deeplabv3_r101-d16_leaky.py).
"""
import argparse
import os.path as osp
import sys


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src')
    parser.add_argument('dst')
    parser.add_argument('--eps', type=float, default=1e-5, help='eps of the in-place ABN layers (default: 1e-5)')
    args = parser.parse_args()
    # Imported only now: --help must not wait for the toolbox.
    import mmseg_hrhf
    mmseg_hrhf.register_all()
    from mmseg_hrhf.models.leaky_resnet import convert_iabn, load_iabn
    from mmseg_hrhf.work_dir.checkpoint import save_checkpoint
    try:
        converted = convert_iabn(load_iabn(args.src), args.eps)
    except ValueError as error:
        sys.exit(f'error: {error}')
    save_checkpoint(args.dst, converted, meta=dict(converted_from=osp.basename(args.src)))
    print(f'{len(converted)} tensors written to {args.dst}')


if __name__ == '__main__':
    main()
