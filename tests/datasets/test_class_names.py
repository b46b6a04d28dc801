import pytest
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from mmseg_hrhf.config.check import check_names_of_classes
from mmseg_hrhf.datasets.class_names import check_class_names, check_dataset_names, is_background_name
from mmseg_hrhf.datasets.raw_labels import RawLabels
from mmseg_hrhf.utils.errors import explain


@DATASETS.register_module()
class Trees(BaseSegDataset):
    METAINFO = dict(classes=('background', 'oak', 'elm'), palette=[[0, 0, 0], [0, 9, 0], [0, 99, 0]])


@DATASETS.register_module()
class OwnLabelMap(BaseSegDataset):
    """Its classes are renamed by a rule of its own."""
    METAINFO = Trees.METAINFO

    @classmethod
    def get_label_map(cls, new_classes=None):
        return None


@pytest.mark.parametrize('name, is_one', [
    ('background', True), ('Background', True), ('_background_', True), ('__BG__', True), (' bg ', True),
    ('-back-', False), ('void', False), ('unlabeled', False), ('backdrop', False), ('backpack', False), ('', False),
    ('_', False), (0, False), (None, False)])
def test_names_of_background(name, is_one):
    assert is_background_name(name) is is_one


@pytest.mark.parametrize('names', [None, [], ['a'], ('a', 'b c'), ['1', 'é']])
def test_lists_of_names_pass(names):
    check_class_names(names, 'x')


NO_NAMES = {
    'water': r"x is the string 'water', .* a tuple of one name needs a trailing comma, \('water', \)",
    (('background', 1), ): r"x contains the list \('background', 1\), .* remove the inner brackets",
    ('background', 1): "x contains 1, but class names must be strings: write '1'",
    ('a', 2.5): r"x contains 2\.5, .* write '2\.5'",
    ('a', True): r"x contains True, .* write 'True'",
    ('a', None): 'x contains None',
    ('a', ' '): "x contains the empty name ' '",
    7: 'x is 7, but must be a list of names',
    frozenset('a'): 'x is frozenset.* must be a list of names',
}


@pytest.mark.parametrize('names', NO_NAMES)
def test_what_is_no_list_of_names_is_refused(names):
    with pytest.raises(ValueError, match=NO_NAMES[names]):
        check_class_names(names, 'x')


def test_labels_are_not_read_from_what_is_no_list_of_names():
    with pytest.raises(ValueError, match=r"metainfo\.classes of BaseSegDataset is the string 'water'"):
        RawLabels.of(BaseSegDataset, 'water', False)
    with pytest.raises(ValueError, match=r'metainfo\.classes of BaseSegDataset contains 1'):
        RawLabels.of(BaseSegDataset, ('background', 1), False)


def base(**metainfo):
    return dict(type='BaseSegDataset', metainfo=metainfo)


def trees(**metainfo):
    return dict(type='Trees', metainfo=metainfo)


BLACK, GREEN = [0, 0, 0], [0, 9, 0]


@pytest.mark.parametrize('dataset', [
    base(classes=['a', 'b']),
    base(classes=('a', 'b'), palette=[BLACK, GREEN]),
    base(classes=('a', 'b'), palette=((0, 0, 0), (0, 9, 0))),
    base(classes=['a'], palette=[GREEN]),
    base(classes=['a', 'b'], palette=[]),
    base(classes=['a', 'b'], palette=[[255, 255, 255], BLACK]),
    dict(type='Trees'),
    dict(type='Trees', metainfo=None),
    trees(classes=['background', 'elm']),
    trees(classes=['background', 'elm'], palette=[BLACK, GREEN]),
    trees(palette=[BLACK, GREEN, GREEN]),
    dict(type='OwnLabelMap', metainfo=dict(classes=['background', 'tree', 'bush'])),
    dict(type='NotRegistered', metainfo=dict(classes='a')),
])
def test_datasets_that_are_right_pass(dataset):
    check_dataset_names(dataset, 'train_dataloader')


def test_names_may_stand_in_a_file(tmp_path):
    (tmp_path / 'names.txt').write_text('a\nb\n')
    check_dataset_names(base(classes=str(tmp_path / 'names.txt')), 'train_dataloader')
    with pytest.raises(ValueError, match='3 colours for 2 classes'):
        check_dataset_names(base(classes=str(tmp_path / 'names.txt'), palette=[BLACK] * 3), 'train_dataloader')


