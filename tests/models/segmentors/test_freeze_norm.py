"""Norm layers that keep the previous step's running statistics, and backbones that keep all of it."""
import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

from mmseg_hrhf.models.segmentors import FineTuning
from mmseg_hrhf.models.student_pass import freeze_norms, norms_with_statistics

NORM, CONV = 'backbone.bn1', 'backbone.conv1.weight'
STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')


def train(model, batch, iterations=2):
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.01)
    if hasattr(model, 'before_optimizer_step'):
        optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: model.before_optimizer_step(optimizer))
    for _ in range(iterations):
        optimizer.zero_grad()
        sum(value for name, value in model.loss(*batch).items() if 'loss' in name).backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize('freeze, same', [
    (False, set()), (True, {'statistics'}), ('all', {'statistics', 'affine'}),
])
@pytest.mark.parametrize('options', [dict(kind='HRHF'), dict(kind='FT'), dict(kind='LwF', channels_last=True)])
def test_what_stays_as_the_teacher_has_it(build_system, make_batch, freeze, same, options):
    model = build_system(**options, freeze_norm=freeze)  # whether or not train() is called
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = train(model, make_batch([0, 3, 4]))
    kinds = {name: 'statistics' if name.endswith(STATISTICS) else 'affine' for name in before
             if f'{name.rpartition(".")[0]}.running_mean' in before}
    assert len(kinds) == 5 * len(norms_with_statistics(model.student)) > 20
    for kind in ('statistics', 'affine'):
        equal = [torch.equal(before[name], after[name]) for name in kinds if kinds[name] == kind]
        assert all(equal) if kind in same else not any(equal), kind
    assert not torch.equal(before[CONV], after[CONV])


def test_the_mode_survives_every_switch(build_system):
    model = build_system('MiB', freeze_norm=True)
    for _ in range(2):
        assert model.train() is model and model.training and model.student.decode_head.training
        assert not any(layer.training for layer in norms_with_statistics(model.student))
        assert model.eval() is model and not any(layer.training for layer in model.modules())
    norms = {id(layer) for layer in norms_with_statistics(model.student)}
    assert norms and all(layer.training for layer in model.train().modules() if id(layer) not in norms)


@pytest.mark.parametrize('options', [dict(freeze_norm='all'), dict(freeze_backbone=True)])
def test_step_0_is_trained_as_without_it(build_system, make_batch, options):
    plain, frozen = (train(build_system('HRHF', num_old=0, **given).train(), make_batch([0, 3, 4]))
                     for given in ({}, options))
    assert all(torch.equal(plain[name], tensor) for name, tensor in frozen.items())


@pytest.mark.parametrize('method', ['HRHF', 'FT', 'LwFMC', 'ILT', 'MiB'])
def test_a_frozen_backbone_stays_as_the_teacher_has_it(build_system, make_batch, method):
    model = build_system(method, freeze_backbone=True)  # whether or not train() is called
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = train(model.train(), make_batch([0, 3, 4]))
    same = {name for name, tensor in before.items() if torch.equal(after[name], tensor)}
    assert same == {name for name in before if name.startswith('backbone.')} and len(same) > 20
    assert not any(weight.requires_grad for weight in build_system(method, freeze_backbone=True).backbone.parameters())


def test_a_frozen_backbone_survives_every_switch(build_system):
    model = build_system('MiB', freeze_backbone=True)
    for _ in range(2):
        assert model.train() is model and model.training and all(part.training for part in model.decode_head.modules())
        assert not any(part.training for part in model.backbone.modules())
        assert model.eval() is model and not any(layer.training for layer in model.modules())


@MODELS.register_module(force=True)
class WithoutBackbone(nn.Module):
    """Such as SAN, whose encoders have other names."""


def test_a_network_without_a_backbone_is_refused():
    with pytest.raises(ValueError, match=r'method\.freeze_backbone=True: WithoutBackbone has no backbone: remove it'):
        FineTuning(student=dict(type='WithoutBackbone'), freeze_backbone=True)


@pytest.mark.parametrize('method', ['EWC', 'PI', 'RW'])
def test_importance_of_weights_that_train_no_longer_is_left_out(build_system, make_batch, method):
    first = build_system(method, num_old=0, num_classes=3)
    train(first, make_batch([0, 1, 2]))
    second = build_system(method, method_state=first.method_state(), freeze_norm='all')
    train(second, make_batch([0, 3, 4]))
    kinds = {name for name in first.method_state() if name != 'method'}
    assert kinds and kinds == set(second.method_state()) - {'method'}
    for kind in kinds:
        left_out = set(first.method_state()[kind]) - set(second.method_state()[kind])
        assert left_out == {name for name, weight in second.named_parameters() if not weight.requires_grad}
        assert f'{NORM}.weight' in left_out and CONV not in left_out


def test_synchronised_norms_under_autocast(build_system, make_batch):
    model = build_system('HRHF', freeze_norm=True)
    model.student = nn.SyncBatchNorm.convert_sync_batchnorm(model.student)
    before = {name: buffer.clone() for name, buffer in model.train().named_buffers()}
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(*make_batch([0, 3, 4]))
    assert torch.isfinite(losses['decode.loss_ce']) and len(before) > 20
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


def test_layers_with_running_statistics():
    with_statistics = [nn.BatchNorm2d(2), nn.SyncBatchNorm(2),
                       nn.InstanceNorm2d(2, affine=True, track_running_stats=True)]
    others = [nn.InstanceNorm2d(2, affine=True), nn.BatchNorm2d(2, track_running_stats=False), nn.LayerNorm(2),
              nn.GroupNorm(1, 2), nn.Conv2d(2, 2, 1)]
    network = nn.ModuleList([*with_statistics, *others])
    assert norms_with_statistics(network) == with_statistics
    freeze_norms(network, affine=True)
    assert [layer.training for layer in network] == [False] * 3 + [True] * 5
    assert {layer.weight.requires_grad for layer in with_statistics} == {False}
    assert {layer.weight.requires_grad for layer in others} == {True}


@pytest.mark.parametrize('value', ['al', 'statistic', 'none', None, 1])
def test_other_values_are_refused(build_system, value):
    expected = rf"method\.freeze_norm={value!r} is not one of False, True, 'all'"
    with pytest.raises(ValueError, match=expected):
        build_system('FT', freeze_norm=value)
