"""The rule of each setting against the published lists and counts (docs/protocol.md, section 2).

The reference data are not part of the repository: HRHF_SHARED names the folder that holds ``splits``, by default
``../shared`` beside the repository.
"""
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mmseg_hrhf.datasets.source import load_image_list
from mmseg_hrhf.scenario import Scenario

SPLITS = Path(os.environ.get('HRHF_SHARED', Path(__file__).resolve().parents[3] / 'shared')) / 'splits'
VOC = {f'class {label}': label for label in range(1, 21)}
ADE = {f'class {label}': label for label in range(1, 151)}


def reference(name):
    path = SPLITS / name
    if not path.exists():
        pytest.skip(f'{path} is absent (HRHF_SHARED names the folder with the published splits)')
    return path


@cache
def presence(name):
    """(N, 256) bool from lines of a name and its zero-based foreground classes."""
    lines = reference(name).read_text().split('\n')
    rows = [[int(number) + 1 for number in line.split()[1:]] for line in lines if line.strip()]
    matrix = np.zeros((len(rows), 256), dtype=bool)
    for row, labels in zip(matrix, rows):
        row[labels] = True
    return matrix


@pytest.mark.parametrize('setting, suffix', [('overlapped', '-ov'), ('disjoint', '')])
@pytest.mark.parametrize('task', ['19-1', '15-5'])
def test_voc_rule_reproduces_the_published_lists(task, setting, suffix):
    matrix = presence('voc/train_cls.txt')
    names = [str(i) for i in range(len(matrix))]
    scenario = Scenario.build(VOC, task=task, setting=setting)
    for step in range(2):
        published = load_image_list(str(reference(f'voc/{task}{suffix}/train-{step}.npy')), names)
        np.testing.assert_array_equal(scenario.select_train(matrix, step), published)


@pytest.mark.parametrize('task, setting, counts', [
    ('19-1', 'disjoint', [10034, 548]),
    ('19-1', 'overlapped', [10410, 548]),
    ('15-5', 'disjoint', [8437, 2145]),
    ('15-5', 'overlapped', [9568, 2145]),
    ('15-1', 'disjoint', [8437, 378, 299, 420, 500, 548]),
    ('15-1', 'sequential', [8437, 378, 299, 420, 500, 548]),
    ('15-1', 'overlapped', [9568, 487, 299, 491, 500, 548]),
    ('10-1', 'overlapped', [6139, 528, 1177, 444, 482, 3898, 487, 299, 491, 500, 548]),
])
def test_voc_training_images_by_step(task, setting, counts):
    matrix = presence('voc/train_cls.txt')
    scenario = Scenario.build(VOC, task=task, setting=setting)
    assert len(matrix) == 10582
    assert [len(scenario.select_train(matrix, t)) for t in range(scenario.num_steps)] == counts


@pytest.mark.parametrize('task', ['19-1', '15-1'])
def test_voc_partition_has_each_image_once_and_the_expected_share_of_them(task):
    matrix = presence('voc/train_cls.txt')
    names = [f'image {i}' for i in range(len(matrix))]
    scenario = Scenario.build(VOC, task=task, setting='partitioned')
    steps = [scenario.select_train(matrix, t, names) for t in range(scenario.num_steps)]
    np.testing.assert_array_equal(np.sort(np.concatenate(steps)), np.arange(10582))
    for t, positions in enumerate(steps):
        share = matrix[:, scenario.raw(scenario.steps[t])].sum(axis=1) / matrix.sum(axis=1)
        # Five standard deviations of the sum of the draws.
        assert abs(len(positions) - share.sum()) < 5 * np.sqrt((share * (1 - share)).sum())


def test_voc_evaluation_images_by_step():
    matrix = presence('voc/val_cls.txt')
    scenario = Scenario.build(VOC, task='15-1')
    assert [len(scenario.select_test(matrix, t)) for t in range(6)] == [1240, 1277, 1329, 1353, 1421, 1449]


@pytest.mark.parametrize('task, setting, counts', [
    ('100-50', 'overlapped', [20192, 9390]),
    ('100-10', 'overlapped', [20192, 1710, 2294, 2747, 4279, 2844]),
    ('50-50', 'overlapped', [20177, 13186, 9390]),
    ('100-50', 'disjoint', [10806, 9390]),
])
def test_ade_training_images_by_step(task, setting, counts):
    matrix = presence('ade/train_cls.txt')
    scenario = Scenario.build(ADE, task=task, setting=setting, zero_is_void=True)
    assert [len(scenario.select_train(matrix, t)) for t in range(scenario.num_steps)] == counts


def test_ade_published_partition_is_read_and_covers_every_labelled_image():
    matrix = presence('ade/train_cls.txt')
    names = [str(i) for i in range(len(matrix))]
    steps = [load_image_list(str(reference(f'ade/100-50/train-{t}.npy')), names) for t in range(2)]
    assert [len(positions) for positions in steps] == [13452, 6744]
    np.testing.assert_array_equal(np.sort(np.concatenate(steps)), np.flatnonzero(matrix.any(axis=1)))
