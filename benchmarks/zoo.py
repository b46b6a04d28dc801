"""Run every model family of mmseg's zoo through two learning steps and write docs/model_zoo_compat.md.

    python benchmarks/zoo.py --out work_dirs/zoo [--families segformer ocrnet ...] [--jobs 2]

Runs one process per family on tiny generated images, without downloads. Writes one JSON file per family to ``--out``:
the same command continues where it stopped, and other interpreters (with mmcv's compiled ops, with mmdetection) add
their families to the same folder. ``--again`` reruns families that have a result; ``--table`` only writes the page.
"""
from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from zoo_families import FAMILIES
from zoo_family import run_family
from zoo_table import write_page

REPO = Path(__file__).parents[1]


def run(name: str, out: Path, timeout: int) -> dict:
    """Run one family in a separate process; a crash or time-out is a result too."""
    path = out / f'{name}.json'
    with tempfile.TemporaryDirectory() as work:
        # Forked to import the toolbox only once.
        fork = multiprocessing.get_context('fork')
        process = fork.Process(target=_run, args=(name, Path(work), path.with_suffix('')))
        process.start()
        process.join(timeout)
        error = f'the process ended with code {process.exitcode}'
        if process.is_alive():
            process.kill()
            process.join()
            error = f'took longer than {timeout} s'
    unfinished = path.with_suffix('.part')
    if not unfinished.exists():
        family = FAMILIES[name]
        unfinished.write_text(json.dumps(dict(family=name, config=family.config, needs=family.needs, plain=False,
                                              notes=[], versions={}, error=error)))
    unfinished.replace(path)
    return json.loads(path.read_text())


def _run(name: str, work: Path, stem: Path) -> None:
    torch.set_num_threads(1)
    with open(stem.with_suffix('.log'), 'w') as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        result = run_family(name, work)
    stem.with_suffix('.part').write_text(json.dumps(result, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--families', nargs='+', choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--timeout', type=int, default=600, help='seconds a family')
    parser.add_argument('--again', action='store_true')
    parser.add_argument('--table', action='store_true')
    args = parser.parse_args()
    if torch.cuda.is_available():
        raise SystemExit('The families run in forked processes, which cannot use a GPU that the first process has '
                         'looked for: hide it with CUDA_VISIBLE_DEVICES=.')
    args.out.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in args.families if args.again or not (args.out / f'{name}.json').exists()]
    if not args.table:
        with ThreadPoolExecutor(args.jobs) as pool:
            for result in pool.map(lambda name: run(name, args.out, args.timeout), wanted):
                print(result['family'], result.get('error', 'passes'), f'{result.get("seconds", 0)} s', flush=True)
    print(write_page(args.out, REPO / 'docs' / 'model_zoo_compat.md'))


if __name__ == '__main__':
    main()
