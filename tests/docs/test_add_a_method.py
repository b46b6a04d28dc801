import re

import torch
from mmseg.registry import MODELS

from mmseg_hrhf.engine.runner import IncrementalRunner


def test_the_worked_example_trains(repo, tiny_config, tmp_path, monkeypatch):
    page = (repo / 'docs/add_a_method.md').read_text()
    code = re.findall(r'```python\n(.*?)```', page, re.DOTALL)[0]
    (tmp_path / 'confident.py').write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    import confident
    cfg = tiny_config
    cfg.method = dict(type='ConfidentHRHF', threshold=0.5)
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
    cfg.param_scheduler[0].end = 1
    try:
        results = IncrementalRunner(cfg).train()
    finally:
        MODELS.module_dict.pop('ConfidentHRHF')
    assert [result['step'] for result in results] == [0, 1]
    assert results[1]['num_fake_images'] == 4
    state = torch.load(tmp_path / 'work/step_1/checkpoint.pth', weights_only=True)['state_dict']
    assert state['decode_head.conv_seg.weight'].shape[0] == 4
    assert confident.ConfidentHRHF.uses_fake_images
