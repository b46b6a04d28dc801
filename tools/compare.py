"""Train and evaluate several methods with one config, and print the paper's table.

    python tools/compare.py configs/hrhf/shapes_3-1.py --methods table1 --settings 3-1/overlapped 3-1/disjoint
    python tools/compare.py configs/hrhf/voc_15-1.py --methods FT MiB HRHF Joint --seeds 0 1 2 --jobs 8

Every run is a separate process in WORK_DIR/SETTING/seed_S/METHOD, which also contains its complete config. Run the same
command again to continue: finished runs are read, and unfinished ones are resumed. The table is also written to
WORK_DIR/table.{md,csv,json}, and the mIoU over steps to WORK_DIR/curves.png.
"""
import argparse
import os.path as osp
import sys
from pathlib import Path


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='base config: data, model, schedule, replay')
    parser.add_argument(
        '--methods',
        nargs='+',
        default=['table1'],
        metavar='METHOD',
        help='methods (FT PI EWC RW LwF LwF-MC ILT MiB PLOP DKD HRHF HRHF+ Joint, "HRHF without fakes", ...) or groups '
        'of them (table1 to table7, ablations, later, plus, all, frozen); NAME frozen: with method.freeze_norm; '
        'default: table1')
    parser.add_argument(
        '--settings',
        nargs='+',
        metavar='[TASK/]SETTING',
        help="such as 15-1/overlapped; without TASK, the config's task; TASK may be a name in comparison.tasks of the "
        "config (default: the config's task and setting)")
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], metavar='SEED')
    parser.add_argument('--jobs', type=int, default=1, help='number of parallel runs, which share the GPUs equally')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (needs an accelerator)')
    parser.add_argument('--work-dir', help='default: work_dirs/compare_CONFIG')
    parser.add_argument(
        '--by-step', action='store_true', help="add a column for the classes of each step to the table (Table 7)")
    parser.add_argument(
        '--background',
        choices=('out', 'in', 'both'),
        default='out',
        help='out: figures without background (1-15, 16-20, all), as in the paper and MiB (default); in: figures with '
        'background (0-15, 16-20, "all, with background"), as in later papers')
    parser.add_argument(
        '--published', action='store_true', help='add published figures of the same tasks and settings')
    parser.add_argument(
        '--dry-run', action='store_true', help='check all runs and list them with their folders; writes nothing')
    parser.add_argument('--table-only', action='store_true', help='write the tables of existing results; runs nothing')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the base config')
    return parser.parse_args()


def main():
    args = parse_args()
    # Imported only now: --help must not wait for the toolbox.
    import torch

    import mmseg_hrhf
    mmseg_hrhf.register_all()
    from mmseg_hrhf.analysis.comparison.cell import parse_setting
    from mmseg_hrhf.analysis.comparison.comparison import describe, plan_cells, plan_runs, write_tables
    from mmseg_hrhf.analysis.comparison.runs import Scheduler
    from mmseg_hrhf.analysis.comparison.table import BACKGROUND, read_published
    from mmseg_hrhf.config.comparison import choose_methods, load_base
    from mmseg_hrhf.config.load import enable_amp
    base = load_base(args.config, args.cfg_options)
    if args.amp:
        enable_amp(base)
    name = osp.splitext(osp.basename(args.config))[0]
    work_dir = osp.abspath(args.work_dir or osp.join('work_dirs', f'compare_{name}'))
    own = (base.get('comparison') or {}).get('methods') or {}
    settings = args.settings or [base.scenario.get('setting', 'overlapped')]
    cells = plan_cells(work_dir, choose_methods(args.methods, own), [parse_setting(text) for text in settings],
                       args.seeds)
    columns = {f'{cell.task or base.scenario.get("task")} {cell.setting}' for cell in cells}
    published = read_published(columns) if args.published else None
    failed = []
    if args.dry_run:
        print(describe(plan_runs(cells, base, write=False)))
        print('Nothing was trained or written (--dry-run). Data and networks are checked when a run starts, or by '
              'tools/train.py CONFIG --dry-run.')
        return
    if not args.table_only:
        runs = plan_runs(cells, base)
        scheduler = Scheduler(Path(__file__).with_name('train.py'), args.jobs, torch.cuda.device_count(), _say)
        print(f'{len(cells)} cells, {len(runs)} runs, {args.jobs} in parallel, in {work_dir}; processes per run: '
              f'{scheduler.processes}, total batch size: {scheduler.processes * base.train_dataloader.batch_size}',
              flush=True)
        failed = scheduler.run(runs)
    table = write_tables(work_dir, cells, f'{name}: comparison', args.by_step, {run.cell for run in failed},
                         published, dict(out=BACKGROUND[:1], both=BACKGROUND).get(args.background, BACKGROUND[1:]))
    print(f'\n{table}\n{osp.join(work_dir, "table.md")}')
    if failed:
        sys.exit(f'error: {len(failed)} runs failed: ' + '; '.join(run.cell.name for run in failed))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == '__main__':
    try:
        main()
    except Exception as error:
        from mmseg_hrhf.utils.errors import report_and_exit
        report_and_exit(error)
    except KeyboardInterrupt:
        sys.exit('Interrupted: run the same command again to continue.')
