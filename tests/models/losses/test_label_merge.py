"""Label Merge (eq. 4): new labels stand, the teacher names the rest."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_hrhf.models.losses.label_merge import merge_labels


def teacher_saying(*classes, num_old=4, scale=5.0):
    """(1, num_old, 1, W) logits whose argmax along the width is ``classes``."""
    logits = torch.zeros(1, num_old, 1, len(classes))
    for x, c in enumerate(classes):
        logits[0, c, 0, x] = scale
    return logits


def test_teacher_names_what_the_step_calls_background():
    labels = torch.tensor([[[0, 0, 4, 5, 255]]])
    merged = merge_labels(labels, teacher_saying(0, 3, 1, 2, 1))
    assert merged.tolist() == [[[0, 3, 4, 5, 255]]]


@pytest.mark.parametrize('label', [4, 5, 15])
def test_new_label_wins_over_a_saturated_teacher(label):
    # softmax(1e4, -1e4, ...) is exactly 1.0: as high as the one-hot new label.
    logits = 2e4 * teacher_saying(2, scale=1.0) - 1e4
    assert logits.softmax(1).max() == 1
    assert merge_labels(torch.full((1, 1, 1), label), logits).item() == label


def test_saturated_teacher_names_the_background():
    assert merge_labels(torch.zeros(1, 1, 1, dtype=torch.long), teacher_saying(2, scale=1e4)).item() == 2


def test_ignored_pixels_stay_ignored():
    labels = torch.full((1, 1, 4), 255)
    assert merge_labels(labels, teacher_saying(0, 1, 2, 3)).tolist() == labels.tolist()


def test_fake_image_takes_the_whole_prediction():
    labels = torch.zeros(1, 1, 4, dtype=torch.long)
    assert merge_labels(labels, teacher_saying(3, 0, 1, 2)).tolist() == [[[3, 0, 1, 2]]]


@pytest.mark.parametrize('dtype', [torch.int64, torch.int32, torch.uint8])
def test_labels_keep_their_type(dtype):
    merged = merge_labels(torch.tensor([[[0, 255]]], dtype=dtype), teacher_saying(3, 3))
    assert merged.dtype == dtype and merged.tolist() == [[[3, 255]]]


def test_labels_are_not_changed_in_place():
    labels = torch.zeros(1, 1, 2, dtype=torch.long)
    merge_labels(labels, teacher_saying(1, 1))
    assert labels.tolist() == [[[0, 0]]]


def test_labels_carry_no_gradient():
    assert not merge_labels(torch.zeros(1, 1, 2, dtype=torch.long), teacher_saying(1, 2).requires_grad_()).requires_grad


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_against_the_reference(seed, num_old, num_new):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (2, num_old, 3, 4))
    labels = rng.choice([0, 255, *range(num_old, num_old + num_new)], (2, 3, 4))
    expected = labels.copy()
    for i, y, x in np.argwhere(labels == 0):
        expected[i, y, x] = max(range(num_old), key=lambda c: logits[i, c, y, x])
    merged = merge_labels(torch.from_numpy(labels), torch.from_numpy(logits))
    np.testing.assert_array_equal(merged.numpy(), expected)


def test_merging_twice_changes_nothing():
    labels, logits = torch.tensor([[[0, 0, 4, 255]]]), teacher_saying(0, 3, 1, 2)
    once = merge_labels(labels, logits)
    assert torch.equal(merge_labels(once, logits), once)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_renaming_old_classes_renames_the_merged_labels(seed, num_old, num_new):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(2, num_old, 4, 3)))
    labels = torch.from_numpy(rng.choice([0, 0, *range(num_old, num_old + num_new), 255], size=(2, 4, 3)))
    order = torch.from_numpy(rng.permutation(num_old))
    renamed = merge_labels(labels, logits[:, order])
    is_old = renamed < num_old
    renamed[is_old] = order[renamed[is_old]]
    assert torch.equal(renamed, merge_labels(labels, logits))


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_merging_again_changes_nothing(seed, num_old):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(2, num_old, 4, 3)))
    labels = torch.from_numpy(rng.choice([0, num_old, 255], size=(2, 4, 3)))
    merged = merge_labels(labels, logits)
    assert torch.equal(merge_labels(merged, logits), merged)
