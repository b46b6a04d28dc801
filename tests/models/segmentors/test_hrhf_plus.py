"""HRHF+ by hand: pixel by pixel in float64."""
import math

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS

from mmseg_hrhf.models.losses.distillation import DistillationLoss, distillation_loss, distilled_pixels
from mmseg_hrhf.models.losses.label_merge import merge_old_classes, merge_old_labels
from mmseg_hrhf.models.segmentors import hrhf_plus
from mmseg_hrhf.models.segmentors.hrhf_plus import RealFakeLoss, distil_pixels, lack_of_classes
from mmseg_hrhf.models.student_pass import SYNTHETIC, num_real
from mmseg_hrhf.utils.errors import UserError

NUM_OLD, NUM_CLASSES = 3, 5


def softmax(logits):
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def expected_losses(student, teacher, labels, real, fake_weight, balanced, selective):
    """Cross-entropy, distillation of real and of synthetic images: loops over images and pixels.

    Args:
        student, teacher: (N, C, H, W) and (N, K, H, W) logits.
        labels: (N, H, W).
    """
    number, _, height, width = student.shape
    of_real, of_fakes, kd, kd_fake = 0., np.zeros(number), 0., np.zeros(number)
    seen, new, shown = np.zeros(NUM_OLD), 0, np.zeros((number, NUM_OLD))
    for n in range(number):
        for i in range(height):
            for j in range(width):
                p, q, label = softmax(student[n, :, i, j]), softmax(teacher[n, :, i, j]), labels[n, i, j]
                merged = [p[0] + p[NUM_OLD:].sum(), *p[1:NUM_OLD]]
                distilled = -sum(a * math.log(b) for a, b in zip(q, merged))
                if n >= real:
                    of_fakes[n] -= math.log(p[q.argmax()])
                    kd_fake[n] += distilled
                    shown[n, q.argmax()] += 1
                    continue
                if label == 255 or label < NUM_OLD or not selective:
                    kd += distilled
                if label == 255 or label < NUM_OLD:
                    seen[q.argmax()] += 1
                if label < NUM_OLD:
                    of_real -= math.log(p[:NUM_OLD].sum())
                elif label != 255:
                    of_real -= math.log(p[label])
                    new += 1 / (NUM_CLASSES - NUM_OLD)
    weight = np.full(number, fake_weight)
    if balanced:
        lack = [max(0, 1 - count / new) for count in seen]
        for n in range(real, number):
            weight[n] *= sum(shown[n, c] * lack[c] for c in range(1, NUM_OLD)) / shown[n, 1:].sum()
    pixels, fakes = height * width, slice(real, None)
    return dict(
        decode=of_real / (real * pixels) + (weight * of_fakes)[fakes].mean() / pixels,
        loss_kd=10 / NUM_OLD * kd / (real * pixels),
        loss_kd_fake=(weight * kd_fake)[fakes].mean() / pixels), weight[fakes]


@pytest.mark.parametrize('balanced', [True, False])
@pytest.mark.parametrize('selective', [True, False])
def test_the_losses_are_those_of_the_formulas(build_system, make_batch, balanced, selective):
    model = build_system('HRHFPlus', fake_weight=0.3, balanced=balanced, selective=selective).double().eval()
    inputs, samples = make_batch([0, *[3, 4] * 5, 255], number=4)
    for sample in samples[2:]:
        sample.gt_sem_seg.data.zero_()
        sample.set_metainfo({SYNTHETIC: True})
    losses = model.loss(inputs.double(), samples)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples]).numpy()
    with torch.no_grad():
        student, teacher = (network.encode_decode(inputs.double(), [sample.metainfo for sample in samples]).numpy()
                            for network in (model.student, model.teacher))
    expected, weights = expected_losses(student, teacher, labels, 2, 0.3, balanced, selective)
    assert balanced != all(weight == 0.3 for weight in weights) and min(weights) > 0
    assert losses['decode.loss_ce'].item() == pytest.approx(expected['decode'], rel=1e-6)
    for name in ('loss_kd', 'loss_kd_fake'):
        assert losses[name].item() == pytest.approx(expected[name], rel=1e-6), name


def test_an_image_counts_as_much_as_its_classes_are_lacking():
    """By hand: class 1 is seen half as often as a new class, class 2 not at all, class 3 twice as often."""
    seen, new = torch.tensor([900, 50, 0, 200]), torch.tensor(100.)
    named = torch.tensor([[[1, 1]], [[2, 0]], [[3, 3]], [[0, 0]], [[1, 2]], [[2, 255]], [[1, 3]]])
    assert lack_of_classes(seen, new, named).tolist() == [.5, 1, 0, 0, .75, 1, .25]
    nothing_new = lack_of_classes(seen, torch.tensor(0.), named)
    assert nothing_new.tolist() == [0, 1, 0, 0, .5, 1, 0]


