"""mmseg's ways to predict load what a step leaves: here of a cascade, trained through two steps."""
import copy
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.fileio import LocalBackend, register_backend
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer, inference_model, init_model
from mmseg.registry import RUNNERS
from PIL import Image

from mmseg_hrhf.config.standalone import write_masks


@pytest.fixture
def cascade(tiny_iter_config):
    cfg = tiny_iter_config
    head = dict(copy.deepcopy(cfg.model.decode_head), type='FCNHead', num_convs=1)
    regions = dict(type='OCRHead', in_channels=8, in_index=1, channels=8, ocr_channels=4, num_classes=4,
                   dropout_ratio=0., norm_cfg=dict(type='BN', requires_grad=True), align_corners=False)
    head.update(in_channels=8, in_index=1, input_transform=None)
    cfg.model.update(type='CascadeEncoderDecoder', num_stages=2, decode_head=[head, regions])
    cfg.model.pop('auxiliary_head', None)
    return cfg


def test_a_cascade_evaluates_and_predicts_without_us(cascade, tiny_root):
    result = RUNNERS.build(cascade).train()[1]
    step = Path(cascade.work_dir) / 'step_1'
    config, checkpoint = str(step / 'config.py'), str(step / 'checkpoint.pth')
    cfg = Config.fromfile(config)
    assert [head.num_classes for head in cfg.model.decode_head] == [4, 4]
    cfg.load_from, cfg.work_dir = checkpoint, str(step / 'plain')
    assert Runner.from_cfg(cfg).test()['mIoU'] == pytest.approx(result['metrics']['mIoU'], abs=1e-4)
    image = str(tiny_root / 'images' / 'val' / '004.png')
    model = init_model(config, checkpoint, device='cpu')
    predicted = inference_model(model, image).pred_sem_seg.data[0].numpy()
    assert model.dataset_meta['classes'] == ('background', 'red', 'green', 'blue')
    inferred = MMSegInferencer(model=config, weights=checkpoint, device='cpu')(image)['predictions']
    assert np.array_equal(predicted, inferred)


@register_backend('FolderBackend', force=True)
class FolderBackend(LocalBackend):
    """Files of a folder, by addresses that no disk knows."""

    def __init__(self, folder):
        self.folder = folder

    def get(self, filepath):
        return super().get(str(filepath).replace('kept://', f'{self.folder}/'))


def test_masks_that_only_a_file_backend_reads_are_mapped(tmp_path):
    Image.fromarray(np.array([[0, 2, 255]], dtype=np.uint8)).save(tmp_path / 'a.png')
    info = dict(seg_map_path='kept://a.png')
    write_masks([info], {2: 1}, str(tmp_path / 'mapped'), ['b'], dict(backend='FolderBackend', folder=str(tmp_path)))
    assert np.asarray(Image.open(tmp_path / 'mapped/b.png')).tolist() == [[255, 1, 255]]
