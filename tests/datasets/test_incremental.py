import cv2
import numpy as np
import pytest
from mmengine.dataset import BaseDataset
from mmseg.datasets import BaseSegDataset, PascalVOCDataset
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_hrhf.datasets.incremental import (
    build_source,
    check_paths,
    count_labels,
    image_paths,
    load_sample,
    scenario_of,
    scenario_of_config,
)

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]


def write_pair(root, name, mask):
    for folder in ('images', 'masks'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*mask.shape, 3), np.uint8)).save(root / 'images' / f'{name}.jpg')
    Image.fromarray(mask).save(root / 'masks' / f'{name}.png')


def label_of(dataset, idx):
    return dataset[idx]['data_samples'].gt_sem_seg.data[0].numpy()


@pytest.fixture
def voc(tmp_path):
    """Two images: aeroplane (1) with tvmonitor (20) and void; person (15) alone."""
    write_pair(tmp_path, 'a', np.array([[0, 1], [20, 255]], np.uint8))
    write_pair(tmp_path, 'b', np.array([[0, 15], [15, 15]], np.uint8))
    (tmp_path / 'list.txt').write_text('a\nb\n')
    return dict(type='PascalVOCDataset', data_root=str(tmp_path), ann_file='list.txt', pipeline=PIPELINE,
                data_prefix=dict(img_path='images', seg_map_path='masks'))


def incremental(dataset, step, test_mode=False, **scenario):
    return DATASETS.build(
        dict(type='IncrementalDataset', dataset=dataset, scenario=dict(task='19-1', **scenario), step=step,
             test_mode=test_mode))


def test_voc_overlapped_step_sees_its_images_and_labels(voc):
    step0, step1 = incremental(voc, 0), incremental(voc, 1)
    assert len(step0) == 2 and len(step1) == 1
    np.testing.assert_array_equal(label_of(step0, 0), [[0, 1], [0, 0]])
    np.testing.assert_array_equal(label_of(step1, 0), [[0, 0], [20, 0]])
    assert step1.metainfo['classes'][20] == 'tvmonitor' and len(step0.metainfo['classes']) == 20


def test_voc_disjoint_step_does_not_see_future_classes(voc):
    assert len(incremental(voc, 0, setting='disjoint')) == 1


def test_voc_void_is_ignored_under_plop(voc):
    np.testing.assert_array_equal(label_of(incremental(voc, 1, label_protocol='plop'), 0), [[0, 0], [20, 255]])


def test_voc_test_labels(voc):
    np.testing.assert_array_equal(label_of(incremental(voc, 0, True), 0), [[0, 1], [255, 255]])
    np.testing.assert_array_equal(label_of(incremental(voc, 0, True, label_protocol='plop'), 0), [[0, 1], [0, 255]])


def test_classes_take_their_index_from_the_order_of_learning(voc):
    names = list(build_source(voc).metainfo['classes'][1:])
    dataset = incremental(voc, 0, class_order=names[::-1])
    np.testing.assert_array_equal(label_of(dataset, 0), [[0, 0], [1, 0]])  # aeroplane, the last, comes in step 1
    assert dataset.metainfo['palette'][1] == [0, 64, 128]  # tvmonitor's


def test_an_image_list_takes_the_place_of_the_rule_in_training_alone(voc, tmp_path):
    (tmp_path / 'of_b.txt').write_text('b\n')
    lists = {1: str(tmp_path / 'of_b.txt')}
    listed = incremental(voc, 1, image_lists=lists)
    assert [listed.get_data_info(i)['img_path'][-5] for i in range(len(listed))] == ['b']  # the rule takes image a
    assert len(incremental(voc, 0, image_lists=lists)) == 2
    assert len(incremental(voc, 1, True, image_lists=lists)) == 2


def test_classes_outside_the_scenario_are_ignored(voc):
    dataset = DATASETS.build(
        dict(type='IncrementalDataset', dataset=voc, scenario=dict(steps=[['aeroplane'], ['person']]), step=0))
    np.testing.assert_array_equal(label_of(dataset, 0), [[0, 1], [255, 0]])


