"""Distillation over old channels alone (LwF, LwF-MC) by hand and against float64 references."""
import math

import pytest
import torch

from mmseg_hrhf.models.losses.distillation import old_class_binary_distillation, old_class_distillation


def logits(channels, seed=0):
    generator = torch.Generator().manual_seed(seed + channels)
    return 3 * torch.randn(2, channels, 3, 4, generator=generator, dtype=torch.float64)


def pixels(tensor):
    return tensor.movedim(1, -1).reshape(-1, tensor.shape[1]).tolist()


def softmax(scores):
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def sigmoid(score):
    return 1 / (1 + math.exp(-score))


def reference_softmax(student, teacher):
    terms = []
    for z, t in zip(pixels(student), pixels(teacher)):
        p, q = softmax(z[:len(t)]), softmax(t)
        terms += [-q_c * math.log(p_c) for q_c, p_c in zip(q, p)]
    return sum(terms) / len(terms)


def reference_binary(student, teacher):
    total = 0.
    for z, t in zip(pixels(student), pixels(teacher)):
        for z_c, t_c in zip(z, t):
            total -= sigmoid(t_c) * math.log(sigmoid(z_c)) + sigmoid(-t_c) * math.log(sigmoid(-z_c))
    return total / len(pixels(student))


@pytest.mark.parametrize('loss, reference', [(old_class_distillation, reference_softmax),
                                             (old_class_binary_distillation, reference_binary)])
@pytest.mark.parametrize('num_old, num_new', [(1, 1), (3, 1), (4, 0), (3, 12)])
def test_against_the_reference_and_gradient(loss, reference, num_old, num_new):
    student, teacher = logits(num_old + num_new), logits(num_old, seed=99)
    assert loss(student, teacher).item() == pytest.approx(reference(student, teacher), rel=1e-9)
    assert loss(student.float(), teacher.float()).item() == pytest.approx(reference(student, teacher), rel=1e-5)
    small, teacher = student[:1, :, :2, :2].clone().requires_grad_(True), teacher[:1, :, :2, :2]
    assert torch.autograd.gradcheck(lambda z: loss(z, teacher), small)


def test_by_hand():
    # Over the two old classes alone the student says .25, .75 (.1, .3 | .6) and the teacher .5, .5.
    student = torch.tensor([.1, .3, .6]).log().view(1, 3, 1, 1)
    teacher = torch.zeros(1, 2, 1, 1)
    expected = -(.5 * math.log(.25) + .5 * math.log(.75)) / 2  # mean over classes
    assert old_class_distillation(student, teacher).item() == pytest.approx(expected, abs=1e-6)
    # Sigmoids of 0 everywhere: log 2 for each of the two old classes.
    assert old_class_binary_distillation(torch.zeros(1, 3, 1, 1), teacher).item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize('loss', [old_class_distillation, old_class_binary_distillation])
def test_new_classes_have_no_say_and_the_teacher_no_gradient(loss):
    student, teacher = logits(5).requires_grad_(True), logits(3).requires_grad_(True)
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert (student.grad[:, 3:] == 0).all() and (student.grad[:, :3] != 0).any()


@pytest.mark.parametrize('loss', [old_class_distillation, old_class_binary_distillation])
def test_half_precision_is_computed_in_float32(loss):
    student, teacher = logits(5).bfloat16(), logits(3).bfloat16()
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(student.float(), teacher.float()))
