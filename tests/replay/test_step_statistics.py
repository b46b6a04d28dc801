import random

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_hrhf.replay.recording import statistics_options, step_statistics, training_mixture


def test_mixture_has_the_training_ratio_and_no_image_twice_while_there_are_others():
    positions = training_mixture(num_real=10, num_fake=20, real_share=0.5, num_images=16, seed=0)
    real, fake = positions[positions < 10], positions[positions >= 10]
    assert (len(real), len(fake)) == (8, 8) and len(set(positions)) == 16 and max(positions) < 30
    assert not np.array_equal(positions, training_mixture(10, 20, 0.5, 16, seed=1))
    np.testing.assert_array_equal(positions, training_mixture(10, 20, 0.5, 16, seed=0))


def test_a_step_with_one_image_still_fills_its_share():
    positions = training_mixture(num_real=1, num_fake=9, real_share=2 / 3, num_images=9, seed=0)
    assert (positions == 0).sum() == 6 and len(set(positions)) == 4
    assert training_mixture(5, 0, 1.0, 12, 0).max() == 4


class Images:
    """Plain images whose value is their position, brightened at random as an augmentation would."""

    def __init__(self, num_real, num_fake=0):
        self.num_real, self.num_fake = num_real, num_fake

    def __len__(self):
        return self.num_real + self.num_fake

    def __getitem__(self, i):
        sample = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 4, 4)))
        return dict(inputs=torch.full((3, 4, 4), i + np.random.rand()), data_samples=sample)


class Segmentor(nn.Module):

    def __init__(self):
        super().__init__()
        self.data_preprocessor = SegDataPreProcessor(mean=[1.] * 3, std=[2.] * 3, size=(4, 4))
        self.norm = nn.GroupNorm(1, 3)

    def encode_decode(self, inputs, metas):
        assert not self.training
        return self.norm(inputs)


def test_statistics_are_those_of_the_mixture_and_depend_on_the_seed_alone():
    net, data = Segmentor(), Images(100, 100)
    recorded = step_statistics(net, data, batch_size=4, ratio='1:3', seed=5, num_images=40)
    np.random.seed(9)
    again = step_statistics(net, data, batch_size=8, ratio='1:3', seed=5, num_images=40)
    torch.testing.assert_close(recorded, again)
    other = step_statistics(net, data, batch_size=4, ratio='1:3', seed=6, num_images=40)
    assert recorded['norm']['mean'][0] != other['norm']['mean'][0]
    # A quarter real images (about 50) and three quarters fakes (about 150), normalised.
    assert abs(recorded['norm']['mean'][0].item() - (125 - 1) / 2) < 8


def test_random_streams_of_others_go_on_undisturbed():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    expected = draw()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    step_statistics(Segmentor(), Images(3), batch_size=2, ratio=None, seed=5, num_images=4)
    assert draw() == expected


def test_a_network_with_nothing_to_record_gives_none():
    net = Segmentor()
    net.norm = nn.BatchNorm2d(3)
    assert step_statistics(net, Images(3), batch_size=2, ratio=None, seed=0, num_images=4) is None


class Listed(torch.utils.data.Dataset):
    """Three real images of 3 x 4 pixels, smaller than the network takes; which are asked for is kept."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 3

    def __getitem__(self, i):
        self.asked.append(i)
        return dict(inputs=torch.zeros(3, 3, 4),
                    data_samples=SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 3, 4))))


def test_real_images_alone_are_looked_at_256_times_as_training_feeds_them(monkeypatch):
    net, data, shapes = Segmentor(), Listed(), []
    monkeypatch.setattr(net, 'encode_decode', lambda inputs, metas: shapes.append(tuple(inputs.shape)))
    step_statistics(net, data, batch_size=100, ratio=None, seed=0)
    assert len(data.asked) == 256 and set(data.asked) == {0, 1, 2}
    assert shapes == [(100, 3, 4, 4), (100, 3, 4, 4), (56, 3, 4, 4)]


@pytest.mark.parametrize('replay, options', [
    (None, None),
    (dict(feature_statistics=None), None),
    ({}, {}),
    (dict(feature_statistics={}), {}),
    (dict(feature_statistics=dict(num_images=1)), dict(num_images=1)),
])
def test_options_of_a_config(replay, options):
    assert statistics_options(replay) == options


@pytest.mark.parametrize('options, message', [
    (dict(num_imges=3), "feature_statistics has no option 'num_imges': did you mean 'num_images'"),
    (8, 'feature_statistics=8 must be a dict, or None to record nothing'),
    (dict(num_images=True), r'feature_statistics\.num_images=True must be a positive whole number'),
    (dict(num_images=0), r'feature_statistics\.num_images=0 must be a positive whole number'),
    (dict(num_images=1.5), r'feature_statistics\.num_images=1\.5 must be a positive whole number'),
    (dict(num_images='3'), r"feature_statistics\.num_images='3' must be a positive whole number"),
])
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        statistics_options(dict(feature_statistics=options))
