"""Images are of their masks' size as the user's own loader reads them, whatever EXIF says."""
import re

import numpy as np
import pytest
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmseg.datasets import BaseSegDataset
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmseg_hrhf.datasets.class_index import class_index, scan
from mmseg_hrhf.datasets.image_check import ImageReader

WIDTH, HEIGHT = 30, 20
ORIENTATION = 0x0112
FORMATS = ['.jpg', '.png', '.webp', '.tiff']
COLOUR_TYPES = ['color', 'grayscale', 'unchanged', 'color_ignore_orientation', 'grayscale_ignore_orientation']


def save_image(path, orientation=None, size=(WIDTH, HEIGHT)):
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)


def pairs(folder, suffix, orientation, mask_size, number=1):
    """Paths of masks and images: images of 30 x 20 stored pixels, masks of the given size."""
    for name in ('images', 'masks'):
        (folder / name).mkdir(exist_ok=True)
    for i in range(number):
        save_image(folder / 'images' / f'{i}{suffix}', orientation)
        Image.new('L', mask_size).save(folder / 'masks' / f'{i}.png')
    return ([str(folder / 'masks' / f'{i}.png') for i in range(number)],
            [str(folder / 'images' / f'{i}{suffix}') for i in range(number)])


def dataset(folder, suffix, *pipeline):
    return BaseSegDataset(data_root=str(folder), img_suffix=suffix, seg_map_suffix='.png', pipeline=list(pipeline),
                          data_prefix=dict(img_path='images', seg_map_path='masks'), metainfo=dict(classes=['a']))


def check(folder, suffix, masks, images, *pipeline, **options):
    return scan(masks, [0], images=images, reader=ImageReader(dataset(folder, suffix, *pipeline)), **options)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('colour_type', COLOUR_TYPES)
@pytest.mark.parametrize('suffix', FORMATS)
@pytest.mark.parametrize('orientation', [3, 6])
def test_size_is_that_which_the_loader_reads(tmp_path, suffix, colour_type, backend, orientation):
    options = dict(color_type=colour_type, imdecode_backend=backend)
    loader = dict(options, type='LoadImageFromFile')
    masks, images = pairs(tmp_path, suffix, orientation, (WIDTH, HEIGHT))
    height, width = LoadImageFromFile(**options)(dict(img_path=images[0]))['img_shape']
    assert {width, height} == {WIDTH, HEIGHT}
    Image.new('L', (width, height)).save(masks[0])
    check(tmp_path, suffix, masks, images, loader)
    Image.new('L', (height, width)).save(masks[0])
    with pytest.raises(ValueError, match=rf"0\{suffix}' is {width} x {height} pixels, but its mask .* is {height} x"):
        check(tmp_path, suffix, masks, images, loader)


def test_loaders_of_both_kinds_are_met(tmp_path):
    """The test above would prove little if every loader honoured EXIF, or none."""
    _, (image, ) = pairs(tmp_path, '.jpg', 6, (1, 1))
    shapes = {colour_type: LoadImageFromFile(color_type=colour_type)(dict(img_path=image))['img_shape']
              for colour_type in COLOUR_TYPES}
    assert shapes['color'] == (WIDTH, HEIGHT) and shapes['color_ignore_orientation'] == (HEIGHT, WIDTH)


def test_the_remedy_of_a_turned_image_is_named(tmp_path):
    masks, images = pairs(tmp_path, '.jpg', 6, (WIDTH, HEIGHT))
    with pytest.raises(ValueError, match=r"EXIF turns the image by 90 degrees: its loader applies that with"):
        check(tmp_path, '.jpg', masks, images, dict(type='LoadImageFromFile'))


@TRANSFORMS.register_module()
class HalfSizeLoader(BaseTransform):
    """A loader of a user's own: every second pixel; cannot be pickled."""
    read: list = []

    def __init__(self, error=None):
        self.error = error
        self.unpicklable = lambda: None

    def transform(self, results):
        self.read.append(results['img_path'])
        if self.error:
            raise LookupError(self.error)
        with Image.open(results['img_path']) as image:
            results['img'] = np.asarray(image)[::2, ::2]
        return results


