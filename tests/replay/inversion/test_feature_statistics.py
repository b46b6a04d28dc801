"""How far the inputs of layers are from what they were in training."""
import numpy as np
import pytest
import torch
from mmseg.models.utils import LayerNorm2d
from torch import nn

from mmseg_hrhf.replay.inversion.feature_statistics import FeatureStatistics, channel_dim, feature_targets, layer_input


class RMSNorm(nn.Module):
    """Derives from no norm of torch."""


@pytest.mark.parametrize('layer, ndim, data_format, expected', [
    (nn.LayerNorm(4), 3, None, 2),  # N x L x C
    (nn.LayerNorm(4), 4, None, 3),  # N x H x W x C
    (nn.LayerNorm((4, 5, 6)), 4, None, 1),
    (LayerNorm2d(4), 4, None, 1),
    (LayerNorm2d(4), 4, 'channel_last', 3),
    (nn.GroupNorm(2, 4), 4, None, 1),
    (nn.GroupNorm(2, 4), 3, None, 1),
    (nn.BatchNorm1d(4), 3, None, 1),
    (RMSNorm(), 3, None, 2),
    (RMSNorm(), 4, None, 1),
], ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None)
def test_where_the_channels_are(layer, ndim, data_format, expected):
    assert channel_dim(layer, ndim, data_format) == expected


def test_layer_input_has_one_row_per_position():
    tokens = torch.arange(2 * 5 * 4.).view(2, 5, 4)
    torch.testing.assert_close(layer_input(nn.LayerNorm(4), (tokens, ), {}), tokens.view(10, 4))
    maps = torch.arange(2 * 4 * 3 * 3.).view(2, 4, 3, 3)
    rows = layer_input(nn.GroupNorm(2, 4), (maps, tokens), {})
    assert rows.shape == (18, 4) and rows[1].tolist() == maps[0, :, 0, 1].tolist()


def network():
    """Two convolutions with batch norm, in eval mode, with running statistics that are no defaults."""
    generator = torch.Generator().manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return net.eval().requires_grad_(False)


def images(seed=0):
    return torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(seed))


def inputs_of_norms(net, x):
    for layer in net:
        if isinstance(layer, nn.BatchNorm2d):
            yield layer, x
        x = layer(x)


def reference(net, x):
    """Distance of each layer, with numpy in float64."""
    distances = []
    for layer, features in inputs_of_norms(net, x):
        pixels = features.double().numpy().transpose(1, 0, 2, 3).reshape(features.shape[1], -1)
        m, v = (tensor.double().numpy() for tensor in (layer.running_mean, layer.running_var))
        mean, var = pixels.mean(1) - m, ((pixels - pixels.mean(1, keepdims=True))**2).mean(1) - v
        distances.append(np.sqrt((mean**2 / (v + layer.eps)).mean()) + np.sqrt(((var / (v + layer.eps))**2).mean()))
    return distances


def test_loss_against_the_reference():
    net = network()
    with FeatureStatistics(feature_targets(net)) as statistics:
        net(images())
        loss = statistics.loss()
    assert loss.item() == pytest.approx(sum(reference(net, images())) / 2, rel=1e-4)


def test_loss_is_zero_where_batch_and_running_statistics_agree():
    net = network()
    for layer, features in inputs_of_norms(net, images()):
        layer.running_mean.copy_(features.mean((0, 2, 3)))
        layer.running_var.copy_(features.var((0, 2, 3), unbiased=False))
    # The second layer sees what the first one now makes of the images.
    for layer, features in inputs_of_norms(net, images()):
        layer.running_mean.copy_(features.mean((0, 2, 3)))
        layer.running_var.copy_(features.var((0, 2, 3), unbiased=False))
    with FeatureStatistics(feature_targets(net)) as statistics:
        net(images())
        assert statistics.loss().item() == pytest.approx(0, abs=1e-4)
        net(images(seed=1))
        assert statistics.loss().item() > 0.01


def test_gradient_reaches_the_images():
    net, x = network(), images().requires_grad_(True)
    with FeatureStatistics(feature_targets(net)) as statistics:
        net(x)
        statistics.loss().backward()
    assert (x.grad.abs().amax((1, 2, 3)) > 0).all() and x.grad.isfinite().all()


def test_descending_the_loss_lowers_it():
    net, x = network(), images().requires_grad_(True)
    optimizer, losses = torch.optim.Adam([x], lr=0.05), []
    with FeatureStatistics(feature_targets(net)) as statistics:
        for _ in range(30):
            net(x)
            loss = statistics.loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_network_and_its_output_are_untouched():
    net = network()
    before, output = {name: tensor.clone() for name, tensor in net.state_dict().items()}, net(images())
    with FeatureStatistics(feature_targets(net)) as statistics:
        torch.testing.assert_close(net(images()), output, rtol=0, atol=0)
        statistics.loss()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_each_call_starts_anew():
    net = network()
    with FeatureStatistics(feature_targets(net)) as statistics:
        net(images())
        first = statistics.loss().item()
        net(images())
        assert statistics.loss().item() == first
        assert statistics.loss() is None


