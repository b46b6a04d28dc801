"""Checks and times the package on a GPU in ten minutes with one command: benchmarks/notes/gpu_check.md.

    python benchmarks/gpu_check.py --out DIR                          # on a GPU
    python benchmarks/gpu_check.py --out DIR --device cpu --tiny      # the same parts on a CPU, in a few minutes

Parts run in order of importance. DIR/gpu_check.json is written after each part. A failed part is recorded and the next
one runs; parts for which the time does not suffice are "not reached". The same command again runs the missing parts.
Exit code: 0 if everything passed, 1 if a part failed or gave wrong results, 2 if a part was not reached.
"""
from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

from gpu.parts import Part, exit_code, open_results, run_parts
from gpu.place import PRECISIONS, Place

REPO = Path(__file__).parents[1]
METHODS = ('HRHF', 'MiB', 'PLOP')


def all_parts() -> list[Part]:
    """All checks and measurements, in order of importance."""
    timed = [Part(f'training, {method}, {precision}', 'gpu.training:iteration', 90,
                  dict(method=method, precision=precision)) for method in METHODS for precision in PRECISIONS]
    inverted = [Part(f'inversion, {precision}', 'gpu.inversion:iteration', 90, dict(precision=precision))
                for precision in PRECISIONS]
    return [
        Part('device', 'gpu.device:device', 60, needed=True),
        Part('losses', 'gpu.losses:losses', 60),
        Part('methods', 'gpu.methods:methods', 90),
        Part('inversion in numbers', 'gpu.moments:moments', 60),
        Part('channels_last', 'gpu.methods:channels_last', 60),
        Part('a killed run', 'gpu.runs:killed', 180),
        Part('a killed run, --amp', 'gpu.runs:killed', 180, dict(amp=True)),
        *timed[:3],
        *inverted,
        Part('synthesis', 'gpu.inversion:synthesis', 90),
        Part('memory', 'gpu.training:memory', 90),
        Part('two processes', 'gpu.runs:two_processes', 120),
        Part('deterministic', 'gpu.runs:deterministic', 120),
        Part('data', 'gpu.data:data', 90),
        Part('loss bands', 'gpu.losses:bands', 60),
        Part('peak memory', 'gpu.training:peak_memory', 90),
        *timed[3:],
        Part('freeze_norm', 'gpu.methods:freeze_norm', 60),
        Part('inversion as a CUDA graph', 'gpu.graph:graph', 90),
        Part('torch.compile', 'gpu.graph:compiled', 150),
        Part('estimate', 'gpu.estimate:estimate', 60, always=True),
    ]


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='where gpu_check.json goes')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda')
    parser.add_argument('--minutes', type=float, default=9.0, help='in all (default: 9)')
    parser.add_argument('--tiny', action='store_true', help='small networks and few rounds')
    parser.add_argument('--scratch', type=Path, metavar='DIR', help='for data and trainings (default: a temporary one)')
    parser.add_argument('--wheels', type=Path, default=REPO / '.wheels', metavar='DIR',
                        help='where mmseg is not installed: what benchmarks/gpu_wheels.py downloaded')
    parser.add_argument('--parts', nargs='+', metavar='PART', help='these alone (default: all)')
    args = parser.parse_args()
    names = [part.name for part in all_parts()]
    unknown = sorted(set(args.parts or ()) - set(names))
    if unknown:
        parser.error(f'there is no part {unknown[0]!r}; there are: {"; ".join(names)}')
    return args


def prepare(args, scratch: Path) -> None:
    """Set import paths and the device for this process and its children; install the wheels if needed."""
    from gpu.offline import install, use
    folders = [REPO / 'benchmarks', REPO]
    site = scratch / 'site'
    if importlib.util.find_spec('mmseg') is None:
        began = time.monotonic()
        names = install(args.wheels, site)
        print(f'installed {len(names)} wheels in {time.monotonic() - began:.0f} s', flush=True)
        folders.append(site)
    use(*folders)
    if args.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # training uses any visible GPU
        os.environ.setdefault('OMP_NUM_THREADS', '1')


def main() -> int:
    args, began = parse_args(), time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = (args.scratch or Path(temporary)).absolute()
        path = args.out.absolute() / 'gpu_check.json'
        try:
            held = open_results(path, dict(device=args.device, tiny=args.tiny))
            prepare(args, scratch)
        except ValueError as error:
            raise SystemExit(str(error))
        from gpu.worker import Worker
        worker = Worker(Place(args.device, args.tiny, scratch, path))
        chosen = [part for part in all_parts() if args.parts is None or part.name in args.parts]
        try:
            held = run_parts(chosen, path, held, worker, args.minutes - (time.monotonic() - began) / 60,
                             say=lambda text: print(text, flush=True))
        finally:
            worker.close()
    return exit_code(held)


if __name__ == '__main__':
    sys.exit(main())
