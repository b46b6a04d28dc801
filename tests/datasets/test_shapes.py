"""The generated data set: deterministic, in VOC's layout, whole or absent."""
import sys

import numpy as np
import pytest
from PIL import Image

from mmseg_hrhf.datasets.shapes import CLASSES, PALETTE, SIDE, ShapesDataset, draw, generate

module = sys.modules[draw.__module__]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """A small copy: two images of base classes, one of each later class, two to evaluate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, '_TRAIN', ((0, 1, 2), (0, 1, 2), (3, ), (4, )))
        patch.setattr(module, '_VAL', 2)
        path = tmp_path_factory.mktemp('data') / 'shapes'
        generate(str(path))
    return path


def masks(root, split):
    names = (root / f'ImageSets/Segmentation/{split}.txt').read_text().split()
    return [Image.open(root / 'SegmentationClass' / f'{name}.png') for name in names]


def test_image_and_mask_types():
    image, mask = draw((0, 1, 2), np.random.default_rng(0))
    assert image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8
    assert mask.shape == (SIDE, SIDE) and mask.dtype == np.uint8


def test_one_seed_draws_one_image():
    (a, mask_a), (b, mask_b) = (draw((0, 1, 2, 3, 4), np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(mask_a, mask_b)


def test_other_seeds_draw_other_images():
    assert (draw((0, ) * 2, np.random.default_rng(1))[0] != draw((0, ) * 2, np.random.default_rng(2))[0]).any()


@pytest.mark.parametrize('classes', [(0, 1, 2), (1, 4), (0, 1, 2, 3, 4)])
def test_labels_are_background_and_the_given_classes(classes):
    allowed = {0, *(kind + 1 for kind in classes)}
    seen = set()
    for seed in range(40):
        seen |= set(np.unique(draw(classes, np.random.default_rng(seed))[1]).tolist())
    assert seen == allowed


@pytest.mark.parametrize('kind', [3, 4])
def test_image_of_a_later_class_holds_it_and_seldom_an_older_one(kind):
    held = [set(np.unique(draw((kind, ), np.random.default_rng(seed))[1]).tolist()) for seed in range(150)]
    assert all(kind + 1 in labels for labels in held)
    assert set().union(*held) <= set(range(kind + 2))
    with_older = np.mean([bool(labels - {0, kind + 1}) for labels in held])
    assert 0.02 < with_older < 0.2


def test_first_class_alone_can_be_drawn():
    # There is no older class to draw beside it.
    for seed in range(40):
        assert set(np.unique(draw((0, ), np.random.default_rng(seed))[1])) <= {0, 1}


@pytest.mark.parametrize('kind', range(len(CLASSES)))
def test_every_shape_is_drawn_where_its_mask_says(kind):
    rng = np.random.default_rng(3)
    areas = [module._silhouette(kind, rng).sum() for _ in range(60)]
    # Radius 9 to 38: the smallest cross has about 170 pixels, no shape fills the image.
    assert 40 < min(areas) < max(areas) < 0.6 * SIDE**2


def test_layout_is_that_of_voc(root):
    assert (root / 'ImageSets/Segmentation/train.txt').read_text().split() == [f'train_{i:04d}' for i in range(4)]
    assert (root / 'ImageSets/Segmentation/val.txt').read_text().split() == ['val_0000', 'val_0001']
    stems = {path.stem for path in (root / 'JPEGImages').iterdir()}
    assert stems == {path.stem for path in (root / 'SegmentationClass').iterdir()} and len(stems) == 6


def test_masks_are_palette_images_of_labels(root):
    for mask in masks(root, 'train') + masks(root, 'val'):
        assert mask.mode == 'P' and np.asarray(mask).max() <= len(CLASSES)
        assert mask.getpalette()[3:6] == PALETTE[1]


def test_images_show_the_classes_they_were_planned_for(root):
    held = [set(np.unique(mask).tolist()) - {0} for mask in masks(root, 'train')]
    assert held[0] <= {1, 2, 3} and held[1] <= {1, 2, 3} and 4 in held[2] and 5 in held[3]


def test_generating_twice_gives_equal_files(root, tmp_path, monkeypatch):
    monkeypatch.setattr(module, '_TRAIN', ((0, 1, 2), (0, 1, 2), (3, ), (4, )))
    monkeypatch.setattr(module, '_VAL', 2)
    generate(str(tmp_path / 'again'))
    for path in sorted(p for p in root.rglob('*') if p.is_file()):
        assert (tmp_path / 'again' / path.relative_to(root)).read_bytes() == path.read_bytes()


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(module, '_TRAIN', ((0, 1, 2), (3, )))
    monkeypatch.setattr(module, '_VAL', 2)


def test_two_runs_that_begin_at_the_same_time_share_the_data(few, tmp_path, monkeypatch):
    target, original, other = tmp_path / 'shapes', module._write, []

    def slower(*args):
        if not other:
            other.append(None)
            generate(str(target))
            other.append({path: path.stat().st_mtime_ns for path in target.rglob('*')})
        return original(*args)

    monkeypatch.setattr(module, '_write', slower)
    generate(str(target))
    assert other[1] == {path: path.stat().st_mtime_ns for path in target.rglob('*')}
    assert list(tmp_path.iterdir()) == [target] and len(list(target.rglob('*.png'))) == 8


def test_a_folder_of_something_else_is_not_taken_for_the_data(few, tmp_path):
    (tmp_path / 'shapes').mkdir()
    (tmp_path / 'shapes' / 'thesis.tex').touch()
    with pytest.raises(OSError, match='not empty'):
        generate(str(tmp_path / 'shapes'))
    assert [path.name for path in tmp_path.rglob('*')] == ['shapes', 'thesis.tex']


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_error_while_generating_leaves_no_folder(tmp_path, monkeypatch, error):
    original, written = module._write, []

    def failing(folder, name, classes, rng):
        if len(written) == 2:
            raise error('disk full')
        written.append(name)
        return original(folder, name, classes, rng)

    monkeypatch.setattr(module, '_write', failing)
    with pytest.raises(error):
        generate(str(tmp_path / 'shapes'))
    assert len(written) == 2 and list(tmp_path.iterdir()) == []


def test_prepare_generates_only_what_is_missing(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(module, 'generate', made.append)
    ShapesDataset.prepare(str(tmp_path / 'shapes'))
    ShapesDataset.prepare(str(tmp_path))
    assert made == [str(tmp_path / 'shapes')]


def test_dataset_reads_what_was_generated(root):
    dataset = ShapesDataset(
        data_root=str(root),
        ann_file='ImageSets/Segmentation/train.txt',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'))
    assert dataset.metainfo['classes'] == ('background', 'disc', 'square', 'triangle', 'cross', 'ring')
    assert len(dataset) == 4
    assert dataset.get_data_info(3)['seg_map_path'] == str(root / 'SegmentationClass' / 'train_0003.png')