def test_ade20k_keeps_zero_as_background_and_ignores_it_in_tests(tmp_path):
    write_pair(tmp_path, 'a', np.array([[0, 1], [150, 2]], np.uint8))
    ade = dict(type='ADE20KDataset', data_root=str(tmp_path), reduce_zero_label=False, pipeline=PIPELINE,
               data_prefix=dict(img_path='images', seg_map_path='masks'))
    source = build_source(ade)
    scenario = scenario_of(source, dict(task='100-50'))
    assert scenario.labels['wall'] == 1 and scenario.labels['flag'] == 150 and scenario.zero_is_void

    def labels(step, test_mode):
        return label_of(DATASETS.build(dict(type='IncrementalDataset', dataset=ade, scenario=dict(task='100-50'),
                                            step=step, test_mode=test_mode)), 0).tolist()

    assert labels(0, False) == [[0, 1], [0, 2]] and labels(1, False) == [[0, 0], [150, 0]]
    assert labels(0, True) == [[255, 1], [255, 2]] and labels(1, True) == [[255, 1], [150, 2]]


def labels_of(dataset, scenario, step, test_mode=False):
    built = DATASETS.build(
        dict(type='IncrementalDataset', dataset=dataset, scenario=scenario, step=step, test_mode=test_mode))
    return [label_of(built, i).tolist() for i in range(len(built))]


@pytest.mark.parametrize('of_dataset, of_loader', [({}, {}), (dict(reduce_zero_label=True), {}),
                                                   ({}, dict(reduce_zero_label=True)),
                                                   (dict(reduce_zero_label=False), dict(reduce_zero_label=True))])
@pytest.mark.filterwarnings('ignore:`reduce_zero_label`')
def test_reduce_zero_label_is_switched_off_wherever_it_stands(tmp_path, of_dataset, of_loader):
    write_pair(tmp_path, 'a', np.array([[0, 1], [150, 255]], np.uint8))
    pipeline = [PIPELINE[0], dict(type='LoadAnnotations', **of_loader), PIPELINE[2]]
    ade = dict(type='ADE20KDataset', data_root=str(tmp_path), pipeline=pipeline, **of_dataset,
               data_prefix=dict(img_path='images', seg_map_path='masks'))
    assert labels_of(ade, dict(task='100-50'), 0) == [[[0, 1], [0, 0]]]
    assert labels_of(ade, dict(task='100-50', label_protocol='plop'), 1) == [[[0, 0], [150, 255]]]
    assert labels_of(ade, dict(task='100-50'), 1, test_mode=True) == [[[255, 1], [150, 255]]]


def test_reduce_zero_label_of_a_dataset_that_has_it_not_by_default(tmp_path):
    """COCO-Stuff 10k in mmseg's configs: masks of 0 (void) and 1..171."""
    write_pair(tmp_path, 'a', np.array([[0, 1], [171, 171]], np.uint8))
    coco = dict(type='COCOStuffDataset', data_root=str(tmp_path), reduce_zero_label=True, pipeline=PIPELINE,
                img_suffix='.jpg', seg_map_suffix='.png', data_prefix=dict(img_path='images', seg_map_path='masks'))
    assert labels_of(coco, dict(task='170-1'), 1) == [[[0, 0], [171, 171]]]
    assert labels_of(coco, dict(task='170-1'), 1, test_mode=True) == [[[255, 1], [171, 171]]]


def test_void_beside_a_real_background(tmp_path):
    """LoveDA: 0 is void, 1 background, 2..7 the classes."""
    write_pair(tmp_path, 'a', np.array([[0, 1], [2, 7]], np.uint8))
    path = (tmp_path / 'images' / 'a.jpg')
    path.rename(path.with_suffix('.png'))
    love = dict(type='LoveDADataset', data_root=str(tmp_path), pipeline=PIPELINE,
                data_prefix=dict(img_path='images', seg_map_path='masks'))
    assert labels_of(love, dict(task='5-1'), 0) == [[[0, 0], [1, 0]]]  # MiB trains void as background
    assert labels_of(love, dict(task='5-1', label_protocol='plop'), 0) == [[[255, 0], [1, 0]]]
    assert labels_of(love, dict(task='5-1'), 1, test_mode=True) == [[[255, 0], [1, 6]]]
    assert build_source(love).raw_labels.names[0] == 'background'


