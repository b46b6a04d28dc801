"""Whether an iteration's network and losses pay as a CUDA graph or compiled."""
from __future__ import annotations

import torch
from mmseg.registry import TASK_UTILS
from speed_inversion import classes_and_r, floor, network
from timing import interleaved, row

from mmseg_hrhf.models.heads import predicted_logits
from mmseg_hrhf.replay.inversion.feature_statistics import FeatureStatistics, feature_targets
from mmseg_hrhf.replay.inversion.pixels import PixelSpace

from .errors import distance
from .inversion import amp_of, size
from .parts import check
from .place import PRECISIONS, Place


def gradient_of_objective(place: Place, model, images, precision: str):
    """A callable that gives the gradient of eq. 2 by fixed images, as an iteration of SegInversion computes it."""
    side, batch = images.shape[-1], len(images)
    inversion = TASK_UTILS.build(dict(type='SegInversion', size=side, batch_size=batch, amp=amp_of(precision)))
    classes, r = classes_and_r(model, batch, place.device)
    target = torch.zeros(batch, model.num_classes, device=place.device)
    target[:, 0] = 0.5
    target[torch.arange(batch, device=place.device), classes] = 0.5
    space = PixelSpace(model.data_preprocessor, torch.device(place.device))
    statistics = FeatureStatistics(feature_targets(model))

    def gradient():
        given = images.detach().requires_grad_()
        with statistics:
            terms = inversion._terms(model, given, r, target, space, statistics, torch.channels_last)
            return torch.autograd.grad(sum(weight * term for weight, term in terms.values()), given)[0]

    return gradient


def graph(place: Place) -> dict:
    """Network and losses of an iteration, eager and replayed from a CUDA graph: the same gradient, in what time."""
    if place.device != 'cuda':
        return dict(unavailable='CUDA graphs need a GPU')
    config, side, batch = size(place)
    model, rows, checks, seconds = network(config, side, place.device), [], [], {}
    images = torch.randn(batch, 3, side, side, device=place.device)
    for precision in PRECISIONS:
        place.precision(precision)
        eager = gradient_of_objective(place, model, images, precision)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):  # what is made once must not be made within the graph
            for _ in range(3):
                expected = eager()
        torch.cuda.current_stream().wait_stream(stream)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            found = eager()
        captured.replay()
        # Half precision and varying order of sums: equal to rounding.
        checks.append(check(f'gradient from a CUDA graph, {precision}', distance([found], [expected]),
                            2e-2 if precision == 'bf16' else 1e-2 if precision == 'TF32' else 1e-3))
        timed = interleaved(dict(eager=eager, graph=captured.replay), 3 if place.tiny else 7, 3, device=place.device)
        seconds[precision] = {name: timed.median(name) for name in timed.seconds}
        rows.append(row(f'inversion, network and losses as a CUDA graph / eager, {precision}',
                        timed.ratio('graph', 'eager')))
        del captured, found
    return dict(rows=rows, checks=checks, seconds=seconds)


def compiled(place: Place) -> dict:
    """The floor of an inversion's iteration by torch.compile against eager, in bf16."""
    if place.device != 'cuda':
        return dict(unavailable='on a CPU torch.compile was slower (benchmarks/notes/performance.md)')
    config, side, batch = size(place)
    model = network(config, side, place.device)
    images = torch.randn(batch, 3, side, side, device=place.device).contiguous(memory_format=torch.channels_last)
    forward = torch.compile(lambda x: predicted_logits(model, x))

    def passes():
        given = images.detach().requires_grad_()
        logits = forward(given)
        torch.autograd.grad(logits, given, torch.ones_like(logits))

    with place.autocast('bf16'):
        timed = interleaved(dict(compiled=passes, eager=floor(model, images, 1)), 7, 3, device=place.device)
    return dict(rows=[row('inversion, floor compiled / eager, bf16, channels last', timed.ratio('compiled', 'eager'))],
                seconds={name: timed.median(name) for name in timed.seconds})
