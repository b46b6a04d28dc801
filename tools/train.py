"""Run all learning steps of a config, or one. Run again to continue."""
import argparse
import logging
import os
import os.path as osp
import signal
import sys


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='train config file path')
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and results (default: work_dirs/CONFIG)')
    parser.add_argument('--step', type=int, help='run only this learning step; the previous one must be finished')
    parser.add_argument('--resume', action='store_true', help='has no effect, since runs always resume')
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='print the plan and check every path, class and checkpoint; trains nothing and creates no work dir')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (needs an accelerator)')
    parser.add_argument('--seed', type=int, help='random seed of the run (default: 0)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. scenario.setting=disjoint replay.ratio=1:2 replay=None')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')
    return parser.parse_args()


def main():
    args = parse_args()
    logging.raiseExceptions = False  # on a full disk, print one error line, not a traceback for each log line
    if os.environ.get('HRHF_LAUNCHER'):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the launcher reports the interruption, once for all processes
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    # Imported only now: --help must not wait for the toolbox.
    import mmseg_hrhf
    mmseg_hrhf.register_all()
    from mmseg_hrhf.config.load import enable_amp, load_config
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    if args.seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=args.seed)
    if args.step is not None:
        cfg.only_step = args.step
    if args.amp:
        enable_amp(cfg)
    from mmengine.dist import is_main_process

    from mmseg_hrhf.engine.distributed import end_distributed
    if args.dry_run:
        from mmseg_hrhf.engine.dry_run import dry_run
        text = dry_run(cfg)
        if is_main_process():
            print(text)
    else:
        from mmseg.registry import RUNNERS
        RUNNERS.build(cfg).train()
    end_distributed()


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        print('error: stopped by SIGINT (signal 2). Run the same command again to continue.', file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        from mmseg_hrhf.utils.errors import report_and_exit
        report_and_exit(error)
