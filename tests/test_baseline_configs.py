import inspect
from pathlib import Path

import pytest
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_hrhf.config.run import RunConfig
from mmseg_hrhf.config.step import step_config
from mmseg_hrhf.scenario import Scenario

# Learning rate from step 1 on of methods whose authors publish another schedule than MiB's.
OWN_SCHEDULE = dict(DKD=0.0001)
CONFIGS = sorted((Path(__file__).parents[1] / 'configs' / 'baselines').glob('*.py'))


def test_there_is_one_for_every_system_of_the_comparison():
    assert len(CONFIGS) == 11


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_baseline_differs_from_hrhf_in_its_method_and_published_recipe(path, repo):
    cfg, hrhf = Config.fromfile(path), Config.fromfile(repo / 'configs/hrhf/voc_15-1.py')
    run = RunConfig.parse(cfg)
    scenario = Scenario.build({f'class {i}': i for i in range(1, 21)}, **cfg.scenario)
    assert run.num_fake_images(5, 500) == 0
    last = step_config(run, scenario, 5, 500)
    assert last.model.type == cfg.method.type and last.model.student.decode_head.num_classes == 21
    joint = run.method.joint
    assert last.optim_wrapper.optimizer.lr == (0.01 if joint else OWN_SCHEDULE.get(run.method.__name__, 0.001))
    assert ('teacher' in last.model) != joint
    changed = {key for key in hrhf if cfg.get(key) != hrhf[key]}
    own = {'optim_wrapper', 'incremental_overrides', 'param_scheduler', 'train_cfg', 'auto_scale_lr'}
    assert changed == {'method', *dict(plop={'scenario'}, dkd=own).get(path.stem.split('_')[0], ())}
    weights = dict(mib=100.0, ewc=500.0, pi=500.0, rw=100.0, lwf=100.0, ilt=100.0)
    name = path.stem.split('_')[0]
    if name in weights:
        assert cfg.method.get('weight', cfg.method.get('loss_kd', {}).get('loss_weight')) == weights[name]


# What the authors of PLOP and DKD, the paper (HRHF) and MiB's comparison (the others) publish for VOC.
PUBLISHED = {
    'EWC': dict(weight=500.0),
    'PI': dict(weight=500.0),
    'RW': dict(weight=100.0),
    'LwF': dict(loss_kd=('OldClassDistillationLoss', 100.0)),
    'LwFMC': dict(loss_kd=('OldClassBinaryDistillationLoss', 10.0)),
    'ILT': dict(loss_kd=('OldClassDistillationLoss', 100.0), loss_features=('FeatureMSELoss', 100.0)),
    'MiB': dict(loss_kd=('UnbiasedDistillationLoss', 10.0)),
    'HRHF': dict(loss_kd=('DistillationLoss', 1.0)),
    'DKD': dict(loss_kd=('OldClassBinaryDistillationLoss', 5.0), loss_dkd=('OldClassBinaryDistillationLoss', 5.0)),
    'PLOP': dict(loss_pod=('PODLoss', 0.01), loss_pod_logits=('PODLoss', 0.0005)),
}


@pytest.mark.parametrize('system', PUBLISHED)
def test_weights_are_the_published_ones_by_default(system):
    signatures = [inspect.signature(kind.__init__).parameters for kind in MODELS.get(system).__mro__]
    defaults = {name: next(s[name].default for s in signatures if name in s) for name in PUBLISHED[system]}
    assert defaults == {name: value if name == 'weight' else dict(type=value[0], loss_weight=value[1])
                        for name, value in PUBLISHED[system].items()}


def test_the_schedule_of_dkd(repo):
    cfg = Config.fromfile(repo / 'configs/baselines/dkd_voc_15-1.py')
    assert tuple(cfg.method.positive_weight) == (2.0, 1.0)
    scenario = Scenario.build({f'class {i}': i for i in range(1, 21)}, **cfg.scenario)
    for step, rate in ((0, 0.001), (1, 0.0001)):
        step_cfg = step_config(RunConfig.parse(cfg), scenario, step, 500)
        assert step_cfg.optim_wrapper.optimizer.lr == rate and step_cfg.optim_wrapper.optimizer.momentum == 0.9
        assert step_cfg.train_cfg.max_epochs == step_cfg.param_scheduler[0].end == 60
        assert step_cfg.auto_scale_lr == dict(enable=True, base_batch_size=32)


def test_joint_learns_all_classes_from_every_image_that_shows_one(repo):
    cfg = Config.fromfile(repo / 'configs/baselines/joint_voc_15-1.py')
    cfg.scenario.setting = 'disjoint'
    scenario = Scenario.build({f'class {i}': i for i in range(1, 21)}, **cfg.scenario)
    data = step_config(RunConfig.parse(cfg), scenario, 5, 500).train_dataloader.dataset
    assert data.step == 0 and data.scenario.steps == [[f'class {i}' for i in range(1, 21)]]
    assert 'task' not in data.scenario and 'setting' not in data.scenario
