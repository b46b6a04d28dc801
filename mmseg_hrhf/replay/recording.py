"""Feature statistics of layers that keep none of their own, taken from a pass over images."""
from __future__ import annotations

from typing import Any, Iterable, Iterator, Mapping, Optional

import numpy as np
import torch
from mmcv.cnn import is_norm
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from ..utils.errors import UserError
from ..utils.options import check_names
from ..utils.randomness import FEATURE_STATISTICS, seeded
from .inversion.feature_statistics import layer_input
from .sampler import split_batch


def layers_to_record(model: nn.Module) -> dict[str, nn.Module]:
    """Norm layers without running statistics, by module name.

    These are layer norms, group norms and instance norms, under a subclass or as "LayerNorm2d", too.
    """
    return {name: layer for name, layer in model.named_modules() if _keeps_no_statistics(layer)}


def _keeps_no_statistics(layer: nn.Module) -> bool:
    # mmseg's LayerNorm2d and others' RMSNorm derive from no norm of torch.
    named_norm = type(layer).__name__.endswith(('LayerNorm', 'LayerNorm2d', 'RMSNorm'))
    return (is_norm(layer) or named_norm) and getattr(layer, 'running_mean', None) is None


class _Moments:
    """Running mean and mean square per channel, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Any = 0.0
        self.square: Any = 0.0

    def add(self, features: Tensor) -> None:
        features = features.double()
        self.count += len(features)
        self.total = self.total + features.sum(0)
        self.square = self.square + features.square().sum(0)

    def result(self) -> dict[str, Tensor]:
        mean = self.total / self.count
        var = (self.square / self.count - mean.square()).clamp(min=0)
        return dict(mean=mean.float().cpu(), var=var.float().cpu())


@torch.no_grad()
def record_statistics(model: nn.Module, layers: dict[str, nn.Module],
                      batches: Iterable[Tensor]) -> dict[str, dict[str, Tensor]]:
    """Mean and biased variance per channel of the layers' inputs, over all positions of all images.

    Args:
        model: segmentor, in eval mode.
        layers: by module name; those that do not run are left out of the result.
        batches: (N, 3, H, W) inputs, normalised as the network takes them.
    Returns:
        ``{name: {'mean': (C,), 'var': (C,)}}``, float32 on the CPU.
    """
    moments: dict[str, _Moments] = {}

    def hook(name):

        def add(layer, inputs, options):
            moments.setdefault(name, _Moments()).add(layer_input(layer, inputs, options))

        return add

    handles = [layer.register_forward_pre_hook(hook(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        for batch in batches:
            shape = batch.shape[2:]
            metas = [dict(ori_shape=shape, img_shape=shape, pad_shape=shape, padding_size=[0] * 4)] * len(batch)
            model.encode_decode(batch, metas)
    finally:
        for handle in handles:
            handle.remove()
    return {name: held.result() for name, held in moments.items()}


def statistics_options(replay: Optional[dict]) -> Optional[dict]:
    """``feature_statistics`` of the ``replay`` options: by default 256 images; None where nothing is to be recorded.

    Raises:
        UserError: an unknown option or a bad number of images.
    """
    options = None if replay is None else replay.get('feature_statistics', {})
    if options is None:
        return None
    if not isinstance(options, Mapping):
        raise UserError(f'replay.feature_statistics={options!r} must be a dict, or None to record nothing.')
    check_names('replay.feature_statistics', options, ['num_images'])
    number = options.get('num_images', 256)
    if type(number) is not int or number < 1:
        raise UserError(f'replay.feature_statistics.num_images={number!r} must be a positive number.')
    return dict(options)


def training_mixture(num_real: int, num_fake: int, real_share: float, num_images: int, seed: int) -> np.ndarray:
    """Positions in a ``RealFakeDataset`` that stand for the step's training images.

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
                    num_images: int = 256) -> Optional[dict[str, dict[str, Tensor]]]:
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
    Returns:
        See ``record_statistics``; None where there is nothing to record.
    """
    chosen = layers_to_record(segmentor)
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
