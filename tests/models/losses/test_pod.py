"""Local POD by hand and against a loop in float64."""
import numpy as np
import pytest
import torch

from mmseg_hrhf.models.losses.distillation import fold_new_logits, local_pod, pod_distance


def reference(features, scales):
    """Region by region; the order of the entries is of no matter to a distance."""
    out = []
    for image in features.double().numpy()**2:
        entries, (channels, height, width) = [], image.shape
        for scale in scales:
            rows, columns = height // scale, width // scale
            for c in range(channels if rows and columns else 0):
                for i in range(scale):
                    for j in range(scale):
                        region = image[c, i * rows:(i + 1) * rows, j * columns:(j + 1) * columns]
                        entries += region.mean(0).tolist() + region.mean(1).tolist()
        out.append(sorted(entries))
    return np.array(out)


def test_by_hand():
    # Squares 1 4 / 9 16; rows 2.5, 12.5; columns 5, 10; at scale 2 every pixel twice.
    features = torch.tensor([[1., -2.], [3., 4.]]).view(1, 1, 2, 2)
    assert local_pod(features, (1, )).flatten().tolist() == [2.5, 12.5, 5, 10]
    assert sorted(local_pod(features, (2, )).flatten().tolist()) == [1, 1, 4, 4, 9, 9, 16, 16]
    assert pod_distance(features, torch.zeros_like(features)).item() == pytest.approx(
        (2.5**2 + 12.5**2 + 5**2 + 10**2 + 2 * (1 + 16 + 81 + 256))**.5)


@pytest.mark.parametrize('size', [(8, 8), (9, 6), (3, 7), (1, 1)])
def test_against_the_reference(size):
    features = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(np.sort(local_pod(features).numpy(), axis=1), reference(features, (1, 2, 4)))


def test_distance_is_a_mean_over_images_without_gradient_to_the_teacher():
    student = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    each = [pod_distance(student[i:i + 1], teacher[i:i + 1]) for i in range(2)]
    torch.testing.assert_close(pod_distance(student, teacher), (each[0] + each[1]) / 2)
    assert torch.autograd.gradcheck(lambda s: pod_distance(s, teacher.detach()), student)
    pod_distance(student, teacher).backward()
    assert teacher.grad is None


def test_equal_maps_have_distance_0_and_a_finite_gradient():
    student = torch.ones(1, 2, 4, 4, requires_grad=True)
    distance = pod_distance(student, torch.ones(1, 2, 4, 4))
    distance.backward()
    assert distance == 0 and (student.grad == 0).all()


def test_half_precision_is_computed_in_float32():
    assert local_pod(torch.full((1, 1, 2, 2), 300.).half()).isfinite().all()


def test_new_logits_are_added_to_background():
    logits = torch.tensor([1., 2., 3., 4.]).view(1, 4, 1, 1)
    assert fold_new_logits(logits, 2).flatten().tolist() == [8, 2]


def test_maps_of_new_logits_are_added_pixel_by_pixel():
    logits = torch.randn(2, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    folded = fold_new_logits(logits, 3)
    assert folded.shape == (2, 3, 3, 4)
    torch.testing.assert_close(folded[:, 0], logits[:, 0] + logits[:, 3] + logits[:, 4])
    assert torch.equal(folded[:, 1:], logits[:, 1:3])
