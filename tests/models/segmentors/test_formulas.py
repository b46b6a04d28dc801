"""Each system's losses on real networks, against its formula computed from their outputs."""
import math

import pytest
import torch
import torch.nn.functional as F

from mmseg_hrhf.models.heads import captured_logits
from mmseg_hrhf.models.losses.distillation import local_pod
from mmseg_hrhf.models.losses.label_merge import sure_share
from mmseg_hrhf.models.student_pass import captured_stages

METAS = [dict(img_shape=(16, 16))] * 2


def outputs(model, inputs):
    """float64 logits and stages of both networks in eval mode."""
    found = []
    with torch.no_grad():
        for net in (model.student, model.teacher):
            with captured_stages(net) as stages:
                logits = net.encode_decode(inputs, METAS)
            found.append((logits.double(), [stage.double() for stage in stages]))
    return found


def stacked(samples):
    return torch.stack([sample.gt_sem_seg.data[0] for sample in samples])


def step(build_system, make_batch, kind, num_old=3, num_classes=5, **options):
    """Losses of a batch with void and every kind of label, and what they are made of; the student has moved."""
    model = build_system(kind, num_old, num_classes, **options).eval()
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    inputs, samples = make_batch([0, 0, num_old, num_classes - 1, 255])
    if kind == 'PLOP':
        model.thresholds = torch.full((num_old, ), 0.6)
    before = stacked(samples).clone()
    losses = model.loss(inputs, samples)
    assert torch.equal(before, stacked(samples))  # given labels are left alone
    return losses, *outputs(model, inputs), before


@pytest.mark.parametrize('num_old, num_classes', [(3, 5), (2, 30)])
def test_lwf_and_ilt(build_system, make_batch, num_old, num_classes):
    losses, (student, stages), (teacher, old_stages), labels = step(
        build_system, make_batch, 'ILT', num_old, num_classes, loss_kd=dict(loss_weight=7.),
        loss_features=dict(loss_weight=5.))
    assert losses['decode.loss_ce'].item() == pytest.approx(
        (F.cross_entropy(student, labels, ignore_index=255, reduction='none')).mean().item(), rel=1e-4)
    log_prob = student[:, :num_old].log_softmax(1)
    kd = -(teacher.softmax(1) * log_prob).mean()
    assert losses['loss_kd'].item() == pytest.approx(7 * kd.item(), rel=1e-4)
    distance = ((stages[-1] - old_stages[-1])**2).mean()
    assert losses['loss_features'].item() == pytest.approx(5 * distance.item(), rel=1e-4)


def test_mib(build_system, make_batch):
    losses, (student, _), (teacher, _), labels = step(build_system, make_batch, 'MiB', loss_kd=dict(loss_weight=7.))
    p, q = student.softmax(1), teacher.softmax(1)
    share = torch.cat([p[:, :3].sum(1, keepdim=True).expand(-1, 3, -1, -1), p[:, 3:]], dim=1)
    seen = labels != 255
    ce = -share.log().gather(1, labels.where(seen, torch.zeros(()).long())[:, None])[:, 0] * seen
    assert losses['decode.loss_ce'].item() == pytest.approx(ce.mean().item(), rel=1e-4)
    folded = torch.cat([p[:, :1] + p[:, 3:].sum(1, keepdim=True), p[:, 1:3]], dim=1)
    assert losses['loss_kd'].item() == pytest.approx(-7 * (q * folded.log()).mean().item(), rel=1e-4)


def test_lwf_mc(build_system, make_batch):
    losses, (student, _), (teacher, _), labels = step(build_system, make_batch, 'LwFMC', loss_kd=dict(loss_weight=7.))
    one_hot = torch.stack([labels == c for c in range(5)], dim=1).double()
    bce = -(one_hot * student.sigmoid().log() + (1 - one_hot) * (1 - student.sigmoid()).log()).sum(1)
    assert losses['decode.loss_bce'].item() == pytest.approx((bce * (labels != 255)).mean().item(), rel=1e-4)
    q, p = teacher.sigmoid(), student[:, :3].sigmoid()
    kd = -(q * p.log() + (1 - q) * (1 - p).log()).sum(1).mean()
    assert losses['loss_kd'].item() == pytest.approx(7 * kd.item(), rel=1e-4)


