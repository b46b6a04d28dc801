"""Whole trainings of two steps on generated data: killed and continued, on two processes, deterministic."""
from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Mapping, Optional, Sequence

import numpy as np
import torch
from PIL import Image

from mmseg_hrhf.datasets.shapes import draw
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint

from .parts import check
from .place import Place
from .stop import KILL_AT

REPO = Path(__file__).parents[2]
STEPS, KILLED_AFTER = 2, 8
# Training images by the shapes that they show: those of step 0, and each of step 1; images to test on.
TRAIN, VAL = ((0, 1, 2), ) * 60 + ((3, ), ) * 20 + ((4, ), ) * 20, ((0, 1, 2, 3, 4), ) * 20
# On a GPU a continued run may be so many times as far from an uninterrupted one as two of these are from each other,
# or as far as another choice of kernels brings it: relative distance of weights, grey levels of fakes.
FACTOR = 10.0
ROUNDING = {False: (1e-4, 0.25), True: (5e-4, 1.0)}  # by --amp


def start(place: Place, work_dir: Path, *arguments: str, environment: Optional[Mapping[str, str]] = None,
          options: Sequence[str] = ()) -> subprocess.Popen:
    """tools/train.py on the job; its output goes to the file ``WORK_DIR.log``."""
    command = [sys.executable, str(REPO / 'tools/train.py'), str(REPO / 'benchmarks/configs/gpu_check.py'),
               '--work-dir', str(work_dir), *arguments, '--cfg-options',
               *(f'{loader}_dataloader.dataset.data_root={data(place)}' for loader in ('train', 'val', 'test')),
               *options]
    given = {**os.environ, 'OMP_NUM_THREADS': '1', **(environment or {})}
    with open(f'{work_dir}.log', 'ab') as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=given)


def data(place: Place) -> Path:
    """A small set of ``ShapesDataset``, in VOC's layout; generated once."""
    root, rng = place.folder('data') / 'shapes', np.random.default_rng(0)
    if root.exists():
        return root
    fresh = root.with_suffix('.writing')
    shutil.rmtree(fresh, ignore_errors=True)
    for sub in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (fresh / sub).mkdir(parents=True)
    for split, contents in dict(train=TRAIN, val=VAL).items():
        for number, classes in enumerate(contents):
            image, mask = map(Image.fromarray, draw(classes, rng))
            image.save(fresh / f'JPEGImages/{split}_{number:04d}.png')
            mask.save(fresh / f'SegmentationClass/{split}_{number:04d}.png')
        names = ''.join(f'{split}_{number:04d}\n' for number in range(len(contents)))
        (fresh / f'ImageSets/Segmentation/{split}.txt').write_text(names)
    return fresh.rename(root)


def finish(process: subprocess.Popen, work_dir: Path, killed: bool = False) -> None:
    """Wait for a job that has to succeed, or to be killed.

    Raises:
        RuntimeError: it ended otherwise; holds the end of its output.
    """
    ended = process.wait()
    if ended != (-9 if killed else 0):
        raise RuntimeError(f'{work_dir.name} ended with {ended}:\n{said(work_dir)}')


def said(work_dir: Path) -> str:
    """The end of what a job printed."""
    return Path(f'{work_dir}.log').read_text(errors='replace')[-3000:]


def new(place: Place, name: str) -> Path:
    """A work dir that no job has had: an earlier try may have left one."""
    parent = place.folder('runs')
    number = sum(path.name.startswith(f'{name} ') and path.suffix == '.log' for path in parent.iterdir())
    return parent / f'{name} {number}'


def weights(work_dir: Path, step: int) -> torch.Tensor:
    """All of a step's weights and running statistics, float64, flat."""
    state = load_checkpoint(work_dir / f'step_{step}/checkpoint.pth')['state_dict']
    return torch.cat([value.double().flatten() for value in state.values()])


def fakes(work_dir: Path) -> np.ndarray:
    """(N, H, W, 3) fakes of step 1 as float."""
    paths = sorted((work_dir / 'step_1/fakes/images').glob('*.bmp'))
    return np.stack([np.asarray(Image.open(path), dtype=float) for path in paths])


def differences(one: Path, other: Path) -> dict[str, float]:
    """Relative distance of each step's weights, and mean difference of pixels; 0 where bits are the same."""
    found = {}
    for step in range(STEPS):
        a, b = weights(one, step), weights(other, step)
        found[f'weights of step {step}'] = float((a - b).norm() / b.norm())
    found['fakes of step 1, in grey levels'] = float(np.abs(fakes(one) - fakes(other)).mean())
    return found