@pytest.mark.parametrize('number', [3, 70])
@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')
def test_any_loader_decides_in_this_process_and_in_workers(tmp_path, number):
    masks, images = pairs(tmp_path, '.png', None, (WIDTH // 2, HEIGHT // 2), number)
    loading = dict(type='LoadAnnotations'), dict(type='HalfSizeLoader')
    assert check(tmp_path, '.png', masks, images, *loading, num_workers=2)[:, 0].astype(bool).sum() == number
    Image.new('L', (WIDTH // 3, HEIGHT // 2)).save(masks[-1])
    with pytest.raises(ValueError, match=rf"{number - 1}\.png' is 15 x 10 pixels, but its mask .* is 10 x 10"):
        check(tmp_path, '.png', masks, images, *loading, num_workers=2)


def test_images_whose_file_tells_their_size_are_not_loaded(tmp_path):
    masks, images = pairs(tmp_path, '.jpg', 3, (WIDTH, HEIGHT))
    HalfSizeLoader.read.clear()
    check(tmp_path, '.jpg', masks, images, dict(type='HalfSizeLoader'))
    assert HalfSizeLoader.read == []
    Image.new('L', (WIDTH // 2, HEIGHT // 2)).save(masks[0])
    check(tmp_path, '.jpg', masks, images, dict(type='HalfSizeLoader'))
    assert HalfSizeLoader.read == images


def test_what_a_loader_raises_is_said_of_its_image(tmp_path):
    masks, images = pairs(tmp_path, '.jpg', 6, (WIDTH, HEIGHT))
    with pytest.raises(ValueError, match=r"0\.jpg' cannot be read by HalfSizeLoader of its pipeline: no such band\."):
        check(tmp_path, '.jpg', masks, images, dict(type='HalfSizeLoader', error='no such band'))


@pytest.mark.parametrize('pipeline', [[], [dict(type='LoadAnnotations')]], ids=['nothing', 'masks alone'])
def test_a_pipeline_without_image_leaves_it_to_exif(tmp_path, pipeline):
    masks, images = pairs(tmp_path, '.jpg', 6, (HEIGHT, WIDTH))
    check(tmp_path, '.jpg', masks, images, *pipeline)
    masks, images = pairs(tmp_path, '.jpg', 6, (WIDTH, HEIGHT))
    with pytest.raises(ValueError, match='20 x 30 pixels'):
        check(tmp_path, '.jpg', masks, images, *pipeline)


def test_another_loader_does_not_trust_the_index_of_the_first(tmp_path):
    masks, images = pairs(tmp_path, '.jpg', 6, (WIDTH, HEIGHT))
    stored = dict(type='LoadImageFromFile', color_type='color_ignore_orientation')
    turned = dict(type='LoadImageFromFile')
    cache = tmp_path / 'cache'
    for _ in range(2):
        class_index(masks, [0], cache, images=images, reader=ImageReader(dataset(tmp_path, '.jpg', stored)))
    assert len(list(cache.iterdir())) == 1
    with pytest.raises(ValueError, match='20 x 30 pixels'):
        class_index(masks, [0], cache, images=images, reader=ImageReader(dataset(tmp_path, '.jpg', turned)))


def test_a_reader_is_described_alike_in_every_process(tmp_path):
    pairs(tmp_path, '.jpg', None, (WIDTH, HEIGHT))
    loading = [lambda results: results, dict(type='LoadImageFromFile'), dict(type='RandomFlip', prob=0.5)]
    described = repr(ImageReader(dataset(tmp_path, '.jpg', *loading)))
    assert 'LoadImageFromFile' in described and 'RandomFlip' not in described
    assert not re.search('0x[0-9a-f]{6}', described)
