"""Probability Rearrange and the distillation loss against hand numbers and a float64 reference (eq. 3)."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_hrhf.models.losses.distillation import distillation_loss, rearrange_probability


def softmax(scores):
    shifted = [math.exp(score - max(scores)) for score in scores]
    return [value / sum(shifted) for value in shifted]


def reference_loss(student, teacher):
    """Eq. 3, pixel by pixel: -mean sum_c q_c log p_c; the student's background takes the new classes in."""
    student, teacher = student.double().numpy(), teacher.double().numpy()
    (n, _, height, width), num_old = student.shape, teacher.shape[1]
    total = 0.0
    for i in range(n):
        for y in range(height):
            for x in range(width):
                p = softmax(student[i, :, y, x].tolist())
                p = [p[0] + sum(p[num_old:])] + p[1:num_old]
                q = softmax(teacher[i, :, y, x].tolist())
                total -= sum(q_c * math.log(p_c) for q_c, p_c in zip(q, p))
    return total / (n * height * width)


def logits(channels, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed + channels)
    return 3 * torch.randn(2, channels, 3, 4, generator=generator, dtype=dtype)


# -- rearrangement ---------------------------------------------------------------------------------------------------


def test_new_class_mass_is_background_to_the_teacher():
    # Background .1, old .2, new .3 and .4; the teacher knows the first two.
    log_prob = torch.tensor([.1, .2, .3, .4]).log().view(1, 4, 1, 1)
    folded = rearrange_probability(log_prob, num_old=2)
    torch.testing.assert_close(folded.exp().flatten(), torch.tensor([.8, .2]))


@pytest.mark.parametrize('num_old', [1, 2, 5, 6])
def test_rearranged_probabilities_still_sum_to_one(num_old):
    folded = rearrange_probability(logits(6).log_softmax(1), num_old)
    assert folded.shape == (2, num_old, 3, 4)
    torch.testing.assert_close(folded.exp().sum(1), torch.ones(2, 3, 4, dtype=torch.float64))


def test_student_without_new_classes_is_left_as_it_is():
    log_prob = logits(4).log_softmax(1)
    torch.testing.assert_close(rearrange_probability(log_prob, 4), log_prob)


def test_impossible_classes_do_not_become_nan():
    log_prob = torch.tensor([0., -1e4, -1e4, -1e4]).view(1, 4, 1, 1)
    torch.testing.assert_close(rearrange_probability(log_prob, 2).flatten(), torch.tensor([0., -1e4]))


@pytest.mark.parametrize('num_old', [0, -1, 5])
def test_impossible_class_count_is_named(num_old):
    with pytest.raises(ValueError, match=f"num_old={num_old} must be between 1 and the student's 4 classes"):
        rearrange_probability(logits(4), num_old)


def test_teacher_with_more_classes_than_the_student_is_refused():
    with pytest.raises(ValueError, match=r"num_old=5 .* student's 4 classes"):
        distillation_loss(logits(4), logits(5))


# -- loss ------------------------------------------------------------------------------------------------------------


def test_loss_by_hand():
    # Student .1, .2 | .3, .4 is .8, .2 to the teacher, which says .75, .25.
    student = torch.tensor([.1, .2, .3, .4]).log().view(1, 4, 1, 1)
    teacher = torch.tensor([.75, .25]).log().view(1, 2, 1, 1)
    expected = -(.75 * math.log(.8) + .25 * math.log(.2))
    assert distillation_loss(student, teacher).item() == pytest.approx(expected, abs=1e-6)


def test_loss_is_a_mean_over_pixels_and_a_sum_over_classes():
    # Uniform over 4 old classes beside no knowledge at all: log 4 nats on every pixel.
    loss = distillation_loss(torch.zeros(2, 4, 5, 7), torch.zeros(2, 4, 5, 7))
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6)


@pytest.mark.parametrize('num_old, num_new', [(1, 1), (2, 1), (4, 0), (4, 1), (3, 12), (16, 5)])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_loss_against_the_reference(num_old, num_new, dtype):
    student, teacher = logits(num_old + num_new, dtype), logits(num_old, dtype, seed=99)
    loss = distillation_loss(student, teacher)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(reference_loss(student, teacher), rel=1e-6, abs=1e-6)


def test_loss_is_least_where_the_student_agrees():
    # A new class may take any share of the teacher's background.
    teacher = logits(3)
    agreeing = torch.cat([teacher[:, :1] + math.log(.3), teacher[:, 1:], teacher[:, :1] + math.log(.7)], dim=1)
    agreeing.requires_grad_(True)
    loss = distillation_loss(agreeing, teacher)
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, entropy)
    loss.backward()
    torch.testing.assert_close(agreeing.grad, torch.zeros_like(agreeing), rtol=0, atol=1e-12)


def test_order_of_the_new_classes_does_not_matter():
    student, teacher = logits(6), logits(3)
    torch.testing.assert_close(
        distillation_loss(student[:, [0, 1, 2, 5, 3, 4]], teacher), distillation_loss(student, teacher))


