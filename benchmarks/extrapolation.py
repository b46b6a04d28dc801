"""Cost of the paper's runs, from counted operations: images x iterations x operations of each part."""
from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch.utils.flop_counter import FlopCounterMode

from mmseg_hrhf.models.heads import predicted_logits

REPO = Path(__file__).parents[1]
# Real images of each step (overlapped rule; MiB's partition), epochs, validation images, steps.
RUNS = {
    'VOC 15-1': dict(real=(9568, 487, 299, 491, 500, 548), epochs=30, tested=1449),
    'ADE20K 100-10': dict(real=(13452, 1130, 1200, 1366, 1550, 1498), epochs=60, tested=2000),
}
FEWEST_FAKES, MOST_FAKES = 512, 4096
# Full-size iterations per synthetic image in the paper.
PUBLISHED = 1000
# Dense operations per second of one H200, as specified by its vendor.
PEAK = {'bf16': 989e12, 'TF32': 494e12}
# Share of it assumed in the table of minutes, not measured.
SUPPOSED = 0.4
GOALS = {'one GPU in an hour': 3600, 'eight GPUs in 15 minutes': 8 * 900}


def operations(side=512):
    """Floating-point operations of DeepLabV3 with ResNet-101 for one image, counted on meta tensors."""
    init_default_scope('mmseg')
    cfg = Config.fromfile(REPO / 'configs/_base_/models/deeplabv3_r101-d16.py').model
    cfg.backbone.init_cfg = None
    with torch.device('meta'):
        model = revert_sync_batchnorm(MODELS.build(cfg)).eval().requires_grad_(False)
        image = torch.randn(1, 3, side, side, requires_grad=True)

    def counted(work):
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    forward = counted(lambda: predicted_logits(model, image))
    to_input = counted(lambda: predicted_logits(model, image).sum().backward())
    model.requires_grad_(True)
    trained = counted(lambda: predicted_logits(model, image.detach()).sum().backward())
    return dict(forward=forward, inversion=to_input, training=trained)


def parts(run, each, iterations):
    """Operations of each part of a run.

    Args:
        run: of ``RUNS``.
        each: see ``operations``.
        iterations: of the inversion of one image, at full size.
    """
    first, *later = run['real']
    fakes = sum(min(max(FEWEST_FAKES, number), MOST_FAKES) for number in later)
    return {
        'step 0': first * run['epochs'] * each['training'],
        # Each batch has as many synthetic as real images; the teacher sees both.
        'steps from 1 on': 2 * sum(later) * run['epochs'] * (each['training'] + each['forward']),
        'inversion': fakes * iterations * each['inversion'],
        'tests': len(run['real']) * run['tested'] * each['forward'],
    }


def staged_iterations():
    """Equivalent number of full-size iterations of the VOC-animals stages, by pixels."""
    stages = Config.fromfile(REPO / 'benchmarks/configs/voc_animals_3-1.py').replay.inversion.stages
    return sum(scale**2 * number for scale, number in stages)


def extrapolation():
    """Operations by run, inversion variant and part; and the share of peak that a time goal requires."""
    each, ways = operations(), dict(published=PUBLISHED, stages=staged_iterations())
    runs = {f'{name}, {way}': parts(run, each, iterations) for name, run in RUNS.items()
            for way, iterations in ways.items()}
    needed = {name: {goal: {kind: sum(held.values()) / seconds / peak for kind, peak in PEAK.items()}
                     for goal, seconds in GOALS.items()} for name, held in runs.items()}
    return dict(each=each, runs=runs, needed=needed)


def table(figures):
    """Markdown table of the result of ``extrapolation``."""
    names = list(next(iter(figures['runs'].values())))
    lines = ['| run, synthesis | ' + ' | '.join(f'{name} (10^15)' for name in names) + ' | all | '
             + ' | '.join(f'{goal}: share of {kind} peak' for goal in GOALS for kind in PEAK) + ' |']
    lines.append('|' + '---|' * (len(names) + 2 + len(GOALS) * len(PEAK)))
    for name, held in figures['runs'].items():
        shares = [figures['needed'][name][goal][kind] for goal in GOALS for kind in PEAK]
        cells = [f'{value / 1e15:.1f}' for value in (*held.values(), sum(held.values()))]
        lines.append('| ' + ' | '.join([name, *cells, *(f'{100 * share:.0f} %' for share in shares)]) + ' |')
    return '\n'.join(lines) + '\n'


def minutes(figures):
    """Markdown table of each part's minutes on one GPU at ``SUPPOSED`` of its bf16 peak, and of the total on eight."""
    names = list(next(iter(figures['runs'].values())))
    lines = ['| run, synthesis | ' + ' | '.join(names) + ' | all | all on eight |', '|' + '---|' * (len(names) + 3)]
    for name, held in figures['runs'].items():
        each = [value / (SUPPOSED * PEAK['bf16']) / 60 for value in (*held.values(), sum(held.values()))]
        lines.append('| ' + ' | '.join([name, *(f'{value:.1f}' for value in (*each, each[-1] / 8))]) + ' |')
    return '\n'.join(lines) + '\n'