def test_lwf_mc_keeps_background_s_answer_and_draws_new_rows_at_random(build_system):
    """MiB's start would make every new class as likely as background, which is nearly everywhere."""
    model = build_system('LwFMC')
    for name in ('decode_head', 'auxiliary_head'):
        new, old = (getattr(net, name).conv_seg for net in (model.student, model.teacher))
        assert torch.equal(new.weight[:3], old.weight) and torch.equal(new.bias[:3], old.bias)
        assert all(not torch.equal(row, old.weight[0]) for row in new.weight[3:])


def test_lwf_mc_keeps_the_weight_of_an_auxiliary_head(build_system, make_batch):
    model = build_system('LwFMC', num_old=0, num_classes=3).eval()
    with torch.no_grad():
        model.student.decode_head.conv_seg.weight.zero_()
        model.student.auxiliary_head.conv_seg.weight.zero_()
        for head in (model.student.decode_head, model.student.auxiliary_head):
            head.conv_seg.bias.zero_()
        losses = model.loss(*make_batch([0, 1, 2]))
    assert losses['decode.loss_bce'].item() == pytest.approx(3 * math.log(2))  # three classes, one bit each
    assert losses['aux.loss_bce'].item() == pytest.approx(0.4 * 3 * math.log(2))


@pytest.mark.parametrize('fused', [True, False])
def test_mib_reads_old_labels_as_background(build_system, make_batch, monkeypatch, fused):
    """The sequential setting gives them."""
    model = build_system('MiB').eval()
    monkeypatch.setattr(type(model), 'fuses_losses', lambda self, stand_in=None: fused)
    inputs, samples = make_batch([0, 1, 2, 3, 4, 255])
    losses = model.loss(inputs, samples)
    for sample in samples:
        labels = sample.gt_sem_seg.data
        labels[(labels == 1) | (labels == 2)] = 0
    expected = model.loss(inputs, samples)
    for name in ('decode.loss_ce', 'aux.loss_ce'):
        torch.testing.assert_close(losses[name], expected[name])


def test_mib_holds_for_auxiliary_heads(build_system, make_batch):
    """A head whose old classes share all probability has no loss on background."""
    model = build_system('MiB').eval()
    with torch.no_grad():
        for head in (model.student.decode_head, model.student.auxiliary_head):
            head.conv_seg.weight.zero_()
            head.conv_seg.bias.copy_(torch.tensor([0., 40., 0., -40., -40.]))
        losses = model.loss(*make_batch([0]))
    assert losses['aux.loss_ce'].item() == pytest.approx(0, abs=1e-6)
    assert losses['decode.loss_ce'].item() == pytest.approx(0, abs=1e-6)


def test_plop(build_system, make_batch):
    losses, (student, stages), (teacher, old_stages), labels = step(
        build_system, make_batch, 'PLOP', loss_pod=dict(loss_weight=.3), loss_pod_logits=dict(loss_weight=.2))
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1) / math.log(3)
    background, sure = labels == 0, entropy < 0.6
    assert 0 < (sure & background).sum() < background.sum()
    target = torch.where(background, torch.where(sure, teacher.argmax(1), 255), labels)
    ce = F.cross_entropy(student, target, ignore_index=255, reduction='none')
    weight = (sure & background).sum((1, 2)) / background.sum((1, 2))
    assert losses['decode.loss_ce'].item() == pytest.approx((ce * weight[:, None, None]).mean().item(), rel=1e-4)
    size = old_stages[-1].shape[2:]
    folded = torch.cat([student[:, :1] + student[:, 3:].sum(1, keepdim=True), student[:, 1:3]], dim=1)
    pairs = [(.3, new, old) for new, old in zip(stages, old_stages)]
    pairs.append((.2, F.adaptive_avg_pool2d(folded, size), F.adaptive_avg_pool2d(teacher, size)))
    distances = [w * (local_pod(new) - local_pod(old)).norm(dim=1).mean() for w, new, old in pairs]
    pod = math.sqrt(5 / 2) * sum(distances) / 3
    assert losses['loss_pod'].item() == pytest.approx(pod.item(), rel=1e-4)


