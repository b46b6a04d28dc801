"""Images a second that the data loader brings, on all cores."""
from __future__ import annotations

import os
from pathlib import Path

from mmengine.registry import init_default_scope
from mmengine.utils.dl_utils import set_multi_processing
from speed_data import BATCH, loaders
from speed_training import alone
from timing import Rounds, row

from .place import Place


def data(place: Place) -> dict:
    """Generated JPEGs of VOC's size, and fakes, through the training pipeline of configs/_base_/datasets/voc.py."""
    cores = os.cpu_count()
    workers = min(2, cores) if place.tiny else cores
    batches, rounds = (2 * workers, 2) if place.tiny else (8 * workers, 5)
    # In a new process: workers that fork from one in which autograd has run may abort as they end.
    found = alone(rates, place.folder('voc').absolute(), workers, batches, rounds)
    return dict(rows=[row(f'images a second from {workers} workers, {name}', rate) for name, rate in found.items()],
                images_per_second=found, workers=workers)


def rates(root: Path, workers: int, batches: int, rounds: int) -> dict[str, float]:
    """Images a second of plain mmseg's loader and of ours, in turns; medians over the rounds."""
    init_default_scope('mmseg')
    set_multi_processing('fork', opencv_num_threads=0)  # as mmengine's Runner does
    timed = Rounds()
    iterators = {name: iter(loader) for name, loader in loaders(root, workers).items()}
    for number in range(-1, rounds):  # the first fills the queues, and the cache of files
        for name, iterator in iterators.items():
            began = timed.now()
            for _ in range(batches):
                next(iterator)
            if number >= 0:
                timed.seconds[name].append(timed.now() - began)
    return {name: batches * BATCH / timed.median(name) for name in timed.seconds}
