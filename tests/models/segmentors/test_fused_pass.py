"""Systems whose losses are fused give what their readable path gives."""
import pytest
import torch
from mmseg.registry import MODELS

from mmseg_hrhf.models import student_pass as fused_pass
from mmseg_hrhf.models.segmentors.base import IncrementalSegmentor
from mmseg_hrhf.models.segmentors.hrhf import HRHF
from mmseg_hrhf.models.segmentors.hrhf_plus import RealFakeLoss
from mmseg_hrhf.models.segmentors.mib import UnbiasedLoss
from mmseg_hrhf.models.segmentors.plop import ImageWeightedLoss
from mmseg_hrhf.models.student_pass import SYNTHETIC, fuses


@pytest.fixture
def fused_calls(monkeypatch):
    """Logits that were given to the fused losses."""
    calls, own = [], fused_pass.fused_losses
    monkeypatch.setattr(fused_pass, 'fused_losses',
                        lambda logits, *args, **kwargs: (calls.append(logits), own(logits, *args, **kwargs))[1])
    return calls


def losses_of(build_system, make_batch, monkeypatch, system, fused, head=None, num_fake=0, **options):
    """Losses, and gradients of the student, with or without the fused path."""
    model = build_system(system, head=head, **options).double().train()
    model.thresholds = torch.tensor([.9, .5, .5])
    inputs, samples = make_batch([0, *[3, 4] * 5, 255] if num_fake else [0, 0, 3, 4, 255], number=3)
    for sample in samples[3 - num_fake:]:
        sample.gt_sem_seg.data.zero_()
        sample.set_metainfo({SYNTHETIC: True})
    assert model.fuses_losses(dict(MiB=UnbiasedLoss, PLOP=ImageWeightedLoss, HRHFPlus=RealFakeLoss).get(system))
    monkeypatch.setattr(IncrementalSegmentor, 'fuses_losses', lambda self, stand_in=None: fused)
    losses = model.loss(inputs.double(), samples)
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    return losses, {name: weight.grad for name, weight in model.student.named_parameters()}


@pytest.mark.parametrize('head', [None, dict(align_corners=True),
                                  dict(loss_decode=dict(type='CrossEntropyLoss', loss_weight=.7, avg_non_ignore=True))])
@pytest.mark.parametrize('system, options', [
    ('HRHF', {}), ('HRHF', dict(loss_kd=None)), ('MiB', {}), ('PLOP', {}),
    ('HRHFPlus', {}), ('HRHFPlus', dict(num_fake=1, fake_weight=.3)), ('HRHFPlus', dict(num_fake=3)),
    ('HRHFPlus', dict(num_fake=2, balanced=False)),
    ('HRHFPlus', dict(num_fake=1, selective=False)),
    ('HRHF', dict(freeze_norm=True)), ('MiB', dict(freeze_norm='all')), ('PLOP', dict(freeze_norm='all')),
])
def test_fused_and_readable_path_agree(build_system, make_batch, monkeypatch, fused_calls, system, options, head):
    """Auxiliary heads included: the tiny segmentor has one."""
    num_fake = options.get('num_fake', 0)
    (fused, gradients), (readable, expected) = (
        losses_of(build_system, make_batch, monkeypatch, system, fused, head, **options) for fused in (True, False))
    assert list(fused) == list(readable) and 'aux.loss_ce' in fused and len(fused_calls) == 2 * (1 + (0 < num_fake < 3))
    for name, value in readable.items():
        torch.testing.assert_close(fused[name], value, check_dtype=False, rtol=1e-6, atol=1e-9)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize('loss', [
    dict(type='CrossEntropyLoss', class_weight=[1., 2., 1., 1., 1.]),
    [dict(type='CrossEntropyLoss'), dict(type='DiceLoss')],
])
def test_other_losses_are_left_to_their_heads(build_system, make_batch, loss):
    model = build_system('HRHF', head=dict(loss_decode=dict(type='CrossEntropyLoss')))
    assert fuses(model.student)

    if isinstance(loss, dict):
        model.student.decode_head.loss_decode = MODELS.build(loss)
    else:
        model.student.decode_head.loss_decode = torch.nn.ModuleList(map(MODELS.build, loss))
    assert not fuses(model.student)
    model.loss(*make_batch([0, 3, 4]))


