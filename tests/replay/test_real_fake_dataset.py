"""Real and fake images as one dataset: which index is which, and how each is augmented."""
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmseg.registry import DATASETS, TRANSFORMS

from mmseg_hrhf.replay.buffer import FakeImageBuffer
from mmseg_hrhf.replay.dataset import LoadFakeImage
from mmseg_hrhf.utils.randomness import SampleIndex, seed_process

SIDE, CROP, NUM_REAL, NUM_FAKE = 48, 24, 8, 3
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
CROPPED = [*LOAD, dict(type='RandomCrop', crop_size=(CROP, CROP)), dict(type='PackSegInputs')]


@pytest.fixture
def build(tiny_config, tmp_path):
    """``build(pipeline, **options)``: the images of blue, then three fakes of noise.

    ``first`` is the pipeline of another dataset, of the second of these images alone, which is joined in front.
    """
    buffer = FakeImageBuffer(tmp_path / 'fakes', NUM_FAKE)
    buffer.open({}, (SIDE, SIDE))
    noise = np.random.default_rng(0).integers(0, 256, (NUM_FAKE, SIDE, SIDE, 3), dtype=np.uint8)
    buffer.add_batch(0, noise, [{}] * NUM_FAKE)

    def of(pipeline, first=None, **options):
        images = dict(tiny_config.train_dataloader.dataset, pipeline=pipeline)
        if first:
            (tmp_path / 'first.txt').write_text('013\n')
            one = dict(images, pipeline=first, ann_file=str(tmp_path / 'first.txt'))
            images = dict(type='ConcatDataset', datasets=[one, images])
        real = dict(type='IncrementalDataset', dataset=images, scenario=tiny_config.scenario, step=1)
        return DATASETS.build(
            dict(type='RealFakeDataset', real=real, fake_folder=buffer.folder, num_fake=NUM_FAKE, **options))

    return of


def test_real_images_come_first_then_each_fake(build):
    dataset = build(CROPPED)
    assert len(dataset) == NUM_REAL + NUM_FAKE
    names = [dataset[i]['data_samples'].img_path for i in range(len(dataset))]
    # Images 12 to 19 hold blue.
    expected = [f'train/{i:03d}.png' for i in range(12, 20)] + [f'images/{i:06d}.bmp' for i in range(NUM_FAKE)]
    assert [name.replace('\\', '/').rsplit('/', 2)[-2:] for name in names] == [name.split('/') for name in expected]


def test_synthetic_samples_are_marked(build):
    dataset = build(CROPPED)
    marked = [dataset[i]['data_samples'].get('synthetic', False) for i in range(len(dataset))]
    assert marked == [False] * NUM_REAL + [True] * NUM_FAKE


@pytest.mark.parametrize('index', [0, 7, 8, 10], ids=['first real', 'last real', 'first fake', 'last fake'])
def test_a_sample_is_augmented_by_its_own_seed_alone(build, index):
    dataset = build(CROPPED)
    seed_process(1)
    crops = [dataset[SampleIndex(index, (seed, ))]['inputs'] for seed in range(4)]
    assert all(crop.shape == (3, CROP, CROP) for crop in crops)
    assert any(not torch.equal(crop, crops[0]) for crop in crops[1:])
    seed_process(2)
    assert torch.equal(dataset[SampleIndex(index, (0, ))]['inputs'], crops[0])


@TRANSFORMS.register_module()
class LoadFirstAlone(BaseTransform):
    """Loads one image, and refuses every other one."""

    def transform(self, results):
        assert results['img_path'].endswith('013.png')
        return dict(results, img=np.zeros((SIDE, SIDE, 3), np.float32), img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE))


def test_fakes_are_augmented_as_the_first_of_joined_datasets_is(build):
    first = [dict(type='LoadFirstAlone'), LOAD[1], dict(type='RandomFlip', prob=1.0), dict(type='PackSegInputs')]
    dataset = build([*LOAD, dict(type='PackSegInputs')], first)
    assert len(dataset) == 1 + NUM_REAL + NUM_FAKE
    flips = [dataset[i]['data_samples'].metainfo.get('flip', False) for i in range(len(dataset))]
    assert flips == [True] + [False] * NUM_REAL + [True] * NUM_FAKE
    assert dataset[len(dataset) - 1]['inputs'].dtype == torch.float32


def test_fakes_are_labelled_background(build):
    dataset = build(CROPPED)
    mask = dataset[NUM_REAL]['data_samples'].gt_sem_seg.data
    assert mask.shape == (1, CROP, CROP) and not mask.any()


def test_classes_are_those_of_the_real_images(build):
    dataset = build(CROPPED)
    assert dataset.metainfo['classes'] == ('background', 'red', 'green', 'blue') and dataset.fake.metainfo == {}


@pytest.mark.parametrize('index, folder', [(NUM_REAL - 1, 'train'), (NUM_REAL, 'images')], ids=['real', 'fake'])
def test_real_images_are_mixed_with_real_ones_and_fakes_with_fakes(build, monkeypatch, index, folder):
    paths = []
    owns = {LoadImageFromFile: LoadImageFromFile.transform, LoadFakeImage: LoadFakeImage.__call__}
    for kind, name in ((LoadImageFromFile, 'transform'), (LoadFakeImage, '__call__')):
        monkeypatch.setattr(kind, name, lambda self, results: (paths.append(results['img_path']),
                                                               owns[type(self)](self, results))[1])
    mosaic = dict(type='RandomMosaic', prob=1.0, img_scale=(SIDE, SIDE))
    mixed = build(LOAD, mix=dict(type='SeededMixDataset', pipeline=[mosaic, dict(type='PackSegInputs')]))
    assert mixed[SampleIndex(index, (0, ))]['inputs'].shape == (3, 2 * SIDE, 2 * SIDE)
    assert len(paths) == 4 and all(path.replace('\\', '/').split('/')[-2] == folder for path in paths)
