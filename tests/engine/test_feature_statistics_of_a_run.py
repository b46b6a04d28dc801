"""Feature statistics on their way: recorded at the end of a step, in its checkpoint, used by the next."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint as mmengine_load
from mmseg.registry import MODELS, RUNNERS

from mmseg_hrhf.replay.buffer import FakeImageBuffer
from mmseg_hrhf.work_dir.checkpoint import load_checkpoint


@pytest.fixture
def group_norm_config(tiny_iter_config):
    norm_cfg = dict(type='GN', num_groups=2, requires_grad=True)
    tiny_iter_config.merge_from_dict(
        dict(model=dict(backbone=dict(norm_cfg=norm_cfg), decode_head=dict(norm_cfg=norm_cfg))))
    tiny_iter_config.scenario.task = '1-1'  # three steps
    tiny_iter_config.train_cfg.update(max_iters=2, val_interval=2)
    tiny_iter_config.replay.feature_statistics = dict(num_images=8)
    return tiny_iter_config


def test_a_network_without_batch_norm_hands_its_statistics_on(group_norm_config):
    cfg = group_norm_config
    RUNNERS.build(cfg).train()
    work = Path(cfg.work_dir)
    checkpoints = [load_checkpoint(work / f'step_{t}' / 'checkpoint.pth') for t in range(3)]
    assert ['feature_statistics' in checkpoint for checkpoint in checkpoints] == [True, True, False]
    first, second = (checkpoint['feature_statistics'] for checkpoint in checkpoints[:2])
    assert len(first) == 16 and set(first) == set(second)
    assert not torch.equal(first['backbone.gn1']['mean'], second['backbone.gn1']['mean'])
    for t in (1, 2):
        records = FakeImageBuffer(work / f'step_{t}' / 'fakes', 4).records()
        assert all('feature' in record['losses'] for record in records)
    plain = Config.fromfile(work / 'step_1' / 'config.py')
    mmengine_load(MODELS.build(plain.model), str(work / 'step_1' / 'checkpoint.pth'), strict=True)


def test_statistics_can_be_switched_off_and_bad_options_are_named(group_norm_config):
    cfg = group_norm_config
    for options, message in [
        (dict(num_images=0), r'feature_statistics\.num_images=0 must be a positive whole number'),
        (dict(layer=['backbone.*']), "feature_statistics has no option 'layer'"),
    ]:
        cfg.replay.feature_statistics = options
        with pytest.raises(ValueError, match=message):
            RUNNERS.build(cfg)
    cfg.replay.feature_statistics = None
    cfg.only_step = 0
    RUNNERS.build(cfg).train()
    assert 'feature_statistics' not in load_checkpoint(Path(cfg.work_dir) / 'step_0' / 'checkpoint.pth')


@pytest.mark.parametrize('options, recorded', [(dict(freeze_norm=True), True), (dict(freeze_backbone=True), True),
                                               ({}, False)])
def test_frozen_batch_norms_hand_on_the_statistics_of_their_step(tiny_iter_config, options, recorded):
    cfg = tiny_iter_config
    cfg.scenario.task = '1-1'  # three steps
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.method.update(options)
    cfg.replay.feature_statistics = dict(num_images=8)
    RUNNERS.build(cfg).train()
    checkpoints = [load_checkpoint(Path(cfg.work_dir) / f'step_{t}' / 'checkpoint.pth') for t in range(3)]
    assert ['feature_statistics' in checkpoint for checkpoint in checkpoints] == [False, recorded, False]
    if recorded:
        state, statistics = checkpoints[1]['state_dict'], checkpoints[1]['feature_statistics']
        assert {f'{name}.running_mean' for name in statistics} == {name for name in state if 'running_mean' in name}
        assert not torch.equal(statistics['backbone.bn1']['mean'], state['backbone.bn1.running_mean'])
