"""From options to what synthesises: what is built, and which options are refused."""
import pytest

from mmseg_hrhf.replay.inversion.aggregation import MaxAggregation
from mmseg_hrhf.replay.inversion.base import build_inversion
from mmseg_hrhf.replay.inversion.seg_inversion import SegInversion

OPTIONS = dict(type='SegInversion', size=32, lr=0.1)


@pytest.mark.parametrize('kind', ['SegInversion', SegInversion], ids=['name', 'class'])
def test_what_the_options_say_is_built(kind):
    built = build_inversion(dict(OPTIONS, type=kind, aggregation=dict(type='MaxAggregation')))
    assert type(built) is SegInversion and built.size == (32, 32) and built.lr == 0.1
    assert type(built.aggregation) is MaxAggregation


@pytest.mark.parametrize('options, message', [
    (None, r"replay\.inversion=None must be a dict with a type, such as dict\(type='SegInversion'"),
    (dict(size=32), r"replay\.inversion=\{'size': 32\} must be a dict with a type"),
    (dict(type='SegInversion'), r"replay\.inversion lacks size, which SegInversion has no default for"),
    (dict(OPTIONS, type='SegInvertion'), r"replay\.inversion\.type='SegInvertion'.*: did you mean 'SegInversion'\?"),
    (dict(OPTIONS, sise=3), r"replay\.inversion has no option 'sise'"),
    (dict(OPTIONS, lr='high'), r"replay\.inversion\.lr='high' must be a number"),
    (dict(OPTIONS, aggregation='max'), r"replay\.inversion\.aggregation='max' must be a dict"),
    (dict(OPTIONS, aggregation=dict(r=3)), r"replay\.inversion\.aggregation=.* must be a dict with a type"),
    (dict(OPTIONS, aggregation=dict(type='MaxAggregation', r=3)), r"inversion\.aggregation has no option 'r'"),
])
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_inversion(options)


@pytest.mark.parametrize('kind', ['x', 'OHEMPixelSampler', 'ScaleAwareAggregation', 'SegInversion'])
def test_a_type_of_another_kind_is_refused_and_those_of_this_kind_are_listed(kind):
    inversion, aggregation = 'SegInversion', 'ScaleAwareAggregation'
    for options, right, wrong in [(dict(type=kind), inversion, aggregation),
                                  (dict(OPTIONS, aggregation=dict(type=kind)), aggregation, inversion)]:
        if kind != right:
            with pytest.raises(ValueError, match=rf"type='{kind}' is not one of .*'{right}'") as error:
                build_inversion(options)
            assert f"'{wrong}'" not in str(error.value).split('is not one of')[1]
