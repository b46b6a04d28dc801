"""What a Visualizer is shown of a buffer."""
import numpy as np
import pytest
import torch
from mmseg.models import SegDataPreProcessor
from torch import nn

from mmseg_hrhf.replay.buffer import FakeImageBuffer
from mmseg_hrhf.replay.inspection import show_buffer

PALETTE = [[0, 0, 0], [0, 200, 0]]


class Red(nn.Module):
    """Class 1 where a pixel is red."""
    num_classes = 2
    align_corners = False
    decode_head = None

    def __init__(self):
        super().__init__()
        self.data_preprocessor = SegDataPreProcessor(bgr_to_rgb=True)
        self.threshold = nn.Parameter(torch.tensor(100.))

    def encode_decode(self, inputs, batch_img_metas):
        red = inputs[:, :1] - self.threshold
        return torch.cat([torch.zeros_like(red), red], dim=1)


class Recorder:
    """Keeps what a Visualizer would draw."""

    def __init__(self):
        self.images, self.scalars = {}, []

    def add_image(self, name, image, step=0):
        self.images[name] = image

    def add_scalars(self, scalars, step=0):
        self.scalars.append((step, scalars))


def shown(folder, number, size):
    """A buffer whose i-th image is of red i, its left half 200 redder, as a Visualizer is shown it."""
    buffer, recorder = FakeImageBuffer(folder, number), Recorder()
    buffer.open({}, size)
    images = np.zeros((number, *size, 3), dtype=np.uint8)
    images[..., 0] = np.arange(number)[:, None, None]
    images[:, :, :size[1] // 2, 0] += 200
    for start, curve in ((0, dict(iteration=[1, 4], tv=[2., 1.])), (number - 1, dict(iteration=[1], tv=[4.]))):
        stop = number if start else number - 1
        buffer.add_batch(start, images[start:stop], [{}] * (stop - start), curve)
    show_buffer(buffer, Red().eval(), PALETTE, recorder)
    return recorder


def test_the_first_32_with_and_without_the_teacher_s_mask(tmp_path):
    recorder = shown(tmp_path, 34, (4, 6))
    fakes, seen = recorder.images['fakes'], recorder.images['fakes_as_the_teacher_sees_them']
    # Four rows of eight cells of 4 x 6, two pixels between them.
    assert fakes.shape == seen.shape == (4 * 6 - 2, 8 * 8 - 2, 3)
    for i in range(32):
        top, left = 6 * (i // 8), 8 * (i % 8)
        assert fakes[top, left].tolist() == [200 + i, 0, 0] and fakes[top, left + 5].tolist() == [i, 0, 0]
        assert seen[top, left].tolist() == [round((200 + i) / 2), 100, 0] and seen[top, left + 5].tolist() == [i, 0, 0]


def test_large_images_are_shrunk(tmp_path):
    assert shown(tmp_path, 2, (400, 80)).images['fakes'].shape == (160, 8 * 82 - 2, 3)


def test_mean_losses_by_iteration(tmp_path):
    assert shown(tmp_path, 3, (4, 6)).scalars == [(1, {'inversion/tv': pytest.approx(3.)}), (4, {'inversion/tv': 1.})]


def test_the_first_of_several_processes_alone_shows(tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.dist.utils.get_rank', lambda group=None: 1)
    recorder = shown(tmp_path, 3, (4, 6))
    assert recorder.images == {} and recorder.scalars == []
