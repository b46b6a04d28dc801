"""Measures how the pipeline maps pixels to network inputs, which must be the same for real and synthetic images."""
from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np
import torch
from mmengine.dataset import Compose
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..datasets.transforms import Loading
from ..utils.errors import UserError
from ..utils.randomness import REAL_SAMPLE, SampleIndex, seeded
from .inversion.pixels import PixelMap

# RGB colours for probing a pipeline; together they determine scale, offset and order of the channels.
_COLOURS = ((0, 0, 0), (255, 255, 255), (128, 128, 128), (40, 80, 200), (200, 80, 40), (60, 220, 90))
_ENDS = ((0, 0, 0), (255, 255, 255))
_PRIMARY = ((220, 70, 70), (70, 220, 70), (70, 70, 220))
# Shares of the 8-bit range: largest deviation from linearity, largest overshoot and least spread of real images.
_CURVATURE, _OVERSHOOT, _LEAST_SPREAD = 0.02, 0.25, 0.03
_REAL_IMAGES, _DRAWS = 4, 5
# Minimum difference, in 8-bit levels, to call a channel the brightest: grey images have no brightest channel.
_BRIGHTER = 15
# Maximum shift of black or white between training and test, as a share of the range.
_SHIFT = 0.25
_REMEDY = ('Keep pixels within 0 to 255 in the pipeline (scale 16-bit or float images when loading them) and '
           'normalise in model.data_preprocessor, or train without synthetic images (replay=None).')


def measure_pixel_map(test_pipeline: Compose, loading: Loading, data_preprocessor: nn.Module,
                      size: tuple[int, int]) -> Optional[PixelMap]:
    """Measure the network input for 8-bit pixels by passing plain colours through the test pipeline.

    The test pipeline has no random colours, and the network is evaluated with it.

    Args:
        test_pipeline: of the run.
        loading: its loading transforms.
        data_preprocessor: of the segmentor.
        size: (height, width) of synthetic images.
    Returns:
        None if the pipeline does not change pixels.
    Raises:
        UserError: the input is not linear in each colour channel.
    """
    fed = _feed(test_pipeline, loading, _COLOURS, data_preprocessor, size, seed=0)
    if fed is None:
        raise UserError('The test pipeline returns no sample for an image of one colour, or samples of different '
                         f'sizes, so the network input for a pixel cannot be measured. {_REMEDY}')
    pixels = torch.tensor(_COLOURS, dtype=torch.float64)
    if fed.shape[1] != 3:
        raise UserError(f'The test pipeline packs images of {fed.shape[1]} channels, but synthetic images are RGB. '
                         f'{_REMEDY}')
    design = torch.cat([pixels, torch.ones(len(pixels), 1, dtype=torch.float64)], dim=1)
    fit = torch.linalg.lstsq(design, fed.double()).solution  # (4, 3): weights of red, green, blue; offset
    weights, offset = fit[:3], fit[3]
    channels = weights.abs().argmax(0)
    scale = weights.gather(0, channels[None])[0]
    spread = 255 * scale.abs()
    others = weights.abs().sum(0) - scale.abs()
    deviation = (design @ fit - fed).abs().amax(0)
    if (spread < 1e-6).any() or (others * 255 > _CURVATURE * spread).any() or (deviation > _CURVATURE * spread).any() \
            or len(set(channels.tolist())) < 3:
        seen = '; '.join(f'{colour} becomes {[round(float(value), 3) for value in values]}'
                         for colour, values in zip(_COLOURS[:3], fed))
        raise UserError('SegInversion needs a network whose input is a fixed multiple of the pixels, channel by '
                         f'channel, plus a constant. Plain RGB colours through the test pipeline: {seen}. {_REMEDY}')
    red, green, blue = channels.tolist()
    measured = PixelMap((red, green, blue), _triple(scale), _triple(offset))
    expected = PixelMap.of(data_preprocessor)
    if measured.channels == expected.channels and _alike(measured, expected):
        return None
    return measured


def _feed(pipeline: Compose, loading: Loading, colours: Sequence[tuple], data_preprocessor: nn.Module,
          size: tuple[int, int], seed: int) -> Optional[Tensor]:
    """(N, C) network input for images of one RGB colour each, with the same random draws, without padding.

    None if the pipeline does not pack the images, or returns different sizes.

    Raises:
        UserError: a transform fails for such images; names it.
    """
    images = []
    for colour in colours:
        image = np.empty((*size, 3), dtype=loading.dtype)
        image[:] = colour[::-1]
        results: Any = dict(img=image, img_shape=size, ori_shape=size, img_path='', seg_map_path='', label_map=None,
                            reduce_zero_label=False, seg_fields=['gt_seg_map'], sample_idx=0,
                            gt_seg_map=np.zeros(size, dtype=np.uint8))
        with seeded(seed):
            for i, transform in enumerate(pipeline.transforms):
                if i > loading.image and i != loading.labels:
                    try:
                        results = transform(results)
                    except Exception as error:  # a transform may raise anything
                        reason = f'{type(error).__name__}: {error}'.rstrip(': ')
                        raise UserError(f'{type(transform).__name__} fails for an image of one colour ({reason}), so '
                                         f'the network input for a pixel cannot be measured. {_REMEDY}'
                                         ) from error
                    if results is None:
                        return None
        if 'inputs' not in results:
            return None  # packed by a dataset that mixes images
        height, width = results['inputs'].shape[1:]
        fed = data_preprocessor(dict(inputs=[results['inputs']], data_samples=[results['data_samples']]))['inputs'][0]
        images.append(fed[:, :height, :width].detach().cpu())
    if len({image.shape for image in images}) > 1:
        return None
    stacked = torch.stack(images)
    # Padded or erased pixels have the same value in all images.
    spread = (stacked.amax(0) - stacked.amin(0)).sum(0)
    return stacked[..., spread >= spread.max() / 2].mean(-1)