def test_hooks_are_removed_after_the_block():
    net = network()
    with FeatureStatistics(feature_targets(net)) as statistics:
        pass
    net(images())
    assert statistics.loss() is None
    assert not any(layer._forward_pre_hooks for layer in net)


def test_hooks_are_removed_after_an_error():
    net = network()
    with pytest.raises(KeyError), FeatureStatistics(feature_targets(net)):
        raise KeyError
    assert not any(layer._forward_pre_hooks for layer in net)


@pytest.mark.parametrize('norm', [nn.Identity(), nn.GroupNorm(2, 4), nn.BatchNorm2d(4, track_running_stats=False)],
                         ids=lambda norm: type(norm).__name__)
def test_network_without_running_statistics_has_no_loss(norm):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), norm).eval()
    with FeatureStatistics(feature_targets(net)) as statistics:
        net(images())
        assert statistics.loss() is None


def test_half_precision_features_are_measured_in_float32():
    net = network()
    with FeatureStatistics(feature_targets(net)) as statistics:
        net(images())
        full = statistics.loss()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            net(images())
        half = statistics.loss()
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0)


# -- recorded statistics ---------------------------------------------------------------------------------------------


def test_recorded_statistics_against_the_reference():
    # Images, as tokens (N x L x C): means 2 and 0 over all positions, biased variances 1 and 4.
    tokens = torch.tensor([[[1., 2.], [3., -2.]], [[1., -2.], [3., 2.]]])
    net = nn.Sequential(nn.LayerNorm(2, eps=0.))
    recorded = {'0': dict(mean=torch.tensor([0., 0.]), var=torch.tensor([4., 4.]))}
    with FeatureStatistics(feature_targets(net, recorded)) as statistics:
        net(tokens)
        # Root mean squares over the channels of (2/2, 0) and of (-3/4, 0).
        assert statistics.loss().item() == pytest.approx((1 + .75) / 2**.5)


def test_recorded_and_running_statistics_go_together():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)).eval()
    recorded = {'2': dict(mean=torch.zeros(4), var=torch.ones(4))}
    assert [target.layer for target in feature_targets(net)] == [net[1]]
    assert [target.layer for target in feature_targets(net, recorded)] == [net[1], net[2]]
    recorded['1'] = dict(mean=torch.full((4, ), 7.), var=torch.ones(4))
    assert feature_targets(net, recorded)[0].mean.tolist() == [7.] * 4


def test_statistics_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"'backbone\.norm', which the network does not have"):
        statistics = dict(mean=torch.zeros(4), var=torch.ones(4))
        feature_targets(nn.Sequential(nn.GroupNorm(2, 4)), {'head.norm': statistics, 'backbone.norm': statistics})


def test_layers_without_an_epsilon_have_the_usual_one():
    statistics = dict(mean=torch.zeros(3), var=torch.ones(3))
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3, eps=0.5))
    assert [target.eps for target in feature_targets(net, {'0': statistics, '1': statistics})] == [1e-5, .5]


class ScaledNorm(nn.Module):
    """A norm of two inputs with a parameter."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.))

    def forward(self, x, y):
        return self.scale * x / x.square().mean(1, keepdim=True).sqrt() + y


class TwoInputs(nn.Module):

    def __init__(self):
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 4, 1), ScaledNorm()

    def forward(self, x):
        x = self.stem(x)
        return self.layer(x, 2 * x)


def test_a_norm_of_several_inputs_is_measured_by_the_first_and_runs_on():
    net = TwoInputs().requires_grad_(False)
    statistics = dict(mean=torch.zeros(4), var=torch.ones(4))
    x = images().requires_grad_(True)
    features = net.stem(x)
    mean, var = features.mean((0, 2, 3)), features.var((0, 2, 3), unbiased=False)
    expected = (mean.square().mean() / (1 + 1e-5)).sqrt() + (var - 1).square().mean().sqrt() / (1 + 1e-5)
    output = net(x)
    with FeatureStatistics(feature_targets(net, {'layer': statistics})) as measured:
        torch.testing.assert_close(net(x), output, rtol=0, atol=0)
        loss = measured.loss()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0], torch.autograd.grad(expected, x)[0])


def test_gradient_through_a_layer_norm_reaches_the_images():
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).requires_grad_(False)
    tokens = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    recorded = {'1': dict(mean=torch.zeros(4), var=torch.ones(4))}
    with FeatureStatistics(feature_targets(net, recorded)) as statistics:
        net(tokens)
        statistics.loss().backward()
    assert (tokens.grad.abs().amax((1, 2)) > 0).all() and tokens.grad.isfinite().all()
