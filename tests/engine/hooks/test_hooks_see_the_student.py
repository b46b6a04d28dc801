"""Hooks that name modules of a segmentor find them by the same names within a method."""
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmseg.registry import MODELS

from mmseg_hrhf.config.run import RunConfig
from mmseg_hrhf.config.step import step_config
from mmseg_hrhf.datasets.raw_labels import RawLabels


@pytest.fixture
def step_0(tiny_config):
    names = 'background', 'red', 'green', 'blue'
    scenario = RawLabels(names, names, 0, 'x').scenario(tiny_config.scenario)
    return step_config(RunConfig.parse(tiny_config), scenario, 0, 8)


@pytest.fixture
def model(step_0):
    return MODELS.build(step_0.model)


def test_names_are_those_of_the_bare_segmentor(model):
    bare = model.student
    for kind in ('named_parameters', 'named_buffers'):
        ours, theirs = (dict(getattr(each, kind)()) for each in (model, bare))
        assert list(ours) == list(theirs) and all(ours[name] is theirs[name] for name in ours)
    modules = dict(model.named_modules())
    assert modules.pop('') is model and modules.pop('student') is bare
    assert modules == {name: module for name, module in bare.named_modules() if name}
    # As a wrapper such as DDP lists them.
    wrapped = torch.nn.Sequential(model)
    assert [name for name, _ in wrapped.named_parameters()] == [f'0.{name}' for name, _ in bare.named_parameters()]
    assert set(model.parameters()) == set(bare.parameters()) and set(model.modules()) == {model, *bare.modules()}


def test_attributes_are_the_students(model):
    assert model.backbone is model.student.backbone and model.decode_head is model.student.decode_head
    assert model.with_neck is False and model.num_classes == 3
    assert model.get_submodule('backbone.layer1') is model.student.backbone.layer1
    replacement = torch.nn.Identity()
    model.backbone = replacement
    assert model.student.backbone is replacement and 'backbone' not in model._modules
    with pytest.raises(AttributeError, match=r'no attribute .nowhere'):
        model.nowhere  # noqa: B018


def test_a_hook_may_save_the_whole_module(model, tmp_path):
    torch.save(model, tmp_path / 'model.pth')
    held = torch.load(tmp_path / 'model.pth', weights_only=False)
    assert list(held.state_dict()) == list(model.student.state_dict())


def test_modes_types_and_averages_reach_the_student(model):
    assert model.train().student.training and model.student.backbone.training
    assert not model.eval().student.training and not model.student.backbone.training
    assert next(model.double().parameters()).dtype == torch.float64
    averaged = ExponentialMovingAverage(model.float(), momentum=0.5)
    with torch.no_grad():
        before = [weight.clone() for weight in averaged.module.parameters()]
        for weight in model.parameters():
            weight += 1
    averaged.update_parameters(model)
    averaged.update_parameters(model)
    assert all((after != old).all() for after, old in zip(averaged.module.parameters(), before))


@HOOKS.register_module()
class FreezeByName(Hook):
    """As users write it for stock mmseg."""

    def before_train(self, runner):
        self.frozen = [name for name, weight in runner.model.named_parameters()
                       if name.startswith('backbone') and weight.requires_grad_(False) is weight]
        self.before = {name: weight.clone() for name, weight in runner.model.named_parameters()}
        assert runner.model.backbone is runner.model.student.backbone


def test_a_hook_that_freezes_by_name_freezes(step_0):
    step_0.default_hooks['by_name'] = dict(type='FreezeByName')
    step_0.train_cfg.max_epochs = 1
    runner = Runner.from_cfg(step_0)
    runner.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, FreezeByName))
    changed = {name for name, weight in runner.model.named_parameters() if not torch.equal(weight, hook.before[name])}
    assert hook.frozen and changed and not changed & set(hook.frozen)
    assert all(name.startswith('decode_head') for name in changed)
