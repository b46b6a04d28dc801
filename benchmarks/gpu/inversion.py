"""Inversion of DeepLabV3 on ResNet-101 at 512 pixels: an iteration over its floor, memory, a whole synthesis."""
from __future__ import annotations

import torch
from peak_memory import peak_bytes
from speed_inversion import PUBLISHED, PUBLISHED_BATCH, configured, floor, network, ours, plainly
from timing import Rounds, interleaved, row

from mmseg_hrhf.models.heads import predicted_logits

from .place import HALF, PRECISIONS, Place

FAKES = 512
CONFIG = 'voc_animals_3-1'


def size(place: Place) -> tuple[str, int, int]:
    """Config, side of the images, images of a batch."""
    return ('fcn_small', 32, 2) if place.tiny else ('deeplabv3_r101-d16', 512, PUBLISHED_BATCH)


def amp_of(precision: str):
    return precision if precision in HALF else None


def iteration(place: Place, precision: str) -> dict:
    """An iteration of each kind, and the memory of an image.

    The floor is forward and backward to the input in the same precision, in the usual order and in channels last.
    """
    place.precision(precision)
    config, side, batch = size(place)
    iterations, rounds = (2, 2) if place.tiny else (5, 7)
    model = network(config, side, place.device)
    images = torch.randn(batch, 3, side, side, device=place.device)
    amp = amp_of(precision)

    def cast(work):
        def within():
            with place.autocast(precision):
                work()
        return within

    variants = {
        'floor': cast(floor(model, images, iterations)),
        'floor, channels last': cast(floor(model, images.contiguous(memory_format=torch.channels_last), iterations)),
        'ours': ours(model, side, batch, [(1.0, iterations + 1)], place.device, amp),
        'ours, start': ours(model, side, batch, [(1.0, 1)], place.device, amp),
        'forward': cast(lambda: _forward(model, images, iterations)),
    }
    if precision == 'float32':
        variants['plain'] = plainly(model, side, batch, iterations, place.device)
    timed = interleaved(variants, rounds, warmup=1, device=place.device, own_time=True)
    per_iteration = without_start(timed, iterations)
    memory = bytes_of_an_image(place, model, side, batch, amp)
    seconds = {name: per_iteration.median(name) for name in per_iteration.seconds}
    rows = [row(f'inversion, iteration / floor, {precision}', per_iteration.ratio('ours', 'floor'), at_most=1.15),
            row(f'inversion, iteration / floor in channels last, {precision}',
                per_iteration.ratio('ours', 'floor, channels last')),
            row(f'inversion, memory of an image, {precision} (GiB)', memory / 2**30)]
    if 'plain' in seconds:
        rows.append(row('inversion, plain iteration / floor, float32', per_iteration.ratio('plain', 'floor')))
    return dict(rows=rows, seconds=seconds, batch=batch, bytes_of_an_image=memory,
                image_iterations_per_second=batch / seconds['ours'],
                images_per_second_forward=batch / seconds['forward'])


def without_start(timed: Rounds, iterations: int) -> Rounds:
    """Seconds of one iteration, for ours without what a batch takes once."""
    start = timed.seconds.pop('ours, start')
    timed.seconds['ours'] = [whole - begun for whole, begun in zip(timed.seconds['ours'], start)]
    timed.seconds = {kind: [seconds / iterations for seconds in held] for kind, held in timed.seconds.items()}
    return timed


@torch.inference_mode()
def _forward(model, images, iterations) -> None:
    for _ in range(iterations):
        predicted_logits(model, images)


def bytes_of_an_image(place: Place, model, side: int, batch: int, amp) -> float:
    """Of two more images in a batch, by the difference between two batches."""
    small = max(1, batch // 2)
    peaks = [peak_bytes(ours(model, side, number, [(1.0, 2)], place.device, amp), place.device)
             for number in (small, batch)]
    return (peaks[1] - peaks[0]) / (batch - small)


def synthesis(place: Place) -> dict:
    """Seconds of 512 fakes by the published schedule and by stages, from a share of the iterations, in each precision.

    The stages, and their batch, are those of benchmarks/configs/voc_animals_3-1.py at the full size.
    """
    config, side, batch = size(place)
    options = configured(CONFIG)
    stage_batch = 2 if place.tiny else options['batch_size']
    share = 100 if place.tiny else 10
    stages = [(scale, max(2, number // share)) for scale, number in options['stages']]
    # Shares of the iterations at each scale differ where few are left: the seconds of each are scaled alone.
    model, rows, seconds = network(config, side, place.device), [], {}
    rounds = 1 if place.tiny else 3
    for precision in PRECISIONS:
        place.precision(precision)
        amp = amp_of(precision)
        short = 3 if place.tiny else 6
        variants = {'published': ours(model, side, batch, [(1.0, short)], place.device, amp),
                    'published, start': ours(model, side, batch, [(1.0, 1)], place.device, amp),
                    'stages': ours(model, side, stage_batch, stages, place.device, amp),
                    'stages, start': ours(model, side, stage_batch, [(scale, 1) for scale, _ in stages], place.device,
                                          amp)}
        timed = interleaved(variants, rounds, warmup=1, device=place.device)
        of_one = (timed.median('published') - timed.median('published, start')) / (short - 1)
        once = timed.median('stages, start')
        staged = once + (timed.median('stages') - once) * share
        seconds[precision] = dict(published=FAKES / batch * (timed.median('published, start') + of_one * PUBLISHED),
                                  stages=FAKES / stage_batch * staged)
        rows += [row(f'seconds of {FAKES} fakes, {way}, {precision}', value)
                 for way, value in seconds[precision].items()]
        rows.append(row(f'{FAKES} fakes: published / stages, {precision}',
                        seconds[precision]['published'] / seconds[precision]['stages'], at_least=8))
    return dict(rows=rows, seconds_of_fakes=seconds, fakes=FAKES)
