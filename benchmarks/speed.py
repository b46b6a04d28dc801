"""Measure all speeds as ratios to a floor in the same process: docs/performance.md.

    python benchmarks/speed.py --out work_dirs/speed                       # all parts
    python benchmarks/speed.py training start_up --out work_dirs/speed     # only these; other figures are kept
    python benchmarks/speed.py --out work_dirs/speed --device cuda

Writes DIR/speed.json, DIR/speed.md (the table; --before and --gpu add columns from other speed.json files) and
DIR/speed_PART.png for each part with a plot.
"""
import argparse
import importlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

PARTS = ('training', 'data', 'start_up', 'side_by_side', 'inversion', 'scale')
REPO = Path(__file__).parents[1]


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='*', metavar='PART', help=f'of {", ".join(PARTS)} (default: all)')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--before', type=Path, metavar='FILE', help='speed.json of an earlier commit')
    parser.add_argument('--gpu', type=Path, metavar='FILE', help='speed.json of a GPU')
    parser.add_argument('--table', action='store_true', help='measure nothing, write the table and curves anew')
    args = parser.parse_args()
    unknown = sorted(set(args.parts) - set(PARTS))
    if unknown:
        parser.error(f'there is no part {unknown[0]!r}; there are {", ".join(PARTS)}')
    return args


def circumstances(device):
    """Machine, software and commit of a measurement."""
    import torch
    commit = subprocess.run(['git', 'describe', '--always', '--dirty', '--abbrev=9'], cwd=REPO, capture_output=True,
                            text=True).stdout.strip()
    versions = {'python': platform.python_version(), 'torch': torch.__version__}
    for name in ('mmengine', 'mmcv', 'mmcv-lite', 'mmsegmentation', 'onedl-mmengine', 'onedl-mmcv',
                 'onedl-mmsegmentation'):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    machine = torch.cuda.get_device_name(device) if device.startswith('cuda') else processor()
    return dict(command=' '.join(['python', 'benchmarks/speed.py', *sys.argv[1:]]), commit=commit, device=device,
                machine=machine, threads=torch.get_num_threads(), versions=versions)


def processor():
    """Name of the CPU and its cores."""
    names = [line.split(':')[1].strip() for line in Path('/proc/cpuinfo').read_text().splitlines()
             if line.startswith('model name')] if Path('/proc/cpuinfo').exists() else [platform.processor()]
    return f'{names[0]}, {os.cpu_count()} cores'


def read(path):
    return json.loads(path.read_text()) if path is not None and path.exists() else {}


def figure(row):
    """A value with its quartiles."""
    spread = '' if row['rounds'] == 1 else f' ({row["low"]:.3f} to {row["high"]:.3f})'
    return f'{row["value"]:.3f}{spread}'


def name(row):
    """Name of a row without the seconds in brackets, which differ between runs."""
    return re.sub(r' \([^()]*\)$', '', row['what'])


def bar(row):
    if row['at_most'] is not None:
        return f'≤ {row["at_most"]:g}', row['value'] <= row['at_most']
    if row['at_least'] is not None:
        return f'≥ {row["at_least"]:g}', row['value'] >= row['at_least']
    return '', None


def table(now, before, gpu):
    """Markdown table with one row per figure, and a GPU column if there is a GPU file."""
    columns = ['part', 'what', 'bar', 'before', 'now', 'holds', *(['GPU'] if gpu else [])]
    lines = [f'| {" | ".join(columns)} |', '|' + '---|' * len(columns)]
    others = [{(part, name(row)): row for part, held in there.items() for row in held['rows']}
              for there in (before, gpu)]
    for part in PARTS:
        for row in now.get(part, dict(rows=[]))['rows']:
            limit, holds = bar(row)
            was, there = (figure(other[part, name(row)]) if (part, name(row)) in other else '' for other in others)
            holds = {None: '', True: 'yes', False: '**no**'}[holds]
            cells = [part, row['what'], limit, was, figure(row), holds, *([there] if gpu else [])]
            lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def main():
    import torch
    args = parse_args()
    if args.device == 'cpu' and torch.cuda.is_available():
        raise SystemExit('A training takes the GPU that it sees, whatever --device says: give --device cuda, or hide '
                         'it with CUDA_VISIBLE_DEVICES=.')
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / 'speed.json'
    for part in () if args.table else args.parts or PARTS:
        began = time.time()
        figures = importlib.import_module(f'speed_{part}').measure(args.device, args.out)
        held = dict(read(path), **{part: dict(figures, seconds=round(time.time() - began),
                                              **circumstances(args.device))})
        path.write_text(json.dumps(held, indent=1) + '\n')
    figures = read(path)
    for part in figures:
        draw = getattr(importlib.import_module(f'speed_{part}'), 'draw', None)
        if draw is not None:
            draw(figures[part], args.out / f'speed_{part}.png')
    text = table(figures, read(args.before), read(args.gpu))
    (args.out / 'speed.md').write_text(text)
    print(text)


if __name__ == '__main__':
    main()
