"""Fakes are read by loaders of ours, whatever reads the real images."""

import numpy as np
import pytest
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.dataset import Compose
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmseg_hrhf.datasets.transforms import Loading, find_loading
from mmseg_hrhf.replay.buffer import FakeImageBuffer
from mmseg_hrhf.replay.dataset import FakeImageDataset, fake_pipeline
from mmseg_hrhf.utils.errors import UserError
from mmseg_hrhf.utils.io import sha256

LOAD, LABELS, PACK = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')


@TRANSFORMS.register_module()
class FromStore(BaseTransform):
    """Reads images from a store that knows real images alone, as 16-bit numbers."""

    def transform(self, results):
        assert results['img_path'].startswith('store://')
        results['img'] = np.full((4, 6, 3), 1000, np.uint16)
        results['img_shape'] = results['ori_shape'] = (4, 6)
        return results


@TRANSFORMS.register_module()
class LabelsFromStore(BaseTransform):
    def transform(self, results):
        results['gt_seg_map'] = np.ones((4, 6), np.uint8)
        results['seg_fields'].append('gt_seg_map')
        return results


@TRANSFORMS.register_module()
class Nothing(BaseTransform):
    def transform(self, results):
        return results


@TRANSFORMS.register_module()
class DropsTheSample(BaseTransform):
    def transform(self, results):
        return None


@pytest.fixture
def buffer(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    held = FakeImageBuffer(tmp_path / 'fakes', 2)
    held.add_batch(0, images, [{}, {}])
    held.images = images
    return held


def info():
    return dict(img_path='store://1', seg_map_path='store://1', seg_fields=[], label_map=None, reduce_zero_label=False)


@pytest.mark.parametrize(
    'pipeline, loading',
    [
        ([LOAD, LABELS, PACK], Loading(0, 1, np.dtype(np.uint8))),
        ([LOAD, dict(type='Nothing'), LABELS, PACK], Loading(0, 2, np.dtype(np.uint8))),
        ([dict(LOAD, to_float32=True), LABELS], Loading(0, 1, np.dtype(np.float32))),
        (
            [dict(type='Nothing'), dict(type='FromStore'), dict(type='LabelsFromStore')],
            Loading(1, 2, np.dtype(np.uint16)),
        ),
    ],
)
def test_loading_transforms_are_found_by_class_or_by_what_they_set(pipeline, loading):
    assert find_loading(Compose(pipeline).transforms, info()) == loading


@pytest.mark.parametrize(
    'pipeline, dtype',
    [
        ([dict(LOAD, color_type='unchanged'), LABELS], np.uint16),
        ([dict(LOAD, color_type='color'), LABELS], np.uint8),
        ([LOAD, dict(type='LabelsFromStore')], np.uint8),
        ([dict(type='FromStore'), LABELS], np.uint16),
    ],
)
def test_type_of_images_is_that_which_is_loaded(tmp_path, pipeline, dtype):
    Image.fromarray(np.full((4, 6), 1000, np.uint16)).save(tmp_path / 'image.png')
    Image.fromarray(np.ones((4, 6), np.uint8)).save(tmp_path / 'mask.png')
    path = 'store://1' if pipeline[0]['type'] == 'FromStore' else str(tmp_path / 'image.png')
    files = dict(info(), img_path=path, seg_map_path=str(tmp_path / 'mask.png'))
    assert find_loading(Compose(pipeline).transforms, files) == Loading(0, 1, np.dtype(dtype))


@pytest.mark.parametrize(
    'pipeline, missing',
    [
        ([dict(type='Nothing')], 'img'),
        ([dict(type='FromStore')], 'gt_seg_map'),
        ([dict(type='FromStore'), dict(type='DropsTheSample'), dict(type='LabelsFromStore')], 'gt_seg_map'),
    ],
)
def test_a_pipeline_without_loader_is_refused(pipeline, missing):
    with pytest.raises(ValueError, match=f'No transform of the training pipeline sets {missing} .*store://1'):
        find_loading(Compose(pipeline).transforms, info())


@pytest.mark.parametrize(
    'pipeline',
    [
        [LOAD, LABELS, dict(type='RandomFlip', prob=0.0), PACK],
        [dict(LOAD, imdecode_backend='tifffile'), LABELS, PACK],
        [dict(LOAD, backend_args=dict(backend='petrel')), dict(LABELS, backend_args=dict(backend='petrel')), PACK],
        [dict(type='FromStore'), dict(type='LabelsFromStore'), PACK],
    ],
    ids=['mmcv', 'other decoder', 'object store', 'own loaders'],
)
def test_a_fake_comes_as_it_was_stored_without_labels(buffer, pipeline):
    transforms = Compose([transform for transform in pipeline if transform['type'] != 'Nothing']).transforms
    dataset = FakeImageDataset(buffer.folder, 2, fake_pipeline(transforms, Loading(0, 1, np.dtype(np.uint8))))
    for i in range(2):
        sample = dataset[i]
        np.testing.assert_array_equal(sample['inputs'].numpy(), buffer.images[i].transpose(2, 0, 1)[::-1])
        assert (sample['data_samples'].gt_sem_seg.data == 0).all()
        assert sample['data_samples'].gt_sem_seg.data.shape == (1, 8, 8)


def test_a_fake_is_described_as_a_dataset_describes_its_images(buffer):
    dataset = FakeImageDataset(buffer.folder, 2, Compose([]))
    buffer.close()
    for idx, path in ((1, buffer.image_path(1)), (2, buffer.image_path(0))):  # mosaics ask for one beyond the last
        described = dict(info(), img_path=str(path), sha256=sha256(path), seg_map_path=str(buffer.blank_mask),
                         sample_idx=idx)
        assert dataset.get_data_info(idx) == described


def test_an_image_that_changes_during_a_run_ends_it(buffer):
    buffer.close()
    pipeline = fake_pipeline([LoadImageFromFile(), LoadAnnotations()], Loading(0, 1, np.dtype(np.uint8)))
    dataset = FakeImageDataset(buffer.folder, 2, pipeline)
    assert dataset[1]['img'].shape == (8, 8, 3)
    content = bytearray(buffer.image_path(1).read_bytes())
    content[-1] ^= 1
    buffer.image_path(1).write_bytes(content)
    with pytest.raises(UserError, match=r'000001\.bmp has changed since it was written'):
        dataset[1]


def test_one_transform_that_loads_both_is_replaced_by_both(buffer):
    out = fake_pipeline([len, dict], Loading(0, 0, np.dtype(np.float32)))
    names = [type(transform).__name__ for transform in out.transforms]
    assert names[:2] == ['LoadFakeImage', 'NoLabels'] and len(names) == 3
    results = out.transforms[0](dict(img_path=str(buffer.image_path(0)), seg_fields=[]))
    assert results['img'].dtype == np.float32
