"""Losses of a method that a config replaces."""
import math

import pytest
import torch
from mmseg.registry import MODELS

from mmseg_hrhf.models import student_pass
from mmseg_hrhf.models.losses import TeacherLoss
from mmseg_hrhf.models.segmentors import HRHF, ILT, PLOP, LwF, MiB


@pytest.fixture
def register(request):
    """``register(cls)``: a loss registered until the end of the test."""
    def add(kind):
        MODELS.register_module(module=kind)
        request.addfinalizer(lambda: MODELS.module_dict.pop(kind.__name__))
        return kind

    return add


@pytest.fixture
def tempered(register):
    """Distillation at a temperature over the old classes; what it was called with is kept."""
    class TemperedLoss(TeacherLoss):
        calls: list = []

        def __init__(self, temperature: float = 2.0, loss_weight: float = 1.0) -> None:
            super().__init__(loss_weight)
            self.temperature = temperature

        def forward(self, student, teacher):
            self.calls.append((student, teacher))
            log_prob = (student[:, :teacher.shape[1]] / self.temperature).log_softmax(1)
            return -self.loss_weight * ((teacher / self.temperature).softmax(1) * log_prob).mean()

    return register(TemperedLoss)


def gradients(model, batch):
    """Losses, and gradients of a student that has moved from the teacher."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.student.parameters():
            weight += 0.05 * torch.randn_like(weight)
    losses = model.loss(*batch)
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    return losses, {name: weight.grad for name, weight in model.student.named_parameters()}


@pytest.mark.parametrize('kind', ['HRHF', 'MiB', 'LwF', 'LwFMC', 'ILT'])
def test_a_loss_of_the_user_is_called_and_changes_training(build_system, make_batch, tempered, kind):
    batch = make_batch([0, 0, 3, 4, 255])
    _, own = gradients(build_system(kind).eval(), batch)
    model = build_system(kind, loss_kd=dict(type='TemperedLoss', temperature=3.0, loss_weight=50.0)).eval()
    tempered.calls.clear()
    losses, swapped = gradients(model, batch)
    (student, teacher), = tempered.calls
    assert student.shape == (2, 5, 16, 16) and teacher.shape == (2, 3, 16, 16) and not teacher.requires_grad
    p, q = (student[:, :3].double() / 3).softmax(1), (teacher.double() / 3).softmax(1)
    assert losses['loss_kd'].item() == pytest.approx(-50 * (q * p.log()).mean().item(), rel=1e-4)
    assert any(not torch.allclose(swapped[name], own[name], rtol=1e-2) for name in own)


def test_a_swapped_feature_loss_sees_each_stage_and_the_logits(build_system, make_batch, register):
    @register
    class Shapes(TeacherLoss):
        calls: list = []

        def forward(self, student, teacher):
            self.calls.append((tuple(student.shape), tuple(teacher.shape)))
            return self.loss_weight * (student - teacher).abs().mean()

    model = build_system('PLOP', loss_pod=dict(type='Shapes'), loss_pod_logits=dict(type='Shapes', loss_weight=0.5))
    model.thresholds = torch.ones(3)
    Shapes.calls.clear()
    losses, _ = gradients(model.train(), make_batch([0, 3, 4]))
    assert all(student == teacher for student, teacher in Shapes.calls)
    assert [student[1] for student, _ in Shapes.calls] == [4, 8, 3]  # two stages, logits of the old classes
    assert losses['loss_pod'].isfinite()


@pytest.mark.parametrize('kind, options, is_fused', [
    ('HRHF', {}, True), ('HRHF', dict(loss_kd=dict(loss_weight=3.0)), True), ('HRHF', dict(loss_kd=None), True),
    ('HRHF', dict(loss_kd=dict(type='UnbiasedDistillationLoss')), True),
    ('HRHF', dict(loss_kd=dict(type='OldClassDistillationLoss')), False),
    ('MiB', {}, True), ('MiB', dict(loss_kd=dict(type='OldClassDistillationLoss')), False),
])
def test_the_fused_pass_serves_the_losses_that_it_computes(build_system, make_batch, monkeypatch, kind, options,
                                                           is_fused):
    calls, own = [], student_pass.fused_losses
    monkeypatch.setattr(student_pass, 'fused_losses', lambda *args, **kw: (calls.append(1), own(*args, **kw))[1])
    losses = build_system(kind, **options).train().loss(*make_batch([0, 3, 4]))
    assert bool(calls) == is_fused and ('loss_kd' in losses) == (options.get('loss_kd', 0) is not None)


def test_an_overridden_formula_is_not_passed_over(build_system, make_batch, register):
    from mmseg_hrhf.models.losses import DistillationLoss

    @register
    class Doubled(DistillationLoss):

        def forward(self, student, teacher):
            return 2 * super().forward(student, teacher)

    batch = make_batch([0, 3, 4])
    plain, doubled = (build_system('HRHF', **options).eval().loss(*batch)['loss_kd']
                      for options in ({}, dict(loss_kd=dict(type='Doubled'))))
    torch.testing.assert_close(doubled, 2 * plain)


def test_mib_s_distillation_is_hrhf_s_by_the_number_of_old_classes(build_system, make_batch):
    batch = make_batch([0, 3, 4])
    summed, mean = (build_system('HRHF', loss_kd=dict(type=kind)).eval().loss(*batch)['loss_kd']
                    for kind in ('DistillationLoss', 'UnbiasedDistillationLoss'))
    torch.testing.assert_close(mean, summed / 3)


def test_a_state_of_a_loss_is_refused(register):
    @register
    class Stateful(TeacherLoss):

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, student, teacher):
            return self.scale * student.mean()

    with pytest.raises(ValueError, match=r"loss_kd=\{'type': 'Stateful'\} has 'scale' in its state_dict, but a che"):
        HRHF.check_options(dict(loss_kd=dict(type='Stateful')))


@pytest.mark.parametrize('answer, message', [
    (lambda x: x.mean(1), r'it returns \(2, 32, 32\), but must return a scalar'),
    (lambda x: dict(loss=x.mean()), r'it returns dict, but must return a scalar'),
    (lambda x: x.mean() * math.nan, r'the loss or its gradient is NaN or Inf'),
    (lambda x: x.detach().mean(), r'does not require grad'),
    (lambda x: x[9].mean(), r'index 9 is out of bounds'),
])
def test_what_a_loss_gives_is_checked(register, answer, message):
    @register
    class Odd(TeacherLoss):

        def forward(self, student, teacher):
            return answer(student)

    with pytest.raises(ValueError, match=rf"method\.loss_kd=\{{'type': 'Odd'\}} fails on a .* with 3 .*: .*{message}"):
        HRHF.check_options(dict(type='HRHF', loss_kd=dict(type='Odd')))


@pytest.mark.parametrize('method, options, message', [
    (HRHF, dict(loss_kd=dict(type='TemperdLoss')), r"loss_kd\.type='TemperdLoss' .*did you mean 'TemperedLoss'"),
    (HRHF, dict(loss_kd=dict(type='FCNHead')), r"method\.loss_kd\.type='FCNHead' is not one of 'DistillationLoss'"),
    (HRHF, dict(loss_kd=dict(type='TemperedLoss', temperatur=1)), r"method\.loss_kd has no option 'temperatur'"),
    (HRHF, dict(loss_kd=dict(type='TemperedLoss', temperature='hot')), r"loss_kd\.temperature='hot' must be a number"),
    (LwF, dict(loss_kd=dict(loss_weight=-1)), r"method\.loss_kd=\{'loss_weight': -1\}: loss_weight=-1 must not be neg"),
    (ILT, dict(loss_kd=dict(loss_weight=-1)), r'loss_weight=-1 must not be negative'),
    (ILT, dict(loss_features=dict(loss_weight='a')), r"method\.loss_features\.loss_weight='a' must be a number"),
    (MiB, dict(loss_kd=dict(loss_weight=True)), r'method\.loss_kd\.loss_weight=True must be a number'),
    (PLOP, dict(loss_pod_logits=dict(type='PodLoss')), r"loss_pod_logits\.type='PodLoss' .* mean 'PODLoss'"),
])
def test_bad_options_are_named(tempered, method, options, message):
    with pytest.raises(ValueError, match=message):
        method.check_options(options)


def test_good_options_pass_and_the_random_state_is_untouched(tempered):
    before = torch.get_rng_state()
    for method in (HRHF, ILT, PLOP):
        method.check_options(dict(type='any', classifier_start='mib'))
    HRHF.check_options(dict(loss_kd=None))
    HRHF.check_options(dict(loss_kd=dict(type=tempered, temperature=1)))
    assert torch.equal(torch.get_rng_state(), before)