def test_an_auxiliary_head_of_another_kind_learns_the_merged_labels(build_system, make_batch):
    model, (inputs, samples) = build_system('HRHF').train(), make_batch([0, 0, 3, 4, 255])
    expected = model.loss(inputs, samples)
    head = model.student.auxiliary_head
    head.loss_decode = torch.nn.ModuleList([MODELS.build(dict(type='CrossEntropyLoss', loss_weight=.4))])
    losses = model.loss(inputs, samples)
    torch.testing.assert_close(losses['aux.loss_ce'], expected['aux.loss_ce'])
    torch.testing.assert_close(losses['aux.acc_seg'], expected['aux.acc_seg'])


@pytest.mark.parametrize('system', ['MiB', 'PLOP'])
def test_an_auxiliary_head_of_other_classes_keeps_its_plain_loss(build_system, make_batch, monkeypatch, system):
    model, (inputs, samples) = build_system(system).eval(), make_batch([0, 0, 3, 4, 255])
    model.thresholds = torch.tensor([.9, .5, .5])
    head = model.student.auxiliary_head
    head.num_classes = head.out_channels = 7
    head.conv_seg, head.loss_decode = torch.nn.Conv2d(4, 7, 1), head.loss_decode.inner
    fused = model.loss(inputs, samples)
    monkeypatch.setattr(IncrementalSegmentor, 'fuses_losses', lambda self, stand_in=None: False)
    readable = model.loss(inputs, samples)
    for name in ('decode.loss_ce', 'aux.loss_ce'):
        torch.testing.assert_close(fused[name], readable[name])


def test_logits_are_up_sampled_once(build_system, make_batch, monkeypatch):
    """Where the losses are not fused: by `student_loss`, which the student's own loss then finds at its size."""
    from mmseg.models.decode_heads import decode_head
    model, sizes = build_system('LwF', head=dict(align_corners=False)).train(), []
    own = decode_head.resize
    monkeypatch.setattr(decode_head, 'resize',
                        lambda input, **kw: (sizes.append(tuple(input.shape[2:])), own(input=input, **kw))[1])
    _, logits = model.student_loss(*make_batch([0, 3, 4]))
    assert logits.shape[2:] == (16, 16) and sizes[0] == (16, 16)


def test_teacher_s_logits_can_be_kept_for_backward(build_system, make_batch):
    model = build_system('LwF').train()
    inputs, samples = make_batch([0, 3, 4])
    teacher = model.teacher_logits(inputs)
    _, student = model.student_loss(inputs, samples)
    torch.nn.functional.mse_loss(student[:, :3], teacher).backward()
    assert not teacher.is_inference() and not teacher.requires_grad


def test_what_a_subclass_overrides_is_not_passed_over(build_system):
    class Sharpened(HRHF):

        def teacher_logits(self, inputs):
            return 2 * super().teacher_logits(inputs)

    model = build_system('HRHF')
    assert model.fuses_losses()
    model.__class__ = Sharpened
    assert not model.fuses_losses()


def test_a_loss_of_another_method_is_not_passed_over(build_system):
    student = build_system('MiB').student
    assert fuses(student, UnbiasedLoss) and not fuses(student) and not fuses(student, ImageWeightedLoss)


def test_the_teacher_runs_in_the_student_s_precision_and_in_inference_mode(build_system, make_batch):
    model, (inputs, samples) = build_system('HRHF').train(), make_batch([0, 3, 4])
    seen = []
    model.teacher.backbone.register_forward_hook(lambda module, args, output: seen.append(output[-1]))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(inputs, samples)
    assert seen[0].dtype == torch.bfloat16 and seen[0].is_inference()
    assert losses['decode.loss_ce'].dtype == losses['loss_kd'].dtype == torch.float32
