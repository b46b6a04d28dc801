"""What a network sees in stored images: it must be fed as it is in training."""
import pytest
import torch
from mmseg.models import SegDataPreProcessor
from torch import nn

from mmseg_hrhf.replay.inspection import label_images, recognised


class Threshold(nn.Module):
    """Class 1 where the red of a pixel is above ``threshold``, in the units of its input; else background."""
    num_classes = 3
    align_corners = False
    decode_head = None

    def __init__(self, threshold, **preprocessing):
        super().__init__()
        self.data_preprocessor = SegDataPreProcessor(bgr_to_rgb=True, **preprocessing)
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def encode_decode(self, inputs, batch_img_metas):
        assert not torch.is_grad_enabled()  # a graph would take the memory of a training pass
        red = inputs[:, :1] - self.threshold
        return torch.cat([torch.zeros_like(red), red, torch.full_like(red, -1e4)], dim=1)


# Two images of 2 x 2 pixels by their red.
IMAGES = torch.zeros(2, 2, 2, 3, dtype=torch.uint8)
IMAGES[..., 0] = torch.tensor([[[0, 120], [130, 255]], [[90, 110], [115, 119]]])
NETWORKS = dict(
    raw=lambda: Threshold(125.), normalised=lambda: Threshold(0.5, mean=[120., 0., 0.], std=[10., 10., 10.]))


@pytest.mark.parametrize('make', NETWORKS.values(), ids=NETWORKS)
def test_each_pixel_has_the_class_that_the_network_gives_it(make):
    labels = label_images(make(), IMAGES)
    assert labels.dtype == torch.uint8 and labels.tolist() == [[[0, 0], [1, 1]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize('make', NETWORKS.values(), ids=NETWORKS)
def test_shares_of_the_classes_by_hand(make):
    assert recognised(make(), IMAGES).tolist() == [[.5, .5, 0], [1, 0, 0]]
