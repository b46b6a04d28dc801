import copy
import json
from pathlib import Path

import pytest

from mmseg_hrhf.config.load import load_config
from mmseg_hrhf.engine.testing import run_test


def augmentation(*flips):
    return [dict(type='LoadImageFromFile'),
            dict(type='TestTimeAug', transforms=[
                [dict(type='RandomFlip', prob=float(prob), direction='horizontal') for prob in flips],
                [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]])]


def test_augmentation_at_test_time(one_step_config):
    tiny_config = one_step_config
    checkpoint = str(Path(tiny_config.work_dir) / 'step_0' / 'checkpoint.pth')
    with pytest.raises(ValueError, match='--tta needs tta_pipeline in the config'):
        run_test(copy.deepcopy(tiny_config), checkpoint, tta=True)
    plain = run_test(copy.deepcopy(tiny_config), checkpoint)
    tiny_config.tta_model = dict(type='SegTTAModel')
    scores = {}
    for flips in ((0, ), (0, 1)):
        cfg = copy.deepcopy(tiny_config)
        cfg.tta_pipeline = augmentation(*flips)
        scores[flips] = run_test(cfg, checkpoint, tta=True)['mIoU']
    # One view that is not changed gives what no augmentation gives; its mirror image adds a second opinion.
    assert scores[0, ] == pytest.approx(plain['mIoU'], abs=0.01) and scores[0, 1] != scores[0, ]


def test_a_checkpoint_of_another_class_order_is_refused(one_step_config):
    tiny_config = one_step_config
    work = Path(tiny_config.work_dir)
    checkpoint = str(work / 'step_0' / 'checkpoint.pth')
    other = copy.deepcopy(tiny_config)
    other.scenario.class_order = ['green', 'red', 'blue']
    with pytest.raises(ValueError, match=r"has the classes \['background', 'red', 'green'\], but the config has "
                                         r"\['background', 'green', 'red'\] at step 0"):
        run_test(other, checkpoint)
    # The config that the run left is the one that fits.
    whole = load_config(str(work / 'config.py'))
    assert 'work_dir' not in whole and 'only_step' not in whole and whole.randomness == dict(seed=0)
    whole.work_dir = str(work / 'again')
    held = json.loads((work / 'step_0/result.json').read_text())['metrics']['mIoU']
    assert run_test(whole, checkpoint)['mIoU'] == pytest.approx(held)