def check_training_pixels(pipeline: Compose, loading: Loading, data_preprocessor: nn.Module, size: tuple[int, int],
                          pixel_map: PixelMap) -> None:
    """Check that, apart from augmentation, the training pipeline maps pixels as the test pipeline does.

    Args:
        pipeline, loading: of training; colours may be augmented at random, so several draws are checked.
        data_preprocessor, size: see ``measure_pixel_map``.
        pixel_map: of the test pipeline.
    Raises:
        UserError: red, green and blue go to other channels, or black and white get other values in every draw.
    """
    scale, offset = torch.tensor(pixel_map.scale), torch.tensor(pixel_map.offset)
    draws = []
    for seed in range(_DRAWS):
        try:
            fed = _feed(pipeline, loading, (*_ENDS, *_PRIMARY), data_preprocessor, size, seed)
        except ValueError:
            return  # such as a per-image contrast stretch that only training applies
        if fed is not None and fed.shape[1] == len(scale):
            draws.append((fed - offset) / scale)
    if not draws:
        return
    pixels = torch.stack(draws)  # (D, 5, 3): pixels that give this input in the test pipeline
    ends = pixels[:, :len(_ENDS)].mean(-1)  # (D, 2)
    shift = (ends - torch.tensor([float(end[0]) for end in _ENDS])).abs().amax(1)
    if (shift > _SHIFT * 255).all():
        black, white = ends[int(shift.argmin())].tolist()
        raise UserError('The training pipeline feeds black (0) and white (255) to the network as the test pipeline '
                         f'would feed pixels of {black:.0f} and {white:.0f}: use the same normalisation in '
                         'both, or train without synthetic images (replay=None).')
    for channel, seen in enumerate(pixels.mean(0)[len(_ENDS):]):
        brightest = int(seen.argmax())
        expected = pixel_map.channels.index(channel)
        if seen[brightest] > seen[expected] + _BRIGHTER:
            names = ('red', 'green', 'blue')
            raise UserError(f'The training pipeline feeds {names[channel]} to the channel of the network to which the '
                             f'test pipeline feeds {names[pixel_map.channels[brightest]]}: use the same channel order '
                             'in both (to_rgb, bgr_to_rgb, channel_order).')


def _triple(values: Tensor) -> tuple[float, float, float]:
    first, second, third = values.tolist()
    return first, second, third


def _alike(first: PixelMap, second: PixelMap) -> bool:
    """Whether two maps give the same inputs up to rounding."""
    for a, b, c, d in zip(first.scale, first.offset, second.scale, second.offset):
        if max(abs(b - d), abs(255 * (a - c) + b - d)) > 1e-3 * 255 * abs(c):
            return False
    return True


def check_real_range(dataset: Dataset, data_preprocessor: nn.Module, pixel_map: PixelMap, name: str,
                     parts: Optional[Sequence[np.ndarray]] = None, training: bool = False) -> None:
    """Check that real images reach the network on the same scale as synthetic ones.

    Args:
        dataset: real images with their pipeline.
        data_preprocessor: of the segmentor.
        pixel_map: maps 8-bit pixels to network inputs.
        name: of the loader in the config, for messages.
        parts: image indices of each concatenated dataset, which each have a pipeline and are checked by their first
            images; None: a single dataset.
        training: whether the preprocessor runs in training mode.
    Raises:
        UserError: real images lie outside the range of 8-bit ones, or cover almost none of it.
    """
    ends = torch.tensor([pixel_map.offset, [255 * a + b for a, b in zip(pixel_map.scale, pixel_map.offset)]])
    low, high = ends.amin(0), ends.amax(0)
    for part in [np.arange(len(dataset))] if parts is None else parts:
        _check_range([dataset[SampleIndex(i, (0, REAL_SAMPLE, i))] for i in part[:_REAL_IMAGES].tolist()],
                     data_preprocessor, low, high, name, training)


def _check_range(samples: Sequence[dict], data_preprocessor: nn.Module, low: Tensor, high: Tensor, name: str,
                 training: bool) -> None:
    with seeded(0):
        fed = [data_preprocessor(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]),
                                 training)['inputs'][0] for sample in samples]
    darkest = torch.stack([image.flatten(1).amin(1) for image in fed]).amin(0).cpu()
    lightest = torch.stack([image.flatten(1).amax(1) for image in fed]).amax(0).cpu()
    margin = _OVERSHOOT * (high - low)
    outside = (darkest < low - margin) | (lightest > high + margin)
    if outside.any() or (lightest - darkest < _LEAST_SPREAD * (high - low)).all():
        raise UserError(f'Real images of {name} reach the network with values of {_span(darkest, lightest)}, but '
                         f'8-bit pixels, as in synthetic images, become {_span(low, high)} in the test pipeline: the '
                         f'network would not see them on the same scale. {_REMEDY}')


def _span(low: Tensor, high: Tensor) -> str:
    return f'{float(low.min()):.4g} to {float(high.max()):.4g}'
