"""EWC, PI and RW: what is gathered, what it holds back, and that neither resuming nor a second process changes it."""
import subprocess
import sys

import pytest
import torch

from mmseg_hrhf.models.segmentors import importance as riemannian_walk

SYSTEMS = ('EWC', 'PI', 'RW')
CONV = 'decode_head.conv_seg.weight'


def total(losses):
    return sum(value for name, value in losses.items() if 'loss' in name)


def train(model, batch, iterations, lr=0.1, look=lambda: None):
    """Plain SGD with the model's hook into the optimizer."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: model.before_optimizer_step(optimizer))
    for _ in range(iterations):
        optimizer.zero_grad()
        total(model.loss(*batch)).backward()
        look()
        optimizer.step()
    return model


def history(model, batch, iterations, name=CONV):
    """Gradients of the task's loss and weights at each update, seen from outside."""
    weight, seen = dict(model.student.named_parameters())[name], []
    train(model, batch, iterations, look=lambda: seen.append((weight.grad.clone(), weight.detach().clone())))
    return seen, weight.detach()


def test_fisher_is_the_moving_average_of_squared_gradients(build_system, make_batch):
    model = build_system('EWC', num_old=0).train()
    seen, _ = history(model, make_batch([0, 1, 2]), 3)
    expected = torch.ones_like(seen[0][0])
    for gradient, _ in seen:
        expected = .9 * gradient**2 + .1 * expected
    torch.testing.assert_close(model.method_state()['fisher'][CONV], expected)


def test_path_integral_is_what_was_gained_by_distance(build_system, make_batch):
    model = build_system('PI', num_old=0).train()
    seen, end = history(model, make_batch([0, 1, 2]), 3)
    path = sum(gradient * (before - now) for (_, before), (gradient, now) in zip(seen[:-1], seen[1:]))
    expected = torch.relu(path / ((end - seen[0][1])**2 + 1e-20))
    torch.testing.assert_close(model.method_state()['score'][CONV], expected)


def test_riemannian_walk_looks_every_interval(build_system, make_batch, monkeypatch):
    monkeypatch.setattr(riemannian_walk, 'INTERVAL', 2)
    model = build_system('RW', num_old=0).train()
    seen, _ = history(model, make_batch([0, 1, 2]), 4)  # looks at updates 0 and 2
    fisher = torch.ones_like(seen[0][0])
    for gradient, _ in seen[:2]:
        fisher = .9 * gradient**2 + .1 * fisher
    (_, before), (gradient, now) = seen[0], seen[2]
    score = gradient * (before - now) / (.5 * fisher * (now - before)**2 + 1e-8)
    torch.testing.assert_close(model.method_state()['score'][CONV], score.clamp_min(0))


def test_riemannian_walk_keeps_no_negative_score(build_system):
    """A weight whose path raised the loss is free to move, before and after it is averaged with the step before."""
    first = build_system('RW', num_old=0, num_classes=3)
    first.statistics['score'][CONV].copy_(torch.linspace(-2, 2, 12).view(3, 4, 1, 1))
    state = first.method_state()
    assert state['score'][CONV].flatten()[:6].tolist() == [0] * 6 and state['score'][CONV].max() == 2
    model = build_system('RW', method_state=state)
    model.statistics['score'][CONV].fill_(-1)
    torch.testing.assert_close(model.method_state()['score'][CONV][:3], state['score'][CONV] / 2)


@pytest.mark.parametrize('system', SYSTEMS)
def test_importance_of_the_penalty_is_not_gathered(build_system, make_batch, system):
    """With and without a penalty the first update sees the same gradient."""
    state = train(build_system(system, num_old=0, num_classes=3), make_batch([0, 1, 2]), 2).method_state()
    batch, seen = make_batch([0, 3, 4]), []
    for weight in (0., 1000.):
        model = build_system(system, method_state=state, weight=weight)
        with torch.no_grad():
            model.student.backbone.conv1.weight += 0.1  # away from the anchor
        train(model, batch, 1)
        seen.append(model.training_state()['statistics'])
    for kind, tensors in seen[0].items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, seen[1][kind][name])


@pytest.mark.parametrize('system', SYSTEMS)
def test_important_weights_are_held_and_new_rows_free(build_system, make_batch, system):
    state = train(build_system(system, num_old=0, num_classes=3), make_batch([0, 1, 2]), 12).method_state()
    batch, moved = make_batch([0, 3, 4], number=4), {}
    for weight in (0., 500.):
        model = build_system(system, method_state=state, weight=weight)
        start = {name: tensor.detach().clone() for name, tensor in model.student.named_parameters()}
        assert model.penalty() == 0
        train(model, batch, 5, lr=0.5)  # far above the published rate: the penalty must hold, not blow up
        moved[weight] = {name: (tensor - start[name]).abs() for name, tensor in model.student.named_parameters()}
        assert all(tensor.isfinite().all() for tensor in model.student.parameters())
        assert model.incremental_loss(*batch)['penalty'] == pytest.approx(weight * model.penalty().item(), rel=1e-5)
        assert (model._importance[CONV][3:] == 0).all() and model._importance[CONV][:3].max() > .9
    most = model._importance[CONV].argmax()
    assert moved[500.][CONV].flatten()[most] < 0.2 * moved[0.][CONV].flatten()[most]
    assert moved[500.][CONV][3:].max() > 0.2 * moved[0.][CONV][3:].max()


PUBLISHED = dict(EWC=500., PI=500., RW=100.)


