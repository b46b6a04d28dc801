"""Every system through two steps of the real thing."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmseg.registry import MODELS, RUNNERS

from mmseg_hrhf.work_dir.checkpoint import load_checkpoint


def weights(work_dir, step):
    return load_checkpoint(Path(work_dir) / f'step_{step}' / 'checkpoint.pth')['state_dict']


def of_system(cfg, system, work_dir, iterations=2):
    cfg = Config(cfg._cfg_dict.to_dict())
    cfg.method = dict(type=system)
    cfg.work_dir = str(work_dir)
    cfg.train_cfg.max_iters = cfg.train_cfg.val_interval = iterations
    return cfg


def finite(losses):
    return all(np.isfinite(value) for value in losses)


def curves(work_dir, step):
    folder = Path(work_dir) / f'step_{step}' / 'train'
    lines = [line for path in folder.glob('*/vis_data/scalars.json') for line in path.read_text().splitlines()]
    return [record for record in map(json.loads, lines) if 'loss' in record]


@pytest.fixture(scope='module')
def shared_first_step(tmp_path_factory):
    """A folder that the first system to ask fills; the others copy its step 0."""
    return tmp_path_factory.mktemp('first') / 'step_0'


def with_first_step(cfg, shared_first_step):
    if not shared_first_step.exists():
        RUNNERS.build(of_system(Config(dict(cfg._cfg_dict.to_dict(), only_step=0)), 'FT', cfg.work_dir)).train()
        shutil.copytree(Path(cfg.work_dir) / 'step_0', shared_first_step)
        shutil.rmtree(cfg.work_dir)
    shutil.copytree(shared_first_step, Path(cfg.work_dir) / 'step_0')
    return cfg


@pytest.mark.parametrize('system, terms', [
    ('FT', {'decode.loss_ce'}),
    ('LwF', {'decode.loss_ce', 'loss_kd'}),
    ('ILT', {'decode.loss_ce', 'loss_kd', 'loss_features'}),
    ('MiB', {'decode.loss_ce', 'loss_kd'}),
    ('PLOP', {'decode.loss_ce', 'loss_pod'}),
])
def test_a_system_continues_a_shared_first_step(tiny_iter_config, tmp_path, shared_first_step, system, terms):
    cfg = with_first_step(of_system(tiny_iter_config, system, tmp_path / 'work'), shared_first_step)
    results = RUNNERS.build(cfg).train()
    assert [r['num_fake_images'] for r in results] == [0, 0]
    records = curves(cfg.work_dir, 1)
    assert len(records) == 2
    for record in records:
        assert {key for key in record if 'loss' in key} == terms | {'loss'}
        assert finite(record[term] for term in terms)
    assert set(weights(cfg.work_dir, 1)) == set(MODELS.build(cfg.model).state_dict())


@pytest.mark.parametrize('norm', [False, True])
def test_hrhf_plus_adds_fakes_to_a_shared_first_step(tiny_iter_config, tmp_path, shared_first_step, norm):
    cfg = of_system(tiny_iter_config, 'HRHFPlus', tmp_path / 'work')
    cfg.method.freeze_norm = norm
    cfg.replay.update(ratio='2:1', added=True)
    results = RUNNERS.build(with_first_step(cfg, shared_first_step)).train()
    assert [r['num_fake_images'] for r in results] == [0, cfg.replay.num_images]
    records = curves(cfg.work_dir, 1)
    terms = {'decode.loss_ce', 'loss_kd', 'loss_kd_fake'}
    assert len(records) == 2 and all({key for key in record if 'loss' in key} == terms | {'loss'} for record in records)
    assert finite(record[term] for record in records for term in terms)
    assert set(weights(cfg.work_dir, 1)) == set(MODELS.build(cfg.model).state_dict())


def test_lwf_mc_trains_its_own_first_step(tiny_iter_config, tmp_path):
    cfg = of_system(tiny_iter_config, 'LwFMC', tmp_path / 'work')
    assert len(RUNNERS.build(cfg).train()) == 2
    terms = [{key for key in curves(cfg.work_dir, step)[0] if 'loss' in key} for step in (0, 1)]
    assert terms == [{'loss', 'decode.loss_bce'}, {'loss', 'decode.loss_bce', 'loss_kd'}]
    assert set(weights(cfg.work_dir, 1)) == set(MODELS.build(cfg.model).state_dict())


@pytest.mark.parametrize('threshold', [0.5, 0.3])
def test_dkd_leaves_plain_networks_and_passes_its_auxiliary_classifier_on(tiny_iter_config, tmp_path, threshold):
    cfg = of_system(tiny_iter_config, 'DKD', tmp_path / 'work', iterations=8)
    cfg.method.threshold = threshold
    cfg.incremental_overrides = dict(optim_wrapper=dict(optimizer=dict(lr=0.)))  # step 1 stays as it starts
    results = RUNNERS.build(cfg).train()
    terms = [{key for key in curves(cfg.work_dir, step)[0] if 'loss' in key} for step in (0, 1)]
    assert terms[0] == {'loss', 'decode.loss_bce', 'loss_ac'} and terms[1] == terms[0] | {'loss_kd', 'loss_dkd'}
    assert finite(record['loss'] for step in (0, 1) for record in curves(cfg.work_dir, step))
    checkpoints = [load_checkpoint(Path(cfg.work_dir) / f'step_{step}' / 'checkpoint.pth') for step in (0, 1)]
    first, second = (checkpoint['state_dict'] for checkpoint in checkpoints)
    assert set(first) == set(second) == set(MODELS.build(cfg.model).state_dict())
    auxiliary = checkpoints[0]['method_state']['classifier']
    assert auxiliary['bias'] < -0.1  # trained: it starts at 0, and all pixels are negative
    for name in ('weight', 'bias'):
        before, after = (state[f'decode_head.conv_seg.{name}'] for state in (first, second))
        assert not before[0].any() and before[1:].all() and torch.equal(after[:3], before)
        assert torch.equal(after[3:], auxiliary[name])
    for step, result in enumerate(results):  # mmseg alone
        folder = Path(cfg.work_dir) / f'step_{step}'
        plain = Config.fromfile(folder / 'config.py')
        plain.load_from, plain.work_dir = str(folder / 'checkpoint.pth'), str(tmp_path / f'plain {step}')
        assert Runner.from_cfg(plain).test()['mIoU'] == pytest.approx(result['metrics']['mIoU'], abs=1e-4)


@HOOKS.register_module()
class StopAfter(Hook):
    """Ends a run in its middle, as a killed job does."""

    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if not runner.model.first_step and runner.iter + 1 == self.iteration:
            raise KeyboardInterrupt


@pytest.mark.parametrize('system', ['EWC', 'RW'])
def test_importance_goes_from_step_to_step(tiny_iter_config, tmp_path, system):
    cfg = of_system(tiny_iter_config, system, tmp_path / 'work')
    assert len(RUNNERS.build(cfg).train()) == 2
    assert finite(record[key] for record in curves(cfg.work_dir, 1) for key in ('loss', 'penalty'))
    for step in (0, 1):
        state = load_checkpoint(Path(cfg.work_dir) / f'step_{step}' / 'checkpoint.pth')['method_state']
        assert state['method'] == system
        assert state['fisher']['decode_head.conv_seg.bias'].shape == (3 + step, )
        assert set(state['fisher']) == set(dict(MODELS.build(cfg.model).named_parameters()))


def test_a_stopped_step_goes_on_to_the_same_importance(tiny_iter_config, tmp_path):
    whole = of_system(tiny_iter_config, 'PI', tmp_path / 'whole', iterations=4)
    RUNNERS.build(whole).train()
    stopped = of_system(tiny_iter_config, 'PI', tmp_path / 'stopped', iterations=4)
    shutil.copytree(tmp_path / 'whole' / 'step_0', tmp_path / 'stopped' / 'step_0')
    stopping = Config(stopped._cfg_dict.to_dict())
    stopping.default_hooks.stop = dict(type='StopAfter', iteration=3)
    with pytest.raises(KeyboardInterrupt):
        RUNNERS.build(stopping).train()
    RUNNERS.build(stopped).train()
    one, other = (load_checkpoint(cfg.work_dir + '/step_1/checkpoint.pth')['method_state']['score']
                  for cfg in (whole, stopped))
    assert one.keys() == other.keys()
    for name, score in one.items():
        torch.testing.assert_close(score, other[name])


def test_joint_trains_the_last_step_alone_on_all_classes(tiny_iter_config, tmp_path):
    cfg = of_system(tiny_iter_config, 'Joint', tmp_path / 'work', iterations=4)
    cfg.scenario.setting = 'disjoint'
    cfg.incremental_overrides = dict(train_cfg=dict(max_iters=1))
    result, = RUNNERS.build(cfg).train()
    assert result['step'] == 1 and result['new_classes'] == ['red', 'green', 'blue']
    assert (result['num_train_images'], result['num_test_images']) == (20, 6)
    assert len(curves(cfg.work_dir, 1)) == 4  # the schedule of step 0
    assert not (tmp_path / 'work' / 'step_0').exists()
    assert all(np.isfinite(result['metrics'][f'mIoU_{name}']) for name in ('old', 'new', 'all'))
    summary = json.loads((tmp_path / 'work' / 'results.json').read_text())
    assert len(summary['steps']) == 1 and '| 1 | red, green, blue | 20 |' in (
        tmp_path / 'work' / 'results.md').read_text()
    assert RUNNERS.build(cfg).train() == [result]  # finished: nothing is done twice


def test_joint_has_no_other_step(tiny_iter_config, tmp_path):
    cfg = of_system(tiny_iter_config, 'Joint', tmp_path / 'work')
    cfg.only_step = 0
    with pytest.raises(ValueError, match='--step 0: Joint trains only once, on all classes, as step 1'):
        RUNNERS.build(cfg).train()


@pytest.mark.parametrize('system', ['EWC', 'PI', 'RW', 'PLOP', 'DKD'])
def test_weights_to_start_from_hold_no_state_of_a_system(tiny_iter_config, tmp_path, system):
    cfg = of_system(tiny_iter_config, system, tmp_path / 'work')
    start = MODELS.build(cfg.model)
    cfg.load_from, cfg.only_step = str(tmp_path / 'start.pth'), 0
    torch.save(dict(state_dict=start.state_dict()), cfg.load_from)
    assert len(RUNNERS.build(cfg).train()) == 1
    assert weights(cfg.work_dir, 0)['decode_head.conv_seg.weight'][0].any() == (system != 'DKD')