@pytest.mark.filterwarnings('ignore:`reduce_zero_label`')
def test_reduce_zero_label_of_a_transform_alone_is_refused(voc):
    voc['pipeline'] = [dict(type='LoadAnnotations', reduce_zero_label=True)]
    with pytest.raises(ValueError, match='A transform of PascalVOCDataset has reduce_zero_label=True, but the dataset'):
        build_source(voc)


def test_classes_chosen_by_metainfo_are_those_the_task_divides(voc):
    chosen = dict(voc, metainfo=dict(classes=['background', 'tvmonitor', 'aeroplane']))
    dataset = DATASETS.build(dict(type='IncrementalDataset', dataset=chosen, scenario=dict(task='1-1'), step=0))
    assert dataset.metainfo['classes'] == ('background', 'tvmonitor')
    np.testing.assert_array_equal(label_of(dataset, 0), [[0, 0], [1, 0]])
    step1 = DATASETS.build(dict(type='IncrementalDataset', dataset=chosen, scenario=dict(task='1-1'), step=1))
    np.testing.assert_array_equal(label_of(step1, 0), [[0, 2], [0, 0]])
    with pytest.raises(ValueError, match=r"metainfo\.classes of .* lacks 'background'"):
        build_source(dict(voc, metainfo=dict(classes=['person'])))


def test_joined_and_repeated_datasets_keep_their_images_order_and_pipelines(voc, tmp_path):
    (tmp_path / 'rest.txt').write_text('b\n')
    marked = [*PIPELINE[:2], dict(type='RandomFlip', prob=1.0), PIPELINE[2]]
    joined = dict(type='ConcatDataset', datasets=[
        dict(voc, ann_file='rest.txt', pipeline=marked), dict(type='RepeatDataset', times=2, dataset=voc)])
    dataset = incremental(joined, 0)
    names = [dataset.get_data_info(i)['img_path'][-5] for i in range(len(dataset))]
    assert names == ['b', 'a', 'b', 'a', 'b'] and len(dataset.source) == 3
    assert ['flip' in dataset[i]['data_samples'].metainfo for i in range(5)] == [True] + [False] * 4
    step1 = incremental(joined, 1)
    assert [step1.get_data_info(i)['img_path'][-5] for i in range(2)] == ['a', 'a']
    assert [part.tolist() for part in dataset.by_part()] == [[0], [1, 2, 3, 4]]
    assert [part.tolist() for part in step1.by_part()] == [[0, 1]]


@pytest.fixture
def pairs(tmp_path):
    """24 images that show aeroplane (1) and tvmonitor (20), in two folders with the same file names."""
    for folder in ('images/day', 'images/night', 'masks/day', 'masks/night'):
        (tmp_path / folder).mkdir(parents=True)
    names = [f'{time}/{i}' for time in ('day', 'night') for i in range(12)]
    for name in names:
        write_pair(tmp_path, name, np.array([[0, 1], [20, 255]], np.uint8))
    (tmp_path / 'all.txt').write_text('\n'.join(names))
    return dict(type='PascalVOCDataset', data_root=str(tmp_path), ann_file='all.txt', pipeline=PIPELINE,
                data_prefix=dict(img_path='images', seg_map_path='masks'))


def steps_of_images(dataset, **scenario):
    """Step of each image by its folder and name, which may come several times in one step."""
    found = {}
    for step in (0, 1):
        view = incremental(dataset, step, setting='partitioned', **scenario)
        for path in (view.get_data_info(i)['img_path'] for i in range(len(view))):
            assert found.setdefault('/'.join(path.split('/')[-2:]), step) == step
    return found


def test_a_partition_tells_images_of_the_same_name_apart(pairs):
    found = steps_of_images(pairs)
    assert len(found) == 24 and set(found.values()) == {0, 1}
    assert any(found[f'day/{i}.jpg'] != found[f'night/{i}.jpg'] for i in range(12))
    assert steps_of_images(pairs, partition_seed=1) != found


