"""Fills the buffer of synthetic images before a step's first iteration."""
from __future__ import annotations

import logging
import time
from dataclasses import asdict
from typing import Optional, Sequence

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch import nn
from tqdm import tqdm

from ...models.segmentors.base import unwrapped
from ...replay.buffer import FakeImageBuffer
from ...replay.inspection import recognised, show_buffer, thin_curve
from ...replay.inversion.base import FakeRequest, RecordedStatistics, build_inversion, plan_requests
from ...replay.inversion.feature_statistics import feature_targets
from ...replay.inversion.pixels import PixelMap
from ...utils.errors import UserError
from ...utils.io import PathLike
from ...utils.randomness import INVERSION, seeded
from ...work_dir.checkpoint import weights_fingerprint

# Minimum share of an image for a class to count as found; share of found requested classes below which to warn.
_LEAST_AREA, _FEW = 0.001, 0.1


def fill_buffer(buffer: FakeImageBuffer,
                teacher: nn.Module,
                inversion: dict,
                seed: int,
                recorded: Optional[RecordedStatistics] = None,
                pixel_map: Optional[PixelMap] = None) -> None:
    """Synthesise the missing images of a buffer; each rank takes its share of the batches.

    Args:
        buffer: existing images are kept.
        teacher: frozen segmentor.
        inversion: config of the inversion (``SegInversion``, ``GaussianNoise``).
        seed: of the plan. The same seed gives the same images on a CPU, for any number of ranks (on a GPU up to
            rounding, because some kernels add in varying order).
        recorded: feature statistics from the teacher's checkpoint.
        pixel_map: maps pixels to the teacher's input, if its pipeline changes pixels.
    Raises:
        UserError: the buffer is stale.
    """
    teacher.pixel_map = pixel_map
    rank, world_size = get_dist_info()
    generator = build_inversion(inversion)
    requests = plan_requests(buffer.num_images, teacher.num_classes, generator.batch_size,
                             generator.classes_per_image, seed)
    if rank == 0:
        fingerprint = dict(
            teacher=weights_fingerprint(teacher.state_dict()),
            statistics=_statistics_fingerprint(recorded),
            inversion=_plain(inversion),
            num_images=buffer.num_images,
            seed=seed)
        if pixel_map is not None:
            fingerprint['pixel_map'] = _plain(asdict(pixel_map))
        buffer.open(fingerprint, generator.size)
        if generator.uses_statistics and not feature_targets(teacher, recorded):
            print_log('SegInversion: the teacher has no batch norm and its checkpoint has no feature statistics, so '
                      'only the image prior regularises the images (replay.feature_statistics records statistics).',
                      logger='current', level=logging.WARNING)
    barrier()
    starts = [i * generator.batch_size for i in range(len(requests))]
    mine = [i for i in range(rank, len(requests), world_size) if not buffer.has_batch(starts[i])]
    if mine and rank == 0:
        of = f' by each of {world_size} processes' if world_size > 1 else ''
        print_log(f'SegInversion: {len(mine)} of {-(-len(requests) // world_size)} batches of synthetic images to '
                  f'generate{of} into {buffer.folder}', logger='current')
    began = time.time()
    with tqdm(total=len(mine) * generator.iterations(), desc='SegInversion', unit='it', disable=rank != 0,
              mininterval=1) as bar:
        for count, i in enumerate(mine):
            bar.set_description(f'SegInversion {count + 1}/{len(mine)}')
            # Some networks draw random numbers even in eval mode (SegNeXt).
            with seeded(seed, INVERSION, i):
                found = _synthesise(buffer, teacher, generator, requests[i], starts[i], bar, recorded)
            bar.update((count + 1) * generator.iterations() - bar.n)  # early stopping skips iterations
            if rank == 0:
                left = (time.time() - began) / (count + 1) * (len(mine) - count - 1)
                print_log(f'SegInversion: batch {count + 1}/{len(mine)}, {found}, ETA {left:.0f} s', logger='current')
    barrier()
    if rank == 0:
        _warn_if_unrecognised(buffer.close())
    barrier()


def _warn_if_unrecognised(records: Sequence[dict]) -> None:
    """Warn if the teacher finds the requested classes in almost none of the images."""
    asked = [record for record in records if 'classification' in record['losses']]
    shares = [share for record in asked for share in record['teacher_share']]
    found = sum(share >= _LEAST_AREA for share in shares)
    if found < _FEW * len(shares):
        print_log(f'SegInversion: the teacher finds the requested class in {found} of {len(shares)} cases. '
                  'Such images teach almost nothing about the old classes. Usual causes: a teacher with little '
                  'training, too few iterations (replay.inversion.stages), or weights of the image prior or of the '
                  'feature statistics that dominate the class loss (tools/browse_fakes.py shows the images).',
                  logger='current', level=logging.WARNING)


def _synthesise(buffer: FakeImageBuffer, teacher: nn.Module, generator, request: FakeRequest, start: int,
                bar: tqdm, recorded: Optional[RecordedStatistics]) -> str:
    curve = []

    def on_iteration(losses: dict) -> None:
        curve.append(losses)
        bar.update()
        bar.set_postfix({name: f'{value:.3g}' for name, value in losses.items()}, refresh=False)

    batch = generator(teacher, request, on_iteration, recorded)
    shares = recognised(teacher, batch.images)
    records = []
    for i, classes in enumerate(request.classes):
        held = [round(float(shares[i, c]), 5) for c in classes]
        records.append(
            dict(classes=list(classes), r=batch.r[i], seed=request.seed, losses=batch.losses, teacher_share=held))
    buffer.add_batch(start, batch.images.numpy(), records, thin_curve(curve))
    asked = [share > 0 for record in records for share in record['teacher_share']]
    losses = ', '.join(f'{name} {value:.3g}' for name, value in batch.losses.items())
    return f'{losses}; the teacher finds {sum(asked)} of {len(asked)} classes'


def _statistics_fingerprint(recorded: Optional[RecordedStatistics]) -> Optional[str]:
    if recorded is None:
        return None
    return weights_fingerprint({f'{name}.{key}': held[key] for name, held in recorded.items() for key in held})


def _plain(config) -> object:
    """A config as JSON data; classes become their names."""
    if isinstance(config, dict):
        return {str(key): _plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_plain(value) for value in config]
    return config.__name__ if isinstance(config, type) else config


@HOOKS.register_module()
class SegInversionHook(Hook):
    """Synthesises images of the old classes with the teacher of the model in training.

    Args:
        folder: of the buffer.
        num_images: size of the buffer.
        inversion: config of the inversion.
        seed: of the synthetic images, the same on every rank.
        pixel_map: fields of a ``PixelMap``, if the pipeline changes pixels.
    """
    priority = 'VERY_HIGH'

    def __init__(self,
                 folder: PathLike,
                 num_images: int,
                 inversion: dict,
                 seed: int,
                 pixel_map: Optional[dict] = None) -> None:
        self.buffer = FakeImageBuffer(folder, num_images)
        self.inversion = inversion
        self.seed = seed
        self.pixel_map = None if pixel_map is None else PixelMap.from_plain(pixel_map)

    def before_train(self, runner) -> None:
        model = unwrapped(runner.model)
        if model.teacher is None:
            raise UserError('SegInversionHook needs a model with a teacher: leave it out of the first step, which '
                            'has none.')
        fill_buffer(self.buffer, model.teacher, self.inversion, self.seed, model.teacher_statistics,
                    self.pixel_map)
        palette = runner.train_dataloader.dataset.metainfo['palette']
        show_buffer(self.buffer, model.teacher, palette, runner.visualizer)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # inversion batches are larger than training batches
