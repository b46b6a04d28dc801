"""The bound of the tuning: crops of real images of the class asked for."""
import runpy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmseg_hrhf.replay.inversion.base import FakeRequest

COLOURS = {8: (200, 0, 0), 10: (0, 0, 200)}


@pytest.fixture(scope='module')
def kind(repo):
    return runpy.run_path(str(repo / 'benchmarks/real_images.py'))['RealImages']


@pytest.fixture
def root(tmp_path):
    for folder in ('JPEGImages', 'SegmentationClassAug'):
        (tmp_path / folder).mkdir()
    for i, label in enumerate((8, 8, 10)):
        Image.new('RGB', (40, 30), COLOURS[label]).save(tmp_path / f'JPEGImages/{i}.jpg', quality=95)
        mask = np.zeros((30, 40), dtype=np.uint8)
        mask[:10] = label
        mask[20, 20] = 10  # a single pixel stands for nothing
        Image.fromarray(mask).save(tmp_path / f'SegmentationClassAug/{i}.png')
    (tmp_path / 'list.txt').write_text('0\n1\n2\n')
    return tmp_path


def test_the_comparison_s_row_names_the_list_of_its_data(repo):
    cfg = Config.fromfile(repo / 'benchmarks/configs/shapes.py')
    inversion = cfg.comparison['methods']['real images for fakes']['replay']['inversion']
    assert inversion['data_root'] == cfg.train_dataloader.dataset.data_root
    assert inversion['ann_file'] == f'{cfg.data_root}/{cfg.train_dataloader.dataset.ann_file}'


def test_images_show_the_class_asked_for(kind, root):
    images = kind(size=(12, 16), data_root=str(root), ann_file=str(root / 'list.txt'), labels=(8, 10))
    assert images.names == {1: ['0', '1'], 2: ['2']}
    request, seen = FakeRequest(((1, ), (2, ), (1, 2)), seed=3), []
    batch = images(None, request, seen.append)
    assert batch.images.shape == (3, 12, 16, 3) and batch.images.dtype == torch.uint8 and len(seen) == 1
    means = batch.images.float().mean((1, 2)).round()
    assert [int(mean.argmax()) for mean in means] == [0, 2, 0]
    assert torch.equal(batch.images, images(None, request).images)


def test_cut_out_at_the_images_own_scale(kind, root):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / 'JPEGImages/2.png')
    images = kind(size=(6, 8), data_root=str(root), ann_file=str(root / 'list.txt'), labels=(8, 10), whole_side=False,
                  suffix='.png')
    image = images(None, FakeRequest(((2, ), ), seed=5)).images[0].numpy()
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (6, 8), (0, 1)).transpose(0, 1, 3, 4, 2)
    assert (windows == image).all((2, 3, 4)).sum() == 1