def killed(place: Place, amp: bool = False) -> dict:
    """A run killed after iteration 8 of step 1 and continued, against uninterrupted ones.

    On a CPU bits must be the same. On a GPU, where sums are in varying order, two uninterrupted runs say how far.
    """
    if amp and place.device == 'cpu':
        return dict(unavailable='--amp needs a GPU')
    label, arguments = ('--amp', ['--amp']) if amp else ('float32', [])
    data(place)
    whole, again, stopped = (new(place, f'{name}, {label}') for name in ('whole', 'again', 'killed'))
    uninterrupted = [whole] if place.device == 'cpu' else [whole, again]
    first = {path: start(place, path, *arguments) for path in uninterrupted}
    finish(start(place, stopped, *arguments, environment={KILL_AT: str(KILLED_AFTER)}), stopped, killed=True)
    if (stopped / 'step_1/result.json').exists():
        raise RuntimeError('The run was over before it was to be killed.')
    finish(start(place, stopped, *arguments), stopped)
    for path, process in first.items():
        finish(process, path)
    found, bounds, scatter = differences(stopped, whole), dict.fromkeys(differences(whole, whole), 0.0), {}
    if place.device != 'cpu':
        scatter = differences(again, whole)
        bounds = {what: max(FACTOR * value, ROUNDING[amp]['fakes' in what]) for what, value in scatter.items()}
    return dict(checks=[check(f'continued run against an uninterrupted one, {label}: {what}', value, bounds[what])
                        for what, value in found.items()],
                scatter_of_two_uninterrupted_runs=scatter)


def deterministic(place: Place) -> dict:
    """Runs with randomness.deterministic=True: the same bits, or an operation that refuses, which is named.

    Two uninterrupted ones and, on a GPU, one that is killed and continued: on a CPU ``killed`` asks for the same bits.
    """
    data(place)
    first, second, stopped = (new(place, f'deterministic, {name}') for name in ('first', 'second', 'killed'))
    how = dict(options=['randomness.deterministic=True'])
    environment = dict(CUBLAS_WORKSPACE_CONFIG=':4096:8')  # cuBLAS asks for it
    running = {path: start(place, path, environment=environment, **how) for path in (first, second)}
    if place.device == 'cuda':
        running[stopped] = start(place, stopped, environment={**environment, KILL_AT: str(KILLED_AFTER)}, **how)
    codes = {path: process.wait() for path, process in running.items()}
    if codes[first] or codes[second]:
        text = said(first if codes[first] else second)
        refusal = [line for line in text.splitlines() if 'does not have a deterministic implementation' in line]
        if not refusal:
            raise RuntimeError(text)
        return dict(refused=refusal[-1])
    pairs = {'two runs': (first, second)}
    if stopped in running:
        finish(running[stopped], stopped, killed=True)
        finish(start(place, stopped, environment=environment, **how), stopped)
        pairs['a killed run'] = (stopped, first)
    return dict(checks=[check(f'randomness.deterministic=True, {name}: {what}', value, 0)
                        for name, pair in pairs.items() for what, value in differences(*pair).items()])


def two_processes(place: Place) -> dict:
    """A run on two ranks, which must end with the same weights.

    NCCL takes one rank a GPU: with two GPUs both ranks use it, with one they share the GPU by gloo, and NCCL is tried
    with a single rank.
    """
    data(place)
    nccl = place.device == 'cuda' and torch.cuda.device_count() > 1
    path = new(place, 'two processes')
    running, backend = ranks(place, path, 2, 'nccl' if nccl else 'gloo', own_device=nccl), 'nccl' if nccl else 'gloo'
    for process in running:
        finish(process, path)
    checks, result = [], dict(backend=backend)
    for step in range(STEPS):
        held = {file.read_text() for file in (path / f'step_{step}/train').glob('rank_*.sha256')}
        number = len(list((path / f'step_{step}/train').glob('rank_*.sha256')))
        checks += [check(f'ranks of step {step} that wrote no weights', 2 - number, 0),
                   check(f'sets of weights of step {step}, by {backend}', len(held), 1)]
    if place.device == 'cuda' and not nccl:
        alone = new(place, 'nccl alone')
        finish(ranks(place, alone, 1, 'nccl', own_device=False)[0], alone)
        result['nccl_with_one_rank'] = 'ends well'
    return dict(result, checks=checks)


def ranks(place: Place, path: Path, number: int, backend: str, own_device: bool) -> list[subprocess.Popen]:
    """Start the ranks of a run, on a GPU each or on one together."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    common = dict(WORLD_SIZE=str(number), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    options = [f'env_cfg.dist_cfg.backend={backend}'] if place.device == 'cuda' else []
    return [start(place, path, '--launcher', 'pytorch', options=options,
                  environment=dict(common, RANK=str(rank), LOCAL_RANK=str(rank if own_device else 0)))
            for rank in range(number)]
