import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_hrhf.datasets.incremental import build_source, presence_of, scenario_of

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


def test_reduce_zero_label_by_default_is_refused_with_the_remedy(tmp_path):
    write_pair(tmp_path, 'a', np.array([[0, 1], [150, 2]], np.uint8))
    ade = dict(type='ADE20KDataset', data_root=str(tmp_path), data_prefix=dict(img_path='images', seg_map_path='masks'))
    with pytest.raises(ValueError, match=r'ADE20KDataset has reduce_zero_label=True.*set reduce_zero_label=False'):
        build_source(ade)


def test_reduce_zero_label_in_the_pipeline_is_refused(voc):
    voc['pipeline'] = [dict(type='LoadAnnotations', reduce_zero_label=True)]
    with pytest.raises(ValueError, match='LoadAnnotations in the pipeline of PascalVOCDataset has reduce_zero_label'):
        build_source(voc)


def test_classes_chosen_by_metainfo_are_refused(voc):
    with pytest.raises(ValueError, match=r'chooses classes by metainfo.*scenario\.steps'):
        build_source(dict(voc, metainfo=dict(classes=['background', 'person'])))


def test_wrapped_datasets_are_refused(voc):
    with pytest.raises(ValueError, match='RepeatDataset is no BaseSegDataset'):
        build_source(dict(type='RepeatDataset', times=2, dataset=voc))


def test_masks_without_background_number_classes_from_zero(tmp_path):
    write_pair(tmp_path, 'a', np.array([[0, 1], [2, 255]], np.uint8))
    cfg = dict(type='BaseSegDataset', data_root=str(tmp_path), metainfo=dict(classes=['road', 'car', 'sky']),
               data_prefix=dict(img_path='images', seg_map_path='masks'), pipeline=PIPELINE)
    dataset = DATASETS.build(dict(type='IncrementalDataset', dataset=cfg, scenario=dict(task='2-1'), step=1))
    np.testing.assert_array_equal(label_of(dataset, 0), [[0, 0], [3, 0]])


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
        presence = presence_of(source, scenario)
        counts[setting] = [len(scenario.select_train(presence, t)) for t in range(4)]
    assert counts == dict(overlapped=[2406, 444, 588, 299], disjoint=[2066, 229, 537, 299])
