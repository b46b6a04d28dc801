"""HRHF, HRHF without fake images and fine-tuning on the embedded default, over seeds; step 0 is trained once per seed.

    python benchmarks/shapes_three_systems.py --out work_dirs/three_systems [--seeds 0 1 2]

Run again to continue; finished runs are read, not repeated.
"""
import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[1]
CONFIG = REPO / 'configs/hrhf/shapes_3-1.py'
SYSTEMS = {
    'HRHF': [],
    'HRHF without fakes': ['replay=None'],
    'FT': ['method.type=FineTuning'],
}
COLUMNS = {'old': 'mIoU_old', 'new': 'mIoU_new', 'all': 'mIoU_all', 'all + bg': 'mIoU_all_with_background'}


def train(work_dir, seed, options, *extra):
    command = [sys.executable, str(REPO / 'tools/train.py'), str(CONFIG), '--work-dir', str(work_dir)]
    command += ['--seed', str(seed), *extra]
    subprocess.run(command + (['--cfg-options', *options] if options else []), check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    args = parser.parse_args()
    final = {name: [] for name in SYSTEMS}
    for seed in args.seeds:
        first = args.out / f'seed_{seed}' / 'step_0'
        train(first, seed, [], '--step', '0')
        for name, options in SYSTEMS.items():
            work_dir = args.out / f'seed_{seed}' / name.replace(' ', '_')
            if not (work_dir / 'step_0').exists():
                shutil.copytree(first / 'step_0', work_dir / 'copying', dirs_exist_ok=True)
                (work_dir / 'copying').rename(work_dir / 'step_0')
            train(work_dir, seed, options)
            final[name].append(json.loads((work_dir / 'results.json').read_text())['steps'][-1])
    lines = ['| system | ' + ' | '.join(COLUMNS) + ' |', '|---' * (len(COLUMNS) + 1) + '|']
    for name, results in final.items():
        cells = []
        for key in COLUMNS.values():
            values = [result[key] for result in results]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f'{statistics.mean(values):.1f} ± {spread:.1f}')
        lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
    table = '\n'.join(lines) + '\n'
    (args.out / 'table.md').write_text(table)
    print(table)


if __name__ == '__main__':
    main()
