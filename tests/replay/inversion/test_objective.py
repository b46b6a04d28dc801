"""The terms of the inversion objective (eq. 2)."""
import math

import numpy as np
import pytest
import torch
from torch import nn

from mmseg_hrhf.replay.inversion.objective import classification_loss, smoothness, statistics_distance, total_variation

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
    images = torch.rand(2, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(smoothness, images.requires_grad_(True))


def test_a_gradient_of_the_gradient_is_refused_and_not_wrong():
    images = torch.rand(2, 3, 4, 5, requires_grad=True)
    gradient, = torch.autograd.grad(smoothness(images).square().sum(), images, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        gradient.sum().backward()


# -- feature statistics ----------------------------------------------------------------------------------------------


def test_distance_by_hand():
    # Running variances 4 and 16 (eps 1 of it): means differ by 3 and 4 standard deviations, variances by 1/2 and 1/4.
    distance = statistics_distance(
        torch.tensor([6., 17.]), torch.tensor([5., 11.]), torch.tensor([0., 1.]), torch.tensor([3., 15.]), 1.)
    assert distance.item() == pytest.approx(math.sqrt((9 + 16) / 2) + math.sqrt((1 / 4 + 1 / 16) / 2))


def test_distance_does_not_depend_on_the_unit_or_the_width():
    mean, var, m, v = (torch.rand(4, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in range(4))
    distance = statistics_distance(mean, var, m, v, 0.)
    torch.testing.assert_close(statistics_distance(7 * mean, 49 * var, 7 * m, 49 * v, 0.), distance)
    torch.testing.assert_close(statistics_distance(*(t.repeat(3) for t in (mean, var, m, v)), 0.), distance)


def test_a_row_for_each_layer_is_its_own_distance():
    rows = [torch.rand(3, 4, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in range(4)]
    each = [statistics_distance(*(part[i] for part in rows), 1e-5) for i in range(3)]
    torch.testing.assert_close(statistics_distance(*rows, 1e-5), torch.stack(each))


def test_gradient_is_finite_where_the_statistics_agree():
    # The derivative of a root at zero is infinite; an image must not become NaN for being right.
    mean, var = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    distance = statistics_distance(mean, var, torch.zeros(3), torch.ones(3), 0.)
    distance.backward()
    assert distance.item() == 0 and mean.grad.isfinite().all() and var.grad.isfinite().all()
