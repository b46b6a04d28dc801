"""Iterations by hand; the rest of the plan is tested through the runner and the dry run."""
import pytest
from mmengine.config import Config

from mmseg_hrhf.engine.plan import iterations


def epochs(**loader):
    return Config(dict(train_cfg=dict(by_epoch=True, max_epochs=3), train_dataloader=dict(batch_size=4, **loader)))


@pytest.mark.parametrize('cfg, expected', [
    (Config(dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=70))), 70),
    (epochs(sampler=dict(type='DefaultSampler')), 3 * 3),
    (epochs(sampler=dict(type='DefaultSampler'), drop_last=True), 3 * 2),
    (epochs(sampler=dict(type='RealFakeSampler', batch_size=4, ratio='1:1')), 3 * 5),
    (epochs(sampler=dict(type='RealFakeSampler', batch_size=4, ratio=None)), 3 * 3),
])
def test_iterations_of_nine_images(cfg, expected):
    assert iterations(cfg, 9) == expected


def test_ranks_share_an_epoch(monkeypatch):
    monkeypatch.setattr('mmseg_hrhf.engine.plan.get_world_size', lambda: 2)
    assert iterations(epochs(sampler=dict(type='DefaultSampler')), 9) == 3 * 2
    assert iterations(epochs(sampler=dict(type='RealFakeSampler', ratio='1:1')), 9) == 3 * 3