WRONG = {
    'one string': (base(classes='water'),
                   r"metainfo\.classes of LOADER \(BaseSegDataset\) is the string 'water', .*\('water', \)"),
    'a folder': (base(classes='/'), r"is the string '/'.* no such file"),
    'numbers': (base(classes=['background', 1, 2]), r"classes of LOADER \(BaseSegDataset\) contains 1, .* write '1'"),
    'by number': (base(classes={0: 'a', 1: 'b'}), 'must be a list of names'),
    'metainfo is a list': (dict(type='BaseSegDataset', metainfo=['a', 'b']),
                           r"metainfo=\['a', 'b'\] of LOADER .* must be a dict"),
    'two names in one': (base(classes=['a', 'bc'], palette=[BLACK, GREEN, GREEN]),
                         r"has 3 colours for 2 classes \('a', 'bc'\).*Without a comma between them"),
    'fewer colours': (base(classes=['a', 'b'], palette=[BLACK]), 'has 1 colours for 2 classes'),
    'one colour': (base(classes=['a', 'b', 'c'], palette=BLACK), r'palette\[0\]=0 of LOADER .* three whole numbers'),
    'four numbers': (base(classes=['a'], palette=[[0, 0, 0, 255]]), r'palette\[0\]=\[0, 0, 0, 255\]'),
    'colours of 0 to 1': (base(classes=['a'], palette=[[0.5, 0, 1.0]]), r'palette\[0\]=\[0\.5, 0, 1\.0\]'),
    'a colour out of range': (base(classes=['a'], palette=[[0, 0, 256]]), 'three whole numbers from 0 to 255'),
    'a negative colour': (base(classes=['a'], palette=[[0, -1, 0]]), 'three whole numbers from 0 to 255'),
    'many names': (base(classes=list('abcdefg'), palette=[BLACK]),
                   r"1 colours for 7 classes \('a', 'b', 'c', 'd', 'e', 'f', \.\.\.\): set one"),
    'six names': (base(classes=list('abcdef'), palette=[BLACK]), r"6 classes \('a', 'b', 'c', 'd', 'e', 'f'\): set"),
    'names of colours': (base(classes=['a', 'b'], palette=['red', 'tan']), r"palette\[0\]='red'"),
    'one name of a colour': (base(classes=['a'], palette='red'), r"palette of LOADER .* is the string 'red'"),
    'a number': (base(classes=['a'], palette=7), r'palette=7 of LOADER .* must be a list of RGB colours'),
    'a class it does not have': (trees(classes=['background', 'oka']), r"names 'oka', .* did you mean 'oak'\?"),
    'quite another class': (trees(classes=['background', 'zebra']), "names 'zebra', which is not one of its classes"),
    'no class of many': (trees(classes=[]), r'classes of LOADER \(Trees\) is empty'),
    'None for classes': (base(classes=None), r'metainfo\.classes of LOADER .* is None: set a list, or remove it'),
    'None for colours': (base(classes=['a'], palette=None), r'metainfo\.palette of LOADER .* is None'),
    'colours of too few': (trees(classes=['background', 'elm'], palette=[BLACK]), 'has 1 colours for 2 classes'),
}
WRAPPED = {
    'bare': lambda leaf: leaf,
    'repeated': lambda leaf: dict(type='RepeatDataset', times=2, dataset=leaf),
    'joined': lambda leaf: dict(type='ConcatDataset', datasets=[base(classes=['a', 'b']), leaf]),
    'mixed': lambda leaf: dict(type='MultiImageMixDataset', pipeline=[],
                               dataset=dict(type='RepeatDataset', times=2, dataset=leaf)),
}


@pytest.mark.parametrize('loader', ['train_dataloader', 'val_dataloader', 'test_dataloader'])
@pytest.mark.parametrize('wrapper', WRAPPED)
@pytest.mark.parametrize('case', WRONG)
def test_every_dataset_of_every_loader_is_checked(case, wrapper, loader):
    dataset, message = WRONG[case]
    loaders = {loader: dict(dataset=WRAPPED[wrapper](dataset))}
    with pytest.raises(ValueError, match=message.replace('LOADER', loader)) as info:
        check_names_of_classes(Config(dict(loaders, scenario=dict(task='1-1'))))
    assert explain(info.value) is not None


STEPS = {
    'cat': r"scenario\.steps='cat' must be a list of lists of names, one for each step",
    ('cat', 'dog'): r"steps\[0\] is the string 'cat': .* \('cat', \)",
    (('cat', ), 'dog'): r"steps\[1\] is the string 'dog'",
    (('cat', ), ('dog', 3)): r"scenario\.steps\[1\] contains 3, .* write '3'",
    (('cat', ), (('dog', ), )): r'scenario\.steps\[1\] contains the list .*inner brackets',
    (1, 2): r'steps\[0\] is 1',
}


@pytest.mark.parametrize('steps', STEPS)
def test_steps_are_lists_of_lists_of_names(steps):
    with pytest.raises(ValueError, match=STEPS[steps]):
        check_names_of_classes(Config(dict(scenario=dict(steps=steps))))


def test_an_order_is_a_list():
    with pytest.raises(ValueError, match=r"scenario\.class_order='cat' must be a list of all .*\('cat', \)"):
        check_names_of_classes(Config(dict(scenario=dict(class_order=('cat')))))
    check_names_of_classes(Config(dict(scenario=dict(class_order=['cat', 2], steps=[['cat'], ['dog', 'cow']]))))
