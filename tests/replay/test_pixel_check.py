"""What the network is fed for a pixel, measured through pipeline and preprocessor."""

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose
from mmseg.models import SegDataPreProcessor
from mmseg.registry import DATASETS, TRANSFORMS
from mmseg.structures import SegDataSample

from mmseg_hrhf.datasets.transforms import Loading
from mmseg_hrhf.replay.inversion.pixels import PixelMap, PixelSpace
from mmseg_hrhf.replay.pixel_check import check_real_range, check_training_pixels, measure_pixel_map

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
LOAD, LABELS, PACK = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')
NORMALISE = dict(type='Normalize', mean=MEAN, std=STD, to_rgb=True)
SIZE = (48, 40)
AT = Loading(image=0, labels=1, dtype=np.dtype(np.uint8))


@TRANSFORMS.register_module()
class OnImage(BaseTransform):
    """A user's transform of values: ``img`` through an expression of ``x``."""

    def __init__(self, code):
        self.code = code

    def transform(self, results):
        x = results['img'].astype(np.float32)
        results['img'] = np.ascontiguousarray(eval(self.code, dict(x=x, np=np))).astype(np.float32)
        return results


def pipeline(*middle):
    return Compose([LOAD, LABELS, *middle, PACK])


def measured(preprocessor, *middle):
    return measure_pixel_map(pipeline(*middle), AT, preprocessor, SIZE)


@pytest.mark.parametrize(
    'options',
    [
        dict(mean=MEAN, std=STD, bgr_to_rgb=True),
        dict(mean=MEAN, std=STD),
        {},
        dict(bgr_to_rgb=True),
        dict(mean=[0] * 3, std=[255] * 3, size_divisor=32),
    ],
)
@pytest.mark.parametrize(
    'middle',
    [
        [],
        [dict(type='Resize', scale=(96, 96), keep_ratio=True)],
        [dict(type='RandomFlip', prob=1.0)],
        [dict(type='Normalize', mean=[0] * 3, std=[1] * 3, to_rgb=False)],
    ],
)
def test_a_pipeline_that_leaves_pixels_alone_needs_no_map(options, middle):
    assert measured(SegDataPreProcessor(**options), *middle) is None


@pytest.mark.parametrize(
    'options, middle',
    [
        (dict(bgr_to_rgb=False), [NORMALISE]),
        (dict(bgr_to_rgb=True), [dict(NORMALISE, to_rgb=False)]),
        (dict(), [OnImage('x / 255')]),
        (dict(mean=[0.5] * 3, std=[0.25] * 3, bgr_to_rgb=True), [OnImage('x / 255')]),
        (dict(), [OnImage('x * 257')]),
        (dict(), [OnImage('255 - x')]),
        (dict(mean=MEAN, std=STD), [OnImage('x[..., [1, 0, 2]]')]),
    ],
    ids=['normalised', 'BGR', '0 to 1', '0 to 1 normalised', '16 bits', 'negative', 'channels'],
)
def test_the_network_sees_a_stored_image_through_the_map_as_through_the_pipeline(options, middle, tmp_path):
    preprocessor = SegDataPreProcessor(**options)
    pixel_map = measured(preprocessor, *middle)
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (1, *SIZE, 3)).astype(np.uint8)
    results = dict(img=np.ascontiguousarray(stored[0, ..., ::-1]), img_shape=SIZE, ori_shape=SIZE, seg_fields=[])
    for transform in pipeline(*middle).transforms[2:]:
        results = transform(results)
    fed = preprocessor(dict(inputs=[results['inputs']], data_samples=[results['data_samples']]))['inputs']
    space = PixelSpace(preprocessor, torch.device('cpu'), pixel_map)
    scale = (fed.amax() - fed.amin()).item()
    torch.testing.assert_close(
        space.to_network(space.from_pixels(torch.from_numpy(stored))), fed, rtol=0, atol=2e-3 * scale
    )
    assert (space.high - space.low > 1).all() and (space.high - space.low < 10).all()


@pytest.mark.parametrize(
    'code',
    [
        '(x - x.mean()) / (x.std() + 1e-6)',
        'x ** 2 / 255',
        'x.mean(-1, keepdims=True).repeat(3, -1)',
        'x[..., :1]',
        'x - np.roll(x, 1, axis=-1)',
        'x[..., [0, 0, 2]]',
        'np.stack([x[..., 0], 0.1 * x[..., 1] + 0.003 * x[..., 0], x[..., 2]], axis=-1)',
        '0 * x',
    ],
)
def test_what_is_no_line_over_a_channel_is_refused(code):
    with pytest.raises(ValueError, match=r'replay=None'):
        measured(SegDataPreProcessor(), OnImage(code))


def test_refusals_show_what_colours_become():
    with pytest.raises(
        ValueError,
        match=r'\(0, 0, 0\) becomes \[0\.0, 0\.0, 0\.0\]; \(255, 255, 255\) becomes \[255\.0, .*'
        r'\(128, 128, 128\) becomes \[64\.251, 64\.251, 64\.251\]\. Keep pixels within',
    ):
        measured(SegDataPreProcessor(), OnImage('x ** 2 / 255'))
    with pytest.raises(ValueError, match='The test pipeline packs images of 1 channels, but synthetic images are RGB'):
        measured(SegDataPreProcessor(), OnImage('x[..., :1]'))


