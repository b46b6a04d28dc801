"""PLOP's pseudo-labels by hand."""
import math

import pytest
import torch

from mmseg_hrhf.losses.pseudo_labels import (
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


def test_a_class_that_is_always_sure_or_never_seen_gets_the_minimum():
    histogram = torch.zeros(2, NUM_BINS, dtype=torch.long)
    histogram[0, 0] = 10
    torch.testing.assert_close(median_thresholds(histogram, 0.), torch.tensor([.5 / NUM_BINS, 0.]))
    torch.testing.assert_close(median_thresholds(histogram, .001), torch.tensor([.001, .001]))
