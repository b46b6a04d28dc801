"""Importance by hand, on a quadratic whose importance is known."""
import pytest
import torch

from mmseg_hrhf.models.losses.importance import (
    normalise_importance,
    path_contribution,
    path_importance,
    quadratic_penalty,
    restoring_force,
    riemannian_score,
    running_fisher,
)


def test_fisher_by_hand():
    fisher = running_fisher(torch.tensor([1., 3.]), torch.tensor([2., 0.]))
    torch.testing.assert_close(fisher, torch.tensor([.9 * 4 + .1, .3]))


def test_path_integral_of_a_quadratic_is_the_loss_taken_away():
    # Loss a x^2 / 2 from x = 1 to x = 0.5: a * 3 / 8 taken away, over a distance of 0.5.
    curvature = torch.tensor([2., 8.], dtype=torch.float64)
    points = torch.linspace(1, .5, 2001, dtype=torch.float64)[:, None].expand(-1, 2)
    path = sum(path_contribution(curvature * now, before, now) for before, now in zip(points[:-1], points[1:]))
    torch.testing.assert_close(path, curvature * 3 / 8, rtol=1e-3, atol=0)
    importance = path_importance(path, points[0], points[-1])
    torch.testing.assert_close(importance, curvature * 3 / 8 / .25, rtol=1e-3, atol=0)


def test_a_way_uphill_has_no_importance_and_no_way_none():
    importance = path_importance(torch.tensor([-1., 0.]), torch.tensor([0., 3.]), torch.tensor([1., 3.]))
    assert importance.tolist() == [0, 0]


def test_riemannian_score_by_hand():
    score = riemannian_score(torch.tensor([3.]), torch.tensor([1.]), torch.tensor([.5]), torch.tensor([2.]))
    assert score.item() == pytest.approx(3 * .5 / (.5 * 2 * .25))
    still = riemannian_score(torch.ones(1), torch.ones(1), torch.ones(1), torch.zeros(1))
    assert still.item() == 0


def test_what_moved_hardly_at_all_is_divided_by_a_small_positive_number():
    one, nil = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    assert path_importance(one, nil, nil).item() == pytest.approx(1e20)
    assert riemannian_score(one, 1e-8 * one, nil, nil).item() == pytest.approx(1)
    assert normalise_importance(torch.tensor([0., 1e-8], dtype=torch.float64)).tolist() == pytest.approx([0, .5])


def test_importance_is_normalised_to_0_and_1():
    torch.testing.assert_close(normalise_importance(torch.tensor([2., 4., 3.])), torch.tensor([0., 1., .5]))
    assert normalise_importance(torch.tensor([7., 7.])).tolist() == [0, 0]


def test_force_is_the_gradient_of_the_penalty():
    torch.manual_seed(0)
    weight, anchor = torch.randn(2, 5, dtype=torch.float64).unbind()
    importance = torch.rand(5, dtype=torch.float64)
    weight.requires_grad_(True)
    penalty = 500 * quadratic_penalty(weight, anchor, importance)
    assert penalty.item() == pytest.approx(
        500 * sum(i * (w - a)**2 for i, w, a in zip(importance.tolist(), weight.tolist(), anchor.tolist())))
    penalty.backward()
    force = restoring_force(weight.detach(), anchor, importance, 500, max_stiffness=1000)
    torch.testing.assert_close(force, weight.grad)


def test_a_step_never_goes_beyond_the_anchor():
    weight, anchor, importance = torch.tensor([3., 3.]), torch.tensor([1., 1.]), torch.tensor([1., 1e-4])
    for _ in range(50):
        weight = weight - 0.05 * restoring_force(weight, anchor, importance, 500, max_stiffness=1 / 0.05)
    torch.testing.assert_close(weight[0], anchor[0])
    assert 1 < weight[1] < 3