def test_order_of_the_old_classes_does_matter():
    student, teacher = logits(6), logits(3)
    assert not torch.isclose(
        distillation_loss(student[:, [0, 2, 1, 3, 4, 5]], teacher), distillation_loss(student, teacher))


@pytest.mark.parametrize('num_new', [1, 5])
def test_gradient_of_the_student(num_new):
    student = logits(3 + num_new)[:1, :, :2, :2].requires_grad_(True)
    teacher = logits(3)[:1, :, :2, :2]
    assert torch.autograd.gradcheck(lambda z: distillation_loss(z, teacher), student)


def test_no_gradient_reaches_the_teacher():
    student, teacher = logits(5).requires_grad_(True), logits(3).requires_grad_(True)
    distillation_loss(student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def test_inputs_are_left_as_they_were():
    student, teacher = logits(5), logits(3)
    distillation_loss(student, teacher)
    assert torch.equal(student, logits(5)) and torch.equal(teacher, logits(3))


@pytest.mark.parametrize('num_new', [1, 5])
def test_saturated_teacher_gives_a_finite_loss_and_gradient(num_new):
    teacher = torch.full((1, 3, 2, 2), -1e4)
    teacher[:, 1] = 1e4
    student = logits(3 + num_new, torch.float32)[:1, :, :2, :2].requires_grad_(True)
    loss = distillation_loss(student, teacher)
    loss.backward()
    # All of the teacher's probability is on class 1.
    torch.testing.assert_close(loss, -student.log_softmax(1)[:, 1].mean())
    assert student.grad.isfinite().all()


def test_saturated_student_that_is_wrong_gives_a_finite_loss():
    student = torch.full((1, 4, 1, 1), -1e4)
    student[:, 3] = 1e4
    teacher = torch.tensor([-1e4, 1e4]).view(1, 2, 1, 1)
    assert distillation_loss(student, teacher).item() == pytest.approx(2e4)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = logits(6, torch.float32).to(dtype), logits(3, torch.float32).to(dtype)
    loss = distillation_loss(student, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, distillation_loss(student.float(), teacher.float()), rtol=0, atol=0)


def test_half_precision_under_autocast_is_computed_in_float32():
    student, teacher = logits(6, torch.float32).bfloat16(), logits(3, torch.float32).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = distillation_loss(student, teacher)
    torch.testing.assert_close(loss, distillation_loss(student.float(), teacher.float()))


def test_the_reference_itself_by_hand():
    student = torch.tensor(np.log([.1, .2, .3, .4])).view(1, 4, 1, 1)
    teacher = torch.tensor(np.log([.75, .25])).view(1, 2, 1, 1)
    assert reference_loss(student, teacher) == pytest.approx(-.75 * math.log(.8) - .25 * math.log(.2), abs=1e-12)


# -- properties ------------------------------------------------------------------------------------------------------

NETWORKS = given(seed=st.integers(0, 2**32 - 1), num_old=st.integers(1, 7), num_new=st.integers(0, 4),
                 scale=st.sampled_from([0.1, 1.0, 30.0]))


def random_logits(seed, num_old, num_new, scale):
    """(2, C, 2, 3) logits of a student and (2, K, 2, 3) of its teacher, float64; an order of the old foreground."""
    rng = np.random.default_rng(seed)
    student, teacher = (torch.from_numpy(scale * rng.normal(size=(2, c, 2, 3))) for c in (num_old + num_new, num_old))
    old = torch.from_numpy(np.concatenate([[0], 1 + rng.permutation(num_old - 1)])).long()
    new = torch.from_numpy(num_old + rng.permutation(num_new)).long()
    return student, teacher, old, new


@NETWORKS
@settings(max_examples=40, deadline=None)
def test_rearranged_probabilities_sum_to_one(**sizes):
    student = random_logits(**sizes)[0]
    total = rearrange_probability(student.log_softmax(1), sizes['num_old']).exp().sum(1)
    torch.testing.assert_close(total, torch.ones_like(total))


@NETWORKS
@settings(max_examples=40, deadline=None)
def test_rearranging_commutes_with_an_order_of_the_classes(**sizes):
    student, _, old, new = random_logits(**sizes)
    log_prob = student.log_softmax(1)
    expected = rearrange_probability(log_prob, sizes['num_old'])[:, old]
    # New classes all become background, in whatever order they come.
    found = rearrange_probability(log_prob[:, torch.cat([old, new])], sizes['num_old'])
    torch.testing.assert_close(found, expected)


@NETWORKS
@settings(max_examples=40, deadline=None)
def test_distillation_does_not_depend_on_the_order_of_the_classes(**sizes):
    student, teacher, old, new = random_logits(**sizes)
    renamed = distillation_loss(student[:, torch.cat([old, new])], teacher[:, old])
    torch.testing.assert_close(renamed, distillation_loss(student, teacher))


@NETWORKS
@settings(max_examples=40, deadline=None)
def test_distillation_is_least_where_the_student_rearranged_is_the_teacher(**sizes):
    student, teacher, _, _ = random_logits(**sizes)
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1).mean()
    assert distillation_loss(student, teacher) >= entropy - 1e-9
