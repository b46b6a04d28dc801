"""The terms of the inversion objective (eq. 2)."""
import math

import numpy as np
import pytest
import torch
from torch import nn

from mmseg_hrhf.inversion.objective import (
    BatchNormStatistics,
    classification_loss,
    smoothness,
    statistics_distance,
    total_variation,
)

# -- classification --------------------------------------------------------------------------------------------------


def test_classification_loss_by_hand():
    # Softmax .2, .3, .5.
    scores = torch.tensor([[.2, .3, .5]]).log() + 4
    one_hot, shared = torch.tensor([[0., 0., 1.]]), torch.tensor([[.5, 0., .5]])
    assert classification_loss(scores, one_hot).item() == pytest.approx(-math.log(.5), abs=1e-6)
    assert classification_loss(scores, shared).item() == pytest.approx(-.5 * math.log(.2) - .5 * math.log(.5), abs=1e-6)


def test_classification_loss_is_cross_entropy_per_image():
    scores = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes = torch.tensor([0, 1, 2, 3, 4, 1])
    loss = classification_loss(scores, nn.functional.one_hot(classes, 5).double())
    expected = [-math.log(math.exp(row[c]) / sum(map(math.exp, row))) for row, c in zip(scores.tolist(), classes)]
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-12)


def test_classification_loss_of_several_classes_is_least_at_their_distribution():
    target = torch.tensor([[0., .5, .5, 0.]], dtype=torch.float64)
    scores = torch.tensor([[-40., 1., 1., -40.]], dtype=torch.float64, requires_grad=True)
    loss = classification_loss(scores, target)
    assert loss.item() == pytest.approx(math.log(2))
    loss.sum().backward()
    torch.testing.assert_close(scores.grad, torch.zeros_like(scores), rtol=0, atol=1e-12)


def test_classification_loss_of_large_scores_is_finite():
    assert classification_loss(torch.tensor([[1e4, -1e4]]), torch.tensor([[0., 1.]])).item() == pytest.approx(2e4)


# -- image prior -----------------------------------------------------------------------------------------------------

# Vertical neighbours differ by 3 and 1, horizontal ones by 1 and 3.
IMAGE = torch.tensor([[0., 1.], [3., 0.]]).view(1, 1, 2, 2)


@pytest.mark.parametrize('term, expected', [(total_variation, (3 + 1) / 2 + (1 + 3) / 2),
                                            (smoothness, (9 + 1) / 2 + (1 + 9) / 2)])
def test_prior_by_hand(term, expected):
    assert term(IMAGE).tolist() == [expected]


@pytest.mark.parametrize('term', [total_variation, smoothness])
def test_prior_tells_vertical_from_horizontal_neighbours(term):
    # Rows 0, 1, 2 repeated over four columns: only vertical differences, all 1.
    image = torch.arange(3.).view(1, 1, 3, 1).expand(1, 1, 3, 4)
    assert term(image).item() == 1
    assert term(image.transpose(2, 3)).item() == 1


@pytest.mark.parametrize('term', [total_variation, smoothness])
def test_prior_is_per_image_and_a_mean_over_channels(term):
    images = torch.cat([torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)])
    images[2, 0] = torch.arange(4.)[:, None]
    torch.testing.assert_close(term(images), torch.tensor([0., 0., 1 / 3]))


@pytest.mark.parametrize('term, factor', [(total_variation, 3), (smoothness, 9)])
def test_prior_scales_with_the_contrast(term, factor):
    images = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(term(3 * images + 5), factor * term(images))


def test_gradient_of_smoothness():
    images = torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(smoothness, images.requires_grad_(True))


# -- feature statistics ----------------------------------------------------------------------------------------------


def test_absolute_distance_by_hand():
    # Means differ by (3, 4), variances by (0, 2).
    distance = statistics_distance(
        torch.tensor([3., 5.]), torch.tensor([1., 4.]), torch.tensor([0., 1.]), torch.tensor([1., 2.]), 1e-5, False)
    assert distance.item() == pytest.approx(5 + 2)


def test_relative_distance_by_hand():
    # Running variances 4 and 16 (eps 1 of it): means differ by 3 and 4 standard deviations, variances by 1/2 and 1/4.
    distance = statistics_distance(
        torch.tensor([6., 17.]), torch.tensor([5., 11.]), torch.tensor([0., 1.]), torch.tensor([3., 15.]), 1., True)
    assert distance.item() == pytest.approx(math.sqrt((9 + 16) / 2) + math.sqrt((1 / 4 + 1 / 16) / 2))


