import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import RUNNERS

from mmseg_hrhf.config.plain import weight_files
from mmseg_hrhf.engine.dry_run import dry_run


def test_says_the_plan_and_writes_nothing(tiny_config):
    text = dry_run(tiny_config)
    header, *rows = text.splitlines()[1:4]
    assert header.split() == ['step', 'classes', 'images', 'fakes', 'iterations', 'test', 'learns']
    # 13 images in batches of 4, eight epochs; then 8 images, two of them in each batch.
    assert rows[0].split() == ['0', '3', '13', '0', '32', '5', 'red,', 'green']
    assert rows[1].split() == ['1', '4', '8', '4', '32', '6', 'blue']
    assert 'Found 20 training images and their masks' in text and 'Found 6 test images' in text
    assert not Path(tiny_config.work_dir).exists()


def test_names_finished_steps_and_refuses_the_work_dir_of_another_run(one_step_config):
    assert 'Finished steps: 0.' in dry_run(one_step_config)
    one_step_config.optim_wrapper.optimizer.lr = 0.5
    with pytest.raises(ValueError, match='another config'):
        dry_run(one_step_config)


@pytest.mark.parametrize('norm, expected', [(dict(type='GN', num_groups=2), True), (dict(type='BN'), False)])
def test_says_that_there_is_no_norm_to_freeze(tiny_config, norm, expected):
    tiny_config.method.freeze_norm = True
    tiny_config.model.backbone.norm_cfg = tiny_config.model.decode_head.norm_cfg = norm
    line = 'method.freeze_norm has no effect: no layer of the network has running statistics.'
    assert (line in dry_run(tiny_config).splitlines()) == expected


def test_names_a_missing_image(tiny_config, tiny_root, tmp_path):
    root = tmp_path / 'data'
    shutil.copytree(tiny_root, root)
    names = [path.stem for path in sorted((root / 'images' / 'train').iterdir())]
    (root / 'train.txt').write_text('\n'.join(names))
    (root / 'images' / 'train' / '003.png').unlink()
    tiny_config.train_dataloader.dataset.update(data_root=str(root), ann_file='train.txt')
    with pytest.raises(ValueError, match=r"Image '.*003\.png' cannot be read: No such file"):
        dry_run(tiny_config)


def test_names_missing_weights(tiny_config):
    tiny_config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='weights/absent.pth')
    with pytest.raises(ValueError, match=r"init_cfg\.checkpoint='weights/absent\.pth' does not exist"):
        dry_run(tiny_config)


def test_options_of_the_inversion_are_checked_before_step_0(tiny_config):
    tiny_config.replay.inversion.strides = 3
    with pytest.raises(ValueError, match=r"replay\.inversion has no option 'strides': did you mean"):
        RUNNERS.build(tiny_config)


def test_finds_weights_at_any_depth_of_a_model():
    model = dict(pretrained='open-mmlab://a', backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='b.pth')),
                 heads=[dict(init_cfg=[dict(type='Normal'), dict(type='Pretrained', checkpoint='c.pth')])])
    assert weight_files(Config(dict(model=model, load_from='d.pth'))) == [
        ('load_from', 'd.pth'), ('model.pretrained', 'open-mmlab://a'), ('model.backbone.init_cfg.checkpoint', 'b.pth'),
        ('model.heads[0].init_cfg[1].checkpoint', 'c.pth')]


def test_says_which_weights_it_found(tiny_config, tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'a.pth')
    tiny_config.load_from = str(tmp_path / 'a.pth')
    tiny_config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='torchvision://resnet18')
    text = dry_run(tiny_config)
    assert 'a.pth are complete and contain no code' in text
    assert 'will download the weights torchvision://resnet18' in text
