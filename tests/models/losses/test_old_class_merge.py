"""MiB's unbiased cross-entropy by hand and against a float64 reference."""
import math

import pytest
import torch
import torch.nn.functional as F

from mmseg_hrhf.models.losses.label_merge import merge_old_classes, merge_old_labels


def unbiased_cross_entropy(logits, labels, num_old):
    merged, labels = merge_old_classes(logits, num_old), merge_old_labels(labels, num_old)
    return F.cross_entropy(merged, labels, ignore_index=255, reduction='none')


def reference(logits, labels, num_old):
    out = torch.zeros(labels.shape, dtype=torch.float64)
    for n, y, x in torch.cartesian_prod(*(torch.arange(size) for size in labels.shape)).tolist():
        label = int(labels[n, y, x])
        if label != 255:
            p = torch.exp(logits[n, :, y, x]).tolist()
            share = sum(p[:num_old]) if label < num_old else p[label]
            out[n, y, x] = -math.log(share / sum(p))
    return out


def test_by_hand():
    # Background .1, old .2, new .3 and .4.
    logits = torch.tensor([.1, .2, .3, .4]).log().view(1, 4, 1, 1).expand(1, 4, 1, 5)
    labels = torch.tensor([[[0, 1, 2, 3, 255]]])
    expected = torch.tensor([.3, .3, .3, .4, 1.]).log().neg().view(1, 1, 5)
    torch.testing.assert_close(unbiased_cross_entropy(logits, labels, num_old=2), expected)


@pytest.mark.parametrize('num_old, num_new', [(1, 1), (2, 1), (4, 1), (3, 48)])
def test_against_the_reference(num_old, num_new):
    generator = torch.Generator().manual_seed(num_old)
    logits = 3 * torch.randn(2, num_old + num_new, 3, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, num_old + num_new, (2, 3, 4), generator=generator)
    labels[0, 0, 0] = 255
    torch.testing.assert_close(unbiased_cross_entropy(logits, labels, num_old), reference(logits, labels, num_old))
    small = logits[:1, :, :2, :2].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda z: unbiased_cross_entropy(z, labels[:1, :2, :2], num_old), small)


def test_probabilities_still_sum_to_one_and_old_classes_hold_none():
    merged = merge_old_classes(torch.randn(1, 5, 2, 2), 3)
    torch.testing.assert_close(merged.softmax(1), merged.exp())
    assert (merged.exp()[:, 1:3] == 0).all() and merged.isfinite().all()


def test_labels_keep_void_and_new_classes():
    assert merge_old_labels(torch.tensor([0, 1, 2, 3, 255]), 3).tolist() == [0, 0, 0, 3, 255]


def test_half_precision_is_computed_in_float32():
    assert merge_old_classes(torch.randn(1, 4, 1, 1).bfloat16(), 2).dtype == torch.float32


@pytest.mark.parametrize('num_old', [0, 5])
def test_impossible_class_count_is_named(num_old):
    with pytest.raises(ValueError, match=f'num_old={num_old} must be between 1 and the 4 classes'):
        merge_old_classes(torch.zeros(1, 4, 1, 1), num_old)


def test_without_new_classes_background_has_all_probability():
    merged = merge_old_classes(torch.randn(1, 4, 2, 2), 4)
    torch.testing.assert_close(merged[:, 0], torch.zeros(1, 2, 2))
