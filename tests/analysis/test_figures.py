import json
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image

from mmseg_hrhf.analysis.figures import draw_predictions, draw_scales, inversion_options, invert_scales, step_folders
from mmseg_hrhf.analysis.finished_step import FinishedStep, make_panels
from mmseg_hrhf.config.run import RunConfig


@pytest.fixture
def step(tiny_config, tmp_path):
    """A finished step's folder of an untrained network that knows red, green and blue."""
    folder = tmp_path / 'step_1'
    folder.mkdir()
    tiny_config.test_dataloader.dataset.test_mode = True
    Config(dict(model=tiny_config.model, test_dataloader=tiny_config.test_dataloader)).dump(folder / 'config.py')
    model = MODELS.build(tiny_config.model)
    model.init_weights()
    meta = dict(dataset_meta=dict(classes=['background', 'red', 'green', 'blue']))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'checkpoint.pth')
    return FinishedStep(folder)


def test_a_step_gives_images_labels_and_predictions_of_one_size(step):
    assert step.classes == ('background', 'red', 'green', 'blue')
    assert step.names() == [f'{i:03d}' for i in range(6)]
    assert step.image(0).shape == (48, 48, 3)
    assert step.labels(0).shape == step.predict(0).shape == (48, 48)
    assert step.labels(0)[0, 0] == 255


def test_colours_are_the_palette_s_and_unlabelled_is_grey(step):
    picture = step.coloured(np.array([[1, 255]]))
    assert picture[0, 0].tolist() == [220, 60, 60]
    assert picture[0, 1].tolist() == [224, 224, 224]


def test_images_are_chosen_so_that_every_class_is_seen(step):
    # Validation images hold (red, green), (blue), (red, blue), (green, blue), (red, green, blue), (green).
    chosen = step.choose_images(3)
    assert len(set(chosen)) == 3
    assert {1, 2, 3} <= {c for i in chosen for c in np.unique(step.labels(i))}
    assert set(step.choose_images(100)) <= set(range(6))


def test_predictions_are_drawn(step, tmp_path):
    path, folders = tmp_path / 'predictions.png', dict(FT=step.folder, HRHF=step.folder)
    panels = make_panels(folders, names=['003', '001'])
    assert [panel.name for panel in panels] == ['003', '001']
    for panel, index in zip(panels, (3, 1)):
        np.testing.assert_array_equal(panel.truth, step.labels(index))
        for mask in panel.predictions.values():
            np.testing.assert_array_equal(mask, step.predict(index))
    draw_predictions(panels, folders, path)
    with Image.open(path) as picture:
        assert min(picture.size) > 200


def test_without_images_that_show_a_class_the_way_out_is_named(step):
    step.labels = lambda index: np.zeros((48, 48), np.uint8)
    with pytest.raises(ValueError, match=r'No test image of .* shows a class clearly: choose images by name'):
        step.choose_images(3)


def test_the_input_is_the_crop_that_labels_and_predictions_are_of(step):
    whole, labels = step.image(0), step.labels(0)
    assert whole.shape[:2] == labels.shape
    step.cfg.test_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CenterCrop', crop_size=16),
        dict(type='KeyMapper', mapping=dict(ori_shape='img_shape'), auto_remap=False), dict(type='PackSegInputs')]
    del step.dataset
    begin = [(size - 16) // 2 for size in labels.shape]
    centre = tuple(slice(start, start + 16) for start in begin)
    np.testing.assert_array_equal(step.image(0), whole[centre])
    np.testing.assert_array_equal(step.labels(0), labels[centre])
    assert step.predict(0).shape == (16, 16)


def test_methods_of_other_classes_are_not_compared(step, tmp_path):
    other = tmp_path / 'other'
    shutil.copytree(step.folder, other)
    text = (other / 'config.py').read_text()
    (other / 'config.py').write_text(text.replace("'blue'", "'pink'"))
    with pytest.raises(ValueError, match='HRHF has other classes'):
        draw_predictions([], dict(FT=step.folder, HRHF=str(other)), tmp_path / 'x.png')


def test_scales_start_from_the_same_noise(step, tmp_path):
    inversion = dict(type='SegInversion', size=16, stages=[(1.0, 1)], lr=1e-9, batch_size=2)
    images = invert_scales(step, inversion, [[1], [2, 3]], [0.5, 20], seed=0)
    # A learning rate of next to nothing leaves the noise.
    assert (images[0.5].int() - images[20].int()).abs().max() <= 1
    assert images[0.5].shape == (2, 16, 16, 3)
    shares = {r: torch.tensor([0.25, 0.5]) for r in images}
    draw_scales(images, shares, [['red'], ['green', 'blue']], tmp_path / 'scales.png')
    assert (tmp_path / 'scales.png').stat().st_size > 1000


def test_an_unfinished_step_is_named(tmp_path):
    (tmp_path / 'config.py').write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r'checkpoint\.pth is missing'):
        FinishedStep(tmp_path)


def test_runs_are_opened_by_name(tmp_path):
    with pytest.raises(ValueError, match="'runs/FT' is not of the form NAME=WORK_DIR"):
        step_folders(['runs/FT'], None)
    with pytest.raises(ValueError, match='contains no finished run'):
        step_folders([f'FT={tmp_path}'], None)


def test_unknown_names_are_refused(step):
    assert step.named_images(['003']) == [3]
    with pytest.raises(ValueError, match="'x' is not a test image"):
        step.named_images(['x'])
    assert step.class_index('green') == 2
    with pytest.raises(ValueError, match="has no class 'pink': choose among red, green, blue"):
        step.class_index('pink')


def test_a_run_without_synthetic_images_has_no_inversion(tiny_config):
    assert inversion_options(RunConfig.parse(tiny_config))['size'] == 48
    tiny_config.replay = None
    with pytest.raises(ValueError, match=r'tiny\.py has no replay\.inversion'):
        inversion_options(RunConfig.parse(tiny_config))
