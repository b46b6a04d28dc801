"""A run's options are parsed once, and what is parsed cannot be changed."""
import dataclasses
from unittest.mock import patch

import pytest

from mmseg_hrhf.config import run as config_run
from mmseg_hrhf.config.run import ReplayConfig, RunConfig
from mmseg_hrhf.engine.plan import RunPlan
from mmseg_hrhf.replay.inversion.seg_inversion import SegInversion
from mmseg_hrhf.scenario import Scenario


def test_what_a_config_says_is_there(tiny_config):
    tiny_config.merge_from_dict(dict(channels_last=True, only_step=1, incremental_overrides=dict(
        optim_wrapper=dict(optimizer=dict(lr=0.01)))))
    run = RunConfig.parse(tiny_config)
    assert run.method.__name__ == 'HRHF' and run.method_options == tiny_config.method
    assert run.scenario == dict(task='2-1', setting='overlapped')
    assert (run.seed, run.channels_last, run.only_step, run.first_step_from) == (0, True, 1, None)
    assert run.work_dir == tiny_config.work_dir
    assert [run.at(t).optim_wrapper.optimizer.lr for t in (0, 1, 2)] == [0.2, 0.01, 0.01]
    assert (run.replay.ratio, run.replay.num_images, run.replay.size) == ('1:1', 4, (48, 48))
    assert not set(run.plain) & {'scenario', 'method', 'replay', 'incremental_overrides', 'channels_last'}


def test_it_is_frozen(tiny_config):
    run = RunConfig.parse(tiny_config)
    for parsed in (run, run.replay):
        with pytest.raises(dataclasses.FrozenInstanceError):
            parsed.num_images = 5


def test_the_users_config_is_left_as_it_is(tiny_config):
    tiny_config.incremental_overrides = dict(optim_wrapper=dict(_delete_=True, type='OptimWrapper', optimizer=dict(
        type='SGD', lr=0.1)))
    before = tiny_config.pretty_text
    RunConfig.parse(tiny_config)
    assert tiny_config.pretty_text == before


def test_overrides_do_not_hold_for_a_joint_method(tiny_config):
    tiny_config.incremental_overrides = dict(optim_wrapper=dict(optimizer=dict(lr=0.01)))
    tiny_config.method = dict(type='Joint')
    run = RunConfig.parse(tiny_config)
    assert run.at(1).optim_wrapper.optimizer.lr == 0.2 and not run.has_teacher(1)
    scenario = Scenario.build(dict(red=1, green=2, blue=3), task='2-1')
    assert run.training_scenario(scenario, 1) == (dict(steps=[['red', 'green', 'blue']]), 0)


def test_a_seed_of_the_command_line_takes_precedence(tiny_config):
    tiny_config.randomness = dict(seed=3)
    assert RunConfig.parse(tiny_config).seed == 3 and RunConfig.parse(tiny_config, seed=5).seed == 5
    with pytest.raises(ValueError, match=r'randomness\.seed=-1'):
        RunConfig.parse(tiny_config, seed=-1)


@pytest.mark.parametrize('options, told', [
    (dict(freeze_norm=3), r'method\.freeze_norm=3 must be True or False or a string\.'),
    (dict(freeze_norms=True), "method HRHF has no option 'freeze_norms': did you mean 'freeze_norm'"),
])
def test_a_mistake_in_freeze_norm_is_named(tiny_config, options, told):
    tiny_config.method.update(options)
    with pytest.raises(ValueError, match=told):
        RunConfig.parse(tiny_config)


def test_planning_parses_once_and_builds_the_inversion_once(tiny_config):
    tiny_config.scenario.task = '1-1'
    counted = [(config_run, 'method_class'), (ReplayConfig, 'parse'), (SegInversion, '__init__')]
    patches = [patch.object(owner, name, autospec=True, side_effect=getattr(owner, name)) if name != 'parse' else
               patch.object(owner, name, side_effect=getattr(owner, name)) for owner, name in counted]
    mocks = [each.start() for each in patches]
    try:
        plan = RunPlan(RunConfig.parse(tiny_config), None)
        plan.identities()
        plan.preflight()
    finally:
        for each in patches:
            each.stop()
    assert len(plan.configs) == 3 and [mock.call_count for mock in mocks] == [1, 1, 1]
