"""RandomResizedCrop: the published training crop."""
import numpy as np
import pytest
from mmseg.registry import TRANSFORMS

from mmseg_hrhf.datasets.transforms import RandomResizedCrop


@pytest.fixture(autouse=True)
def seed():
    state = np.random.get_state()
    np.random.seed(0)
    yield
    np.random.set_state(state)


def sample(height, width):
    """Image and mask that both say where each pixel was."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return dict(img=np.stack([y, x, np.zeros_like(x)], axis=-1), gt_seg_map=y, seg_fields=['gt_seg_map'])


def test_registered_under_its_name():
    assert isinstance(TRANSFORMS.build(dict(type='mmseg.RandomResizedCrop', size=8)), RandomResizedCrop)


def test_whole_square_image_at_its_own_size_is_unchanged():
    results = RandomResizedCrop(40, area=(1, 1), ratio=(1, 1))(sample(40, 40))
    np.testing.assert_array_equal(results['img'], sample(40, 40)['img'])
    np.testing.assert_array_equal(results['gt_seg_map'], sample(40, 40)['gt_seg_map'])


@pytest.mark.parametrize('height, width, expected', [
    (90, 90, (0, 0, 90, 90)),
    (90, 100, (0, 0, 90, 100)),
    (90, 200, (0, 40, 90, 120)),
    (200, 90, (40, 0, 120, 90)),
    (1, 1, (0, 0, 1, 1)),
])
def test_share_that_never_fits_takes_the_largest_centred_crop(height, width, expected):
    # 4/3 of 90 is 120.
    assert RandomResizedCrop(8, area=(1.5, 2)).box(height, width) == expected


@pytest.mark.parametrize('height, width', [(60, 100), (100, 60), (375, 500), (7, 5)])
def test_crop_lies_inside_the_image(height, width):
    crop = RandomResizedCrop(8)
    for _ in range(200):
        top, left, h, w = crop.box(height, width)
        assert 0 <= top <= top + h <= height and 0 <= left <= left + w <= width and h and w


def test_crop_keeps_to_share_and_ratio():
    crop = RandomResizedCrop(8, area=(0.2, 0.3), ratio=(0.5, 2))
    boxes = np.array([crop.box(1000, 1000) for _ in range(300)])
    share, ratio = boxes[:, 2] * boxes[:, 3] / 1e6, boxes[:, 3] / boxes[:, 2]
    assert 0.199 < share.min() < 0.21 and 0.29 < share.max() < 0.301
    assert 0.495 < ratio.min() < 0.6 and 1.7 < ratio.max() < 2.02
    # Log-uniform: a crop is as often wide as tall.
    assert 0.4 < (ratio > 1).mean() < 0.6


def test_crop_reaches_every_corner():
    crop = RandomResizedCrop(8, area=(0.5, 0.5), ratio=(1, 1))
    boxes = np.array([crop.box(10, 10) for _ in range(300)])
    assert (boxes[:, 2:] == 7).all()
    assert set(boxes[:, 0]) == set(boxes[:, 1]) == {0, 1, 2, 3}


def test_published_shares_take_half_an_image_to_a_whole_one():
    crop = RandomResizedCrop(512)
    shares = np.array([h * w / (375 * 500) for _, _, h, w in (crop.box(375, 500) for _ in range(400))])
    assert shares.min() > 0.499 and shares.max() == 1
    # Shares above 1 are drawn again, so the whole image is left to the rare case that ten draws in a row fail.
    assert 0.65 < shares.mean() < 0.75


def test_image_and_mask_are_cut_alike():
    for _ in range(20):
        results = RandomResizedCrop(32, area=(0.3, 0.6))(sample(64, 80))
        assert results['img'].shape == (32, 32, 3) and results['gt_seg_map'].shape == (32, 32)
        assert np.abs(results['img'][..., 0].astype(int) - results['gt_seg_map']).max() <= 2


def test_labels_are_never_mixed():
    mask = np.random.choice(np.array([0, 20, 255], dtype=np.uint8), (50, 60))
    results = RandomResizedCrop(71)(dict(sample(50, 60), gt_seg_map=mask))
    assert set(np.unique(results['gt_seg_map'])) == {0, 20, 255}


def test_new_size_is_recorded_and_an_image_without_mask_passes():
    results = RandomResizedCrop(16)(dict(img=np.zeros((50, 60, 3), np.uint8)))
    assert results['img_shape'] == (16, 16) == results['img'].shape[:2]


def test_one_seed_gives_one_crop():
    crop = RandomResizedCrop(8)
    np.random.seed(5)
    first = [crop.box(60, 100) for _ in range(5)]
    np.random.seed(5)
    assert [crop.box(60, 100) for _ in range(5)] == first
