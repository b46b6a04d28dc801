import numpy as np
import torch

from mmseg_hrhf.replay.inversion.objective import Perturbation, draw_perturbation


def test_roll_and_mirror_by_hand():
    image = torch.tensor([[1., 2., 3.], [4., 5., 6.]]).view(1, 1, 2, 3)
    assert Perturbation((1, 0), False)(image).tolist() == [[[[4, 5, 6], [1, 2, 3]]]]
    assert Perturbation((0, 1), True)(image).tolist() == [[[[2, 1, 3], [5, 4, 6]]]]


def test_undo_takes_the_gradient_back():
    images = torch.rand(2, 3, 6, 8, requires_grad=True)
    weights = torch.rand(2, 3, 6, 8)
    for perturb in (Perturbation((2, -3), True), Perturbation((-1, 4), False)):
        expected, = torch.autograd.grad((perturb(images) * weights).sum(), images)
        torch.testing.assert_close(perturb.undo(weights), expected, rtol=0, atol=0)
        assert torch.equal(perturb.undo(perturb(images)), images)


def test_draws_reach_the_share_of_each_side_and_depend_on_the_generator_alone():
    rng, again = np.random.default_rng(0), np.random.default_rng(0)
    drawn = [draw_perturbation((50, 100), 0.06, True, rng) for _ in range(300)]
    assert drawn == [draw_perturbation((50, 100), 0.06, True, again) for _ in range(300)]
    assert {perturb.shifts[0] for perturb in drawn} == set(range(-3, 4))
    assert {perturb.shifts[1] for perturb in drawn} == set(range(-6, 7))
    assert 100 < sum(perturb.mirrored for perturb in drawn) < 200
    assert not any(draw_perturbation((50, 100), 0.06, False, rng).mirrored for _ in range(20))
