"""A picture of a test must never end it."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from mmseg_hrhf.engine.hooks.prediction import PredictionGridHook


@pytest.fixture
def runner():
    pictures = []
    dataset = SimpleNamespace(metainfo=dict(palette=[[0, 0, 0], [200, 100, 0]]),
                              source=SimpleNamespace(first=SimpleNamespace(backend_args=None)))
    return SimpleNamespace(
        pictures=pictures, iter=3, test_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)),
        visualizer=SimpleNamespace(add_image=lambda tag, image, step: pictures.append((tag, image.shape, step))))


def sample(**metainfo):
    labels = PixelData(data=torch.ones(1, 8, 8, dtype=torch.long))
    return SegDataSample(metainfo=metainfo, pred_sem_seg=labels, gt_sem_seg=labels)


def test_images_that_cannot_be_shown_are_left_out(runner, tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tmp_path / 'a.png')
    np.save(tmp_path / 'b.npy', np.zeros((8, 8, 5)))
    hook = PredictionGridHook()
    hook.before_test_epoch(runner)
    hook.after_test_iter(runner, 0, None, [sample(img_path=str(tmp_path / 'b.npy')), sample()])
    assert not hook._cells
    hook.after_test_iter(runner, 1, None, [sample(img_path=str(tmp_path / 'a.png'))])
    assert len(hook._cells) == 3
    hook.after_test_epoch(runner)
    assert [(tag, step) for tag, _, step in runner.pictures] == [('segmentations', 3)]


def test_no_image_that_can_be_shown_makes_no_picture(runner, tmp_path):
    hook = PredictionGridHook()
    hook.before_test_epoch(runner)
    hook.after_test_iter(runner, 0, None, [sample(img_path=str(tmp_path / 'absent.png'))])
    hook.after_test_epoch(runner)
    assert runner.pictures == []
