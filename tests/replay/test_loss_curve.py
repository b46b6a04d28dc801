import pytest

from mmseg_hrhf.replay.inspection import mean_curve, thin_curve


def test_a_long_curve_keeps_its_ends_and_few_points():
    losses = [dict(tv=1000 - i, feature=i) for i in range(1000)]
    curve = thin_curve(losses, max_points=5)
    assert curve == dict(iteration=[1, 251, 501, 750, 1000], tv=[1000, 750, 500, 251, 1],
                         feature=[0, 250, 500, 749, 999])
    assert len(thin_curve(losses)['tv']) == 50


def test_a_short_curve_keeps_every_point():
    assert thin_curve([dict(tv=0.123456789), dict(tv=2.)]) == dict(iteration=[1, 2], tv=[0.12346, 2.0])
    assert thin_curve([]) == {}


def test_a_curve_has_the_terms_of_its_last_iteration():
    losses = [dict(tv=1., feature=5.), dict(tv=2., feature=6.), dict(tv=3.)]
    assert thin_curve(losses) == dict(iteration=[1, 2, 3], tv=[1, 2, 3])


def test_mean_over_batches_of_which_one_stopped_early():
    curves = [dict(iteration=[1, 2, 3], tv=[4., 3., 2.]), dict(iteration=[1, 2], tv=[2., 2.])]
    assert mean_curve(curves) == [
        dict(iteration=1, tv=3.0), dict(iteration=2, tv=2.5), dict(iteration=3, tv=pytest.approx(2.0))]
    assert mean_curve([]) == []
