"""Spaces, letters of any script, symbolic links and unusual suffixes in paths."""
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import RUNNERS


def test_a_run_on_them_and_its_plain_config(tiny_config, tiny_root, tmp_path):
    root = tmp_path / 'größe 大小 set'
    for kind, suffix in (('images', '_leftImg8bit.v2.PNG'), ('masks', '_labels.PNG')):
        for path in (tiny_root / kind).rglob('*.png'):
            target = root / kind / path.parent.name / f'bild {path.stem}é{suffix}'
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    link = tmp_path / 'link to it'
    os.symlink(root, link)
    for loader in (tiny_config.train_dataloader, tiny_config.test_dataloader):
        loader.dataset.update(data_root=str(link), img_suffix='_leftImg8bit.v2.PNG', seg_map_suffix='_labels.PNG')
    tiny_config.work_dir = str(tmp_path / 'läufe 1')
    tiny_config.scenario.label_protocol = 'plop'  # future classes count as background: masks are mapped and written
    tiny_config.only_step = 0
    tiny_config.train_cfg.max_epochs = tiny_config.train_cfg.val_interval = 1
    results = RUNNERS.build(tiny_config).train()
    assert [result['num_train_images'] for result in results] == [13]
    folder = Path(tiny_config.work_dir) / 'step_0'
    cfg = Config.fromfile(folder / 'config.py')
    cfg.load_from, cfg.work_dir = str(folder / 'checkpoint.pth'), str(tmp_path / 'plain')
    assert abs(Runner.from_cfg(cfg).test()['mIoU'] - results[0]['metrics']['mIoU']) < 1e-3
