"""What the network is fed for a pixel, measured through the pipeline: real and synthetic images must mean the same."""
from __future__ import annotations

from typing import Any, Optional

import numpy as np
import torch
from mmengine.dataset import Compose
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..datasets.loading import Loading
from ..inversion.pixels import PixelMap
from ..randomness import REAL_SAMPLE, SampleIndex, seeded

# RGB colours shown to a pipeline; together they tell scale, offset and order of the channels.
_COLOURS = ((0, 0, 0), (255, 255, 255), (128, 128, 128), (40, 80, 200), (200, 80, 40), (60, 220, 90))
_PRIMARY = ((220, 70, 70), (70, 220, 70), (70, 70, 220))
# Largest deviation from a straight line, and of real images' range from that of 8-bit ones, as shares of the range.
_CURVATURE, _OVERSHOOT, _LEAST_SPREAD = 0.02, 0.25, 0.03
_REAL_IMAGES, _DRAWS = 4, 5
_REMEDY = ('Let the pipeline keep pixels within 0 to 255 (scale 16-bit or float images while they are loaded) and '
           'normalise by model.data_preprocessor, or train without synthetic images (replay=None).')


def measure_pixel_map(test_pipeline: Compose, loading: Loading, data_preprocessor: nn.Module,
                      size: tuple[int, int]) -> Optional[PixelMap]:
    """Find what a network is fed for an 8-bit pixel, from plain colours through the test pipeline.

    The test pipeline draws no random colours, and is what the network is judged by.

    Args:
        test_pipeline: of the run.
        loading: its loading transforms.
        data_preprocessor: of the segmentor.
        size: (height, width) of synthetic images.
    Returns:
        None where the pipeline leaves pixels as they are.
    Raises:
        ValueError: the input is not a straight line over each colour channel.
    """
    inputs = [_feed(test_pipeline, loading, colour, data_preprocessor, size, seed=0) for colour in _COLOURS]
    fed = torch.stack([value for value in inputs if value is not None])
    pixels = torch.tensor(_COLOURS, dtype=torch.float64)
    if fed.shape[1] != 3:
        raise ValueError(f'The test pipeline packs images of {fed.shape[1]} channels, but synthetic images are RGB. '
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
        raise ValueError('SegInversion needs a network whose input is a fixed multiple of the pixels, channel by '
                         f'channel, plus a constant. Plain RGB colours through the test pipeline: {seen}. {_REMEDY}')
    red, green, blue = channels.tolist()
    measured = PixelMap((red, green, blue), _triple(scale), _triple(offset))
    expected = PixelMap.of(data_preprocessor)
    if measured.channels == expected.channels and _alike(measured, expected):
        return None
    return measured


def _feed(pipeline: Compose, loading: Loading, colour: tuple, data_preprocessor: nn.Module, size: tuple[int, int],
          seed: int) -> Optional[Tensor]:
    """(C,) input of the network, its mean over an image of one RGB colour; None if the pipeline does not pack it."""
    image = np.empty((*size, 3), dtype=loading.dtype)
    image[:] = colour[::-1]
    results: Any = dict(img=image, img_shape=size, ori_shape=size, img_path='', seg_map_path='', label_map=None,
                   reduce_zero_label=False, seg_fields=['gt_seg_map'], sample_idx=0,
                   gt_seg_map=np.zeros(size, dtype=np.uint8))
    with seeded(seed):
        for i, transform in enumerate(pipeline.transforms):
            if i > loading.image and i != loading.labels:
                results = transform(results)
    if 'inputs' not in results:
        return None  # what mixes images around the pipeline does
    height, width = results['inputs'].shape[1:]
    fed = data_preprocessor(dict(inputs=[results['inputs']], data_samples=[results['data_samples']]))['inputs'][0]
    return fed[:, :height, :width].flatten(1).mean(1).detach().cpu()


def check_channel_order(pipeline: Compose, loading: Loading, data_preprocessor: nn.Module, size: tuple[int, int],
                        pixel_map: PixelMap) -> None:
    """Check that the training pipeline feeds red, green and blue to the channels to which the test pipeline does.

    Args:
        pipeline, loading: of training; colours may be drawn at random, so that a mean over a few draws counts.
        data_preprocessor, size: see :func:`measure_pixel_map`.
        pixel_map: of the test pipeline.
    Raises:
        ValueError: they differ.
    """
    scale, offset = torch.tensor(pixel_map.scale), torch.tensor(pixel_map.offset)
    for channel, colour in enumerate(_PRIMARY):
        draws = [_feed(pipeline, loading, colour, data_preprocessor, size, seed) for seed in range(_DRAWS)]
        packed = [draw for draw in draws if draw is not None]
        if not packed:
            return
        pixels = (torch.stack(packed).mean(0) - offset) / scale
        brightest = pixel_map.channels[int(pixels.argmax())]
        if brightest != channel:
            names = ('red', 'green', 'blue')
            raise ValueError(f'The training pipeline feeds {names[channel]} to the channel of the network to which the '
                             f'test pipeline feeds {names[brightest]}: give both the same order of channels (to_rgb, '
                             'bgr_to_rgb, channel_order).')


def _triple(values: Tensor) -> tuple[float, float, float]:
    first, second, third = values.tolist()
    return first, second, third


def _alike(first: PixelMap, second: PixelMap) -> bool:
    """Whether two maps give inputs that differ by rounding only."""
    for a, b, c, d in zip(first.scale, first.offset, second.scale, second.offset):
        if max(abs(b - d), abs(255 * (a - c) + b - d)) > 1e-3 * 255 * abs(c):
            return False
    return True


def check_real_range(dataset: Dataset, data_preprocessor: nn.Module, pixel_map: PixelMap, name: str) -> None:
    """Check that the network is fed real images on the scale of synthetic ones.

    Args:
        dataset: whose first images go through its pipeline.
        data_preprocessor: of the segmentor.
        pixel_map: what 8-bit pixels become.
        name: of the loader in the config, for messages.
    Raises:
        ValueError: real images lie outside the range of 8-bit ones, or fill next to nothing of it.
    """
    ends = torch.tensor([pixel_map.offset, [255 * a + b for a, b in zip(pixel_map.scale, pixel_map.offset)]])
    low, high = ends.amin(0), ends.amax(0)
    samples = [dataset[SampleIndex(i, (0, REAL_SAMPLE, i))] for i in range(min(_REAL_IMAGES, len(dataset)))]
    fed = [data_preprocessor(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))['inputs'][0]
           for sample in samples]
    darkest = torch.stack([image.flatten(1).amin(1) for image in fed]).amin(0).cpu()
    lightest = torch.stack([image.flatten(1).amax(1) for image in fed]).amax(0).cpu()
    margin = _OVERSHOOT * (high - low)
    outside = (darkest < low - margin) | (lightest > high + margin)
    if outside.any() or (lightest - darkest < _LEAST_SPREAD * (high - low)).all():
        raise ValueError(f'Real images of {name} reach the network with values of {_span(darkest, lightest)}, but '
                         f'8-bit pixels, as synthetic images have, become {_span(low, high)} in the test pipeline: the '
                         f'network would not see them on one scale. {_REMEDY}')


def _span(low: Tensor, high: Tensor) -> str:
    return f'{float(low.min()):.4g} to {float(high.max()):.4g}'
