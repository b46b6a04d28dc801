"""Which label is background: found by its name wherever it stands, or refused with the option that settles it."""

import pytest
from mmseg.datasets import BaseSegDataset, CityscapesDataset, MapillaryDataset_v1, PascalVOCDataset
from mmseg.registry import DATASETS

from mmseg_hrhf.datasets.class_names import is_background_name
from mmseg_hrhf.datasets.raw_labels import RawLabels

COLOURS = ['red', 'green', 'blue']


def labels(classes, reduce_zero_label=False):
    return RawLabels.of(BaseSegDataset, classes, reduce_zero_label)


@pytest.mark.parametrize(
    'name',
    [
        'background',
        'Background',
        'BACKGROUND',
        '_background_',
        '__background__',
        'bg',
        'BG',
        'back ground',
        'back-ground',
        ' Background ',
        'background0',
    ],
)
def test_background_by_other_names(name):
    assert is_background_name(name)


@pytest.mark.parametrize('name', ['road', 'ground', 'playground', 'backpack', 'void', 'bgr', 'b'])
def test_other_names_are_classes(name):
    assert not is_background_name(name)


@pytest.mark.parametrize('name', ['background', '_background_', 'bg', 'BACKGROUND'])
@pytest.mark.parametrize('place', [0, 1, 3])
@pytest.mark.parametrize('options', [dict(task='2-1'), dict(steps=[['red', 'green'], ['blue']])], ids=['task', 'steps'])
def test_background_in_any_place(name, place, options):
    classes = [*COLOURS[:place], name, *COLOURS[place:]]
    scenario = labels(classes).scenario(options)
    assert scenario.background == place
    assert scenario.steps == (('red', 'green'), ('blue',))
    assert scenario.class_names(1) == ('background', 'red', 'green', 'blue')
    assert scenario.labels == {colour: classes.index(colour) for colour in COLOURS}
    assert scenario.train_label_map(0)[place] == 0 and scenario.test_label_map(1)[place] == 0
    assert scenario.train_label_map(1)[classes.index('blue')] == 3


def test_void_at_0_moves_every_label_by_one():
    scenario = labels([*COLOURS, 'bg'], reduce_zero_label=True).scenario(dict(task='2-1'))
    assert scenario.background == 4 and scenario.labels == dict(red=1, green=2, blue=3) and scenario.zero_is_void


UNCLEAR = ['void', 'unlabeled', 'Unlabelled', '_ignore_', 'no data', 'Unknown', 'not labeled']


@pytest.mark.parametrize('name', [*UNCLEAR, 'Background clutter', 'backgroud', 'Hintergrund', '背景'])
@pytest.mark.parametrize('place', [0, 2, 3])
@pytest.mark.parametrize('options', [dict(task='2-2'), dict(steps=[['red', 'green'], ['blue']])], ids=['task', 'steps'])
def test_a_name_that_may_mean_anything_is_refused_with_the_options_that_settle_it(name, place, options):
    raw = labels([*COLOURS[:place], name, *COLOURS[place:]])
    with pytest.raises(
        ValueError,
        match=rf'has the class {name!r} \(raw label {place}\).*scenario\.background={name!r} if '
        rf'it is background, scenario\.ignored_classes=\[{name!r}\] to',
    ):
        raw.scenario(options)


@pytest.mark.parametrize('name', ['ground', 'playground', 'road', 'underground', 'ground-other', 'backpack'])
def test_names_like_background_are_classes(name):
    assert labels([name, *COLOURS]).scenario(dict(task='2-2')).steps[0][0] == name


def test_what_settles_it():
    raw = labels(['void', *COLOURS])
    as_background = raw.scenario(dict(task='2-1', background='void'))
    assert as_background.background == 0 and as_background.steps == (('red', 'green'), ('blue',))
    assert raw.scenario(dict(task='2-1', background=0)) == as_background
    ignored = raw.scenario(dict(task='2-1', ignored_classes=['void']))
    assert ignored.background is None and ignored.train_label_map(0)[0] == ignored.test_label_map(1)[0] == 255
    assert ignored.steps == as_background.steps
    learnt = raw.scenario(dict(task='2-2', background=None))
    assert learnt.steps == (('void', 'red'), ('green', 'blue')) and learnt.train_label_map(0)[0] == 1
    assert raw.scenario(dict(steps=[['void', 'red'], ['blue', 'green']])).labels['void'] == 0
    assert raw.scenario(dict(task='2-2', class_order=[3, 2, 1, 0])).steps == (('blue', 'green'), ('red', 'void'))


