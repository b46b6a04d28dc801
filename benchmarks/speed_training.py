"""A training iteration of step 1 against its floor, and its memory.

Ours is the time between two iterations of the real Runner: data (from memory), hooks, both networks, losses, backward,
optimizer, log. After each iteration, the floor runs on the same batch with a copy of the student: forward, plain
cross-entropy on the up-sampled logits (backward needs a loss) and backward; forward of the teacher without gradient;
optimizer step. ``mmseg`` is the same with the student's mmseg loss, which also computes the accuracy; ``networks`` is
the same without any loss: a fixed gradient of the head's logits, and no up-sampling. Each network and method runs in a
separate process, like a training, because memory left in the allocator by another network changes the cost. On a CPU,
in one thread, seconds are process time, so that other processes do not count.
"""
from __future__ import annotations

import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import torch
from in_memory import in_memory_config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from peak_memory import peak_bytes
from timing import Rounds, row

from mmseg_hrhf.config.load import enable_amp
from mmseg_hrhf.models.heads import predicted_logits

BARS = dict(HRHF=1.03, MiB=1.05, PLOP=1.10)
WARMUP, ROUNDS = 2, dict(mobilenet=31, small=41, resnet101=41, r101=25)


class Floor:
    """One iteration of only the networks, a plain loss and the optimizer."""

    def __init__(self, runner) -> None:
        self.teacher, self.preprocess = runner.model.teacher, runner.model.data_preprocessor
        # The student of step 1 as mmseg would train it, without the wrappers that a method adds to losses.
        student_cfg = copy.deepcopy(runner.cfg.model.student)
        self.student = MODELS.build(student_cfg).to(next(runner.model.parameters()).device).train()
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=1e-3, momentum=0.9, nesterov=True,
                                         weight_decay=1e-4)
        self.gradient = None

    def batch(self, data):
        return self.preprocess(data, True)

    def run(self, inputs, data_samples):
        head = self.student.decode_head
        labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data_samples])
        logits = resize(head.forward(self.student.extract_feat(inputs)), size=labels.shape[1:], mode='bilinear',
                        align_corners=head.align_corners)
        self._step(head.loss_decode(logits, labels, ignore_index=255), inputs)

    def variants(self, inputs, data_samples):
        """Variants to time on a batch, by name."""
        return dict(floor=lambda: self.run(inputs, data_samples))

    def run_mmseg(self, inputs, data_samples):
        losses = self.student.loss(inputs, data_samples)
        self._step(sum(value for name, value in losses.items() if 'loss' in name), inputs)

    def run_networks(self, inputs):
        logits = self.student.decode_head.forward(self.student.extract_feat(inputs))
        if self.gradient is None or self.gradient.shape != logits.shape:
            self.gradient = torch.randn_like(logits) / logits.numel()
        with torch.inference_mode():
            self.teacher.decode_head.forward(self.teacher.extract_feat(inputs))
        self.optimizer.zero_grad()
        logits.backward(self.gradient)
        self.optimizer.step()

    def student_alone(self, inputs, data_samples):
        losses = self.student.loss(inputs, data_samples)
        self._step(sum(value for name, value in losses.items() if 'loss' in name), None)

    def _step(self, loss, inputs):
        if inputs is not None:
            with torch.no_grad():
                predicted_logits(self.teacher, inputs)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class FloorAndOthers(Floor):
    """The floor, the floor with mmseg's loss, and the networks alone."""

    def variants(self, inputs, data_samples):
        return dict(super().variants(inputs, data_samples), mmseg=lambda: self.run_mmseg(inputs, data_samples),
                    networks=lambda: self.run_networks(inputs))


class InterleaveHook(Hook):
    """Times the loop between two of its calls, and runs and times the floor in each call."""
    priority = 'LOWEST'

    def __init__(self, rounds: int, device: str, kind: type) -> None:
        self.wanted, self.rounds, self.kind = rounds, Rounds(device, own_time=True), kind
        self.floor, self.began = None, None

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        ended, rounds = self.rounds.now(), self.rounds
        if self.floor is None:
            self.floor = self.kind(runner)
        number = runner.iter - WARMUP
        if number >= 0:
            rounds.seconds['ours'].append(ended - self.began)
        order = list(self.floor.variants(**self.floor.batch(data_batch)).items())
        for name, run in order if number % 2 else order[::-1]:
            began = rounds.now()
            run()
            if number >= 0:
                rounds.seconds[name].append(rounds.now() - began)
        if number + 1 >= self.wanted:
            raise Enough(self)
        self.began = rounds.now()


