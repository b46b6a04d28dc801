"""The fused losses against the readable ones: how right, and how fast."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from timing import interleaved, row
from torch import Tensor

from mmseg_hrhf.models.losses import upsampling
from mmseg_hrhf.models.losses.distillation import distillation_loss
from mmseg_hrhf.models.losses.fused import fused_losses
from mmseg_hrhf.models.losses.label_merge import merge_labels, merge_old_classes, merge_old_labels

from .errors import SCALE, against_readable, distance
from .place import Place

# Type of the logits: bounds of the distance from float64, of values and of gradients, which are rounded to that type.
TYPES = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (1e-5, 1e-2), torch.float16: (1e-5, 2e-3)}
# By which sums of float32 in another order differ.
ROUNDING = 5e-6
KINDS = dict(HRHF=dict(relabel=merge_labels), MiB=dict(num_merged=16))
NUM_OLD, NUM_CLASSES = 16, 21


def example(place: Place, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 21, h, w) and (N, 16, h, w) logits and (N, 8 h, 8 w) labels of new classes, background and void."""
    number, side = (2, 8) if place.tiny else (12, 64)
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(number, classes, side, side, generator=generator)
                        for classes in (NUM_CLASSES, NUM_OLD))
    choices = torch.tensor([0, 0, *range(NUM_OLD, NUM_CLASSES), 255])
    labels = choices[torch.randint(len(choices), (number, 8 * side, 8 * side), generator=generator)]
    return student.to(place.device, dtype), labels.to(place.device), teacher.to(place.device, dtype)


def readable(student: Tensor, labels: Tensor, teacher: Tensor, relabel=None, num_merged: int = 0) -> Tensor:
    """Cross-entropy and distillation of full-size logits, summed over pixels."""
    up = dict(size=labels.shape[1:], mode='bilinear', align_corners=False)
    logits, old = F.interpolate(student, **up), F.interpolate(teacher, **up)
    merged = logits
    if relabel is not None:
        labels = relabel(labels, old)
    if num_merged:
        labels, merged = merge_old_labels(labels, num_merged), merge_old_classes(logits, num_merged)
    cross_entropy = F.cross_entropy(merged, labels, ignore_index=255, reduction='sum')
    return torch.stack([cross_entropy, distillation_loss(logits, old) * labels.numel()])


def fused(student: Tensor, labels: Tensor, teacher: Tensor, **options) -> Tensor:
    """The same from bands."""
    terms = fused_losses(student, labels, teacher, distil=True, **options)
    return torch.stack([terms.cross_entropy.sum(), terms.distillation.sum()])


def with_gradient(loss, student: Tensor, *others, **options) -> tuple[Tensor, Tensor]:
    student = student.detach().requires_grad_()
    values = loss(student, *others, **options)
    return values, torch.autograd.grad(SCALE * values.sum() / others[0].numel(), student)[0]


def losses(place: Place) -> dict:
    """Values and gradients in each type, against float64 of the same rounded logits."""
    checks, errors = [], {}
    for dtype, bounds in TYPES.items():
        student, labels, teacher = example(place, dtype)
        for kind, options in KINDS.items():
            expected = with_gradient(readable, student.double(), labels, teacher.double(), **options)
            # The readable form in float32 too: so the heads' own losses take half-precision logits.
            found = dict(fused=with_gradient(fused, student, labels, teacher, **options),
                         readable=with_gradient(readable, student.float(), labels, teacher.float(), **options))
            for index, (of, bound) in enumerate(zip(('losses', 'gradient'), bounds)):
                held = {name: distance([values[index]], [expected[index]]) for name, values in found.items()}
                name = f'{of} of {kind}, {dtype}'.replace('torch.', '')
                # A gradient is rounded to the type of the logits in the end.
                floor = bound if index and dtype != torch.float32 else ROUNDING
                checks += against_readable(name, held['fused'], held['readable'], floor, bound)
                errors[name] = held
    place.precision('TF32')
    student, labels, teacher = example(place)
    expected = readable(student.double(), labels, teacher.double(), **KINDS['HRHF'])
    errors['losses of HRHF, float32 with products in TF32'] = dict(
        fused=distance([fused(student, labels, teacher, **KINDS['HRHF'])], [expected]))
    return dict(checks=checks, errors=errors)


def bands(place: Place) -> dict:
    """Seconds of losses and gradient at full size, by the bytes of a band, and of the readable form."""
    inputs = example(place)
    own = upsampling._BAND_BYTES.get(place.device, upsampling._BAND_BYTES_ELSEWHERE)
    sizes = sorted({own, *(2**power for power in ((12, 16) if place.tiny else (22, 24, 26, 28, 30)))})

    def banded(size):
        upsampling._BAND_BYTES[place.device] = size
        with_gradient(fused, *inputs, **KINDS['HRHF'])

    def plain():
        with_gradient(readable, *inputs, **KINDS['HRHF'])

    variants = {f'bands of {size} bytes' + (' (as it is)' if size == own else ''): lambda size=size: banded(size)
                for size in sizes}
    before = dict(upsampling._BAND_BYTES)
    try:
        timed = interleaved(dict(variants, readable=plain), 3 if place.tiny else 11, device=place.device)
    finally:
        upsampling._BAND_BYTES.clear()
        upsampling._BAND_BYTES.update(before)
    return dict(rows=[row(f'losses and gradient / readable ones, {name}', timed.ratio(name, 'readable'))
                      for name in variants],
                seconds={name: timed.median(name) for name in timed.seconds})
