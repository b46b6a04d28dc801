"""Channels last where the network takes it and the device gains by it."""
import pytest
import torch
from torch import nn

from mmseg_hrhf.replay.inversion import pixels as memory_format
from mmseg_hrhf.replay.inversion.pixels import fastest_memory_format

IMAGES = torch.zeros(2, 3, 8, 8)


@pytest.fixture
def network(monkeypatch):
    """Any function of images as the frozen network."""

    def use(function):
        monkeypatch.setattr(memory_format, 'predicted_logits', lambda model, images: function(images))
        return nn.Identity()

    return use


def test_a_network_that_takes_any_order(network):
    assert fastest_memory_format(network(lambda images: 2 * images), IMAGES) == torch.channels_last


def test_a_network_that_looks_through_view(network):
    model = network(lambda images: images.view(len(images), -1))
    assert fastest_memory_format(model, IMAGES) == torch.contiguous_format


def test_a_device_that_is_full_is_no_answer(network):

    def full(images):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    with pytest.raises(torch.cuda.OutOfMemoryError):
        fastest_memory_format(network(full), IMAGES)


@pytest.mark.parametrize('capability, half, gains', [
    ((6, 1), False, False), ((6, 1), True, False), ((7, 0), False, False), ((7, 0), True, True), ((7, 5), False, False),
    ((7, 5), True, True), ((8, 0), False, True), ((9, 0), False, True)
])
def test_gpus_gain_where_tensor_cores_compute(monkeypatch, capability, half, gains):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    assert memory_format._gains(torch.device('cuda', 0), half) is gains
    assert memory_format._gains(torch.device('cpu'), half)
