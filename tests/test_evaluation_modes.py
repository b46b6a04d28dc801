"""Whole-image, slide and crop evaluation: the runner's figures, stock mmseg's, and an independent count."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import MODELS, RUNNERS
from PIL import Image

from mmseg_hrhf.work_dir.checkpoint import load_checkpoint

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
SHORT, CROP = 32, 24


@pytest.fixture
def wide_config(tiny_config, tmp_path, tiny_root):
    """The tiny set with validation images of unlike widths; one short step."""
    root = tmp_path / 'wide'
    shutil.copytree(tiny_root, root)
    for i, path in enumerate(sorted((root / 'images/val').iterdir())):
        for file in (path, root / 'masks/val' / path.name):
            array = np.asarray(Image.open(file))
            Image.fromarray(np.concatenate([array, array[:, :4 * i]], 1)).save(file)
    tiny_config.train_dataloader.dataset.data_root = tiny_config.test_dataloader.dataset.data_root = str(root)
    tiny_config.test_dataloader.batch_size = 1
    tiny_config.only_step = 0
    return tiny_config


def crop_pipeline(repo):
    """The pipeline of the VOC mixin, at the size of these images."""
    pipeline = Config.fromfile(repo / 'configs/_base_/datasets/voc_crop_eval.py').test_dataloader.dataset.pipeline
    assert (pipeline[2].type, pipeline[3].type) == ('Resize', 'CenterCrop')
    pipeline[2].scale, pipeline[3].crop_size = (100000, SHORT), CROP
    return pipeline


def short_side(array, interpolation):
    height, width = array.shape[:2]
    scale = SHORT / min(height, width)
    size = int(width * scale + 0.5), int(height * scale + 0.5)
    return cv2.resize(array, size, interpolation=interpolation)


def centre(array):
    top, left = (round((side - CROP) / 2) for side in array.shape[:2])
    return array[top:top + CROP, left:left + CROP]


def whole(image, mask, network):
    return network(image).argmax(0), mask


def crop(image, mask, network):
    image, mask = centre(short_side(image, cv2.INTER_LINEAR)), centre(short_side(mask, cv2.INTER_NEAREST))
    return network(image).argmax(0), mask


def slide(image, mask, network):
    """Windows of 32 at a stride of 16, the last ones moved back to the border; logits averaged."""
    height, width = mask.shape
    total, count = 0, torch.zeros(height, width)
    for top in {min(16 * i, height - 32) for i in range(-(-(height - 32) // 16) + 1)}:
        for left in {min(16 * i, width - 32) for i in range(-(-(width - 32) // 16) + 1)}:
            logits = torch.zeros(3, height, width)
            logits[:, top:top + 32, left:left + 32] = network(image[top:top + 32, left:left + 32])
            count[top:top + 32, left:left + 32] += 1
            total = total + logits
    return (total / count).argmax(0), mask


def counted(folder, root, evaluate):
    """mIoU in percent with background, from images read here; what step 0 does not know is ignored."""
    model = MODELS.build(Config.fromfile(folder / 'config.py').model).eval()
    model.load_state_dict(load_checkpoint(folder / 'checkpoint.pth')['state_dict'])

    @torch.no_grad()
    def network(image):
        inputs = torch.from_numpy((image - MEAN) / STD).permute(2, 0, 1)[None].float()
        return model.encode_decode(inputs, [dict(img_shape=inputs.shape[2:])])[0]

    confusion = np.zeros((3, 3))
    for name in (folder / 'test_images.txt').read_text().split():
        image, mask = (np.asarray(Image.open(root / kind / 'val' / f'{name}.png')) for kind in ('images', 'masks'))
        predicted, mask = evaluate(image, mask, network)
        assert predicted.shape == mask.shape
        known = mask < 3
        np.add.at(confusion, (mask[known], predicted.numpy()[known]), 1)
    both = np.diag(confusion)
    return 100 * np.mean(both / (confusion.sum(0) + confusion.sum(1) - both))


def output_of_mmseg_alone(folder, tmp_path):
    """What mmseg's own tools/test.py prints in a process that cannot import this package."""
    tool = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'test.py'
    code = ("import runpy, sys; sys.modules['mmseg_hrhf'] = None; sys.argv = sys.argv[1:]; "
            "runpy.run_path(sys.argv[0], run_name='__main__')")
    done = subprocess.run(
        [sys.executable, '-c', code, str(tool), str(folder / 'config.py'), str(folder / 'checkpoint.pth'),
         '--work-dir', str(tmp_path / 'plain')], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize('evaluate', [whole, slide, crop])
def test_runner_stock_mmseg_and_an_independent_count_agree(wide_config, tmp_path, repo, evaluate):
    cfg = wide_config
    if evaluate is slide:
        cfg.model.test_cfg = dict(mode='slide', crop_size=(32, 32), stride=(16, 16))
    if evaluate is crop:
        cfg.test_dataloader.dataset.pipeline = crop_pipeline(repo)
        cfg.test_dataloader.batch_size = 2  # crops fit into batches
    result, = RUNNERS.build(cfg).train()
    expected, folder = result['metrics']['mIoU'], Path(cfg.work_dir) / 'step_0'
    assert counted(folder, Path(cfg.test_dataloader.dataset.data_root), evaluate) == pytest.approx(expected, abs=0.006)
    if evaluate is crop:
        assert f'mIoU: {expected:.4f}' in output_of_mmseg_alone(folder, tmp_path)
    else:
        plain = Config.fromfile(folder / 'config.py')
        plain.load_from, plain.work_dir = str(folder / 'checkpoint.pth'), str(tmp_path / 'plain')
        assert Runner.from_cfg(plain).test()['mIoU'] == pytest.approx(expected, abs=1e-4)


def test_a_backbone_of_ours_is_named_in_the_plain_config(wide_config):
    wide_config.model.backbone.type = 'LeakyResNet'
    result, = RUNNERS.build(wide_config).train()
    folder = Path(wide_config.work_dir) / 'step_0'
    plain = Config.fromfile(folder / 'config.py')
    assert plain.custom_imports == dict(imports=['mmseg_hrhf'], allow_failed_imports=False)
    plain.load_from, plain.work_dir = str(folder / 'checkpoint.pth'), str(folder / 'plain')
    assert Runner.from_cfg(plain).test()['mIoU'] == pytest.approx(result['metrics']['mIoU'], abs=1e-4)
    assert json.loads((folder / 'result.json').read_text())['step'] == 0