def test_colours_that_come_in_different_sizes_cannot_be_measured():
    cropped = OnImage('x[:9] if x.mean() > 200 else x')
    with pytest.raises(ValueError, match='no sample for an image of one colour, or samples of different sizes, so'):
        measured(SegDataPreProcessor(), cropped)
    check_training(cropped)  # what training draws at random may differ


@pytest.mark.parametrize(
    'middle, is_linear',
    [
        (['x + 0.01 * x[..., ::-1]'], True),
        (['x + 0.03 * x[..., ::-1]'], False),
        (['x + 8 * (x == 128)'], False),
        (['x + 3 * (x == 128)'], True),
        (['x * 1e-9'], False),
    ],
)
def test_a_map_may_deviate_from_a_line_by_little(middle, is_linear):
    transforms = [OnImage(code) for code in middle]
    if is_linear:
        assert measured(SegDataPreProcessor(), *transforms).channels == (2, 1, 0)
    else:
        with pytest.raises(ValueError, match='fixed multiple of the pixels'):
            measured(SegDataPreProcessor(), *transforms)


@pytest.mark.parametrize('options', [{}, dict(mean=MEAN, std=STD, bgr_to_rgb=True)], ids=['raw', 'normalised'])
@pytest.mark.parametrize(
    'code, needs_map', [('x * 1.0005', False), ('x * 1.05', True), ('x + 0.2', False), ('x + 0.3', True)]
)
def test_a_map_is_needed_for_more_than_rounding(options, code, needs_map):
    assert (measured(SegDataPreProcessor(**options), OnImage(code)) is not None) is needs_map


@pytest.fixture
def images(tiny_config):

    def build(*middle):
        dataset = dict(tiny_config.test_dataloader.dataset, pipeline=[LOAD, LABELS, *middle, PACK])
        return DATASETS.build(
            dict(type='IncrementalDataset', dataset=dataset, scenario=dict(tiny_config.scenario), step=0)
        )

    return build


