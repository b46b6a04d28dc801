"""Feature statistics at the end of a step, over the images that the step was trained on."""
from __future__ import annotations

from typing import Iterator, Optional, Sequence

import numpy as np
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from ..inversion.recording import layers_to_record, record_statistics
from ..randomness import FEATURE_STATISTICS, seeded
from .sampler import split_batch


def statistics_options(replay: Optional[dict]) -> Optional[dict]:
    """``feature_statistics`` of the ``replay`` options: by default 256 images; None where nothing is to be recorded.

    Raises:
        ValueError: an unknown option or a bad number of images.
    """
    options = None if replay is None else replay.get('feature_statistics', {})
    if options is None:
        return None
    unknown = sorted(set(options) - {'num_images', 'layers'})
    if unknown:
        raise ValueError(f"replay.feature_statistics has no option {unknown[0]!r}; its options are 'num_images' and "
                         "'layers'. None records nothing.")
    number = options.get('num_images', 256)
    if not isinstance(number, int) or number < 1:
        raise ValueError(f'replay.feature_statistics.num_images={number!r} must be a positive number.')
    return dict(options)


def training_mixture(num_real: int, num_fake: int, real_share: float, num_images: int, seed: int) -> np.ndarray:
    """Positions in a :class:`RealFakeDataset` that stand for the step's training images.

    Real and fake ones come in the training ratio. So the statistics are of all classes learnt so far, old ones through
    their fakes, weighted as the weights were trained and as a batch norm would have weighted them. Where one kind has
    too few images they come again, augmented anew.

    Args:
        num_real, num_fake: images of each kind; real ones come first.
        real_share: of real images in every training batch.
        num_images: how many to take.
        seed: of the choice.
    """
    rng = np.random.default_rng(seed)
    real, fake = rng.permutation(num_real), rng.permutation(num_fake)
    take_real = round(num_images * real_share)
    return np.concatenate([np.resize(real, take_real), num_real + np.resize(fake, num_images - take_real)])


def step_statistics(segmentor: nn.Module,
                    dataset,
                    batch_size: int,
                    ratio: Optional[str],
                    seed: int,
                    num_images: int = 256,
                    layers: Optional[Sequence[str]] = None) -> Optional[dict[str, dict[str, Tensor]]]:
    """Record what the inputs of a trained network's layers look like.

    The images pass through the training pipeline, as running statistics of a batch norm see them: their size is the
    one the network and the inversion work at (some networks take no other), and they fit into batches.

    Args:
        segmentor: network at the end of a step; it is put into eval mode.
        dataset: of the step's training: real images, or real ones and fakes.
        batch_size: images per forward pass: those of a training batch.
        ratio: real to fake images in it; None without fakes.
        seed: the result depends on it and on no number of processes.
        num_images: images that are looked at.
        layers: see :func:`~..inversion.recording.layers_to_record`.
    Returns:
        See :func:`~..inversion.recording.record_statistics`; None where there is nothing to record.
    """
    chosen = layers_to_record(segmentor, layers)
    if not chosen:
        return None
    segmentor.eval()
    num_fake = getattr(dataset, 'num_fake', 0)
    real_share = 1.0 if ratio is None else split_batch(batch_size, ratio)[0] / batch_size
    positions = training_mixture(len(dataset) - num_fake, num_fake, real_share, num_images, seed)

    def batches() -> Iterator[Tensor]:
        for start in range(0, num_images, batch_size):
            samples = [dataset[int(i)] for i in positions[start:start + batch_size]]
            yield segmentor.data_preprocessor(pseudo_collate(samples), training=True)['inputs']

    # Augmentation, and what some networks draw in eval mode (SegNeXt).
    with seeded(seed, FEATURE_STATISTICS):
        return record_statistics(segmentor, chosen, batches())
