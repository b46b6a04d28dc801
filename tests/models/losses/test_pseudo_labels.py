"""PLOP's pseudo-labels by hand."""
import math

import pytest
import torch

from mmseg_hrhf.models.losses.label_merge import (
    NUM_BINS,
    entropy_histogram,
    median_thresholds,
    normalised_entropy,
    pseudo_labels,
    sure_share,
)


def pixels(*probabilities):
    """(1, K, 1, W) logits of the given distributions."""
    return torch.tensor(probabilities).log().T[None, :, None]


def entropy(*p):
    return -sum(q * math.log(q) for q in p) / math.log(len(p))


def test_entropy_is_0_when_sure_and_1_when_uniform():
    values = normalised_entropy(torch.tensor([[0., 0., 0.], [200., 0., 0.]]).T[None, :, None])
    torch.testing.assert_close(values, torch.tensor([[[1., 0.]]]))
    assert normalised_entropy(pixels((.7, .2, .1))).item() == pytest.approx(entropy(.7, .2, .1), abs=1e-6)


def test_labels_and_weights_by_hand():
    # Sure background, unsure background, sure class 1, class 1 above its threshold; then a new class, and void.
    logits = pixels((.99, .01), (.6, .4), (.01, .99), (.2, .8), (.99, .01), (.99, .01))
    labels = torch.tensor([[[0, 0, 0, 0, 2, 255]]])
    out = pseudo_labels(labels, logits, torch.tensor([.5, .3]))
    assert out.tolist() == [[[0, 255, 1, 255, 2, 255]]]
    assert sure_share(labels, out).tolist() == [.5]  # two of four background pixels
    assert labels.tolist() == [[[0, 0, 0, 0, 2, 255]]]


def test_an_image_without_background_weighs_1():
    labels = torch.full((1, 1, 1), 2)
    assert sure_share(labels, pseudo_labels(labels, pixels((.5, .5)), torch.tensor([.1, .1]))).tolist() == [1]


def test_weight_of_each_image_by_hand():
    # Two of three background pixels; the only one, sure; the only one, unsure; none.
    labels = torch.tensor([[[0, 0], [0, 3]], [[0, 3], [3, 255]], [[3, 0], [3, 3]], [[3, 3], [255, 3]]])
    named = torch.tensor([[[0, 1], [255, 3]], [[2, 3], [3, 255]], [[3, 255], [3, 3]], [[3, 3], [255, 3]]])
    torch.testing.assert_close(sure_share(labels, named), torch.tensor([2 / 3, 1, 0, 1]))


def test_an_entropy_at_the_threshold_is_not_sure():
    logits, labels = torch.tensor([[200., 0.]]).T[None, :, None], torch.zeros(1, 1, 1, dtype=torch.long)
    assert normalised_entropy(logits).item() == 0
    assert pseudo_labels(labels, logits, torch.zeros(2)).item() == 255


def test_surest_and_most_unsure_pixels_fall_into_the_first_and_last_bin():
    # (.5, .5) has the entropy 1, which is the end of the last bin.
    histogram = entropy_histogram(torch.tensor([[200., 0.], [0., 0.]]).T[None, :, None], torch.zeros(1, 1, 2))
    assert histogram.nonzero().tolist() == [[0, 0], [0, NUM_BINS - 1]]


def test_histogram_counts_background_by_predicted_class():
    logits = pixels((.99, .01), (.6, .4), (.01, .99), (.5, .5))
    histogram = entropy_histogram(logits, torch.tensor([[[0, 0, 0, 3]]]))
    assert histogram.shape == (2, NUM_BINS) and histogram.sum(1).tolist() == [2, 1]
    assert histogram[0, int(entropy(.6, .4) * NUM_BINS)] == 1


def test_thresholds_are_medians():
    torch.manual_seed(0)
    values = torch.rand(3, 4001)
    histogram = torch.stack([torch.histc(row, NUM_BINS, 0, 1) for row in values]).long()
    torch.testing.assert_close(median_thresholds(histogram, 0.), values.median(1).values, rtol=0, atol=1e-3)


def test_median_of_one_pixel_is_the_middle_of_its_bin():
    histogram = torch.zeros(3, NUM_BINS, dtype=torch.long)
    histogram[0, 5] = histogram[1, NUM_BINS - 1] = histogram[2, 0] = 1
    torch.testing.assert_close(median_thresholds(histogram, 0.), torch.tensor([5.5, NUM_BINS - .5, .5]) / NUM_BINS)


def test_a_class_that_is_always_sure_or_never_seen_gets_the_minimum():
    histogram = torch.zeros(2, NUM_BINS, dtype=torch.long)
    histogram[0, 0] = 10
    torch.testing.assert_close(median_thresholds(histogram, 0.), torch.tensor([.5 / NUM_BINS, 0.]))
    torch.testing.assert_close(median_thresholds(histogram, .001), torch.tensor([.001, .001]))
