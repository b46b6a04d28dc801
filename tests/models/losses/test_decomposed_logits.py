"""DKD's positive and negative reasoning scores, and its cross-entropy of the new classes."""
import math

import pytest
import torch
import torch.nn.functional as F

from mmseg_hrhf.models.losses.distillation import (
    class_binary_cross_entropy,
    decomposed_logits,
    old_class_binary_distillation,
)


def test_scores_by_hand():
    # u * w_1 = 2, -6, -4, 0 and u * w_2 = -1, 3, 0, 20.
    features = torch.tensor([1., -3., 4., 5.]).view(1, 4, 1, 1)
    weight = torch.tensor([[2., 2., -1., 0.], [-1., -1., 0., 4.]]).view(2, 4, 1, 1)
    assert decomposed_logits(features, weight).flatten().tolist() == [2, 23, -10, -1]


def test_scores_against_the_definition():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 6, 3, 2, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 6, 1, 1, generator=generator, dtype=torch.float64)
    found = decomposed_logits(features, weight)
    assert found.shape == (2, 6, 3, 2)
    for n in range(2):
        for y in range(3):
            for x in range(2):
                for c in range(3):
                    products = [float(u * w) for u, w in zip(features[n, :, y, x], weight[c, :, 0, 0])]
                    assert found[n, c, y, x] == pytest.approx(sum(p for p in products if p > 0))
                    assert found[n, 3 + c, y, x] == pytest.approx(sum(p for p in products if p < 0))
    torch.testing.assert_close(found[:, :3] + found[:, 3:], F.conv2d(features, weight))
    features.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(decomposed_logits, (features, weight))


def test_a_small_negative_score_survives_half_precision():
    """Its difference from the logit would be 0."""
    features = torch.tensor([256., 0.5], dtype=torch.bfloat16).view(1, 2, 1, 1)
    weight = torch.tensor([1., -1.], dtype=torch.bfloat16).view(1, 2, 1, 1)
    assert decomposed_logits(features, weight).flatten().tolist() == [256, -0.5]


def test_distillation_of_both_scores_is_the_sum_over_both():
    generator = torch.Generator().manual_seed(1)
    student, teacher = (3 * torch.randn(2, 4, 3, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    both = old_class_binary_distillation(student, teacher)  # two classes
    expected = 0.
    for n in range(2):
        for y in range(3):
            for x in range(2):
                for z, t in zip(student[n, :, y, x].tolist(), teacher[n, :, y, x].tolist()):
                    q = 1 / (1 + math.exp(-t))
                    expected += q * math.log1p(math.exp(-z)) + (1 - q) * math.log1p(math.exp(z))
    assert both.item() == pytest.approx(expected / 12, rel=1e-9)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: old_class_binary_distillation(z, teacher), student)


@pytest.mark.parametrize('gamma', [1., 2., 35.])
def test_cross_entropy_of_new_classes(gamma):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 6, 3, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 6, (2, 3, 4), generator=generator)
    labels[0, 0] = 255
    loss = class_binary_cross_entropy(logits, labels, first=4, positive_weight=gamma)
    for n in range(2):
        for y in range(3):
            for x in range(4):
                label, expected = int(labels[n, y, x]), 0.
                for c in (4, 5) if label != 255 else ():
                    p = 1 / (1 + math.exp(-logits[n, c, y, x].item()))
                    expected -= gamma * math.log(p) if label == c else math.log(1 - p)
                assert loss[n, y, x].item() == pytest.approx(expected, rel=1e-9)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: class_binary_cross_entropy(z, labels, first=4, positive_weight=gamma).mean(), logits)
    class_binary_cross_entropy(logits, labels, first=4, positive_weight=gamma).sum().backward()
    assert (logits.grad[:, :4] == 0).all() and (logits.grad[0, :, 0] == 0).all() and (logits.grad[1, 4:] != 0).all()