def test_pixels_of_a_new_class_are_free_of_distillation():
    """By hand: the teacher says class 1, the label says class 3; only the background pixel is distilled."""
    labels = torch.tensor([[[0, 3, 255, 2]]])
    assert distilled_pixels(labels, NUM_OLD).tolist() == [[[True, False, True, True]]]
    student, teacher = torch.zeros(1, 4, 1, 2, requires_grad=True), torch.tensor([[[[0., 9.]], [[0., 90.]]]])
    wanted = torch.tensor([[[True, False]]])
    value = distil_pixels(DistillationLoss(), student, teacher, wanted)
    # Teacher (1/2, 1/2); student background 3/4, class 1 1/4; one of two pixels.
    assert value.item() == pytest.approx(-0.5 * (0.5 * math.log(0.75) + 0.5 * math.log(0.25)))
    gradient, = torch.autograd.grad(value, student)
    assert gradient[..., 0].abs().sum() > 0 and gradient[..., 1].abs().sum() == 0
    everywhere = distil_pixels(DistillationLoss(), student, teacher, torch.ones_like(wanted))
    torch.testing.assert_close(everywhere, distillation_loss(student, teacher))
    nowhere = distil_pixels(DistillationLoss(), student, teacher, torch.zeros_like(wanted))
    assert nowhere.item() == 0 and torch.autograd.grad(nowhere, student)[0].abs().sum() == 0


@pytest.mark.parametrize('num_fake, names', [(0, {'loss_kd'}), (1, {'loss_kd', 'loss_kd_fake'}), (2, {'loss_kd_fake'})])
def test_a_batch_has_the_losses_of_what_it_holds(build_system, make_batch, num_fake, names):
    model, (inputs, samples) = build_system('HRHFPlus').train(), make_batch([0, 3])
    for sample in samples[2 - num_fake:]:
        sample.set_metainfo({SYNTHETIC: True})
    assert num_real(samples) == 2 - num_fake
    losses = model.loss(inputs, samples)
    assert {name for name in losses if name.startswith('loss_')} == names
    assert all(value.isfinite().all() for value in losses.values())


@pytest.mark.parametrize('loss', ['CrossEntropyLoss', 'LovaszLoss'])
def test_other_losses_and_pixel_weights_get_their_part(loss):
    """Pixel weights, (N, H, W), come from OHEM; Lovasz takes none."""
    options = dict(reduction='none') if loss == 'LovaszLoss' else {}
    inner = MODELS.build(dict(type=loss, **options))
    torch.manual_seed(0)
    logits, labels = torch.randn(3, NUM_CLASSES, 2, 2), torch.tensor([[[0, 3], [4, 1]]] * 3)
    head = RealFakeLoss(inner, NUM_CLASSES, NUM_OLD, lambda: torch.tensor([.5, 0.]))
    alone = RealFakeLoss(inner, NUM_CLASSES, NUM_OLD, lambda: torch.empty(0))(logits[:1], labels[:1])
    fake = inner(logits[1:2], labels[1:2])
    torch.testing.assert_close(head(logits, labels), alone + .5 * fake / 2)
    if loss == 'CrossEntropyLoss':
        weight = torch.tensor([1., 0., 0.]).view(3, 1, 1).expand(3, 2, 2)
        torch.testing.assert_close(head(logits, labels, weight=weight), alone)


@pytest.mark.parametrize('sampler', [dict(thresh=0.7, min_kept=10), dict(min_kept=10)])
@pytest.mark.parametrize('num_fake', [1, 2])
def test_a_pixel_sampler_trains_both_kinds(build_system, make_batch, sampler, num_fake):
    model = build_system('HRHFPlus', head=dict(sampler=dict(type='OHEMPixelSampler', **sampler))).train()
    inputs, samples = make_batch([0, *[3, 4] * 5], number=2 + num_fake)
    for sample in samples[2:]:
        sample.gt_sem_seg.data.zero_()
        sample.set_metainfo({SYNTHETIC: True})
    losses = model.loss(inputs, samples)
    assert losses['decode.loss_ce'].ndim == 0 and losses['decode.loss_ce'] > 0
    losses['decode.loss_ce'].backward()


def test_points_of_a_refining_head_are_weighted_image_by_image():
    """PointRend: (N, C, P) logits and (N, P) labels."""
    head = RealFakeLoss(MODELS.build(dict(type='CrossEntropyLoss')), NUM_CLASSES, NUM_OLD, lambda: torch.tensor([.5]))
    torch.manual_seed(0)
    logits, labels = torch.randn(2, NUM_CLASSES, 7), torch.randint(0, NUM_CLASSES, (2, 7))
    expected = head.inner(merge_old_classes(logits[:1], NUM_OLD), merge_old_labels(labels[:1], NUM_OLD)) \
        + .5 * head.inner(logits[1:], labels[1:])
    torch.testing.assert_close(head(logits, labels), expected)


@pytest.mark.parametrize('weight', [-1.0, float('nan')])
def test_a_negative_weight_is_refused(build_system, weight):
    with pytest.raises(UserError, match=f'method.fake_weight={weight} must not be negative'):
        build_system('HRHFPlus', fake_weight=weight)


def test_weights_are_those_of_the_whole_distributed_batch(build_system, monkeypatch):
    """This process sees class 1 as often as a new class, the other one never."""
    model = build_system('HRHFPlus')
    labels, named = torch.tensor([[[0, 0, 3, 4]]]), torch.tensor([[[1, 1]], [[2, 2]]])
    seen = torch.tensor([1, 1, 0])
    assert model._weigh(seen, labels, named).tolist() == [0, 1]
    of_other = torch.tensor([9, 0, 0, 2])  # and two pixels of new classes
    monkeypatch.setattr(hrhf_plus, 'all_reduce', lambda counts: counts.add_(of_other))
    assert model._weigh(seen, labels, named).tolist() == [.5, 1]
