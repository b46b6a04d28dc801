"""Evaluate the checkpoint of a learning step, with the mIoU of old, new and all classes."""
import argparse
import os
import os.path as osp
import signal
import sys


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of the run, or the plain config of a step')
    parser.add_argument('checkpoint', help='step_<t>/checkpoint.pth of a run')
    parser.add_argument('--work-dir', help='folder for the metrics (default: work_dirs/CONFIG)')
    parser.add_argument('--out', help='folder for predicted masks')
    parser.add_argument('--show-dir', help='folder for overlays of the predictions on the images')
    parser.add_argument('--show', action='store_true', help='show these overlays')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds to show each overlay (default: 2)')
    parser.add_argument('--tta', action='store_true',
                        help='test-time augmentation, with tta_pipeline and tta_model of the config')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')
    return parser.parse_args()


def main():
    args = parse_args()
    if os.environ.get('HRHF_LAUNCHER'):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the launcher reports the interruption, once for all processes
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    import mmseg_hrhf
    mmseg_hrhf.register_all()
    from mmseg_hrhf.config.load import load_config
    from mmseg_hrhf.engine.distributed import end_distributed
    from mmseg_hrhf.engine.testing import run_test
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or osp.join(
        'work_dirs', osp.splitext(osp.basename(args.config))[0])
    run_test(cfg, args.checkpoint, args.out, args.show_dir, args.show, args.wait_time, args.tta)
    end_distributed()


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        print('error: stopped by SIGINT (signal 2). Run the same command again.', file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        from mmseg_hrhf.utils.errors import report_and_exit
        report_and_exit(error)
