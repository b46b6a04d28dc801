"""What the values in masks mean: read from a dataset's class, its classes and its options."""
import pytest

from mmseg_hrhf.datasets.raw_labels import RawLabels


def dataset(classes, reduces=False):
    """A dataset class as mmseg's are."""

    class Dataset:
        METAINFO = dict(classes=classes) if classes else {}

        def __init__(self, reduce_zero_label=reduces):
            pass

    return Dataset


class Bare:
    """Neither classes nor options of its own."""


def raw_labels(classes=('background', 'a', 'b', 'c'), reduces=False, chosen=None, reduce_zero_label=None):
    return RawLabels.of(dataset(classes, reduces), chosen, reduce_zero_label)


def meaning(scenario):
    return scenario.labels, scenario.background, scenario.zero_is_void


FROM_0, FROM_1, FROM_2 = ({name: first + i for i, name in enumerate('abc')} for first in range(3))


@pytest.mark.parametrize('background', ['background', 'Background'])
def test_background_first_is_label_0(background):
    assert meaning(raw_labels((background, *'abc')).scenario(dict(task='2-1'))) == (FROM_1, 0, False)


def test_without_background_classes_begin_at_0():
    assert meaning(raw_labels(tuple('abc')).scenario(dict(task='2-1'))) == (FROM_0, None, False)
    assert RawLabels.of(Bare, ('a', 'b', 'c'), None) == RawLabels(('a', 'b', 'c'), ('a', 'b', 'c'), 0, 'Bare')


@pytest.mark.parametrize('options', [dict(reduces=True), dict(reduces=True, reduce_zero_label=False),
                                     dict(reduce_zero_label=True)])
def test_where_label_0_is_void_classes_begin_after_it(options):
    assert meaning(raw_labels(tuple('abc'), **options).scenario(dict(task='2-1'))) == (FROM_1, 0, True)
    assert meaning(raw_labels(**options).scenario(dict(task='2-1'))) == (FROM_2, 1, True)


def test_what_a_config_states_is_not_found_out():
    options = dict(task='2-1', background=77, zero_is_void=True)
    assert meaning(raw_labels(tuple('abc'), reduces=True).scenario(options)) == (FROM_1, 77, True)
    assert options == dict(task='2-1', background=77, zero_is_void=True)


@pytest.mark.parametrize('number, first, fits', [(255, 0, True), (256, 0, False), (254, 1, True), (255, 1, False)])
def test_classes_must_fit_masks_of_8_bits(number, first, fits):
    raw = raw_labels(tuple(f'c{i}' for i in range(number)), reduces=bool(first))
    options = dict(task=f'{number}-1')
    if fits:
        assert max(raw.scenario(options).labels.values()) == 254
    else:
        with pytest.raises(ValueError, match=f'{number} classes do not fit into 8-bit masks, in which 255'):
            raw.scenario(options)


def test_chosen_classes_keep_their_labels_and_are_those_that_are_learnt():
    raw = raw_labels(chosen=['background', 'c', 'a'])
    assert raw == RawLabels(('background', 'a', 'b', 'c'), ('background', 'c', 'a'), 0, 'Dataset')
    scenario = raw.scenario(dict(task='1-1'))
    assert scenario.labels == FROM_1 and scenario.steps == (('c', ), ('a', ))
    with pytest.raises(ValueError, match=r"steps\[1\] names 'b', which is missing from metainfo\.classes of Dataset"):
        raw.scenario(dict(steps=[['c'], ['b']]))


@pytest.mark.parametrize('options, message', [
    (dict(classes=()), r'Dataset names no classes: set metainfo=dict\(classes=\.\.\.\)'),
    (dict(classes=('a', 'b', 'a')), r"Dataset has two classes with the same name, \['a', 'b', 'a'\]"),
    (dict(classes=('a', 'b'), chosen=['b', 'b']), r"Dataset has two classes with the same name, \['b', 'b'\]"),
    (dict(chosen=['a', 'c']), r"metainfo\.classes of Dataset lacks 'background'"),
    (dict(classes=('background', 'bg', 'a'), chosen=['a']), r"metainfo\.classes of Dataset lacks 'background'"),
])
def test_classes_without_a_clear_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        raw_labels(**options)
