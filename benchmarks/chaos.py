"""Kill training runs with SIGKILL at random moments and compare their results with an uninterrupted run.

    python benchmarks/chaos.py --work-dir work_dirs/chaos [--kills 50]

The job is tools/train.py with benchmarks/configs/chaos_by_{iteration,epoch}.py, always the same command. Weights of all
steps, synthetic images and the final table must be bit-identical. Run again to continue.
"""
import argparse
import collections
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

REPO = Path(__file__).parents[1]
KINDS = ('by_iteration', 'by_epoch')
STEPS = 3


def start(kind, work_dir, data):
    """The process of the job, and the time after which its imports are done."""
    command = [sys.executable, str(REPO / 'tools/train.py'), str(REPO / f'benchmarks/configs/chaos_{kind}.py'),
               '--work-dir', str(work_dir), '--cfg-options']
    command += [f'{loader}_dataloader.dataset.data_root={data}' for loader in ('train', 'val', 'test')]
    work_dir.mkdir(parents=True, exist_ok=True)
    log = work_dir / 'run.log'
    before = log.stat().st_size if log.exists() else 0
    with open(work_dir.with_suffix('.out'), 'ab') as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    while process.poll() is None and not (log.exists() and log.stat().st_size > before):
        time.sleep(0.02)
    return process, time.monotonic()


def phase(work_dir):
    """Phase of a killed job, judged by its files."""
    for step in range(STEPS):
        folder = work_dir / f'step_{step}'
        if (folder / 'result.json').exists():
            continue
        train = folder / 'train'
        if (folder / 'checkpoint.pth').exists():
            return 'writing a step down'
        if not train.exists():
            return 'between steps' if step else 'start'
        if list(train.glob('.resume.pth.*')):
            return 'writing a resume point'
        if step and not (folder / 'fakes/manifest.jsonl').exists():
            return 'inversion'
        point = train / 'resume.pth'
        if not point.exists():
            return 'training'
        done = torch.load(point, weights_only=True)['message_hub']['runtime_info']
        return 'evaluation' if done['iter'] + 1 >= done['max_iters'] else 'training'
    return 'writing the table'


def differences(work_dir, expected):
    """Names of files and tensors that are not bit-identical."""
    differing = []
    for step in range(STEPS):
        one, other = (torch.load(folder / f'step_{step}/checkpoint.pth', weights_only=True)['state_dict']
                      for folder in (work_dir, expected))
        if one.keys() != other.keys() or not all(torch.equal(one[name], other[name]) for name in one):
            differing.append(f'weights of step {step}')
        fakes = [{path.name: path.read_bytes() for path in (folder / f'step_{step}/fakes/images').glob('*.bmp')}
                 for folder in (work_dir, expected)]
        if fakes[0] != fakes[1]:
            differing.append(f'fakes of step {step}')
    if (work_dir / 'results.md').read_bytes() != (expected / 'results.md').read_bytes():
        differing.append('table')
    return differing


def report(trials):
    kills = [kill for trial in trials for kill in trial['kills']]
    ended = [trial for trial in trials if 'differing' in trial]
    phases = collections.Counter(kill['phase'] for kill in kills)
    survived = sum(len(trial['kills']) for trial in ended if trial['code'] == 0)
    tried = sum(len(trial['kills']) for trial in ended)
    identical = sum(not trial['differing'] for trial in ended if trial['code'] == 0)
    lines = [f'Kills survived / tried: {survived} / {tried}', f'Runs bit-identical: {identical} / {len(ended)}', '',
             '| killed during | times |', '|---|---|', *(f'| {name} | {n} |' for name, n in phases.most_common())]
    for trial in ended:
        if trial['code'] or trial['differing']:
            lines.append('{kind} {number}: exit code {code}, differing {differing}'.format(**trial))
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path, required=True)
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--minutes', type=float, default=1e9, help='stop after the first run that exceeds this')
    args = parser.parse_args()
    began, data, state = time.monotonic(), args.work_dir / 'data', args.work_dir / 'chaos.json'
    trials = json.loads(state.read_text()) if state.exists() else []

    def save():
        state.with_suffix('.new').write_text(json.dumps(trials, indent=1))
        os.replace(state.with_suffix('.new'), state)

    seconds = {}
    for kind in KINDS:
        expected = args.work_dir / f'whole_{kind}'
        duration = args.work_dir / f'whole_{kind}.seconds'
        if not duration.exists():
            process, ready = start(kind, expected, data)
            if process.wait() != 0:
                sys.exit(f'The undisturbed run failed: see {expected}.out')
            duration.write_text(f'{time.monotonic() - ready:.1f}')
        seconds[kind] = float(duration.read_text())
    while sum(len(trial['kills']) for trial in trials if 'differing' in trial) < args.kills:
        if (time.monotonic() - began) / 60 > args.minutes:
            break
        if not trials or 'differing' in trials[-1]:
            trials.append(dict(kind=KINDS[len(trials) % len(KINDS)], number=len(trials), kills=[]))
        trial = trials[-1]
        work_dir = args.work_dir / f'killed_{trial["number"]}'
        draw = random.Random(f'{trial["number"]} {len(trial["kills"])}')
        process, ready = start(trial['kind'], work_dir, data)
        try:
            process.wait(draw.uniform(0, 0.5) * seconds[trial['kind']])
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            trial['kills'].append(dict(after=round(time.monotonic() - ready, 2), phase=phase(work_dir)))
        else:
            trial['code'] = process.returncode
            expected = args.work_dir / f'whole_{trial["kind"]}'
            trial['differing'] = differences(work_dir, expected) if trial['code'] == 0 else []
        save()
    print(f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; '
          f'undisturbed {seconds}')
    print(report(trials))


if __name__ == '__main__':
    main()
