"""Cost against amount of work: synthetic images, classes, steps, processes, batch size; and cost of the paper's runs.

Each figure is the cost per unit at the largest amount over the cost per unit at a smaller one: 1 means linear.
"""
from __future__ import annotations

import copy
import statistics
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import torch
import torch.distributed as dist
from extrapolation import extrapolation, minutes, operations, table
from memory_over_steps import resident, run_steps
from peak_memory import peak_bytes
from speed_inversion import network
from timing import Rounds, interleaved, row

from mmseg_hrhf.engine.hooks.seg_inversion import fill_buffer
from mmseg_hrhf.models.heads import predicted_logits
from mmseg_hrhf.models.losses.fused import fused_losses
from mmseg_hrhf.models.losses.label_merge import merge_labels
from mmseg_hrhf.replay.buffer import FakeImageBuffer
from mmseg_hrhf.replay.inversion.aggregation import scale_aware_aggregation
from mmseg_hrhf.replay.inversion.base import FakeRequest
from mmseg_hrhf.replay.inversion.seg_inversion import SegInversion

SIDE = 64
INVERSION = dict(type='SegInversion', size=SIDE, batch_size=16, stages=[(1.0, 4)])
FAKES, BATCHES, CLASSES, PROCESSES = (16, 32, 64, 128), (4, 8, 16, 32, 64), (21, 51, 101, 151), (1, 2)


def of_fakes(device, out):
    """Seconds (process time on a CPU) and private memory (MiB, first round) for each number of synthetic images; and
    the ratio of the seconds per image, most images over fewest."""
    model, rounds, memory = network('fcn_small', SIDE, device), Rounds(device, own_time=True), {}

    def fill(number):
        fill_buffer(FakeImageBuffer(out / f'fakes_{time.monotonic_ns()}', number), model, INVERSION, seed=0)

    fill(FAKES[0])  # warm-up
    for turn in range(5):
        for number in FAKES if turn % 2 == 0 else FAKES[::-1]:
            with rounds.time(number):
                fill(number)
            memory.setdefault(number, resident())
    return ([(number, rounds.median(number), memory[number]) for number in FAKES],
            rounds.ratio(FAKES[-1], FAKES[0]).times(FAKES[0] / FAKES[-1]))


def of_classes(device):
    """Peak tensor memory, in units of (K, 512, 512) float32 logits, and seconds of aggregation and of all losses of an
    image; the ratios of their seconds per class, most classes over fewest; and the peak of aggregation in bfloat16, in
    the same units."""

    def aggregation(number, dtype=torch.float32):
        # In channels last, as a network with such inputs returns them.
        scores = torch.empty(1, number, 512, 512, device=device, dtype=dtype, memory_format=torch.channels_last)
        scores.normal_().requires_grad_()
        pooled = scale_aware_aggregation(scores, torch.full((1, number), 5.0, device=device))
        torch.autograd.grad(pooled.sum(), scores)

    def losses(number):
        # At the head's stride of 16; the loss up-samples them to the labels' size.
        student = torch.randn(1, number, 32, 32, device=device, requires_grad=True)
        teacher = torch.randn(1, number - 10, 32, 32, device=device)
        labels = torch.zeros(1, 512, 512, dtype=torch.long, device=device)
        terms = fused_losses(student, labels, teacher, merge_labels, distil=True)
        torch.autograd.grad((terms.cross_entropy + terms.distillation).sum(), student)

    works = {(work.__name__, number): lambda work=work, number=number: work(number)
             for number in CLASSES for work in (aggregation, losses)}
    timed = interleaved(works, 5, warmup=1, device=device, own_time=True)
    units = {number: 4 * number * 512**2 for number in CLASSES}
    rows = [(number, *(peak_bytes(works[kind, number], device) / units[number] for kind in ('aggregation', 'losses')),
             *(timed.median((kind, number)) for kind in ('aggregation', 'losses'))) for number in CLASSES]
    per_class = {kind: timed.ratio((kind, CLASSES[-1]), (kind, CLASSES[0])).times(CLASSES[0] / CLASSES[-1])
                 for kind in ('aggregation', 'losses')}
    half = peak_bytes(lambda: aggregation(CLASSES[-1], torch.bfloat16), device) / (units[CLASSES[-1]] / 2)
    return rows, per_class, half


def of_batches(device):
    """Seconds per iteration and image, for each batch size."""
    model = network('fcn_small', SIDE, device)

    def call(number):
        inversion = SegInversion(SIDE, batch_size=number, stages=[(1.0, 4)])
        return lambda: inversion(model, FakeRequest(((1, ), ) * number, 0))

    timed = interleaved({str(number): call(number) for number in BATCHES}, 3, warmup=1, device=device, own_time=True)
    return [(number, timed.median(str(number)) / 4 / number) for number in BATCHES]


def of_peak(device):
    """Operations per second with ResNet-101, of an inversion iteration, a training pass (forward and backward) and a
    pass without gradient (teacher, test); and of a matrix product, as the peak of the device.

    All in float32; on a GPU in TF32, which torch enables by default only for convolutions.
    """
    side, batch, iterations, rows = (512, 16, 4, 8192) if device.startswith('cuda') else (128, 4, 2, 2048)
    model, request = network('deeplabv3_r101-d16', side, device), FakeRequest(((1, ), ) * batch, 0)
    whole, start = (SegInversion(side, batch_size=batch, stages=[(1.0, number)]) for number in (iterations + 1, 1))
    student, images = copy.deepcopy(model).requires_grad_(True), torch.randn(batch, 3, side, side, device=device)
    matrix = torch.randn(rows, rows, device=device)

    def forward():
        with torch.inference_mode():
            predicted_logits(model, images)

    def product():
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        matrix @ matrix
        torch.backends.cuda.matmul.allow_tf32 = before

    timed = interleaved(dict(whole=lambda: whole(model, request), start=lambda: start(model, request),
                             training=lambda: predicted_logits(student, images).sum().backward(), forward=forward,
                             product=product), 3, warmup=1, device=device, own_time=True)
    seconds = dict(inversion=(timed.median('whole') - timed.median('start')) / iterations,
                   training=timed.median('training'), forward=timed.median('forward'))
    counted = operations(side)
    return dict({part: batch * counted[part] / taken for part, taken in seconds.items()},
                product=2 * rows**3 / timed.median('product'))