class Enough(Exception):
    """Ends a training after enough rounds were timed."""


def build(network, method, out, channels_last=False, amp=False):
    cfg = in_memory_config(network, method, out, channels_last)
    cfg.log_level = 'ERROR'
    if amp:
        enable_amp(cfg)
    return Runner.from_cfg(cfg)


def iteration(network, method, device, out, kind=Floor, channels_last=False, amp=False):
    """Rounds of ``ours`` and the variants of ``kind``; ``channels_last`` and ``amp`` apply only to ours."""
    runner = build(network, method, out, channels_last, amp)
    runner.register_hook(InterleaveHook(ROUNDS[network], device, kind))
    try:
        runner.train()
    except Enough as enough:
        return enough.args[0].rounds
    raise RuntimeError('The training ended before it was timed.')


def memory(network, method, device, out):
    """Peak bytes of ``student`` alone and ``ours`` (weights, momentum and iteration), and bytes of ``teacher``."""
    found = {}

    class Once(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
            floor = Floor(runner)
            batch = floor.batch(data_batch)
            floor.student_alone(**batch)  # creates the momentum
            floor.optimizer.zero_grad()
            runner.optim_wrapper.zero_grad()
            weights = sum(t.numel() * t.element_size() for t in floor.student.state_dict().values())
            momentum = sum(t.numel() * t.element_size() for t in floor.student.parameters())
            found['teacher'] = sum(t.numel() * t.element_size() for t in runner.model.teacher.state_dict().values())
            found['student'] = weights + momentum + peak_bytes(lambda: floor.student_alone(**batch), device)
            floor.optimizer.zero_grad()

            def ours():
                runner.model.train_step(data_batch, runner.optim_wrapper)

            found['ours'] = weights + momentum + found['teacher'] + peak_bytes(ours, device)
            raise Enough

    runner = build(network, method, out)
    runner.register_hook(Once())
    try:
        runner.train()
    except Enough:
        return found


def alone(work, *args, **kwargs):
    """Run a function of this module in a separate process and return its result."""
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        return pool.submit(work, *args, **kwargs).result()


def measure(device, out):
    rows, times = [], {}
    deep = 'resnet101' if torch.device(device).type == 'cpu' else 'r101'
    for network in (deep, 'mobilenet', 'small'):
        for method in BARS:
            kind = FloorAndOthers if method == 'HRHF' else Floor
            rounds = alone(iteration, network, method, device, out, kind)
            held = {name: rounds.median(name) for name in rounds.seconds}
            times[f'{network}, {method}'] = held
            rows.append(row(f'iteration / floor, {method}, {network} ({1e3 * held["floor"]:.0f} ms)',
                            rounds.ratio('ours', 'floor'), at_most=BARS[method]))
            if method == 'HRHF':
                rows.append(row(f'the same / networks alone, {method}, {network} ({1e3 * held["networks"]:.0f} ms)',
                                rounds.ratio('ours', 'networks')))
                rows.append(row(f"mmseg's own loss / floor, {network}", rounds.ratio('mmseg', 'floor')))
                rounds = alone(iteration, network, method, device, out, channels_last=True)
                rows.append(row(f'iteration with channels_last / floor in the usual order, HRHF, {network}',
                                rounds.ratio('ours', 'floor')))
        if network != 'small':
            for method in BARS:
                held = alone(memory, network, method, device, out)
                times[f'{network}, {method}'].update(bytes=held)
                rows.append(row(f'peak memory / (student alone + teacher weights), {method}, {network}',
                                held['ours'] / (held['student'] + held['teacher']), at_most=1.15))
    return dict(rows=rows, times=times)


def draw(figures, path):
    """Plot seconds per iteration next to the floor, for each network and method."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    times = figures['times']
    figure, axis = plt.subplots(figsize=(9, 3))
    for offset, name, colour in ((-0.2, 'floor', '#9a9a9a'), (0.2, 'ours', '#2678b2')):
        bars = axis.bar([i + offset for i in range(len(times))], [1e3 * held[name] for held in times.values()], 0.38,
                        label=name, color=colour)
        axis.bar_label(bars, fmt='%.0f', fontsize=7)
    axis.set_xticks(range(len(times)), [name.replace(', ', '\n') for name in times], fontsize=8)
    axis.set_ylabel('ms of an iteration')
    axis.margins(y=0.12)
    axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
