"""Moments of a layer's input and their gradient, against plain autograd."""
import pytest
import torch

from mmseg_hrhf.replay.inversion.feature_statistics import channel_moments, watched


def features(shape, dtype=torch.float64, mean=3.0, memory_format=None):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype) + mean
    return values if memory_format is None else values.contiguous(memory_format=memory_format)


LAYOUTS = [
    ((4, 3, 5, 6), 1, torch.contiguous_format),
    ((4, 3, 5, 6), 1, torch.channels_last),
    ((4, 5, 6, 3), 3, None),
    ((4, 7, 3), 2, None),
    ((4, 3, 7), 1, None),
    ((9, 3), 1, None),
    ((1, 3, 5, 6), 1, torch.contiguous_format),
]


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-6)])
@pytest.mark.parametrize('shape, dim, memory_format', LAYOUTS)
def test_moments_in_any_layout(shape, dim, memory_format, dtype, tolerance):
    x = features(shape, dtype, memory_format=memory_format)
    mean, var = channel_moments(x, dim)
    rows = x.double().movedim(dim, -1).reshape(-1, 3)
    assert mean.dtype == var.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(mean.double(), rows.mean(0), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(var.double(), rows.var(0, unbiased=False), rtol=tolerance, atol=tolerance)


class Device(str):
    """A CPU that says to be another device, so that what runs there can be checked here."""

    def __new__(cls, kind):
        device = super().__new__(cls, 'cpu')
        device.type = kind
        return device


class Elsewhere(torch.Tensor):
    device = None


@pytest.mark.parametrize('device', ['cuda', 'mps'])
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 2e-6), (torch.bfloat16, 2e-6)])
@pytest.mark.parametrize('shape, dim, memory_format', LAYOUTS)
def test_moments_by_the_kernels_of_other_devices(shape, dim, memory_format, dtype, tolerance, device, monkeypatch):
    monkeypatch.setattr(Elsewhere, 'device', Device(device))
    x = features(shape, dtype, memory_format=memory_format)
    mean, var = (found.as_subclass(torch.Tensor) for found in channel_moments(x.as_subclass(Elsewhere), dim))
    rows = x.double().movedim(dim, -1).reshape(-1, 3)
    assert mean.dtype == var.dtype == torch.float32
    torch.testing.assert_close(mean.double(), rows.mean(0), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(var.double(), rows.var(0, unbiased=False), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('drift', [0., 50.])
def test_many_positions_lose_no_digits(drift):
    x = features((2, 4, 256, 150), torch.float32, mean=30.0)
    x += drift * torch.linspace(0, 1, x[:, 0].numel()).view(2, 1, 256, 150)
    x = x.contiguous(memory_format=torch.channels_last)
    mean, var = channel_moments(x, 1)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(var.double(), x.double().var((0, 2, 3), unbiased=False), rtol=1e-4, atol=0)


@pytest.mark.parametrize('shape, dim, memory_format', LAYOUTS)
def test_gradient(shape, dim, memory_format):
    x = features(shape, memory_format=memory_format).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: watched(x, dim), x)


@pytest.mark.parametrize('of', ['features', 'mean', 'var'])
def test_gradient_of_one_of_the_three(of):
    x = features((2, 3, 4, 5)).requires_grad_(True)
    held = dict(zip(('features', 'mean', 'var'), watched(x, 1)))
    plain = dict(features=x, mean=x.mean((0, 2, 3)), var=x.var((0, 2, 3), unbiased=False))
    gradient, expected = (torch.autograd.grad((found[of]**2).sum(), x)[0] for found in (held, plain))
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_gradient_added_in_place_to_that_of_a_batch_norm(dtype, tolerance):
    norm = torch.nn.BatchNorm2d(3).eval().requires_grad_(False)
    norm.running_var.copy_(torch.tensor([.5, 1., 2.]))
    x, weights = features((2, 3, 4, 5), dtype), features((2, 3, 4, 5), torch.float32)

    def gradient(x, given, mean, var):
        loss = (norm(given).float() * weights).sum() + (mean**2).sum() + (var**2).sum()
        return torch.autograd.grad(loss, x)[0].float()

    fast, plain = x.clone().requires_grad_(True), x.float().requires_grad_(True)
    expected = gradient(plain, plain, plain.mean((0, 2, 3)), plain.var((0, 2, 3), unbiased=False))
    torch.testing.assert_close(gradient(fast, *watched(fast, 1, in_place=True)), expected, rtol=tolerance,
                               atol=tolerance)


@pytest.mark.parametrize('options', [{}, dict(in_place=False)])
def test_a_gradient_that_others_take_too_is_left_as_it_is(options):
    # The gradient of a sum is one tensor for both of its terms.
    x, other = features((2, 3, 4, 5)).requires_grad_(True), features((2, 3, 4, 5)).requires_grad_(True)
    given, mean, _ = watched(x, 1, **options)
    gradient, of_other = torch.autograd.grad((given + other).square().sum() + mean.sum(), (x, other))
    torch.testing.assert_close(of_other, 2 * (x + other))
    torch.testing.assert_close(gradient, of_other + 1 / 40)


def test_half_precision_adds_up_its_gradient_in_float32():
    # 256 + 1 is 256 in bfloat16, and so is 257 + 1, but not 256 + 2.
    x = torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16).requires_grad_(True)
    given, mean, _ = watched(x, 1, in_place=True)
    gradient, = torch.autograd.grad(256 * given.sum().float() + 2 * mean.sum(), x)
    assert gradient.item() == 258 and gradient.dtype == torch.bfloat16


def test_a_gradient_of_the_gradient_is_refused_and_not_wrong():
    x = features((2, 3, 4, 5)).requires_grad_(True)
    gradient, = torch.autograd.grad(watched(x, 1)[2].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        gradient.sum().backward()


class InUsualOrder(torch.autograd.Function):
    """A layer that gives its gradient in the usual order of memory, as CUDA's batch norm in eval mode does."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.clone(memory_format=torch.contiguous_format)


@pytest.mark.parametrize('in_place', [False, True])
def test_gradient_has_the_order_of_the_features(in_place):
    seen = []
    x = features((2, 3, 4, 5), memory_format=torch.channels_last).requires_grad_(True)
    below = x * 1
    below.register_hook(lambda grad: seen.append(grad.is_contiguous(memory_format=torch.channels_last)))
    given, mean, var = watched(below, 1, in_place)
    gradient, = torch.autograd.grad(InUsualOrder.apply(given).square().sum() + mean.sum() + var.sum(), x)
    plain, = torch.autograd.grad(
        x.square().sum() + x.mean((0, 2, 3)).sum() + x.var((0, 2, 3), unbiased=False).sum(), x)
    torch.testing.assert_close(gradient, plain)
    assert seen == [True]


def test_constant_features_have_no_variance():
    mean, var = channel_moments(torch.full((2, 3, 4, 4), 7.0), 1)
    assert mean.tolist() == [7.0] * 3 and var.tolist() == [0.0] * 3
