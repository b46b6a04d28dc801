"""A method's training step by its fused pass and by its readable path, against the readable one in float64."""
from __future__ import annotations

import contextlib
import inspect
from typing import Iterator

import torch
from in_memory import MemoryDataset, in_memory_config
from mmseg.registry import MODELS
from torch import nn

from mmseg_hrhf.models.segmentors.base import IncrementalSegmentor
from mmseg_hrhf.models.segmentors.mib import UnbiasedLoss
from mmseg_hrhf.models.segmentors.plop import ImageWeightedLoss

from .errors import SCALE, against_readable, distance
from .parts import check
from .place import Place

METHODS = dict(HRHF=None, MiB=UnbiasedLoss, PLOP=ImageWeightedLoss)
# The distance from float64 that is right, and by which fused and readable losses may differ more than the readable ones
# from float64; of losses, of gradients. In half precision it is the networks' rounding, which moves some of the
# teacher's labels too; in float32 a ReLU now and then falls on the other side of 0 (1.5e-3 was seen on a CPU).
BOUNDS = dict(float32=((1e-5, 5e-6), (1e-2, 1e-4)), bf16=((0.02, 2e-3), (0.5, 0.02)), fp16=((0.01, 2e-3), (0.2, 0.01)))
SIDE, IMAGES = 96, 4


@contextlib.contextmanager
def path(fused: bool) -> Iterator[None]:
    """All methods take their fused pass, or all their readable path."""
    own = IncrementalSegmentor.fuses_losses
    IncrementalSegmentor.fuses_losses = lambda self, stand_in=None: fused
    try:
        yield
    finally:
        IncrementalSegmentor.fuses_losses = own


def built(place: Place, method: str, channels_last: bool = False, **options) -> nn.Module:
    """A method at step 1 on the small network, always the same."""
    cfg = in_memory_config('small', method, place.folder('methods'), channels_last, **options)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    # Teachers are sure of more than random weights are.
    for network in (model.teacher, model.student):
        nn.init.normal_(network.decode_head.conv_seg.weight, std=1.0)
    return model.to(place.device).train()


def batch(model: nn.Module) -> dict:
    """Images, half of them without labels, as the network is fed."""
    data = MemoryDataset(SIDE, IMAGES // 2, IMAGES // 2)
    samples = [data[i] for i in range(IMAGES)]
    return model.data_preprocessor(dict(inputs=[sample['inputs'] for sample in samples],
                                        data_samples=[sample['data_samples'] for sample in samples]), True)


def step(place: Place, model: nn.Module, data: dict, fused: bool, precision: str) -> tuple[list, list]:
    """Losses of a batch, and the gradient of each of the student's weights."""
    inputs = data['inputs']
    if precision == 'float64':
        inputs = inputs.double()
    with path(fused), place.autocast(precision):
        losses = model.loss(inputs, data['data_samples'])
    values = [value for name, value in sorted(losses.items()) if 'loss' in name]
    gradients = torch.autograd.grad(SCALE * sum(values), list(model.student.parameters()))
    return values, [gradient / SCALE for gradient in gradients]


def thresholds(model: nn.Module, data: dict) -> None:
    """What PLOP finds before its first iteration."""
    if hasattr(model, 'entropy_histogram'):
        model.set_thresholds(model.entropy_histogram(**data))


def compared(place: Place, method: str, channels_last: bool, precisions, **options) -> tuple[list, dict]:
    """Checks, and the distances that they are of."""
    model = built(place, method, channels_last, **options)
    if not model.fuses_losses(METHODS[method]):
        raise RuntimeError(f'{method} does not fuse its losses on the small network.')
    data = batch(model)
    thresholds(model, data)
    exact = built(place, method, False, **options).double()
    if hasattr(model, 'thresholds'):
        exact.thresholds = model.thresholds.double()
    expected = step(place, exact, data, False, 'float64')
    checks, errors = [], {}
    for precision in precisions:
        found = {name: step(place, model, data, name == 'fused', precision) for name in ('fused', 'readable')}
        for index, (of, (bound, floor)) in enumerate(zip(('losses', 'gradients'), BOUNDS[precision])):
            name = f'{of} of {method}, {precision}' + (', channels_last' if channels_last else '')
            held = {kind: distance(values[index], expected[index]) for kind, values in found.items()}
            checks += against_readable(name, held['fused'], held['readable'], floor, bound)
            errors[name] = held
    return checks, errors


def methods(place: Place, channels_last: bool = False, **options) -> dict:
    checks, errors = [], {}
    for method in METHODS:
        found = compared(place, method, channels_last, BOUNDS, **options)
        checks += found[0]
        errors.update(found[1])
    return dict(checks=checks, errors=errors)


def channels_last(place: Place) -> dict:
    """The same with both networks in channels last, against the usual order in float64."""
    return methods(place, channels_last=True)


def freeze_norm(place: Place) -> dict:
    """The same with frozen batch norms, whose statistics a step must leave as they are."""
    if 'freeze_norm' not in inspect.signature(IncrementalSegmentor.__init__).parameters:
        return dict(unavailable='no method has an option freeze_norm')
    result = methods(place, freeze_norm=True)
    model = built(place, 'HRHF', freeze_norm=True)
    before = [buffer.clone() for buffer in model.student.buffers()]
    step(place, model, batch(model), True, 'float32')
    moved = sum(not torch.equal(*pair) for pair in zip(before, model.student.buffers()))
    result['checks'].append(check('running statistics that a step with freeze_norm moved', moved, 0))
    return result
