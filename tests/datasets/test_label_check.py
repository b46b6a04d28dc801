"""Pipelines whose labels are not what the scenario says, found before training."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmseg.registry import DATASETS, TRANSFORMS

from mmseg_hrhf.datasets import label_check
from mmseg_hrhf.datasets.label_check import check_label_independence, check_loaded_labels

LOAD, LABELS, PACK = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')


def transform(name):
    """Register a function of the results as a transform."""

    def decorate(function):
        kind = type(name, (BaseTransform,), dict(transform=lambda self, results: function(results)))
        TRANSFORMS.register_module(name=name, module=kind, force=True)
        return function

    return decorate


def read(results):
    return cv2.imread(results['seg_map_path'], cv2.IMREAD_UNCHANGED)


def put(results, labels):
    results['gt_seg_map'] = labels
    results['seg_fields'].append('gt_seg_map')
    return results


def mapped(results, labels):
    out = labels.copy()
    for old, new in (results['label_map'] or {}).items():
        out[labels == old] = new
    return out


@transform('IgnoresTheMap')
def _(results):
    return put(results, read(results))


@transform('MapsWell')
def _(results):
    return put(results, mapped(results, read(results)))


@transform('ShiftsFirst')
def _(results):
    labels = read(results)
    return put(results, mapped(results, np.where(labels == 255, labels, labels - (labels > 0))))


@transform('ForgetsTheField')
def _(results):
    return dict(results, gt_seg_map=mapped(results, read(results)))


@transform('LoadsBothAndFlips')
def _(results):
    results['img'] = np.ascontiguousarray(cv2.imread(results['img_path'])[:, ::-1])
    results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
    return put(results, np.ascontiguousarray(mapped(results, read(results))[:, ::-1]))


@transform('FlipsWhileLoading')
def _(results):
    results['img'] = np.ascontiguousarray(results['img'][:, ::-1])
    return put(results, np.ascontiguousarray(mapped(results, read(results))[:, ::-1]))


@transform('LoadsBothUnmapped')
def _(results):
    results['img'] = cv2.imread(results['img_path'])
    return put(results, read(results))


@transform('FlipsLabelsAlone')
def _(results):
    return put(results, np.ascontiguousarray(mapped(results, read(results))[:, ::-1]))


@transform('CropsLabelsAlone')
def _(results):
    return put(results, mapped(results, read(results))[:40])


@transform('MergesTwoIntoOne')
def _(results):
    results['gt_seg_map'][results['gt_seg_map'] == 2] = 1
    return results


@transform('ErasesTheLast')
def _(results):
    labels = results['gt_seg_map']
    for last in [label for label in np.unique(labels) if label not in (0, 255)][-1:]:
        labels[labels == last] = 255
    return results


@transform('PaintsThree')
def _(results):
    results['gt_seg_map'][:5, :5] = 3
    return results


@transform('PaintsOne')
def _(results):
    results['gt_seg_map'][:5, :5] = 1
    return results


@transform('PaintsBackground')
def _(results):
    results['gt_seg_map'][:5, :5] = 0
    return results


@transform('DrawsByItself')
def _(results):
    results['gt_seg_map'] = np.roll(results['gt_seg_map'], int(DRAWS.integers(5, 40)), axis=0)
    return results


DRAWS = np.random.default_rng(0)
GEOMETRY = [
    dict(type='RandomResize', scale=(96, 48), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(40, 40), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomRotate', prob=0.5, degree=20),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomCutOut', prob=0.5, n_holes=1, cutout_shape=(5, 5), seg_fill_in=255),
]


@pytest.fixture
def view(tiny_config):

    def build(pipeline, step=1, **scenario):
        dataset = dict(tiny_config.train_dataloader.dataset, pipeline=pipeline)
        return DATASETS.build(
            dict(type='IncrementalDataset', dataset=dataset, step=step, scenario=dict(tiny_config.scenario, **scenario))
        )

    return build


def check(dataset):
    check_loaded_labels(dataset, 'train_dataloader')
    check_label_independence(dataset, dataset, 'train_dataloader')


@pytest.mark.parametrize(
    'pipeline',
    [
        [LOAD, LABELS, PACK],
        [LOAD, LABELS, *GEOMETRY, PACK],
        [LOAD, dict(type='MapsWell'), *GEOMETRY, PACK],
        [dict(type='LoadsBothAndFlips'), *GEOMETRY, PACK],
        [LOAD, dict(type='FlipsWhileLoading'), *GEOMETRY, PACK],
        [LOAD, dict(type='Resize', scale=(96, 96)), LABELS, dict(type='PackSegInputs')],
        [LOAD, LABELS, dict(type='PaintsBackground'), PACK],
        [LOAD, LABELS, dict(type='ErasesTheLast'), PACK],
    ],
    ids=[
        'plain',
        'augmented',
        'own loader',
        'own loader of both',
        'flip while loading',
        'labels after resizing',
        'background painted',
        'labels sorted',
    ],
)
@pytest.mark.parametrize('step', [0, 1])
def test_what_leaves_labels_to_the_scenario_passes(view, pipeline, step):
    dataset = view(pipeline, step)
    before = dict(dataset.label_map)
    check(dataset)
    assert dataset.label_map == before


@pytest.mark.parametrize(
    'pipeline, message',
    [
        (
            [LOAD, dict(type='IgnoresTheMap'), PACK],
            r'IgnoresTheMap in the pipeline of train_dataloader returns label 255 for '
            r"raw label 255 in .*the scenario maps it to 0 at step 1.*results\['label_map'\]",
        ),
        ([dict(type='LoadsBothUnmapped'), PACK], 'LoadsBothUnmapped in the pipeline of .* returns label'),
        ([LOAD, dict(type='FlipsLabelsAlone'), PACK], 'FlipsLabelsAlone in the pipeline of .* returns label'),
        (
            [LOAD, dict(type='CropsLabelsAlone'), PACK],
            r'CropsLabelsAlone .* returns labels of shape \(40, 48\) for the mask .* of shape \(48, 48\)',
        ),
        ([LOAD, dict(type='ShiftsFirst'), PACK], 'ShiftsFirst in the pipeline of train_dataloader returns label'),
        (
            [LOAD, dict(type='ForgetsTheField'), PACK],
            r"ForgetsTheField .*without adding 'gt_seg_map' to results\['seg_fields'\]",
        ),
        ([LOAD, LABELS, dict(type='MergesTwoIntoOne'), PACK], r'class indices \(as seen for label 1\)'),
        ([LOAD, LABELS, dict(type='PaintsThree'), PACK], 'depend on class indices'),
        (
            [LOAD, LABELS, dict(type='RandomCutOut', prob=1.0, n_holes=1, cutout_shape=(9, 9), seg_fill_in=2), PACK],
            'depend on class indices',
        ),
        (
            [LOAD, LABELS, dict(type='RandomCutOut', prob=0.3, n_holes=1, cutout_shape=(9, 9), seg_fill_in=2), PACK],
            'depend on class indices',
        ),
        (
            [LOAD, LABELS, dict(type='RandomRotFlip', rotate_prob=1.0, flip_prob=0.0), PACK],
            'interpolates between labels \\(as RandomRotFlip does',
        ),
        ([LOAD, PACK], 'pipeline of train_dataloader loads no labels'),
    ],
    ids=[
        'map ignored',
        'map ignored for both',
        'labels flipped',
        'labels cropped',
        'shifted first',
        'field forgotten',
        'classes merged',
        'class painted',
        'class cut in',
        'class cut in seldom',
        'labels interpolated',
        'none',
    ],
)
def test_what_changes_labels_is_refused(view, pipeline, message):
    # Step 1 maps labels, step 0 shows more classes.
    with pytest.raises(ValueError, match=message):
        for step in (1, 0):
            check(view(pipeline, step))


@pytest.mark.parametrize('loader', [LABELS, dict(type='IgnoresTheMap')], ids=['transform', 'loader'])
def test_every_joined_dataset_is_checked(tiny_config, loader):
    good = dict(tiny_config.train_dataloader.dataset, pipeline=[LOAD, LABELS, PACK])
    more = [dict(type='MergesTwoIntoOne')] if loader is LABELS else []
    bad = dict(good, pipeline=[LOAD, loader, *more, PACK])
    join = dict(type='IncrementalDataset', step=0, scenario=dict(tiny_config.scenario))
    check(DATASETS.build(dict(join, dataset=dict(type='ConcatDataset', datasets=[good, good]))))
    for datasets in ([good, bad], [bad, good]):
        with pytest.raises(ValueError, match=r'IgnoresTheMap in the pipeline|depend on class indices'):
            check(DATASETS.build(dict(join, dataset=dict(type='ConcatDataset', datasets=datasets))))


GENERATOR = np.random.default_rng(1)


@transform('DrawsByItselfSeldom')
def _(results):
    if GENERATOR.random() < 0.4:
        results['gt_seg_map'][GENERATOR.integers(9) : 20, 5:] = 0
    return results


def test_a_generator_of_its_own_used_seldom_is_no_fault(view):
    for _ in range(8):
        dataset = view([LOAD, LABELS, dict(type='DrawsByItselfSeldom'), PACK])
        check_label_independence(dataset, dataset, 'train_dataloader')


@pytest.mark.parametrize(
    'classes',
    [
        ['red', 'green', 'blue', 'grey'],
        ['red', 'green', 'blue', 'background'],
        ['red', 'background', 'green', 'blue'],
    ],
)
def test_masks_without_background_and_with_it_elsewhere(view, tiny_config, classes):
    tiny_config.train_dataloader.dataset.metainfo = dict(classes=classes)
    task = dict(task='2-1') if 'background' in classes else dict(task='2-2')
    check(view([LOAD, LABELS, *GEOMETRY, PACK], 0, **task))
    with pytest.raises(ValueError, match='depend on class indices'):
        check(view([LOAD, LABELS, dict(type='MergesTwoIntoOne'), PACK], 0, **task))


@pytest.mark.parametrize(
    'classes, bad', [(['red', 'green', 'blue'], 'MergesTwoIntoOne'), (['background', 'red', 'green'], 'PaintsOne')]
)
def test_masks_whose_label_0_is_void(view, tiny_config, classes, bad):
    data = tiny_config.train_dataloader.dataset
    data.metainfo, data.reduce_zero_label = dict(classes=classes), True
    task = dict(task='1-1' if 'background' in classes else '2-1')
    check(view([LOAD, LABELS, PACK], 0, **task))
    with pytest.raises(ValueError, match='depend on class indices'):
        check(view([LOAD, LABELS, dict(type=bad), PACK], 0, **task))


def test_the_first_label_that_differs_is_named(view):
    dataset = view([LOAD, dict(type='IgnoresTheMap'), PACK], 0)
    with pytest.raises(ValueError, match=r'train_dataloader depend on class indices \(as seen for label 1\)'):
        check_label_independence(dataset, dataset, 'train_dataloader')


@pytest.mark.parametrize(
    'num_images, test_mode, draws', [(0, False, 0), (1, False, 12), (5, False, 2), (18, False, 1), (18, True, 1)]
)
def test_about_a_dozen_samples_are_drawn(monkeypatch, num_images, test_mode, draws):
    monkeypatch.setattr(label_check, '_covering', lambda dataset, indices, classes: indices.tolist())
    dataset = SimpleNamespace(by_part=lambda: np.array_split(np.arange(num_images), 3), test_mode=test_mode)
    expected = [(draw, idx) for draw in range(draws) for idx in range(num_images)]
    assert label_check._draws(dataset, [1]) == expected


def test_samples_are_compared_by_two_draws_and_the_first_with_itself(view, monkeypatch):
    own, drawn = label_check._labels, []

    def labels(dataset, idx, name, draw):
        drawn.append((draw, idx))
        return own(dataset, idx, name, draw)

    monkeypatch.setattr(label_check, '_labels', labels)
    dataset = view([LOAD, LABELS, PACK])
    check_label_independence(dataset, dataset, 'train_dataloader')
    each = label_check._draws(dataset, sorted(dataset.scenario.labels.values()))
    assert len(each) > 2 and drawn == [each[0], *(draw for draw in each for _ in range(2))]


def test_few_images_show_as_many_classes_as_they_can():
    presence = np.zeros((5, 256), dtype=bool)
    for row, labels in zip(presence, [(1,), (1, 2), (3,), (1, 2, 4), ()]):
        row[list(labels)] = True
    dataset = SimpleNamespace(presence=presence, positions=np.array([4, 0, 1, 2, 3]))
    assert label_check._covering(dataset, np.arange(5), [1, 2, 3, 4]) == [4, 3]
    assert label_check._covering(dataset, np.array([0, 1, 2]), [1, 2, 3, 4]) == [2]
    each = SimpleNamespace(presence=np.eye(8, 256, dtype=bool), positions=np.arange(8))
    assert label_check._covering(each, np.arange(8), range(8)) == list(range(6))


def test_a_generator_of_its_own_is_said_and_not_taken_for_a_fault(view, monkeypatch):
    said = []
    monkeypatch.setattr(label_check, 'print_log', lambda text, **kwargs: said.append(text))
    dataset = view([LOAD, LABELS, dict(type='DrawsByItself'), PACK])
    check_label_independence(dataset, dataset, 'train_dataloader')
    assert len(said) == 1 and 'uses its own random generator: a resumed run will not reproduce its samples' in said[0]


def test_mixed_images_are_checked_through_the_mix(view, tiny_config):
    inner = dict(
        type='IncrementalDataset',
        step=1,
        scenario=dict(tiny_config.scenario),
        dataset=dict(tiny_config.train_dataloader.dataset, pipeline=[LOAD, LABELS]),
    )
    mix = [dict(type='RandomMosaic', prob=1.0, img_scale=(48, 48), seg_pad_val=255)]
    good, bad = (
        DATASETS.build(dict(type='SeededMixDataset', dataset=inner, pipeline=[*mix, *more, PACK]))
        for more in ([], [dict(type='PaintsThree')])
    )
    check_label_independence(good, good.dataset, 'train_dataloader')
    with pytest.raises(ValueError, match='depend on class indices'):
        check_label_independence(bad, bad.dataset, 'train_dataloader')
