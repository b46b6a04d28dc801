import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_hrhf.work_dir.checkpoint import save_checkpoint

NORM = dict(type='BN', requires_grad=True)


def segmentor(num_classes, **head):
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[0.] * 3, std=[1.] * 3, size=(16, 16)),
        backbone=dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, num_stages=1, out_indices=(0, ),
                      strides=(1, ), dilations=(1, ), norm_cfg=NORM),
        decode_head=dict(type='FCNHead', in_channels=4, in_index=0, channels=4, num_convs=1, num_classes=num_classes,
                         dropout_ratio=0., norm_cfg=NORM, **head))


@pytest.fixture
def build(tmp_path):
    def build(num_old=3, num_classes=5, **options):
        torch.manual_seed(0)
        teacher = MODELS.build(segmentor(num_old))
        torch.nn.init.normal_(teacher.decode_head.conv_seg.weight, std=3.)
        path = tmp_path / 'teacher.pth'
        save_checkpoint(path, teacher.state_dict(), {})
        model = MODELS.build(
            dict(dict(type='HRHF', student=segmentor(num_classes), teacher=segmentor(num_old),
                      teacher_checkpoint=str(path)), **options))
        model.init_weights()
        return model
    return build


def batch(labels):
    """Random images with the given (N, 16, 16) labels."""
    samples = []
    for label in labels:
        sample = SegDataSample(metainfo=dict(img_shape=(16, 16), pad_shape=(16, 16), ori_shape=(16, 16)))
        sample.gt_sem_seg = PixelData(data=torch.as_tensor(label, dtype=torch.long)[None])
        samples.append(sample)
    torch.manual_seed(1)
    return torch.randn(len(labels), 3, 16, 16), samples


def reference(student_logits, teacher_logits, labels):
    """Eq. 3 and eq. 4 in float64, pixel by pixel; (distillation, segmentation)."""
    student = student_logits.double().permute(0, 2, 3, 1).reshape(-1, student_logits.shape[1]).numpy()
    teacher = teacher_logits.double().permute(0, 2, 3, 1).reshape(-1, teacher_logits.shape[1]).numpy()
    num_old, distilled, segmented = teacher.shape[1], [], []
    for z, t, label in zip(student, teacher, labels.reshape(-1)):
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        q = np.exp(t - t.max()) / np.exp(t - t.max()).sum()
        folded = np.concatenate([[p[0] + p[num_old:].sum()], p[1:num_old]])
        distilled.append(-(q * np.log(folded)).sum())
        merged = label if label != 0 else t.argmax()
        segmented.append(0. if merged == 255 else -np.log(p[merged]))
    return np.mean(distilled), np.mean(segmented)


@pytest.mark.parametrize('num_old, num_classes', [(3, 4), (3, 8)])
def test_losses_are_eq_3_and_eq_4(build, num_old, num_classes):
    model = build(num_old, num_classes, loss_kd=dict(loss_weight=2.0)).eval()
    labels = np.random.default_rng(0).choice([0, 0, num_old, num_classes - 1, 255], size=(2, 16, 16))
    inputs, samples = batch(labels)
    losses = model.loss(inputs, samples)
    with torch.no_grad():
        size = [dict(img_shape=(16, 16))] * 2
        student, teacher = (net.encode_decode(inputs, size) for net in (model.student, model.teacher))
    distilled, segmented = reference(student, teacher, labels)
    assert losses['loss_kd'].item() == pytest.approx(2 * distilled, abs=1e-5)
    assert losses['decode.loss_ce'].item() == pytest.approx(segmented, abs=1e-5)


def test_each_network_runs_once_per_iteration(build):
    model, calls = build(), []
    for name, net in (('student', model.student), ('teacher', model.teacher)):
        net.backbone.register_forward_hook(lambda *args, name=name: calls.append(name))
    model.train().loss(*batch(np.zeros((2, 16, 16))))
    assert sorted(calls) == ['student', 'teacher']


def test_without_kd_there_is_no_distillation_loss(build):
    assert 'loss_kd' not in build(loss_kd=None).loss(*batch(np.zeros((1, 16, 16))))


def test_given_labels_are_left_as_they_were(build):
    inputs, samples = batch(np.zeros((2, 16, 16)))
    build().loss(inputs, samples)
    assert all((sample.gt_sem_seg.data == 0).all() for sample in samples)


def test_start_keeps_the_teacher_s_opinion(build):
    """MiB's start: before any update the distillation loss is the teacher's own entropy."""
    model = build().eval()
    inputs, samples = batch(np.zeros((2, 16, 16)))
    with torch.no_grad():
        teacher = model.teacher_logits(inputs)
        entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1).mean()
        assert model.loss(inputs, samples)['loss_kd'].item() == pytest.approx(entropy.item(), abs=1e-5)


def test_the_loss_falls_and_the_teacher_stays(build):
    model = build().train()
    before = {name: tensor.clone() for name, tensor in model.teacher.state_dict().items()}
    inputs, samples = batch(np.random.default_rng(0).choice([0, 3, 4], size=(4, 16, 16)))
    optimizer, history = torch.optim.SGD(model.parameters(), lr=0.1), []
    for _ in range(15):
        losses = model.loss(inputs, samples)
        total = sum(value for name, value in losses.items() if 'loss' in name)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert history[-1] < 0.8 * history[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.teacher.state_dict().items())
    assert not model.teacher.training and not any(p.requires_grad for p in model.teacher.parameters())


def test_state_is_the_student_s_alone_and_loads_back(build):
    model = build()
    assert set(model.state_dict()) == set(model.student.state_dict())
    other = build()
    with torch.no_grad():
        other.student.decode_head.conv_seg.weight.zero_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.student.decode_head.conv_seg.weight, model.student.decode_head.conv_seg.weight)


def test_teacher_follows_the_model_to_another_type(build):
    model = build().double()
    assert model.teacher.decode_head.conv_seg.weight.dtype == torch.float64


def test_fine_tuning_starts_from_the_teacher_and_lets_it_go(build):
    model = build(type='FineTuning')
    assert model.teacher is None
    inputs, samples = batch(np.zeros((1, 16, 16)))
    assert set(model.loss(inputs, samples)) == {'decode.loss_ce', 'decode.acc_seg'}
