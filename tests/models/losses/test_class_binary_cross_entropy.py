import math

import pytest
import torch

from mmseg_hrhf.models.losses.distillation import class_binary_cross_entropy


def test_by_hand():
    # p = .8, .5, .4; class 0 is right.
    logits = torch.logit(torch.tensor([.8, .5, .4])).view(1, 3, 1, 1)
    loss = class_binary_cross_entropy(logits, torch.tensor([[[0]]]))
    assert loss.shape == (1, 1, 1)
    assert loss.item() == pytest.approx(-math.log(.8) - math.log(.5) - math.log(.6), abs=1e-6)


def test_against_the_reference_with_void_and_many_classes():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 51, 3, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 51, (2, 3, 4), generator=generator)
    labels[0, 0] = 255
    loss = class_binary_cross_entropy(logits, labels)
    for n in range(2):
        for y in range(3):
            for x in range(4):
                z, label = logits[n, :, y, x].tolist(), int(labels[n, y, x])
                expected = 0. if label == 255 else sum(
                    math.log1p(math.exp(-z_c if c == label else z_c)) for c, z_c in enumerate(z))
                assert loss[n, y, x].item() == pytest.approx(expected, rel=1e-9)


def test_gradient_and_none_of_it_where_ignored():
    logits = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[[0, 2], [255, 1]]])
    assert torch.autograd.gradcheck(lambda z: class_binary_cross_entropy(z, labels), logits)
    class_binary_cross_entropy(logits, labels).sum().backward()
    assert (logits.grad[0, :, 1, 0] == 0).all() and (logits.grad[0, :, 0, 0] != 0).all()
