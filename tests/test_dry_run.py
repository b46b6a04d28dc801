import shutil
from pathlib import Path

import pytest
from mmseg.registry import RUNNERS

from mmseg_hrhf.dry_run import check_weights, dry_run, pretrained_weights


def test_says_the_plan_and_writes_nothing(tiny_config):
    text = dry_run(tiny_config)
    header, *rows = text.splitlines()[1:4]
    assert header.split() == ['step', 'classes', 'images', 'fakes', 'iterations', 'test', 'learns']
    # 13 images in batches of 4, eight epochs; then 8 images, two of them in each batch.
    assert rows[0].split() == ['0', '3', '13', '0', '32', '5', 'red,', 'green']
    assert rows[1].split() == ['1', '4', '8', '4', '32', '6', 'blue']
    assert '20 training images and their masks are there' in text and '6 test images' in text
    assert not Path(tiny_config.work_dir).exists()


def test_names_finished_steps_and_refuses_the_work_dir_of_another_run(tiny_config):
    tiny_config.only_step = 0
    RUNNERS.build(tiny_config).train()
    assert 'finished are steps 0.' in dry_run(tiny_config)
    tiny_config.optim_wrapper.optimizer.lr = 0.5
    with pytest.raises(ValueError, match='another config'):
        dry_run(tiny_config)


def test_names_a_missing_image(tiny_config, tiny_root, tmp_path):
    root = tmp_path / 'data'
    shutil.copytree(tiny_root, root)
    names = [path.stem for path in sorted((root / 'images' / 'train').iterdir())]
    (root / 'train.txt').write_text('\n'.join(names))
    (root / 'images' / 'train' / '003.png').unlink()
    tiny_config.train_dataloader.dataset.update(data_root=str(root), ann_file='train.txt')
    with pytest.raises(ValueError, match=r"1 of 20 training images are missing, such as '.*003\.png': check data_root"):
        dry_run(tiny_config)


def test_names_missing_weights(tiny_config):
    tiny_config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='weights/absent.pth')
    with pytest.raises(ValueError, match=r"Pretrained weights 'weights/absent\.pth' do not exist"):
        dry_run(tiny_config)


def test_options_of_the_inversion_are_checked_before_step_0(tiny_config):
    tiny_config.replay.inversion.strides = 3
    with pytest.raises(ValueError, match=r"replay\.inversion=.* cannot be built: .*'strides'"):
        RUNNERS.build(tiny_config)


def test_finds_weights_at_any_depth_of_a_model():
    model = dict(pretrained='open-mmlab://a', backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='b.pth')),
                 heads=[dict(init_cfg=[dict(type='Normal'), dict(type='Pretrained', checkpoint='c.pth')])])
    assert set(pretrained_weights(model)) == {'open-mmlab://a', 'b.pth', 'c.pth'}


def test_weights_elsewhere_are_only_announced(tmp_path):
    assert 'will be fetched' in check_weights('torchvision://resnet50')
    (tmp_path / 'old.pth').write_bytes(b'\x80\x02')
    assert "older than torch's zip files" in check_weights(str(tmp_path / 'old.pth'))
