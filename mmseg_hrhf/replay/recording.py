"""Recording feature statistics of norm layers that keep no running statistics, or keep those of an earlier step."""
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
from .sampler import parse_ratio


def layers_to_record(model: nn.Module, frozen: bool = False) -> dict[str, nn.Module]:
    """Norm layers without running statistics, by module name.

    These are layer, group and instance norms, including subclasses and "LayerNorm2d".

    Args:
        model: segmentor.
        frozen: norm layers have running statistics of an earlier step: include these layers.
    """
    return {name: layer for name, layer in model.named_modules()
            if _keeps_no_statistics(layer) or (frozen and getattr(layer, 'running_mean', None) is not None)}


def _keeps_no_statistics(layer: nn.Module) -> bool:
    # mmseg's LayerNorm2d and common RMSNorm classes are not subclasses of torch's norms.
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
    """Mean and biased variance per channel of the layers' inputs, over all positions and images.

    Args:
        model: segmentor, in eval mode.
        layers: by module name; layers that do not run are omitted from the result.
        batches: (N, 3, H, W) normalised network inputs.
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
    """``feature_statistics`` of the ``replay`` options, by default 256 images; None if nothing is recorded.

    Raises:
        UserError: an unknown option or an invalid number of images.
    """
    options = None if replay is None else replay.get('feature_statistics', {})
    if options is None:
        return None
    if not isinstance(options, Mapping):
        raise UserError(f'replay.feature_statistics={options!r} must be a dict, or None to record nothing.')
    check_names('replay.feature_statistics', options, ['num_images'])
    number = options.get('num_images', 256)
    if type(number) is not int or number < 1:
        raise UserError(f'replay.feature_statistics.num_images={number!r} must be a positive whole number.')
    return dict(options)


def training_mixture(num_real: int, num_fake: int, real_share: float, num_images: int, seed: int) -> np.ndarray:
    """Positions of a sample of training images in a ``RealFakeDataset``.

    Real and synthetic images have the training ratio, so the statistics cover all classes learnt so far, weighted as in
    training and as a batch norm would weight them. If there are too few images of a kind, they repeat with different
    augmentation.

    Args:
        num_real, num_fake: number of real and of synthetic images; real ones come first.
        real_share: fraction of real images in each training batch.
        num_images: size of the sample.
        seed: seed of the sample.
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
                    frozen: bool = False) -> Optional[dict[str, dict[str, Tensor]]]:
    """Record the feature statistics of a trained network.

    As for running statistics of batch norm, the images pass through the training pipeline. They therefore have a common
    size, at which the network and its inversion work (some networks accept no other).

    Args:
        segmentor: network at the end of a step; switched to eval mode.
        dataset: training dataset of the step, with or without synthetic images.
        batch_size: images per forward pass, as in training.
        ratio: real to synthetic images in a batch; None without synthetic images.
        seed: determines the result, independently of the number of processes.
        num_images: number of images to use.
        frozen: see ``layers_to_record``.
    Returns:
        See ``record_statistics``; None if there is no layer to record.
    """
    chosen = layers_to_record(segmentor, frozen)
    if not chosen:
        return None
    segmentor.eval()
    num_fake = getattr(dataset, 'num_fake', 0)
    real, fake = (1, 0) if ratio is None else parse_ratio(ratio)
    positions = training_mixture(len(dataset) - num_fake, num_fake, real / (real + fake), num_images, seed)

    def batches() -> Iterator[Tensor]:
        for start in range(0, num_images, batch_size):
            samples = [dataset[int(i)] for i in positions[start:start + batch_size]]
            yield segmentor.data_preprocessor(pseudo_collate(samples), training=True)['inputs']

    # For augmentation, and for networks that are random in eval mode (SegNeXt).
    with seeded(seed, FEATURE_STATISTICS):
        return record_statistics(segmentor, chosen, batches())
