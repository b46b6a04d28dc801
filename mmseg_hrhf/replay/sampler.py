"""Composes batches of real and synthetic images."""
from __future__ import annotations

import re
from typing import Iterator, Optional

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from ..utils.errors import UserError
from ..utils.randomness import FAKE_ORDER, FAKE_SAMPLE, REAL_ORDER, REAL_SAMPLE, SampleIndex


def split_batch(batch_size: int, ratio: str) -> tuple[int, int]:
    """Numbers of real and synthetic images per batch.

    Args:
        batch_size: real and synthetic images per batch.
        ratio: ``'real:fake'``, such as ``'1:1'``, ``'1:2'``, ``'2:1'`` (Table 6).
    Raises:
        UserError: the ratio is malformed, has a side of 0, or does not divide the batch.
    """
    real, fake = parse_ratio(ratio)
    if batch_size < 1 or batch_size % (real + fake):
        raise UserError(f'train_dataloader.batch_size={batch_size} cannot be divided {ratio} into real and '
                        f'synthetic images: use a multiple of {real + fake}, such as '
                        f'{max(1, round(batch_size / (real + fake))) * (real + fake)}.')
    return batch_size * real // (real + fake), batch_size * fake // (real + fake)


def enlarged_batch(num_real: int, ratio: str) -> int:
    """Size of a batch with ``num_real`` real images and synthetic ones added at ``ratio``.

    Raises:
        UserError: the ratio is malformed, has a side of 0, or needs a fraction of an image.
    """
    real, fake = parse_ratio(ratio)
    if num_real < 1 or num_real % real:
        raise UserError(f'replay.added=True: train_dataloader.batch_size={num_real} real images cannot get synthetic '
                        f'ones {ratio}: use a multiple of {real}, such as {max(1, round(num_real / real)) * real}.')
    return num_real // real * (real + fake)


def parse_ratio(ratio: str) -> tuple[int, int]:
    """``'real:fake'`` as two numbers; ``UserError`` if it is malformed or has a side of 0."""
    match = re.fullmatch(r'(\d+):(\d+)', str(ratio)) if isinstance(ratio, str) else None
    if match is None:
        raise UserError(f"replay.ratio={ratio!r} must be of the form 'real:fake', such as '1:1'.")
    real, fake = map(int, match.groups())
    if not real or not fake:
        raise UserError(f'replay.ratio={ratio!r}: both sides must be at least 1. To train without synthetic images, '
                         'set replay=None.')
    return real, fake


@DATA_SAMPLERS.register_module()
class RealFakeSampler(Sampler):
    """Draws full batches with fixed numbers of real and synthetic images on every rank.

    An epoch is one pass over the real images. If they do not fill the last batch, some are repeated, so that every
    batch is full and all ranks have equally many. Synthetic images are drawn without replacement until all are used,
    then reshuffled, across epochs. The k-th image and its augmentation depend only on the seed and k, so sampling can
    resume at any position with any number of data workers. The batches of all ranks together equal one batch of a
    single process with the same total size.

    Args:
        dataset: has ``num_real`` and ``num_fake`` (real first), or is all real.
        batch_size: images per batch and rank.
        ratio: ``'real:fake'`` in every batch; None for real images only.
        shuffle: False keeps the order of the datasets.
        infinite: never stop (iteration-based loops) instead of stopping after each epoch.
        seed: the same for all ranks; drawn and shared if None.
    """

    def __init__(self,
                 dataset,
                 batch_size: int,
                 ratio: Optional[str] = None,
                 shuffle: bool = True,
                 infinite: bool = False,
                 seed: Optional[int] = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.num_real = getattr(dataset, 'num_real', len(dataset))
        self.num_fake = getattr(dataset, 'num_fake', 0)
        self.real_per_batch, self.fake_per_batch = (batch_size, 0) if ratio is None else split_batch(batch_size, ratio)
        if self.num_real < 1 or (self.fake_per_batch and self.num_fake < 1):
            raise UserError(f'RealFakeSampler needs images to draw from; got {self.num_real} real and '
                             f'{self.num_fake} synthetic.')
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.infinite = infinite
        self.seed = sync_random_seed() if seed is None else seed
        self.batches_per_epoch = -(-self.num_real // (self.real_per_batch * self.world_size))
        self.epoch = 0
        self._first_batch = 0
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def __len__(self) -> int:
        """Images per epoch and rank."""
        return self.batches_per_epoch * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass."""
        self.epoch = epoch

    def skip(self, num_samples: int) -> None:
        """Start the next pass at position ``num_samples`` of this rank (a multiple of the batch size).

        The position is absolute, as in ``InfiniteSampler.skip`` of mmengine, and applies to one pass.
        """
        self._first_batch = num_samples // self.batch_size

    def __iter__(self) -> Iterator[SampleIndex]:
        batch = self.epoch * self.batches_per_epoch + self._first_batch
        self._first_batch = 0
        last = None if self.infinite else (self.epoch + 1) * self.batches_per_epoch
        while last is None or batch < last:
            epoch, within = divmod(batch, self.batches_per_epoch)
            real = self._order(REAL_ORDER, epoch, self.num_real)
            position = (batch * self.world_size + self.rank) * self.real_per_batch
            start = (within * self.world_size + self.rank) * self.real_per_batch
            for i in range(self.real_per_batch):
                index = int(real[(start + i) % self.num_real])
                yield SampleIndex(index, (self.seed, REAL_SAMPLE, position + i))
            start = (batch * self.world_size + self.rank) * self.fake_per_batch
            for position in range(start, start + self.fake_per_batch):
                passes, at = divmod(position, self.num_fake)
                index = self.num_real + int(self._order(FAKE_ORDER, passes, self.num_fake)[at])
                yield SampleIndex(index, (self.seed, FAKE_SAMPLE, position))
            batch += 1

    def _order(self, stream: int, number: int, length: int) -> np.ndarray:
        """Order of the images in pass ``number``; the latest one is cached."""
        if not self.shuffle:
            return np.arange(length)
        held = self._orders.get(stream)
        if held is None or held[0] != number:
            held = number, np.random.default_rng([self.seed, stream, number]).permutation(length)
            self._orders[stream] = held
        return held[1]