def test_a_partition_moves_with_the_data(pairs, tmp_path):
    found = steps_of_images(pairs)
    (tmp_path / 'elsewhere').mkdir()
    for folder in ('images', 'masks', 'all.txt'):
        (tmp_path / folder).rename(tmp_path / 'elsewhere' / folder)
    assert steps_of_images(dict(pairs, data_root=str(tmp_path / 'elsewhere'))) == found


def test_a_repeated_image_is_of_one_step(pairs, tmp_path):
    (tmp_path / 'some.txt').write_text(''.join(f'day/{i}\n' for i in range(12)))
    some = dict(pairs, ann_file='some.txt')
    joined = dict(type='ConcatDataset', datasets=[some, dict(type='RepeatDataset', times=2, dataset=pairs)])
    assert steps_of_images(joined) == steps_of_images(pairs)
    assert steps_of_images(some).items() <= steps_of_images(pairs).items()
    assert sum(len(incremental(joined, step, setting='partitioned')) for step in (0, 1)) == 12 + 2 * 24


def test_a_partition_of_images_listed_by_whole_paths(pairs, tmp_path):
    (tmp_path / 'whole.txt').write_text(''.join(f'{tmp_path}/images/day/{i}\n' for i in range(12)))
    source = build_source(dict(pairs, ann_file='whole.txt'))
    assert image_paths(source) == [f'day/{i}' for i in range(12)]
    outside = build_source(dict(pairs, ann_file='whole.txt', data_prefix=dict(img_path='masks', seg_map_path='masks')))
    assert image_paths(outside) == [f'{i}' for i in range(12)]


def test_an_image_list_takes_the_place_of_the_partition(pairs, tmp_path):
    np.save(tmp_path / 'list.npy', np.arange(24))
    listed = incremental(pairs, 1, setting='partitioned', image_lists={1: str(tmp_path / 'list.npy')})
    assert len(listed) == 24 > len(incremental(pairs, 1, setting='partitioned'))


def test_joined_datasets_must_mean_the_same_by_a_label(voc):
    other = dict(voc, metainfo=dict(classes=['background', 'person']))
    with pytest.raises(ValueError, match='PascalVOCDataset and PascalVOCDataset, which have different classes'):
        build_source(dict(type='ConcatDataset', datasets=[voc, other]))


def test_a_wrapper_that_cannot_be_divided_is_refused(voc):
    with pytest.raises(ValueError, match='ClassBalancedDataset cannot be divided into learning steps'):
        build_source(dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=voc))


@DATASETS.register_module()
class NoSegDataset(BaseDataset):
    """A dataset of the toolbox's engine, but not one for segmentation."""

    def load_data_list(self):
        return []