def test_relative_distance_does_not_depend_on_the_unit_or_the_width():
    mean, var, m, v = (torch.rand(4, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in range(4))
    distance = statistics_distance(mean, var, m, v, 0., True)
    torch.testing.assert_close(statistics_distance(7 * mean, 49 * var, 7 * m, 49 * v, 0., True), distance)
    torch.testing.assert_close(statistics_distance(*(t.repeat(3) for t in (mean, var, m, v)), 0., True), distance)


@pytest.mark.parametrize('relative', [False, True])
def test_gradient_is_finite_where_the_statistics_agree(relative):
    # The derivative of a root at zero is infinite; an image must not become NaN for being right.
    mean, var = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    distance = statistics_distance(mean, var, torch.zeros(3), torch.ones(3), 0., relative)
    distance.backward()
    assert distance.item() == 0 and mean.grad.isfinite().all() and var.grad.isfinite().all()


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


def reference(net, x, relative):
    """Distance of each layer, with numpy in float64."""
    distances = []
    for layer, features in inputs_of_norms(net, x):
        pixels = features.double().numpy().transpose(1, 0, 2, 3).reshape(features.shape[1], -1)
        m, v = (tensor.double().numpy() for tensor in (layer.running_mean, layer.running_var))
        mean, var = pixels.mean(1) - m, ((pixels - pixels.mean(1, keepdims=True))**2).mean(1) - v
        if relative:
            distances.append(np.sqrt((mean**2 / (v + layer.eps)).mean()) + np.sqrt(((var / (v + layer.eps))**2).mean()))
        else:
            distances.append(np.sqrt((mean**2).sum()) + np.sqrt((var**2).sum()))
    return distances


@pytest.mark.parametrize('weight', [1.0, 10.0])
@pytest.mark.parametrize('relative', [False, True])
def test_loss_against_the_reference(relative, weight):
    net = network()
    with BatchNormStatistics(net, relative, first_layer_weight=weight) as statistics:
        net(images())
        loss = statistics.loss()
    first, second = reference(net, images(), relative)
    total = weight * first + second
    assert loss.item() == pytest.approx(total / 2 if relative else total, rel=1e-4)


@pytest.mark.parametrize('relative', [False, True])
def test_loss_is_zero_where_batch_and_running_statistics_agree(relative):
    net = network()
    for layer, features in inputs_of_norms(net, images()):
        layer.running_mean.copy_(features.mean((0, 2, 3)))
        layer.running_var.copy_(features.var((0, 2, 3), unbiased=False))
    # The second layer sees what the first one now makes of the images.
    for layer, features in inputs_of_norms(net, images()):
        layer.running_mean.copy_(features.mean((0, 2, 3)))
        layer.running_var.copy_(features.var((0, 2, 3), unbiased=False))
    with BatchNormStatistics(net, relative) as statistics:
        net(images())
        assert statistics.loss().item() == pytest.approx(0, abs=1e-4)
        net(images(seed=1))
        assert statistics.loss().item() > 0.01


@pytest.mark.parametrize('relative', [False, True])
def test_gradient_reaches_the_images(relative):
    net, x = network(), images().requires_grad_(True)
    with BatchNormStatistics(net, relative) as statistics:
        net(x)
        statistics.loss().backward()
    assert (x.grad.abs().amax((1, 2, 3)) > 0).all() and x.grad.isfinite().all()


def test_descending_the_loss_lowers_it():
    net, x = network(), images().requires_grad_(True)
    optimizer, losses = torch.optim.Adam([x], lr=0.05), []
    with BatchNormStatistics(net) as statistics:
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
    with BatchNormStatistics(net) as statistics:
        torch.testing.assert_close(net(images()), output, rtol=0, atol=0)
        statistics.loss()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_each_call_starts_anew():
    net = network()
    with BatchNormStatistics(net) as statistics:
        net(images())
        first = statistics.loss().item()
        net(images())
        assert statistics.loss().item() == first
        assert statistics.loss() is None


def test_hooks_are_removed_after_the_block():
    net = network()
    with BatchNormStatistics(net) as statistics:
        pass
    net(images())
    assert statistics.loss() is None
    assert not any(layer._forward_pre_hooks for layer in net)


def test_hooks_are_removed_after_an_error():
    net = network()
    with pytest.raises(KeyError), BatchNormStatistics(net):
        raise KeyError
    assert not any(layer._forward_pre_hooks for layer in net)


@pytest.mark.parametrize('norm', [nn.Identity(), nn.GroupNorm(2, 4), nn.BatchNorm2d(4, track_running_stats=False)],
                         ids=lambda norm: type(norm).__name__)
def test_network_without_running_statistics_has_no_loss(norm):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), norm).eval()
    with BatchNormStatistics(net) as statistics:
        net(images())
        assert statistics.loss() is None


def test_half_precision_features_are_measured_in_float32():
    net = network()
    with BatchNormStatistics(net) as statistics:
        net(images())
        full = statistics.loss()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            net(images())
        half = statistics.loss()
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0)
