"""Pixels, the network's input, and the space in between."""
import pytest
import torch
from mmseg.models import SegDataPreProcessor

from mmseg_hrhf.replay.inversion.pixels import PixelMap, PixelSpace

CPU = torch.device('cpu')
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
PREPROCESSORS = {
    'RGB': dict(mean=MEAN, std=STD, bgr_to_rgb=True),
    'BGR': dict(mean=MEAN, std=STD),
    'raw RGB': dict(bgr_to_rgb=True),
    'raw BGR': dict(),
}


@pytest.fixture(params=PREPROCESSORS)
def preprocessor(request):
    return SegDataPreProcessor(**PREPROCESSORS[request.param])


def pixels():
    """(2, 5, 51, 3) uint8 that holds every value in every channel."""
    return torch.arange(2 * 5 * 51 * 3).remainder(256).to(torch.uint8).view(2, 5, 51, 3)


def test_round_trip_is_lossless(preprocessor):
    space = PixelSpace(preprocessor, CPU)
    assert torch.equal(space.to_pixels(space.from_pixels(pixels())), pixels())


def test_stored_images_have_the_memory_order_of_a_batch(preprocessor):
    # DMNet's `view` fails on any other.
    assert PixelSpace(preprocessor, CPU).from_pixels(pixels()).is_contiguous()


def test_network_sees_a_stored_image_as_it_sees_a_loaded_one(preprocessor):
    # mmcv loads a file to (3, H, W) BGR; the segmentor's preprocessor does the rest.
    space = PixelSpace(preprocessor, CPU)
    loaded = list(pixels().flip(-1).permute(0, 3, 1, 2))
    expected = preprocessor(dict(inputs=loaded, data_samples=None))['inputs']
    expected = torch.stack(expected) if isinstance(expected, list) else expected
    torch.testing.assert_close(space.to_network(space.from_pixels(pixels())), expected, rtol=1e-5, atol=1e-4)


def test_stored_channels_are_red_green_blue():
    # In a network that takes BGR, channel 2 is red.
    space = PixelSpace(SegDataPreProcessor(mean=[0, 0, 0], std=[1, 1, 1]), CPU)
    red = (torch.tensor([0., 0., 255.]).view(1, 3, 1, 1) - space.mean) / space.std
    assert space.to_pixels(red).flatten().tolist() == [255, 0, 0]


def test_layout_and_type_of_pixels(preprocessor):
    stored = PixelSpace(preprocessor, CPU).to_pixels(torch.zeros(2, 3, 4, 5))
    assert stored.shape == (2, 4, 5, 3) and stored.dtype == torch.uint8 and stored.is_contiguous()


def test_clamp_reaches_black_and_white_and_no_further(preprocessor):
    space = PixelSpace(preprocessor, CPU)
    images = torch.cat([torch.full((1, 3, 2, 2), -1e3), torch.full((1, 3, 2, 2), 1e3)])
    clamped = space.clamp_(images)
    assert clamped is images
    stored = space.to_pixels(images)
    assert (stored[0] == 0).all() and (stored[1] == 255).all()
    torch.testing.assert_close(images[:1], space.from_pixels(torch.zeros(1, 2, 2, 3, dtype=torch.uint8)))
    torch.testing.assert_close(images[1:], space.from_pixels(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)))


def test_clamp_leaves_valid_images_alone(preprocessor):
    space = PixelSpace(preprocessor, CPU)
    images = space.from_pixels(pixels())
    torch.testing.assert_close(space.clamp_(images.clone()), images, rtol=0, atol=1e-6)


def test_values_outside_the_range_do_not_wrap_around(preprocessor):
    space = PixelSpace(preprocessor, CPU)
    assert (space.to_pixels(torch.full((1, 3, 1, 1), 1e3)) == 255).all()
    assert (space.to_pixels(torch.full((1, 3, 1, 1), -1e3)) == 0).all()


