import pytest
import torch
from mmengine.config import Config

from mmseg_hrhf.engine.distributed import start_distributed


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    monkeypatch.setenv('LOCAL_RANK', '7')
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        monkeypatch.setenv(name, '1')
    with pytest.raises(ValueError, match=r'Process 8 of this node has no GPU, since only 4 are visible: run .* GPUS=4'):
        start_distributed(Config(dict(launcher='pytorch')))
