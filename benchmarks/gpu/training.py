"""DeepLabV3 on ResNet-101 at 512 pixels in training: an iteration over its floor, and memory by batch size."""
from __future__ import annotations

import contextlib
import functools
import gc
from typing import Callable

import speed_training
import torch
from in_memory import NETWORKS
from mmengine.hooks import Hook
from peak_memory import peak_bytes
from timing import row

from mmseg_hrhf.models.heads import predicted_logits

from .methods import path
from .parts import check
from .place import HALF, Place

GIB = 2**30
LIMITS = (24, 40, 80)
# What a process takes of a GPU in addition to tensors: CUDA's context and libraries.
CONTEXT = GIB


def network(place: Place, batch: int) -> str:
    """A name of ``in_memory.NETWORKS``: DeepLabV3 on ResNet-101 at 512 pixels, or the small network."""
    name = f'{"tiny" if place.tiny else "r101"}_{batch}'
    NETWORKS[name] = ('fcn_small', 48, batch) if place.tiny else ('deeplabv3_r101-d16', 512, batch)
    return name


class Compared(speed_training.FloorAndOthers):
    """The floor in some precision, mmseg's plain training, the teacher alone, and our step with either kind of losses.

    Args:
        runner: of the training.
        autocast: gives a context for each pass.
    """

    def __init__(self, runner, autocast: Callable[[], contextlib.AbstractContextManager]) -> None:
        super().__init__(runner)
        self.runner, self.autocast = runner, autocast

    def variants(self, inputs, data_samples):
        plain = dict(super().variants(inputs, data_samples),
                     student=lambda: self.student_alone(inputs, data_samples),
                     teacher=lambda: self._forward(inputs))
        own = {kind: functools.partial(self._own, inputs, data_samples, kind == 'fused')
               for kind in ('fused', 'readable')}
        return {**{name: functools.partial(self._cast, run) for name, run in plain.items()}, **own}

    def _cast(self, run):
        with self.autocast():
            run()

    def _forward(self, inputs):
        with torch.inference_mode():
            predicted_logits(self.teacher, inputs)

    def _own(self, inputs, data_samples, fused):
        model, wrapper = self.runner.model, self.runner.optim_wrapper
        with path(fused), wrapper.optim_context(model):
            losses = model.loss(inputs, data_samples)
        wrapper.update_params(model.parse_losses(losses)[0])


def iteration(place: Place, method: str, precision: str) -> dict:
    """An iteration of ``method`` over its floor, fused and readable losses, and images a second.

    On a CPU, where mmengine has no mixed precision, the whole training runs under autocast.
    """
    place.precision(precision)
    batch = 4 if place.tiny else 12
    name = network(place, batch)
    amp = precision in HALF and place.device == 'cuda'
    around = contextlib.nullcontext() if amp else place.autocast(precision)
    kind = functools.partial(Compared, autocast=functools.partial(place.autocast, precision))
    speed_training.ROUNDS[name] = 2 if place.tiny else 11
    with around:
        rounds = speed_training.iteration(name, method, place.device, place.folder('training'), kind, amp=amp)
    held = {variant: rounds.median(variant) for variant in rounds.seconds}
    what = f'{method}, {precision}'
    return dict(
        rows=[row(f'iteration / floor, {what}', rounds.ratio('ours', 'floor'), at_most=speed_training.BARS[method]),
              row(f'iteration / networks alone, {what}', rounds.ratio('ours', 'networks')),
              row(f'fused / readable losses, whole step, {what}', rounds.ratio('fused', 'readable')),
              row(f"mmseg's own loss / floor, {what}", rounds.ratio('mmseg', 'floor'))],
        seconds=held, batch=batch,
        images_per_second={kind: batch / held[of] for kind, of in dict(ours='ours', plain='student').items()},
        faster='fused' if held['fused'] < held['readable'] else 'readable')


class PeakHook(Hook):
    """Measures a step's peak memory after the first, which makes the momentum, and ends the training."""
    priority = 'LOWEST'

    def __init__(self, device: str) -> None:
        self.device, self.found = device, {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        def step():
            runner.model.train_step(data_batch, runner.optim_wrapper)

        runner.optim_wrapper.zero_grad()
        self.found['step'] = peak_bytes(step, self.device)
        if self.device == 'cuda':
            # All of the process: weights, momentum and teacher, and what the allocator cannot use for its pieces.
            self.found['reserved'] = torch.cuda.max_memory_reserved()
        raise speed_training.Enough


def peak(place: Place, batch: int, precision: str) -> int:
    """Bytes of a training of HRHF: all that a GPU has to hold; on a CPU, those of a step."""
    _give_back(place)
    amp = precision in HALF and place.device == 'cuda'
    runner = speed_training.build(network(place, batch), 'HRHF', place.folder('memory'), amp=amp)
    hook = PeakHook(place.device)
    runner.register_hook(hook)
    with contextlib.suppress(speed_training.Enough), (contextlib.nullcontext() if amp else place.autocast(precision)):
        runner.train()
    return hook.found['reserved'] + CONTEXT if place.device == 'cuda' else hook.found['step']


def memory(place: Place) -> dict:
    """Largest batches within so much memory, from that of two batches; one of them is tried."""
    unit = 2**20 if place.tiny else GIB
    two, rows, largest, measured = ((2, 4) if place.tiny else (4, 12)), [], {}, {}
    for precision in ('float32', 'bf16'):
        place.precision(precision)
        small, large = (peak(place, batch, precision) for batch in two)
        each = (large - small) / (two[1] - two[0])
        fixed = small - two[0] * each
        measured[precision] = {str(batch): value for batch, value in zip(two, (small, large))}
        largest[precision] = {str(limit): max(0, int((limit * unit - fixed) / each)) for limit in LIMITS}
        rows += [row(f'memory of an image in training, HRHF, {precision} ({unit // 2**20} MiB)', each / unit),
                 row(f'memory that no image adds to, HRHF, {precision} ({unit // 2**20} MiB)', fixed / unit)]
    tried = largest['bf16'][str(LIMITS[0])]
    if place.device == 'cuda':  # a training that needs more runs out of memory
        torch.cuda.set_per_process_memory_fraction(
            (LIMITS[0] * GIB - CONTEXT) / torch.cuda.get_device_properties(0).total_memory)
    needed = peak(place, tried, 'bf16') / unit
    return dict(rows=rows, bytes=measured, largest_batch=largest, unit=unit,
                checks=[check(f'memory of a batch of {tried}, bf16, that is to fit {LIMITS[0]}', needed,
                              1.05 * LIMITS[0])])


def _give_back(place: Place) -> None:
    """The memory of earlier trainings."""
    gc.collect()
    if place.device == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory(place: Place) -> dict:
    """The peak of a step of each method, in float32, over that of plain training and the teacher's weights."""
    rows, name = [], network(place, 4)
    for method in speed_training.BARS:
        _give_back(place)
        held = speed_training.memory(name, method, place.device, place.folder('memory'))
        rows.append(row(f'peak memory / (student alone + teacher weights), {method}',
                        held['ours'] / (held['student'] + held['teacher']), at_most=1.15))
    return dict(rows=rows)
