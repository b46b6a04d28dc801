"""The datasets within wrappers, their order, and where each image of them is."""
import numpy as np
import pytest

from mmseg_hrhf.datasets.source import Source, split_mix, type_name, unwrap, without_reduce_zero_label


def leaf(name):
    return dict(type='BaseSegDataset', data_root=name)


def joined(*datasets):
    return dict(type='ConcatDataset', datasets=list(datasets))


def repeated(dataset, times):
    return dict(type='RepeatDataset', dataset=dataset, times=times)


def mixed(dataset, **options):
    return dict(type='MultiImageMixDataset', dataset=dataset, pipeline=[], **options)


class Part:
    """A dataset of named images."""
    METAINFO = dict(classes=('background', 'a', 'b'))
    data_root, max_refetch, pipeline = 'root', 5, 'pipeline'

    def __init__(self, images, classes=None, reduce_zero_label=False):
        self.images, self.metainfo, self.reduce_zero_label = images, dict(classes=classes), reduce_zero_label

    def __len__(self):
        return len(self.images)

    def get_data_info(self, i):
        return dict(img_path=self.images[i], reduce_zero_label=True, label_map={1: 2})


def test_name_of_a_type():
    assert type_name(dict(type='mmseg.ADE20KDataset')) == 'ADE20KDataset'
    assert type_name(dict(type=Part)) == 'Part' and type_name({}) == 'None'


def test_a_lone_dataset():
    leaves, order = unwrap(leaf('a'))
    assert leaves == [leaf('a')] and order.tolist() == [0]


def test_nested_wrappers_in_the_order_they_are_gone_through():
    leaves, order = unwrap(joined(leaf('a'), repeated(joined(leaf('b'), repeated(leaf('c'), 2)), 2), leaf('d')))
    assert [found['data_root'] for found in leaves] == ['a', 'b', 'c', 'd']
    assert order.tolist() == [0, 1, 2, 2, 1, 2, 2, 3]


def test_wrappers_that_cannot_be_divided_are_refused():
    with pytest.raises(ValueError, match='ConcatDataset contains no datasets: add some to its `datasets`'):
        unwrap(joined())
    for wrapper in (dict(type='ClassBalancedDataset', dataset=leaf('a')), mixed(leaf('a'))):
        with pytest.raises(ValueError, match=f'{wrapper["type"]} cannot be divided into learning steps here'):
            unwrap(joined(wrapper))


def test_mixing_is_taken_out_of_repetitions():
    assert split_mix(leaf('a')) == (leaf('a'), {})
    assert split_mix(repeated(leaf('a'), 3)) == (repeated(leaf('a'), 3), {})
    mix = dict(type='MultiImageMixDataset', pipeline=[], skip_type_keys=None)
    for cfg in (mixed(repeated(leaf('a'), 3), skip_type_keys=None), repeated(mixed(leaf('a'), skip_type_keys=None), 3)):
        assert split_mix(cfg) == (repeated(leaf('a'), 3), mix)
    with pytest.raises(ValueError, match='MultiImageMixDataset within MultiImageMixDataset'):
        split_mix(mixed(repeated(mixed(leaf('a')), 2)))


def test_no_transform_however_nested_reduces_label_0():
    load = dict(type='LoadAnnotations', reduce_zero_label=True)
    nested = dict(type='RandomChoice', transforms=[[load, 'other'], (load, )], prob=(0.5, 0.5))
    clean = dict(type='LoadAnnotations')
    assert without_reduce_zero_label((load, nested)) == [
        clean, dict(type='RandomChoice', transforms=[[clean, 'other'], (clean, )], prob=(0.5, 0.5))]
    assert load['reduce_zero_label'] is True


def test_images_of_several_parts():
    source = Source([Part(['a0', 'a1']), Part(['b0']), Part(['c0', 'c1', 'c2'])], np.array([1, 0, 2, 0]))
    assert len(source) == 6
    assert [source.get_data_info(i)['img_path'] for i in range(6)] == ['a0', 'a1', 'b0', 'c0', 'c1', 'c2']
    assert source.get_data_info(3) == dict(img_path='c0', reduce_zero_label=False, label_map=None)
    assert [source.parts.index(source.locate(i)[0]) for i in range(6)] == [0, 0, 1, 2, 2, 2]
    assert source.repeated(np.array([0, 2, 3, 5])).tolist() == [2, 0, 3, 5, 0]
    assert source.repeated(np.array([4, 1])).tolist() == [1, 4, 1]
    assert source.pipeline_of(2) == source.pipeline == 'pipeline'
    assert source.first is source.parts[0] and source.data_root == 'root' and source.max_refetch == 5
    assert source.metainfo is source.first.metainfo


@pytest.mark.parametrize('reduces', [True, False, None])
def test_whether_the_user_reduces_label_0(reduces):
    assert Source([Part(['a'], reduce_zero_label=reduces)], np.zeros(1)).reduces_zero_label is bool(reduces)


@pytest.mark.parametrize('other', [dict(classes=['background', 'a']), dict(reduce_zero_label=True)])
def test_parts_whose_labels_mean_something_else_are_refused(other):
    class Other(Part):
        pass

    assert len(Source([Part(['a']), Other(['b'])], np.arange(2))) == 2
    with pytest.raises(ValueError, match='Part and Other, which have different classes or a different reduce'):
        Source([Part(['a']), Part(['c']), Other(['b'], **other)], np.arange(3))