def test_steps_that_leave_void_out_beside_a_background_have_said_what_it_is():
    scenario = labels(['background', *COLOURS, 'void']).scenario(dict(steps=[['red', 'green'], ['blue']]))
    assert scenario.background == 0 and scenario.train_label_map(0)[4] == 255
    with pytest.raises(ValueError, match="has the class 'void'"):
        labels(['background', *COLOURS, 'void']).scenario(dict(task='2-2'))


def test_label_0_that_no_step_learns_is_background_or_ignored_but_not_silently():
    raw = labels(['ocean', *COLOURS])
    steps = [['red', 'green'], ['blue']]
    with pytest.raises(
        ValueError,
        match=r"no background, and no step learns 'ocean' \(raw label 0\).*"
        r"scenario\.background='ocean'.*ignored_classes=\['ocean'\]",
    ):
        raw.scenario(dict(steps=steps))
    assert raw.scenario(dict(steps=steps, background='ocean')).background == 0
    assert raw.scenario(dict(steps=steps, ignored_classes=['ocean'])).train_label_map(0)[0] == 255


@pytest.mark.parametrize(
    'classes, options, message',
    [
        (['background', 'bg', 'red'], {}, r"2 classes whose names mean background, \['background', 'bg'\]"),
        (['background', 'red', 'green'], dict(background='red'),
         "has the class 'background', which results could not distinguish"),
        (
            ['background', 'bg', 'red'],
            dict(background='red'),
            "the class 'background', which .*set scenario.background='background'",
        ),
        (['background', 'red', 'green'], dict(background=None),
         "has the class 'background', which results could not distinguish"),
        (
            ['a', 'red', 'green'],
            dict(background='b'),
            r"scenario\.background='b' is not a class of BaseSegDataset: set it to one of a",
        ),
        (['a', 'red', 'green'], dict(ignored_classes='a'), r"scenario\.ignored_classes='a' must be a list"),
        (['a', 'red', 'green'], dict(ignored_classes=['x']),
         "ignored_classes names 'x', which is not a foreground class"),
        (['a', 'red', 'green'], dict(ignored_classes=['a'], steps=[['a'], ['red']]),
         'Both scenario.ignored_classes and scenario.steps name'),
        (['red', 'green'], dict(background=-1), r'=-1 must be a raw label from 0 to 254, the name of a class, or None'),
        (['red', 'green'], dict(background=255),
         r'=255 must be a raw label from 0 to 254, the name of a class, or None'),
        (['red', 'green'], dict(background=True), r'scenario\.background=True must be a whole number'),
    ],
)
def test_contradictions_are_refused(classes, options, message):
    with pytest.raises(ValueError, match=message):
        labels(classes).scenario({'task': None if 'steps' in options else '1-1', **options})


def test_background_may_not_be_left_out_of_the_chosen_classes():
    with pytest.raises(ValueError, match=r"metainfo\.classes of .* lacks 'background'"):
        RawLabels.of(PascalVOCDataset, ('cat', 'dog'), False)


@pytest.mark.parametrize(
    'dataset',
    sorted(
        {
            kind
            for kind in DATASETS.module_dict.values()
            if issubclass(kind, BaseSegDataset)
            and kind.METAINFO.get('classes')
            and kind.__module__.startswith('mmseg.')
        },
        key=lambda kind: kind.__name__,
    ),
    ids=lambda kind: kind.__name__,
)
def test_every_dataset_of_mmseg_has_its_background_or_none(dataset):
    raw = RawLabels.of(dataset, None, None)
    names = raw.names
    unclear = [name for name in names if name.lower() in ('unlabeled', 'unlabelled')]  # Mapillary's, HSI Drive's
    scenario = raw.scenario(dict(task='1-1', ignored_classes=unclear))
    background = [name for name in names if name.lower() == 'background']
    learnt = [name for names in scenario.steps for name in names]
    assert learnt == [name for name in names if name not in background + unclear]
    if background:
        assert scenario.background == names.index(background[0]) + raw.offset
    else:
        assert scenario.background == (0 if raw.offset else None)


def test_mapillary_must_say_what_unlabeled_is():
    with pytest.raises(ValueError, match="has the class 'Unlabeled'"):
        RawLabels.of(MapillaryDataset_v1, None, None).scenario(dict(task='1-1'))


def test_a_part_of_a_dataset_without_background_is_a_choice():
    raw = RawLabels.of(CityscapesDataset, ('car', 'person', 'bus'), None)
    assert raw.scenario(dict(task='2-1')).train_label_map(0)[0] == 255
