"""Statistics of layers that keep none of their own."""
import numpy as np
import pytest
import torch
from mmseg.models.utils import LayerNorm2d
from torch import nn

from mmseg_hrhf.replay.inversion.feature_statistics import FeatureStatistics, feature_targets
from mmseg_hrhf.replay.recording import layers_to_record, record_statistics


class Segmentor(nn.Module):
    """Convolution, group norm, tokens with layer norm; a norm that never runs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3)
        self.group = nn.GroupNorm(2, 4)
        self.batch = nn.BatchNorm2d(4)
        self.tokens = nn.LayerNorm(4)
        self.planes = LayerNorm2d(4)
        self.unused = nn.LayerNorm(4)

    def encode_decode(self, inputs, metas):
        size = inputs.shape[2:]
        assert metas == [dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[0] * 4)] * len(inputs)
        x = self.batch(self.group(self.stem(inputs)))
        x = self.planes(x).flatten(2).transpose(1, 2)
        return self.tokens(x)


@pytest.fixture
def segmentor():
    return Segmentor().eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.randn(5, 3, 7, 6, generator=torch.Generator().manual_seed(1))


def test_layers_are_the_norms_without_running_statistics(segmentor):
    assert set(layers_to_record(segmentor)) == {'group', 'tokens', 'planes', 'unused'}
    assert set(layers_to_record(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False),
                                              nn.InstanceNorm2d(3), nn.BatchNorm2d(3)))) == {'0', '1'}


def test_moments_against_numpy_whatever_the_batches(segmentor, images):
    seen = segmentor.stem(images).double().numpy().transpose(0, 2, 3, 1).reshape(-1, 4)
    for batches in ([images], images.split(2)):
        recorded = record_statistics(segmentor, layers_to_record(segmentor), batches)
        assert set(recorded) == {'group', 'tokens', 'planes'}  # what did not run has no statistics
        np.testing.assert_allclose(recorded['group']['mean'], seen.mean(0), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(recorded['group']['var'], seen.var(0), rtol=1e-5)
    assert recorded['group']['mean'].dtype == torch.float32
    assert not any(layer._forward_pre_hooks for layer in segmentor.modules())


def test_a_network_in_training_records_no_graph(images):
    net = Segmentor()
    assert not record_statistics(net, layers_to_record(net), [images])['group']['mean'].requires_grad


def test_equal_inputs_have_no_negative_variance():
    for value in torch.linspace(0.1, 1, 50):
        net = nn.Sequential(nn.GroupNorm(1, 3))
        net.encode_decode = lambda inputs, metas, net=net: net(inputs)
        recorded = record_statistics(net, {'0': net[0]}, [value.expand(1, 3, 1, 3)])
        assert recorded['0']['var'].tolist() == pytest.approx([0] * 3, abs=1e-12)
        assert recorded['0']['var'].min() >= 0


def test_small_variance_beside_a_large_mean_keeps_its_digits():
    class Constant(nn.Module):

        def __init__(self):
            super().__init__()
            self.norm = nn.GroupNorm(1, 1)

        def encode_decode(self, inputs, metas):
            return self.norm(inputs[:, :1])

    batch = 1000 + torch.tensor([-.25, .25]).view(1, 1, 1, 2).expand(2, 3, 4, 2)
    net = Constant().eval()
    recorded = record_statistics(net, layers_to_record(net), [batch])
    assert recorded['norm']['var'].item() == pytest.approx(.25**2, rel=1e-6)


def test_images_that_were_recorded_are_at_distance_zero(segmentor, images):
    recorded = record_statistics(segmentor, layers_to_record(segmentor), [images])
    del recorded['planes']
    targets = [target for target in feature_targets(segmentor, recorded) if target.layer is not segmentor.batch]
    with FeatureStatistics(targets) as statistics:
        record_statistics(segmentor, {}, [images])
        assert statistics.loss().item() == pytest.approx(0, abs=1e-4)
        record_statistics(segmentor, {}, [2 * images])
        assert statistics.loss().item() > 0.01