# Options merged into a good dataset | what the answer must hold.
REFUSED = {
    'no data_root': (dict(data_root='/nowhere'), r"data_root '/nowhere' of PascalVOCDataset does not exist"),
    'no folder': (dict(data_prefix=dict(img_path='', seg_map_path='labels')),
                  r"labels' \(data_prefix\.seg_map_path of PascalVOCDataset\) does not exist"),
    'no image list': (dict(ann_file='no.txt'), r"no\.txt' \(ann_file of PascalVOCDataset\) does not exist"),
    'no image': (dict(ann_file='empty.txt'), r"contains no images: .*ann_file and img_suffix='\.jpg"),
    'misspelt type': (dict(type='PascalVOC'), r"Dataset type 'PascalVOC' is not registered"),
    'another kind': (dict(type='NoSegDataset', ann_file=''), 'NoSegDataset is not a BaseSegDataset'),
    'ignore_index': (dict(ignore_index=0), r'PascalVOCDataset has ignore_index=0, but ignored pixels are always 255'),
    'misspelt option': (dict(root='a'), r"PascalVOCDataset or its pipeline cannot be built from the config: .*'root'"),
    'misspelt transform': (dict(pipeline=[dict(type='LoadImages')]), r'built from the config: LoadImages is not in'),
    'metainfo that is no dict': (dict(metainfo=3), r'built from the config: metainfo should be'),
    'options that are asserted': (dict(pipeline=[dict(type='Resize')]), r'built from the config: .*`scale`'),
    'options asserted without a word': (dict(pipeline=[dict(type='RandomCrop', crop_size=(0, 0))]),
                                        r'or its pipeline cannot be built from the config: assert crop_size\[0\] > 0'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_a_dataset_that_cannot_be_built_is_refused_by_what_is_wrong(voc, tmp_path, case):
    (tmp_path / 'empty.txt').touch()
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        build_source(dict(voc, **options))


@pytest.mark.parametrize('error', [AttributeError("'list' object has no attribute\n  'items'"), ImportError('no albu')])
def test_what_a_dataset_raises_as_it_is_built_is_told_in_one_line(voc, error):
    class Raising(PascalVOCDataset):

        def __init__(self, **kwargs):
            raise error

    with pytest.raises(ValueError, match=r"^The dataset Raising or its .*: ('list' .* attribute 'items'|no albu)\.$"):
        build_source(dict(voc, type=Raising))


def test_a_dataset_may_be_named_by_its_class_and_lie_in_the_prefixes_alone(voc, tmp_path):
    named = dict(voc, type=PascalVOCDataset, data_root=None, ann_file=str(tmp_path / 'list.txt'), data_prefix={
        key: str(tmp_path / folder) for key, folder in voc['data_prefix'].items()})
    assert len(build_source(named)) == len(build_source(voc)) == 2


def test_folders_are_made_first_and_not_looked_for_elsewhere_than_on_disk(voc, tmp_path):
    absent = dict(voc, data_prefix=dict(img_path='absent'))
    check_paths(dict(absent, data_root='s3://bucket'))
    check_paths(dict(absent, backend_args=dict(backend='petrel')))

    class Made(PascalVOCDataset):

        @classmethod
        def prepare(cls, root):
            (tmp_path / root / 'absent').mkdir()

    with pytest.raises(ValueError, match=r'absent. \(data_prefix\.img_path of .* does not exist'):
        check_paths(absent)
    check_paths(dict(absent, type=Made))


@pytest.mark.parametrize('cfg', [
    dict(type='BaseSegDataset', metainfo=dict(classes=['background', 'car', 'sky'])),
    dict(type=BaseSegDataset, metainfo=dict(classes=['background', 'car', 'sky']))], ids=['name', 'class'])
def test_the_scenario_of_a_config_is_that_of_its_first_dataset(cfg):
    joined = dict(type='ConcatDataset', datasets=[cfg, dict(cfg, metainfo=dict(classes=['sea', 'tree']))])
    for around in (cfg, joined, dict(type='MultiImageMixDataset', dataset=joined, pipeline=[])):
        scenario = scenario_of_config(around, dict(task='1-1'))
        assert scenario.class_names(1) == ('background', 'car', 'sky')
    with pytest.raises(ValueError, match="Dataset type 'SegDataset' is not registered: check its spelling"):
        scenario_of_config(dict(cfg, type='SegDataset'), dict(task='1-1'))


def test_images_are_checked_with_their_masks_on_a_local_disk_alone(voc, tmp_path):
    scenario = scenario_of(build_source(voc), dict(task='19-1'))
    (tmp_path / 'images' / 'b.jpg').write_bytes(b'')
    with pytest.raises(ValueError, match=r"b\.jpg' is not a readable image \(0 bytes\)"):
        count_labels(build_source(voc), scenario)
    remote = build_source(dict(voc, backend_args=dict(backend='local')))
    assert count_labels(remote, scenario)[1, [0, 15]].tolist() == [1, 3]
    with pytest.raises(ValueError, match=r'PascalVOCDataset has no masks: set data_prefix\.seg_map_path'):
        count_labels(build_source(dict(voc, data_prefix=dict(img_path='images'))), scenario)


@pytest.mark.parametrize('step, test_mode, message', [
    (1, False, r'Step 1 \(bird\) has no training images in the overlapped setting, out of 2 in .*to another step'),
    (0, True, r'Step 0 \(cat\) has no evaluation image')])
def test_a_step_without_image_is_refused(voc, step, test_mode, message):
    steps = [['cat'], ['person']] if test_mode else [['person'], ['bird']]
    with pytest.raises(ValueError, match=message):
        DATASETS.build(dict(type='IncrementalDataset', dataset=voc, scenario=dict(steps=steps), step=step,
                            test_mode=test_mode))


def test_masks_without_background_number_classes_from_zero(tmp_path):
    write_pair(tmp_path, 'a', np.array([[0, 1], [2, 255]], np.uint8))
    cfg = dict(type='BaseSegDataset', data_root=str(tmp_path), metainfo=dict(classes=['road', 'car', 'sky']),
               data_prefix=dict(img_path='images', seg_map_path='masks'), pipeline=PIPELINE)
    dataset = DATASETS.build(dict(type='IncrementalDataset', dataset=cfg, scenario=dict(task='2-1'), step=1))
    np.testing.assert_array_equal(label_of(dataset, 0), [[0, 0], [3, 0]])


@pytest.mark.parametrize('first, expected', [('background', [[9, 8, 7], [4, 5, 6]]), ('road', [[0, 0, 0], [9, 8, 7]])])
def test_background_is_black_where_the_dataset_has_no_colour_for_it(tmp_path, first, expected):
    write_pair(tmp_path, 'a', np.array([[0, 1], [1, 2]], np.uint8))
    meta = dict(classes=[first, 'car', 'sky'], palette=[[9, 8, 7], [4, 5, 6], [1, 2, 3]])
    cfg = dict(type='BaseSegDataset', data_root=str(tmp_path), metainfo=meta, pipeline=PIPELINE,
               data_prefix=dict(img_path='images', seg_map_path='masks'))
    dataset = DATASETS.build(dict(type='IncrementalDataset', dataset=cfg, scenario=dict(task='1-1'), step=0))
    assert dataset.metainfo['palette'] == expected


class OneImage:
    """A dataset of an image, whose pipeline is a function."""

    def __init__(self, pipeline):
        self.pipeline, self.asked = pipeline, 0

    def __len__(self):
        return 1

    def get_data_info(self, idx):
        return dict(img_path='a.jpg')

    def pipeline_of(self, idx):
        self.asked += 1
        return self.pipeline


@pytest.mark.parametrize('options, tries', [(dict(max_refetch=0), 1), (dict(max_refetch=2), 3), ({}, 1001)])
def test_a_pipeline_that_gives_nothing_is_asked_again_and_then_named(options, tries):
    dataset = OneImage(lambda info: None)
    with pytest.raises(RuntimeError, match=rf'no sample {tries} times in a row, last for .a\.jpg.'):
        load_sample(dataset, 0, **options)
    assert dataset.asked == tries


@pytest.mark.parametrize('kind', [OSError, AssertionError, AttributeError, TypeError, cv2.error])
def test_a_file_over_which_a_transform_trips_is_named(kind):
    def trip(info):
        raise kind('broken')

    with pytest.raises(ValueError, match=r"Image 'a\.jpg' or its mask cannot be read or transformed: broken\. Replace"):
        load_sample(OneImage(trip), 0)


def test_other_errors_of_a_transform_are_its_own():
    def trip(info):
        raise KeyError('scale')

    with pytest.raises(KeyError, match='scale'):
        load_sample(OneImage(trip), 0)


def test_real_voc_animals_counts(shared):
    root = shared / 'data/voc_animals/VOCdevkit/VOC2012'
    if not root.is_dir():
        pytest.skip(f'real images absent: {root}')
    cfg = dict(type='PascalVOCDataset', data_root=str(root), ann_file='ImageSets/Segmentation/train_aug.txt',
               data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'))
    source = build_source(cfg)
    steps = [['cat', 'cow', 'dog'], ['horse'], ['person'], ['sheep']]
    counts = {}
    for setting in ('overlapped', 'disjoint'):
        scenario = scenario_of(source, dict(steps=steps, setting=setting))
        presence = count_labels(source, scenario) > 0
        counts[setting] = [len(scenario.select_train(presence, t)) for t in range(4)]
    assert counts == dict(overlapped=[2406, 444, 588, 299], disjoint=[2066, 229, 537, 299])