RAW = PixelMap((2, 1, 0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


@pytest.mark.parametrize('code', ['x', 'x * 0.5', 'x + 20'])
def test_real_images_within_the_range_of_8_bits_pass(images, code):
    check_real_range(images(OnImage(code)), SegDataPreProcessor(), RAW, 'test_dataloader')


@pytest.mark.parametrize('code', ['x * 257', 'x / 255', '(x - 120) / 58', 'x - 400', 'x * 16'])
def test_real_images_on_another_scale_are_refused(images, code):
    with pytest.raises(
        ValueError, match=r'Real images of test_dataloader reach the network with values of .* on the same scale'
    ):
        check_real_range(images(OnImage(code)), SegDataPreProcessor(), RAW, 'test_dataloader')


class Stored:
    """Samples of given values: a row of pixels for each image, the same in all channels or by channel."""

    def __init__(self, *rows):
        self.images = [torch.tensor(row, dtype=torch.float32).expand(3, -1)[:, None] for row in rows]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return dict(inputs=self.images[index], data_samples=SegDataSample())


@pytest.mark.parametrize(
    'dataset, span',
    [
        (Stored([0, 318], [-63, 255]), None),
        (Stored([0, 319]), '0 to 319'),
        (Stored([100, 200], [-64, 255]), '-64 to 255'),
        (Stored([[0, 319], [0, 1], [0, 1]]), '0 to 319'),
        (Stored([100, 107]), '100 to 107'),
        (Stored([100, 108]), None),
        (Stored([100, 100], [100, 108]), None),
        (Stored([[5, 5], [5, 5], [5, 99]]), None),
        (Stored(*[[0, 255]] * 3, [0, 999]), '0 to 999'),
        (Stored(*[[0, 255]] * 4, [0, 999]), None),
    ],
)
def test_real_images_may_exceed_8_bits_by_a_quarter_and_must_fill_a_part_of_them(dataset, span):
    if span is None:
        check_real_range(dataset, SegDataPreProcessor(), RAW, 'test_dataloader')
    else:
        with pytest.raises(ValueError, match=f'values of {span}, but 8-bit pixels, .* become 0 to 255 in the test'):
            check_real_range(dataset, SegDataPreProcessor(), RAW, 'test_dataloader')


def test_the_range_of_real_images_is_that_of_the_map():
    pixel_map = PixelMap((2, 1, 0), (0.5, 0.5, 0.5), (-100.0, -100.0, -100.0))
    check_real_range(Stored([-100, 27]), SegDataPreProcessor(), pixel_map, 'test_dataloader')
    for row, span in (([0, 255], '0 to 255'), ([0, 3], '0 to 3')):
        with pytest.raises(ValueError, match=rf'values of {span}, but 8-bit pixels, .* become -100 to 27\.5 in the'):
            check_real_range(Stored(row), SegDataPreProcessor(), pixel_map, 'test_dataloader')


def test_channels_of_different_scale_are_compared_as_pixels():
    scaled = PixelMap((2, 1, 0), (0.1, 1.0, 1.0), (0.0, 0.0, 0.0))
    check_training_pixels(pipeline(OnImage('x * [0.1, 1, 1]')), AT, SegDataPreProcessor(), SIZE, scaled)


def test_an_order_of_channels_that_exchanges_two_is_refused():
    with pytest.raises(ValueError, match=r'feeds green to the channel .* feeds blue: use the same channel order'):
        check_training_pixels(pipeline(OnImage('x[..., [1, 0, 2]]')), AT, SegDataPreProcessor(), SIZE, RAW)
    check_training_pixels(Compose([LOAD, LABELS]), AT, SegDataPreProcessor(), SIZE, RAW)  # packed elsewhere


def check_training(*middle, preprocessor=None):
    check_training_pixels(pipeline(*middle), AT, preprocessor or SegDataPreProcessor(), SIZE, RAW)


def test_channels_in_another_order_in_training_are_refused():
    check_training(dict(type='PhotoMetricDistortion'))
    with pytest.raises(
        ValueError,
        match='training pipeline feeds red to the channel of the network to which the test pipeline feeds blue',
    ):
        check_training(OnImage('x[..., ::-1]'))


@pytest.mark.parametrize(
    'middle',
    [
        dict(type='RGB2Gray'),
        dict(type='RandomGrayscale', prob=1.0, keep_channels=True),
        dict(type='CLAHE'),
        dict(type='Rerange'),
        dict(type='AdjustGamma', gamma=1.5),
        dict(type='RandomCutOut', prob=1.0, n_holes=4, cutout_shape=(12, 12), seg_fill_in=255),
        dict(type='Pad', size=(96, 96)),
        dict(type='RandomResize', scale=(96, 96), ratio_range=(0.5, 2.0), keep_ratio=True),
    ],
    ids=lambda options: options['type'],
)
def test_augmentation_of_training_alone_passes(middle):
    check_training(middle)


@pytest.mark.parametrize('code', ['x * 0.5', 'x / 255', '255 - x', '(x - 120) / 58', 'x * 0.7 + 70'])
def test_another_normalisation_in_training_alone_is_refused(code):
    with pytest.raises(ValueError, match=r'training pipeline feeds black \(0\) and white \(255\) .* pixels of'):
        check_training(OnImage(code))


def test_training_that_normalises_as_the_test_does_passes():
    preprocessor = SegDataPreProcessor(mean=MEAN, std=STD)
    check_training_pixels(pipeline(), AT, preprocessor, SIZE, PixelMap.of(preprocessor))
    pixel_map = measured(SegDataPreProcessor(), NORMALISE)
    check_training_pixels(pipeline(NORMALISE), AT, SegDataPreProcessor(), SIZE, pixel_map)


@pytest.mark.parametrize(
    'shift, seen', [(63.6, None), (63.9, '64 and 319'), (64.4, '64 and 319'), (64.6, '65 and 320')]
)
def test_black_and_white_may_differ_in_training_by_a_quarter_of_the_range(shift, seen):
    if seen is None:
        check_training(OnImage(f'x + {shift}'))
    else:
        with pytest.raises(ValueError, match=f'would feed pixels of {seen}: normalise alike in both'):
            check_training(OnImage(f'x + {shift}'))


def test_padding_is_no_part_of_the_measured_pixels():
    assert measured(SegDataPreProcessor(), dict(type='Pad', size=(120, 120))) is None
    pixel_map = measured(SegDataPreProcessor(), OnImage('x / 255'), dict(type='Pad', size=(120, 120)))
    torch.testing.assert_close(torch.tensor(pixel_map.scale), torch.full((3, ), 1 / 255))


def test_a_transform_that_fails_for_plain_colours_is_named():
    with pytest.raises(ValueError, match=r'Rerange fails for an image of one colour \(AssertionError\).*replay=None'):
        measured(SegDataPreProcessor(), dict(type='Rerange'))


class ScalesInTraining(SegDataPreProcessor):

    def forward(self, data, training=False):
        out = super().forward(data, training)
        return dict(out, inputs=out['inputs'] / 255) if training else out


def test_a_preprocessor_that_scales_in_training_alone_is_refused(images):
    preprocessor = ScalesInTraining(size=(48, 48))
    check_real_range(images(), preprocessor, RAW, 'test_dataloader')
    with pytest.raises(ValueError, match='Real images of train_dataloader'):
        check_real_range(images(), preprocessor, RAW, 'train_dataloader', training=True)


def test_every_part_of_the_data_is_on_the_scale(images):
    dataset = images()
    check_real_range(dataset, SegDataPreProcessor(), RAW, 'train_dataloader', [np.array([0]), np.array([1, 2])])

    class Joined:

        def __getitem__(self, index):
            sample = dataset[index]
            return dict(sample, inputs=sample['inputs'] / 255) if index > 3 else sample

    with pytest.raises(ValueError, match='Real images of train_dataloader'):
        check_real_range(Joined(), SegDataPreProcessor(), RAW, 'train_dataloader', [np.arange(4), np.array([4, 5])])