def of_processes(out):
    """Median wall time of each number of processes, with one thread each, for 128 synthetic images, and median process
    time of the first one, in seconds; and the ratios of both, most processes over one."""
    wall, worked = Rounds(), Rounds()
    for turn in range(3):
        for number in PROCESSES if turn % 2 == 0 else PROCESSES[::-1]:
            command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={number}',
                       __file__, str(out / f'processes_{number}_{turn}')]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            for rounds, seconds in zip((wall, worked), done.stdout.split('seconds:')[1].split()):
                rounds.seconds[number].append(float(seconds))
    most = PROCESSES[-1], PROCESSES[0]
    return ([(number, wall.median(number), worked.median(number)) for number in PROCESSES], wall.ratio(*most),
            worked.ratio(*most))


def process(folder):
    """Run one of several processes that fill a buffer together."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    model = network('fcn_small', SIDE, 'cpu')
    dist.barrier()
    began, worked = time.perf_counter(), time.process_time()
    fill_buffer(FakeImageBuffer(folder, 128), model, INVERSION, seed=0)
    if dist.get_rank() == 0:
        print('seconds:', time.perf_counter() - began, time.process_time() - worked)
    dist.destroy_process_group()


def middle(steps):
    return statistics.median(step[1] for step in steps)


def measure(device, out):
    work = out / f'scale_{int(time.time())}'
    work.mkdir(parents=True)
    # Synthetic images first: memory left over from larger work would hide theirs.
    (fakes, per_fake), (classes, per_class, half) = of_fakes(device, work), of_classes(device)
    costs, peak, batches = extrapolation(), of_peak(device), of_batches(device)
    (processes, on_the_wall, worked), steps = of_processes(work), run_steps(work / 'steps')
    (out / 'extrapolation.md').write_text(f'{table(costs)}\n{minutes(costs)}')
    (few, _, few_mib), (many, _, many_mib) = fakes[0], fakes[-1]
    return dict(
        rows=[
            row(f'seconds per fake, {many} / {few}', per_fake, at_most=1.1),
            row(f'own memory, {many} fakes / {few}', many_mib / few_mib, at_most=1.05),
            row(f'aggregation of {CLASSES[-1]} classes: memory / logits and their gradient', classes[-1][1] / 2,
                at_most=1.05),
            row('the same in bfloat16', half / 2, at_most=1.05),
            row(f'all losses of {CLASSES[-1]} classes: memory / logits at full size', classes[-1][2], at_most=1.05),
            *(row(f'{kind}: seconds per class, {CLASSES[-1]} / {CLASSES[0]}', ratio, at_most=1.2)
              for kind, ratio in per_class.items()),
            row('seconds of steps 8 to 10 / 1 to 3, medians', middle(steps[8:11]) / middle(steps[1:4]), at_most=1.2),
            row('own memory after step 10 / step 1', steps[10][2] / steps[1][2], at_most=1.05),
            row('seconds for 128 fakes, 2 processes / 1', on_the_wall),
            row('seconds that the first of 2 processes works / that one does alone', worked),
            row(f'seconds of an iteration per image, batch {BATCHES[-1]} / {BATCHES[0]}',
                batches[-1][1] / batches[0][1], at_most=1.0),
            *(row(f'{part} with ResNet-101: operations a second / those of a product of matrices',
                  peak[part] / peak['product']) for part in ('inversion', 'training', 'forward')),
        ],
        fakes=fakes, classes=classes, batches=batches, processes=processes, steps=steps, extrapolation=costs,
        operations_per_second=peak)


def draw(figures, path):
    matplotlib.use('Agg')
    from matplotlib import pyplot
    panels = [
        ('fakes', 'seconds', [1], ['one process']),
        ('fakes', 'own memory (MiB)', [2], ['one process']),
        ('classes', 'memory / logits of 512 x 512', [1, 2], ['aggregation', 'all losses']),
        ('classes', 'seconds for an image of 512 x 512', [3, 4], ['aggregation', 'all losses']),
        ('steps', 'seconds', [1], ['10-1']),
        ('steps', 'own memory (MiB)', [2], ['10-1']),
        ('processes', 'seconds for 128 fakes', [1], ['on the wall']),
        ('batches', 'seconds per image, iteration', [1], ['64 px']),
    ]
    figure, axes = pyplot.subplots(2, 4, figsize=(15, 6.5), constrained_layout=True)
    for axis, (name, label, columns, legends) in zip(axes.flat, panels):
        top = max(held[column] for held in figures[name] for column in columns)
        for column, legend in zip(columns, legends):
            axis.plot([held[0] for held in figures[name]], [held[column] for held in figures[name]], 'o-', label=legend)
        axis.set(xlabel=dict(batches='images of a batch').get(name, name), ylabel=label, ylim=(0, 1.15 * top))
        axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == '__main__':
    process(Path(sys.argv[1]))
