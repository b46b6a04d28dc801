"""The fused losses are the readable ones, in value and gradient."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg_hrhf.models.losses import upsampling
from mmseg_hrhf.models.losses.distillation import distillation_loss
from mmseg_hrhf.models.losses.fused import fused_losses
from mmseg_hrhf.models.losses.label_merge import merge_labels, merge_old_classes, merge_old_labels, predicted_class


def example(num_old=3, num_classes=5, size=(7, 9), dtype=torch.float64, seed=0):
    """(2, C, 3, 4) and (2, K, 2, 3) logits, labels of new classes, background and void."""
    generator = torch.Generator().manual_seed(seed)
    student = 3 * torch.randn(2, num_classes, 3, 4, generator=generator, dtype=dtype)
    teacher = 3 * torch.randn(2, num_old, 2, 3, generator=generator, dtype=dtype)
    labels = np.random.default_rng(seed).choice([0, 0, *range(num_old, num_classes), 255], (2, *size))
    return student.requires_grad_(), torch.from_numpy(labels), teacher


def plain(student, labels, teacher, size, align_corners=False, num_merged=0, merge=True):
    """Cross-entropy and distillation, summed over pixels, by the readable functions."""
    up = dict(size=size, mode='bilinear', align_corners=align_corners)
    logits, old = F.interpolate(student, **up), F.interpolate(teacher, **up)
    labels = merge_labels(labels, old) if merge else labels
    target, merged = labels, logits
    if num_merged:
        target, merged = merge_old_labels(labels, num_merged), merge_old_classes(logits, num_merged)
    cross_entropy = F.cross_entropy(merged, target, ignore_index=255, reduction='none')
    correct = (logits.argmax(1) == labels).sum((1, 2))
    return cross_entropy.sum((1, 2)), distillation_loss(logits, old) * labels.numel(), correct, labels


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('num_old, num_classes', [(3, 5), (1, 2), (4, 5)])
@pytest.mark.parametrize('band_bytes', [1, 3 * 5 * 9 * 8, 2**20])  # row by row, three rows, all at once
def test_hrhf_agrees_with_the_readable_form(monkeypatch, band_bytes, num_old, num_classes, align_corners):
    monkeypatch.setitem(upsampling._BAND_BYTES, 'cpu', band_bytes)
    student, labels, teacher = example(num_old, num_classes)
    terms = fused_losses(student, labels, teacher, merge_labels, distil=True, align_corners=align_corners)
    cross_entropy, distillation, correct, merged = plain(student, labels, teacher, (7, 9), align_corners)
    torch.testing.assert_close(terms.cross_entropy, cross_entropy)
    torch.testing.assert_close(terms.distillation.sum(), distillation)
    assert torch.equal(terms.labels, merged) and torch.equal(terms.correct.long(), correct)
    # Other weights than 1, and others for each image.
    weight = torch.tensor([2., .5], dtype=torch.float64)
    gradient, = torch.autograd.grad((weight * terms.cross_entropy).sum() + 3 * terms.distillation.sum(), student)
    expected, = torch.autograd.grad((weight * cross_entropy).sum() + 3 * distillation, student)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize('distil', [False, True])
def test_mib_agrees_with_the_readable_form(distil):
    student, labels, teacher = example(num_old=3, num_classes=6)
    terms = fused_losses(student, labels, teacher, distil=distil, num_merged=3)
    cross_entropy, distillation, correct, _ = plain(student, labels, teacher, (7, 9), num_merged=3, merge=False)
    torch.testing.assert_close(terms.cross_entropy, cross_entropy)
    assert torch.equal(terms.labels, labels) and torch.equal(terms.correct.long(), correct)
    total, expected = terms.cross_entropy.sum() / 7, cross_entropy.sum() / 7
    if distil:
        total, expected = total + terms.distillation.sum(), expected + distillation
    torch.testing.assert_close(torch.autograd.grad(total, student)[0], torch.autograd.grad(expected, student)[0])


@pytest.mark.parametrize('options', [dict(distil=True), dict(distil=True, num_merged=3), dict()])
def test_gradcheck(options):
    student, labels, teacher = example(size=(4, 5))
    number = 1 + ('distil' in options)
    assert torch.autograd.gradcheck(lambda z: fused_losses(z, labels, teacher, **options)[:number], (student, ))


def test_saturated_logits_stay_finite():
    student, labels, teacher = example(dtype=torch.float32)
    with torch.no_grad():
        student *= 1e4
    terms = fused_losses(student, labels, 1e4 * teacher, merge_labels, distil=True, num_merged=3)
    (terms.cross_entropy.sum() + terms.distillation.sum()).backward()
    assert all(term.isfinite().all() for term in (*terms[:3], student.grad))


@pytest.mark.parametrize('num_merged', [0, 3])
def test_groups_of_vanishing_probability_keep_their_logarithm(num_merged):
    student, labels, teacher = example()
    with torch.no_grad():
        student *= 300  # differences of some 1,000, whose exponentials vanish
    merge = not num_merged
    cross_entropy, distillation, _, _ = plain(student, labels, teacher, (7, 9), num_merged=num_merged, merge=merge)
    expected, = torch.autograd.grad(cross_entropy.sum() + distillation, student)
    single = student.detach().float().requires_grad_()
    terms = fused_losses(single, labels, teacher.float(), merge_labels if merge else None, True, num_merged)
    (terms.cross_entropy.sum() + terms.distillation.sum()).backward()
    torch.testing.assert_close(terms.cross_entropy.double(), cross_entropy, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(terms.distillation.sum().double(), distillation, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(single.grad.double(), expected, rtol=1e-3, atol=1e-3)


def test_half_precision_is_computed_in_float32():
    student, labels, teacher = example(dtype=torch.float32)
    half = student.detach().bfloat16().requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        terms = fused_losses(half, labels, teacher.bfloat16(), merge_labels, distil=True)
    expected = fused_losses(half.detach().float(), labels, teacher.bfloat16().float(), merge_labels, distil=True)
    assert terms.cross_entropy.dtype == torch.float32
    torch.testing.assert_close(terms.cross_entropy, expected.cross_entropy)
    torch.testing.assert_close(terms.distillation, expected.distillation)
    terms.cross_entropy.sum().backward()
    assert half.grad.dtype == torch.bfloat16


def test_cross_entropy_alone_needs_no_teacher():
    student, labels, _ = example()
    up = F.interpolate(student, (7, 9), mode='bilinear', align_corners=False)
    expected = F.cross_entropy(up, labels, ignore_index=255, reduction='none').sum((1, 2))
    terms = fused_losses(student, labels)
    torch.testing.assert_close(terms.cross_entropy, expected)
    assert terms.distillation.tolist() == [0, 0] and torch.equal(terms.labels, labels)


def test_a_gradient_of_the_gradient_is_refused_and_not_wrong():
    student, labels, _ = example()
    gradient, = torch.autograd.grad(fused_losses(student, labels).cross_entropy.square().sum(), student,
                                    create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        gradient.sum().backward()


def test_logits_are_left_as_they_are():
    student, labels, teacher = example()
    teacher = student.detach()[:, :3] + 1
    copies = [tensor.detach().clone() for tensor in (student, labels, teacher)]
    labels, copies[1] = labels[:, :3, :4].contiguous(), copies[1][:, :3, :4]  # all of one size
    for num_merged in (0, 3):
        fused_losses(student, labels, teacher, merge_labels, distil=True, num_merged=num_merged)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip((student, labels, teacher), copies))


def test_a_teacher_in_inference_mode_will_do():
    student, labels, teacher = example()
    with torch.inference_mode():
        inferred = teacher.clone()
    fused_losses(student, labels, inferred, merge_labels, distil=True).distillation.sum().backward()
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize('align_corners', [False, True])
def test_pooling_of_what_is_never_up_sampled(align_corners):
    student, *_ = example()
    expected = F.adaptive_avg_pool2d(
        F.interpolate(student, (7, 9), mode='bilinear', align_corners=align_corners), (2, 4))
    torch.testing.assert_close(upsampling.pool_upsampled(student, (7, 9), (2, 4), align_corners), expected)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = upsampling.pool_upsampled(student.bfloat16(), (7, 9), (2, 4), align_corners)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), expected, atol=.05, rtol=.02)


def test_matrices_made_in_inference_mode_serve_gradients():
    upsampling.interpolation_matrix.cache_clear()
    student, *_ = example()
    with torch.inference_mode():
        upsampling.pool_upsampled(student, (5, 6), (2, 3), False)
    assert not upsampling.interpolation_matrix(3, 5, False, student.dtype, student.device).is_inference()
    upsampling.pool_upsampled(student, (5, 6), (2, 3), False).sum().backward()
    assert student.grad.isfinite().all()


def test_bands_cover_every_pixel_once(monkeypatch):
    for wanted in (1, 5 * 9 * 4, 3 * 5 * 9 * 4, 2 * 5 * 7 * 9 * 4, 10**6):
        monkeypatch.setitem(upsampling._BAND_BYTES, 'cpu', wanted)
        seen = torch.zeros(3, 7)
        for images, rows in upsampling.bands((3, 5, 7, 9), torch.zeros(1)):
            seen[images, rows] += 1
            # No larger than wanted, unless a single row is.
            assert seen[images, rows].numel() * 5 * 9 * 4 <= max(wanted, 5 * 9 * 4)
        assert (seen == 1).all()


def test_predicted_class_is_the_first_of_the_highest():
    scores = torch.tensor([[[1., 0., 2., -1.]], [[1., 3., 2., -1.]], [[0., 3., 2., -5.]]])[None]
    assert predicted_class(scores).tolist() == [[[0, 1, 0, 0]]]
    many = torch.randn(2, 300, 3, 2)
    assert torch.equal(predicted_class(many), many.argmax(1))
    for number in (150, 255, 256):
        assert torch.equal(predicted_class(many[:, :number]), many[:, :number].argmax(1))
    assert predicted_class(torch.full((1, 3, 1, 1), float('nan'))).item() < 3
