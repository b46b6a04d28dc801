"""Scale-Aware Aggregation against hand numbers, its limits and a float64 reference (eq. 1)."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmseg.registry import TASK_UTILS

from mmseg_hrhf.replay.inversion import aggregation
from mmseg_hrhf.replay.inversion.aggregation import (
    AverageAggregation,
    MaxAggregation,
    ScaleAwareAggregation,
    scale_aware_aggregation,
)
from mmseg_hrhf.utils.errors import UserError


def maps(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(3, 4, 5, 6, generator=generator, dtype=dtype)


def constant_r(value, dtype=torch.float64):
    return torch.full((3, 4), value, dtype=dtype)


def test_by_hand():
    # Half of the pixels 0, half log 3: mean of exp is 2; with r = 2 the mean of exp(2 s) is (1 + 9) / 2.
    logits = torch.tensor([0., math.log(3)], dtype=torch.float64).view(1, 1, 1, 2)
    r = torch.ones(1, 1, dtype=torch.float64)
    assert scale_aware_aggregation(logits, r).item() == pytest.approx(math.log(2), abs=1e-12)
    assert scale_aware_aggregation(logits, 2 * r).item() == pytest.approx(math.log(5) / 2, abs=1e-12)


def test_constant_map_has_its_value_whatever_r():
    for r in (0.5, 20.0):
        scores = scale_aware_aggregation(torch.full((3, 4, 5, 6), -7.0), constant_r(r, torch.float32))
        torch.testing.assert_close(scores, torch.full((3, 4), -7.0))


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_against_the_reference_with_an_r_for_every_image_and_class(dtype, tolerance):
    logits = maps(dtype)
    r = torch.tensor([[.5, 1, 5, 10], [20, .5, 1, 5], [10, 20, .5, 1]], dtype=dtype)
    expected = np.empty((3, 4))
    for i in range(3):
        for k in range(4):
            values = logits[i, k].double().numpy() * r[i, k].item()
            expected[i, k] = math.log(np.exp(values).sum() / 30) / r[i, k].item()
    np.testing.assert_allclose(scale_aware_aggregation(logits, r).numpy(), expected, rtol=0, atol=tolerance)


def test_small_r_tends_to_the_average():
    torch.testing.assert_close(
        scale_aware_aggregation(maps(), constant_r(1e-5)), maps().mean((2, 3)), rtol=0, atol=1e-3)


def test_large_r_tends_to_the_maximum():
    # The maximum is missed by at most log(pixels) / r.
    gap = maps().amax((2, 3)) - scale_aware_aggregation(maps(), constant_r(1e4))
    assert (gap >= 0).all() and (gap <= math.log(30) / 1e4 + 1e-9).all()


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=8), st.floats(0.1, 20), st.floats(1.01, 3))
@settings(max_examples=60, deadline=None)
def test_grows_with_r_from_the_average_to_the_maximum(values, r, factor):
    logits = torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)
    small, large = (scale_aware_aggregation(logits, torch.full((1, 1), q, dtype=torch.float64)).item()
                    for q in (r, r * factor))
    assert np.mean(values) - 1e-9 <= small <= large + 1e-9 <= max(values) + 2e-9


def test_shift_of_a_map_shifts_its_score():
    r = constant_r(5.0)
    torch.testing.assert_close(scale_aware_aggregation(maps() + 3, r), scale_aware_aggregation(maps(), r) + 3)


@pytest.mark.parametrize('sign', [1, -1])
def test_large_logits_do_not_overflow(sign):
    logits = torch.full((1, 2, 4, 4), sign * 1e3, requires_grad=True)
    scores = scale_aware_aggregation(logits, torch.full((1, 2), 20.0))
    scores.sum().backward()
    torch.testing.assert_close(scores.detach(), torch.full((1, 2), sign * 1e3))
    # r * s is 2e4, where float32 is good to 1e-3 of an exponent.
    torch.testing.assert_close(logits.grad, torch.full_like(logits, 1 / 16), rtol=5e-3, atol=0)


def test_gradient():
    logits = maps()[:1, :2, :2, :3].requires_grad_(True)
    r = torch.tensor([[.5, 20.]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: scale_aware_aggregation(s, r), logits)


def test_gradient_is_shared_out_over_the_pixels_of_a_class():
    # The derivative of a log-mean-exp is a softmax over pixels: positive, sums to one, sharper with r.
    shares = []
    for r in (0.5, 10.0):
        logits = maps().requires_grad_(True)
        scale_aware_aggregation(logits, constant_r(r)).sum().backward()
        torch.testing.assert_close(logits.grad.sum((2, 3)), torch.ones(3, 4, dtype=torch.float64))
        shares.append(logits.grad.amax((2, 3)))
    assert (shares[1] > shares[0]).all()


# -- aggregations of a config ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('cls', [ScaleAwareAggregation, AverageAggregation, MaxAggregation])
def test_built_by_name(cls):
    assert type(TASK_UTILS.build(dict(type=cls.__name__))) is cls


def test_module_is_the_function():
    torch.testing.assert_close(ScaleAwareAggregation()(maps(), constant_r(5.0)),
                               scale_aware_aggregation(maps(), constant_r(5.0)), rtol=0, atol=0)


def test_average_and_maximum_by_hand():
    logits = torch.tensor([[1., 2.], [3., 6.]]).view(1, 1, 2, 2)
    r = torch.full((1, 1), float('nan'))
    assert AverageAggregation()(logits, r).tolist() == [[3.0]]
    assert MaxAggregation()(logits, r).tolist() == [[6.0]]


def test_default_draws_the_values_of_the_paper_for_each_image_and_class():
    drawn = ScaleAwareAggregation().draw_r(50, 6, np.random.default_rng(0))
    assert drawn.shape == (50, 6)
    assert set(np.unique(drawn)) == {0.5, 1, 5, 10, 20}
    # Neither one value per image nor one per class.
    assert (drawn != drawn[:, :1]).any() and (drawn != drawn[:1]).any()


def test_every_value_is_drawn_about_as_often():
    drawn = ScaleAwareAggregation(r=[1, 2]).draw_r(100, 20, np.random.default_rng(0))
    assert 900 < (drawn == 1).sum() < 1100


@pytest.mark.parametrize('r', [5, 5.0, [5], (5.0, )])
def test_one_value_fixes_r(r):
    assert (ScaleAwareAggregation(r=r).draw_r(2, 3, np.random.default_rng(0)) == 5).all()


def test_background_can_have_an_r_of_its_own():
    drawn, free = (ScaleAwareAggregation(**options).draw_r(50, 6, np.random.default_rng(0))
                   for options in (dict(background_r=0.25), {}))
    assert (drawn[:, 0] == 0.25).all() and (drawn[:, 1:] == free[:, 1:]).all() and len(set(free[:, 0])) == 5


@pytest.mark.parametrize('value', [0, -1.0])
def test_an_impossible_background_r_is_named(value):
    with pytest.raises(UserError, match=rf'aggregation\.background_r={value} must be positive, or None'):
        ScaleAwareAggregation(background_r=value)


def test_draws_depend_on_the_generator_alone():
    draws = [ScaleAwareAggregation().draw_r(4, 4, np.random.default_rng(s)).tolist() for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize('cls', [AverageAggregation, MaxAggregation])
def test_aggregations_without_r_draw_none(cls):
    drawn = cls().draw_r(2, 3, np.random.default_rng(0))
    assert drawn.shape == (2, 3) and np.isnan(drawn).all()


@pytest.mark.parametrize('r', [0, -1, [1, 0], [], [5, -0.5]])
def test_r_must_be_positive(r):
    with pytest.raises(ValueError, match=r'aggregation\.r=.* positive numbers.*AverageAggregation') as error:
        ScaleAwareAggregation(r=r)
    assert repr(r) in str(error.value)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('shape', [(5, 3, 20, 30), (2, 7, 20, 30), (3, 2, 40, 50), (2, 17, 20, 30), (9, 16, 5, 8)],
                         ids=['images', 'maps', 'one map', 'many classes', 'many classes, small images'])
def test_pooled_in_parts_as_at_once(shape, memory_format, monkeypatch):
    # At most 1300 scores at once: two maps of 600 pixels, one of 2000.
    monkeypatch.setattr('mmseg_hrhf.replay.inversion.aggregation._CHUNK', {'cpu': 1300})
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(shape, generator=generator, dtype=torch.float64).contiguous(memory_format=memory_format)
    r, weights = (torch.rand(shape[:2], generator=generator, dtype=torch.float64) + 0.5 for _ in range(2))
    scores.requires_grad_(True)
    pooled = scale_aware_aggregation(scores, r)
    plain = (scores.flatten(2) * r[..., None]).exp().mean(-1).log() / r
    torch.testing.assert_close(pooled, plain)
    gradient, expected = (torch.autograd.grad((found * weights).sum(), scores)[0] for found in (pooled, plain))
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize('shape', [(5, 3, 60), (4, 7, 30), (2, 3, 100), (9, 2, 7)])
@pytest.mark.parametrize('wanted', [1, 50, 100, 10**4])
def test_parts_hold_as_many_scores_as_wanted_unless_a_map_has_more(shape, wanted, monkeypatch):
    monkeypatch.setattr(aggregation, '_CHUNK', {'cpu': wanted})
    seen = torch.zeros(shape)
    for part, _ in aggregation._parts(seen, 2):
        seen[part] += 1
        assert seen[part].numel() <= max(wanted, shape[2])
    assert (seen == 1).all()


def test_a_gradient_of_the_gradient_is_refused_and_not_wrong():
    scores = maps().requires_grad_(True)
    pooled = scale_aware_aggregation(scores, constant_r(2.))
    gradient, = torch.autograd.grad(pooled.square().sum(), scores, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        gradient.sum().backward()


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('classes', [3, 20])
@pytest.mark.parametrize('cls', [ScaleAwareAggregation, AverageAggregation, MaxAggregation])
def test_half_precision_is_pooled_in_float32(cls, classes, memory_format):
    generator = torch.Generator().manual_seed(2)
    scores = (4 * torch.randn(2, classes, 30, 40, generator=generator)).bfloat16()
    scores = scores.contiguous(memory_format=memory_format).requires_grad_(True)
    r = torch.rand(2, classes, generator=generator) * 10 + 0.5
    pooled, precise = cls()(scores, r), cls()(scores.float(), r)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, precise, rtol=1e-5, atol=1e-5)
    gradient, expected = (torch.autograd.grad(found.sum(), scores)[0] for found in (pooled, precise))
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient, expected)
