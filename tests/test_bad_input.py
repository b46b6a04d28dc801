"""What is wrong is said before any training: the thing, its value, the remedy."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmseg.registry import DATASETS, MODELS, RUNNERS
from PIL import Image

from mmseg_hrhf.checkpoint import load_checkpoint, save_checkpoint


def build(cfg):
    """Everything up to the first training iteration of step 0."""
    RUNNERS.build(cfg)


@pytest.mark.parametrize('options, message', [
    ({'scenario.task': '2-2'}, r"scenario\.task='2-2' does not fit the 3 foreground classes .* B \+ k\*I = 3"),
    ({'scenario.task': '15'}, r"scenario\.task='15' is not of the form 'B-I'"),
    ({'scenario.task': '2-0'}, r"scenario\.task='2-0': base classes and increment must both be at least 1"),
    ({'scenario.setting': 'overlaped'}, r"scenario\.setting='overlaped' .* Did you mean 'overlapped'\?"),
    ({'scenario.label_protocol': 'mibb'}, r"label_protocol='mibb' .* Did you mean 'mib'\?"),
    ({'scenario.seting': 'disjoint'}, r"scenario has no option 'seting': did you mean 'setting'\?"),
    ({'scenario.task': None, 'scenario.steps': [['red'], ['gren']]}, r"unknown class 'gren'\. Did you mean 'green'\?"),
    ({'scenario.task': None, 'scenario.steps': [['red'], ['red']]}, r"names the class 'red' a second time"),
    ({'scenario.task': None, 'scenario.steps': [['red'], []]}, r'scenario\.steps\[1\] is empty'),
    ({'scenario.class_order': ['red', 'green']}, r"class_order must name every class .* missing \['blue'\]"),
    ({'scenario.image_lists': {1: 'absent.npy'}}, r"Image list 'absent\.npy' cannot be read"),
    ({'scenario.image_lists': {7: 'absent.npy'}}, r'image_lists names step 7, but the steps are 0 to 1'),
    ({'method.type': 'HRFH'}, r"method\.type='HRFH' is no incremental method: did you mean 'HRHF'\?"),
    ({'method.kd_wieght': 1}, r"method HRHF has no option 'kd_wieght': did you mean 'kd_weight'\?"),
    ({'replay.ratio': '1:0'}, r"replay\.ratio='1:0': both sides must be at least 1.*replay=None"),
    ({'replay.ratio': '1/1'}, r"replay\.ratio='1/1' must be of the form 'real:fake'"),
    ({'replay.num_images': 0}, r'replay\.num_images=0 must be a positive number'),
    ({'replay.rato': '1:1'}, r"replay has no option 'rato': did you mean 'ratio'\?"),
    ({'train_dataloader.batch_size': 5}, r'batch_size=5 cannot be divided 1:1 .* use a multiple of 2'),
    ({'train_dataloader.dataset.data_root': '/nowhere'}, r"data_root '/nowhere' of BaseSegDataset does not exist"),
    ({'train_dataloader.dataset.data_prefix.img_path': 'imgs'}, r'imgs. \(data_prefix\.img_path .* does not exist'),
    ({'train_dataloader.dataset.ann_file': 'list.txt'}, r'list\.txt. \(ann_file of BaseSegDataset\) does not exist'),
    ({'train_dataloader.dataset.reduce_zero_label': True}, r'has reduce_zero_label=True.* set reduce_zero_label=F'),
    ({'train_dataloader.dataset.img_suffix': '.bmp'}, r"holds no image: check .* img_suffix='\.bmp'"),
    ({'train_dataloader.dataset.type': 'BaseSegDatset'}, r"Dataset type 'BaseSegDatset' is not registered"),
    ({'incremental_overrides.method': dict(kd_weight=2)}, r"incremental_overrides cannot set \['method'\]"),
    ({'incremental_overrides.train_dataloader': dict(batch_size=5)}, r'batch_size=5 cannot be divided 1:1'),
    ({'test_evaluator.prefix': 'val'}, r'test_evaluator must hold an IoUMetric without prefix'),
    ({'test_evaluator.type': 'CityscapesMetric'}, r'test_evaluator must hold an IoUMetric'),
    ({'model.decode_head.loss_decode.class_weight': [1] * 4}, r'class_weight for 4 classes, which cannot be carried'),
])
def test_config_error_names_thing_value_and_remedy(tiny_config, options, message):
    tiny_config.merge_from_dict(options)
    with pytest.raises(ValueError, match=message):
        build(tiny_config)
    assert not (Path(tiny_config.work_dir) / 'step_0').exists()


def test_empty_step(tiny_config, tiny_root, tmp_path):
    root = tmp_path / 'set'
    shutil.copytree(tiny_root, root)
    for path in (root / 'masks' / 'train').iterdir():
        mask = np.array(Image.open(path))
        mask[mask == 3] = 0
        Image.fromarray(mask).save(path)
    tiny_config.train_dataloader.dataset.data_root = str(root)
    with pytest.raises(ValueError, match=r'Step 1 \(blue\) has no training image under the overlapped setting'):
        build(tiny_config)


def damaged(tiny_root, tmp_path, folder, name, content):
    root = tmp_path / 'set'
    shutil.copytree(tiny_root, root)
    path = root / folder / 'train' / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path)
    return str(root)


@pytest.mark.parametrize('content, message', [
    (b'', r"masks/train/003\.png' is not a readable image \(0 bytes\)"),
    (b'no image', r"masks/train/003\.png' is not a readable image \(8 bytes\)"),
    (Image.new('RGB', (48, 48)), r"masks/train/003\.png' has mode 'RGB'; a mask must be one 8-bit channel"),
    (Image.fromarray(np.full((48, 48), 9, np.uint8)), r"masks/train/003\.png' holds label 9, .*known: 0-3, 255"),
])
def test_broken_mask(tiny_config, tiny_root, tmp_path, content, message):
    tiny_config.train_dataloader.dataset.data_root = damaged(tiny_root, tmp_path, 'masks', '003.png', content)
    with pytest.raises(ValueError, match=message):
        build(tiny_config)


def test_unreadable_image_is_named(tiny_config, tiny_root, tmp_path):
    data = tiny_config.train_dataloader.dataset
    data.data_root = damaged(tiny_root, tmp_path, 'images', '003.png', b'no image')
    dataset = DATASETS.build(dict(type='IncrementalDataset', dataset=data, scenario=tiny_config.scenario, step=0))
    with pytest.raises(ValueError, match=r"Image '.*images/train/003\.png' or its mask cannot be read"):
        dataset[3]


def test_teacher_with_another_class_count(tiny_config, tmp_path):
    model = MODELS.build(tiny_config.model)
    path = tmp_path / 'checkpoint.pth'
    save_checkpoint(path, model.state_dict(), {})
    teacher = tiny_config.model.copy()
    teacher['decode_head'] = dict(teacher['decode_head'], num_classes=3)
    with pytest.raises(ValueError, match=r'(?s)checkpoint\.pth does not fit the network of the previous .*conv_seg'):
        MODELS.build(dict(type='HRHF', student=tiny_config.model, teacher=teacher, teacher_checkpoint=str(path)))
    save_checkpoint(path, model.state_dict(), dict(dataset_meta=dict(classes=['background', 'a', 'b', 'c'])))
    with pytest.raises(ValueError, match=r'knows 4 classes .* but 3 are needed'):
        load_checkpoint(path, 3)


def test_stale_buffer(tiny_config):
    RUNNERS.build(tiny_config).train()
    step = Path(tiny_config.work_dir) / 'step_1'
    (step / 'result.json').unlink()
    path = step / 'fakes' / 'fingerprint.json'
    fingerprint = json.loads(path.read_text())
    path.write_text(json.dumps(dict(fingerprint, teacher='another')))
    with pytest.raises(ValueError, match=r'step_1/fakes are stale.*teacher: "another" there.*Delete that folder'):
        RUNNERS.build(tiny_config).train()


def test_the_tool_says_it_in_one_line_and_fails(tiny_config_file, tmp_path, repo):
    done = subprocess.run([sys.executable, str(repo / 'tools/train.py'), str(tiny_config_file), '--work-dir',
                           str(tmp_path / 'work'), '--cfg-options', 'replay.ratio=0:1'],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: replay.ratio='0:1': both sides must be at least 1")
    assert 'Traceback' not in done.stderr