@pytest.mark.parametrize('kind', ['LwF', 'LwFMC', 'ILT', 'MiB', 'PLOP', 'HRHF'])
def test_each_network_runs_once_and_the_teacher_stays(build_system, make_batch, kind):
    model, calls = build_system(kind).train(), []
    for name, net in (('student', model.student), ('teacher', model.teacher)):
        net.backbone.register_forward_hook(lambda *args, name=name: calls.append(name))
    if kind == 'PLOP':
        model.thresholds = torch.ones(3)
    before = {name: tensor.clone() for name, tensor in model.teacher.state_dict().items()}
    losses = model.loss(*make_batch([0, 3, 4]))
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert sorted(calls) == ['student', 'teacher']
    assert all(parameter.grad is not None for parameter in model.student.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.teacher.state_dict().items())
    assert set(model.state_dict()) == set(before)  # a bare segmentor's keys, whatever stands in for its losses


@pytest.mark.parametrize('kind', ['LwFMC', 'MiB', 'PLOP'])
def test_a_pixel_sampler_of_the_head_still_works(build_system, make_batch, kind):
    model = build_system(kind, head=dict(sampler=dict(type='OHEMPixelSampler', min_kept=20)))
    if kind == 'PLOP':
        model.thresholds = torch.ones(3)
    losses = model.loss(*make_batch([0, 3, 4]))
    assert all(value.isfinite() for name, value in losses.items() if 'loss' in name)


@pytest.mark.parametrize('kind', ['EWC', 'PI', 'RW'])
def test_a_negative_weight_is_refused(build_system, kind):
    with pytest.raises(ValueError, match=r'method\.weight=-1 must not be negative'):
        build_system(kind, num_old=0, num_classes=3, weight=-1)


def test_thresholds_of_plop_are_kept_on_the_networks_device(build_system):
    model = build_system('PLOP')
    model.set_thresholds(torch.ones(3, 1000))
    kept = model.training_state()
    assert kept['thresholds'].shape == (3, )
    model.student.to('meta')
    model.load_training_state(kept)
    assert model.thresholds.device.type == 'meta'


def test_plop_weighs_images_whatever_the_loss(build_system, make_batch):
    """Dice takes no weight, and would ignore one: the loss of an image with no sure background counts for nothing."""
    model = build_system('PLOP', head=dict(loss_decode=dict(type='DiceLoss'))).eval()
    own = model.student.decode_head.loss_decode.inner
    inputs, samples = make_batch([0, 3, 4])
    model.thresholds = torch.full((3, ), 0.6)
    losses = model.loss(inputs, samples)
    with captured_logits(model.student, (16, 16)) as captured:
        model.student.decode_head.loss_by_feat(model.student.decode_head(model.student.extract_feat(inputs)), samples)
    teacher = model.teacher_logits(inputs)
    raw = stacked(samples)
    labels = model._relabel(raw, teacher)
    shares = sure_share(raw, labels)
    assert shares.min() < shares.max()
    expected = [share * own(captured[0][i:i + 1], labels[i:i + 1], ignore_index=255)
                for i, share in enumerate(shares)]
    assert losses['decode.loss_dice'].item() == pytest.approx((sum(expected) / 2).item(), rel=1e-5)