def test_pixels_are_rounded_to_the_nearest():
    space = PixelSpace(SegDataPreProcessor(mean=[0, 0, 0], std=[1, 1, 1], bgr_to_rgb=True), CPU)
    between = (torch.tensor([9.6, 10.4, 10.6]).view(1, 3, 1, 1) - space.mean) / space.std
    assert space.to_pixels(between).flatten().tolist() == [10, 10, 11]


def test_space_of_a_raw_network_has_unit_scale():
    space = PixelSpace(SegDataPreProcessor(), CPU)
    assert (space.low > -3).all() and (space.high < 3).all()
    torch.testing.assert_close(space.to_network(space.low), torch.zeros(1, 3, 1, 1))


@pytest.mark.parametrize('attribute', ['_channel_conversion', 'channel_conversion'])
def test_channel_order_is_read_on_both_toolbox_lines(attribute):
    class Preprocessor(torch.nn.Module):
        pass

    module = Preprocessor()
    setattr(module, attribute, True)
    assert PixelSpace(module, CPU).channels == [0, 1, 2]
    assert PixelSpace(Preprocessor(), CPU).channels == [2, 1, 0]


def test_space_of_a_network_fed_0_to_1_has_unit_scale():
    space = PixelSpace(SegDataPreProcessor(mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True), CPU)
    assert (space.high - space.low > 3).all()
    white = space.from_pixels(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8))
    torch.testing.assert_close(space.to_network(white), torch.ones(1, 3, 2, 2))


def test_what_a_pipeline_makes_of_pixels_comes_before_the_preprocessor_s_attributes():
    # The first channel is green inverted, the others red and blue halved and shifted.
    pixel_map = PixelMap(channels=(1, 0, 2), scale=(-1.0, 0.5, 0.5), offset=(255.0, 1.0, 1.0))
    space = PixelSpace(SegDataPreProcessor(mean=MEAN, std=STD), CPU, pixel_map)
    stored = pixels()
    images = space.from_pixels(stored)
    red, green, blue = (stored[..., c].float() for c in range(3))
    expected = torch.stack([255 - green, 0.5 * red + 1, 0.5 * blue + 1], dim=1)
    torch.testing.assert_close(space.to_network(images), expected)
    assert torch.equal(space.to_pixels(images), stored)
    assert torch.equal(space.clamp_(images.clone()), images)


def test_map_of_a_preprocessor():
    assert PixelMap.of(SegDataPreProcessor()) == PixelMap((2, 1, 0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    built = PixelMap.of(SegDataPreProcessor(mean=[1, 2, 3], std=[2, 4, 8], bgr_to_rgb=True))
    assert built == PixelMap((0, 1, 2), (0.5, 0.25, 0.125), (-0.5, -0.5, -0.375))
    fields = dict(channels=[0, 1, 2], scale=[0.5, 0.25, 0.125], offset=[-0.5, -0.5, -0.375])
    assert PixelMap.from_plain(fields) == built


@pytest.mark.parametrize('std, fed_as_it_is', [
    ([33, 60, 60], True), ([60, 60, 127.5], True), ([60, 31.5, 60], False), ([60, 128.5, 60], False),
    ([32, 60, 60], False), ([60, 60, 128], False)])
def test_images_are_optimised_as_the_network_is_fed_where_that_is_about_unit_scale(std, fed_as_it_is):
    space = PixelSpace(SegDataPreProcessor(mean=MEAN, std=std), CPU)
    images = torch.zeros(1, 3, 2, 2)
    assert (space.to_network(images) is images) is fed_as_it_is
    assert space.low.shape == space.high.shape == (1, 3, 1, 1)
    if not fed_as_it_is:
        torch.testing.assert_close(space.low, -space.high)  # 0 is grey


def test_space_of_a_segmentor_follows_its_pixel_map():
    model = torch.nn.Conv2d(3, 3, 1)
    model.data_preprocessor = SegDataPreProcessor(mean=MEAN, std=STD)
    assert PixelSpace.of(model).channels == [2, 1, 0]
    model.pixel_map = PixelMap((1, 0, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    assert PixelSpace.of(model).channels == [1, 0, 2]