def normalised(tensor):
    return (tensor - tensor.min()) / (tensor.max() - tensor.min() + 1e-8)


@pytest.mark.parametrize('system', SYSTEMS)
def test_the_penalty_that_is_stepped_by_is_the_published_one(build_system, make_batch, system):
    """In float64: the optimizer's gradient is that of the task's loss plus autograd's of the whole penalty."""
    first = build_system(system, num_old=0, num_classes=3).double()
    first.statistics = first.start_statistics({})
    inputs, samples = make_batch([0, 1, 2])
    state = train(first, (inputs.double(), samples), 21).method_state()
    model = build_system(system, method_state=state).double()
    with torch.no_grad():
        for weight in model.student.parameters():
            weight += 0.05 * torch.randn_like(weight)
    # Away from the teacher, whose weights the student began with (new classifier rows have no importance).
    anchor = {name: tensor.double() for name, tensor in model._anchor.items()}
    inputs, samples = make_batch([0, 3, 4])
    total(model.loss(inputs.double(), samples)).backward()
    weights = dict(model.student.named_parameters())
    task = {name: weight.grad.clone() for name, weight in weights.items()}
    penalty = 0.
    for name, weight in weights.items():
        kinds = dict(EWC=['fisher'], PI=['score'], RW=['fisher', 'score'])[system]
        importance = sum(normalised(state[kind][name]) for kind in kinds)
        old = tuple(slice(size) for size in importance.shape)
        penalty = penalty + PUBLISHED[system] * (importance * (weight[old] - anchor[name][old])**2).sum()
    pulls = dict(zip(weights, torch.autograd.grad(penalty, list(weights.values()))))
    model.before_optimizer_step(torch.optim.SGD(model.parameters(), lr=0.0005))
    for name, weight in weights.items():
        torch.testing.assert_close(weight.grad, task[name] + pulls[name], rtol=1e-6, atol=1e-7)
    assert max(pull.abs().max() for pull in pulls.values()) > 1


def test_scores_are_summed_by_pi_and_averaged_by_rw(build_system, make_batch):
    for system, share in (('PI', 1.), ('RW', .5)):
        state = train(build_system(system, num_old=0, num_classes=3), make_batch([0, 1, 2]), 12).method_state()
        model = build_system(system, method_state=state)  # nothing gathered yet
        score = model.method_state()['score'][CONV]
        torch.testing.assert_close(score[:3], share * state['score'][CONV])
        assert (score[3:] == 0).all()


@pytest.mark.parametrize('system', SYSTEMS)
def test_statistics_taken_up_again_end_as_if_never_left(build_system, make_batch, system):
    batch = make_batch([0, 1, 2])
    whole = train(build_system(system, num_old=0, num_classes=3), batch, 14)
    first = train(build_system(system, num_old=0, num_classes=3), batch, 11)
    second = build_system(system, num_old=0, num_classes=3)
    second.load_state_dict(first.state_dict())
    second.load_training_state(first.training_state())
    train(second, batch, 3)
    one, other = whole.method_state(), second.method_state()
    assert one.pop('method') == other.pop('method') == system
    for kind, tensors in one.items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, other[kind][name])


@pytest.mark.parametrize('system', SYSTEMS)
def test_a_step_before_without_importance_is_refused(build_system, system):
    with pytest.raises(ValueError, match=rf'no importance of {system}\. .* with method\.type={system}'):
        build_system(system)
    with pytest.raises(ValueError, match=rf'no importance of {system}, only of MAS'):
        build_system(system, method_state=dict(method='MAS'))


# Two processes, forked before any gradient is computed, on different images.
_TWO_RANKS = '''
import os, sys
sys.path.insert(0, {tests!r})
import torch, torch.distributed as dist
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from conftest import segmentor, make_batch
import mmseg_hrhf
from mmseg_hrhf.engine.distributed import IncrementalDataParallel
init_default_scope('mmseg')
torch.manual_seed(0)
model = MODELS.build(dict(type='EWC', student=segmentor(3)))
model.init_weights()
parent = os.fork()
rank = int(parent == 0)
dist.init_process_group('gloo', init_method='file://{store}', rank=rank, world_size=2)
ddp = IncrementalDataParallel(model)
optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: model.before_optimizer_step(optimizer))
make = getattr(make_batch, '__wrapped__', None) or make_batch.__pytest_wrapped__.obj
inputs, samples = make()([0, 1, 2], seed=rank)
own = sum(value for name, value in model.loss(inputs, samples).items() if 'loss' in name)
own = torch.autograd.grad(own, model.student.decode_head.conv_seg.weight)[0]
mean = own.clone()
dist.all_reduce(mean)
sum(value for name, value in ddp(inputs, samples, mode='loss').items() if 'loss' in name).backward()
optimizer.step()
fisher = model.method_state()['fisher']['decode_head.conv_seg.weight']
assert not torch.allclose(own, mean / 2, rtol=1e-3), 'both ranks saw one batch'
torch.testing.assert_close(fisher, .9 * (mean / 2) ** 2 + .1, rtol=1e-4, atol=1e-7)
other = fisher.clone()
dist.broadcast(other, 0)
assert torch.equal(fisher, other)
dist.destroy_process_group()
if rank:
    os._exit(0)
assert os.waitpid(parent, 0)[1] == 0
'''


def test_two_processes_gather_from_the_averaged_gradient(repo, tmp_path):
    script = _TWO_RANKS.format(tests=str(repo / 'tests' / 'models'), store=tmp_path / 'store')
    done = subprocess.run([sys.executable, '-c', script], cwd=repo, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
