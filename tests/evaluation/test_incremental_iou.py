"""Means over groups of classes, without and with background."""
import math

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_hrhf.evaluation.incremental_iou import IncrementalIoUMetric, group_means

GROUPS = dict(old=(1, 2), new=(3, ), all=(1, 2, 3))
VOC_15_5 = dict(old=tuple(range(1, 16)), new=tuple(range(16, 21)), all=tuple(range(1, 21)))


def test_the_paper_leaves_background_out():
    # 15-5: (76.2 * 15 + 49.2 * 5) / 20 = 69.45, whatever the background.
    means = group_means(np.array([93.0] + [76.2] * 15 + [49.2] * 5), VOC_15_5)
    assert means['mIoU_old'] == pytest.approx(76.2)
    assert means['mIoU_new'] == pytest.approx(49.2)
    assert means['mIoU_all'] == pytest.approx(69.45)


def test_later_papers_put_background_in():
    means = group_means(np.array([93.0] + [76.2] * 15 + [49.2] * 5), VOC_15_5)
    assert means['mIoU_old_with_background'] == pytest.approx((93 + 76.2 * 15) / 16)
    assert means['mIoU_all_with_background'] == pytest.approx((93 + 76.2 * 15 + 49.2 * 5) / 21)


def test_names_of_the_figures():
    assert set(group_means(np.zeros(4), GROUPS)) == {
        'mIoU_old', 'mIoU_new', 'mIoU_all', 'mIoU_old_with_background', 'mIoU_all_with_background'}


def test_classes_without_a_pixel_are_left_out_of_the_mean():
    means = group_means(np.array([90., 60., np.nan, 30.]), GROUPS)
    assert means['mIoU_old'] == 60 and means['mIoU_all'] == 45
    assert means['mIoU_old_with_background'] == 75 and means['mIoU_all_with_background'] == 60


def test_first_step_has_no_new_classes():
    means = group_means(np.array([90., 60., 40.]), dict(old=(1, 2), new=(), all=(1, 2)))
    assert math.isnan(means['mIoU_new'])
    assert means['mIoU_all'] == means['mIoU_old'] == 50


def test_group_of_classes_without_a_pixel_has_no_mean():
    assert math.isnan(group_means(np.array([90., 60., 50., np.nan]), GROUPS)['mIoU_new'])


def sample(prediction, label):
    result = SegDataSample()
    result.pred_sem_seg = PixelData(data=torch.tensor([prediction]))
    result.gt_sem_seg = PixelData(data=torch.tensor([label]))
    return result.to_dict()


def evaluate(*samples):
    metric = IncrementalIoUMetric(groups=GROUPS)
    metric.dataset_meta = dict(classes=('background', 'a', 'b', 'c'))
    for each in samples:
        metric.process({}, [each])
    return metric.evaluate(len(samples))


def test_iou_by_hand():
    # a: 1 of 2 pixels in the union; b: 1 of 2; c: 0 of 1; background: 1 of 1; 255 is no pixel.
    metrics = evaluate(sample([[0, 1, 2, 2, 3]], [[0, 1, 1, 2, 255]]))
    assert {name: metrics[f'IoU/{name}'] for name in ('background', 'a', 'b')} == dict(background=100, a=50, b=50)
    assert metrics['mIoU_old'] == 50 and metrics['mIoU_old_with_background'] == pytest.approx(200 / 3)


def test_iou_comes_from_one_confusion_over_the_whole_set():
    # One image of 1 pixel all right, one of 9 pixels all wrong: 10 %, not the mean of 100 % and 0 %.
    metrics = evaluate(sample([[1]], [[1]]), sample([[2] * 9], [[1] * 9]))
    assert metrics['IoU/a'] == pytest.approx(10)


def test_class_that_neither_occurs_nor_is_predicted_has_no_iou():
    metrics = evaluate(sample([[0, 1, 2]], [[0, 1, 2]]))
    assert math.isnan(metrics['IoU/c']) and math.isnan(metrics['mIoU_new'])
    assert metrics['mIoU_all'] == 100


def test_class_predicted_where_it_is_not_counts_as_zero():
    assert evaluate(sample([[3, 1, 2]], [[0, 1, 2]]))['IoU/c'] == 0


def test_confusion_by_hand_has_truth_in_rows_and_leaves_ignored_pixels_out():
    metric = IncrementalIoUMetric(groups=GROUPS)
    metric.dataset_meta = dict(classes=('background', 'a', 'b', 'c'))
    metric.process({}, [sample([[0, 1, 2, 2, 3]], [[0, 1, 1, 2, 255]])])
    metric.process({}, [sample([[3, 3]], [[0, 1]])])
    metrics = metric.evaluate(2)
    assert metric.confusion.tolist() == [[1, 0, 0, 1], [0, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    # Its diagonal over its unions is the IoU.
    union = metric.confusion.sum(0) + metric.confusion.sum(1) - metric.confusion.diagonal()
    assert metrics['IoU/a'] == pytest.approx(100 * metric.confusion[1, 1] / union[1])


def test_confusion_counts_an_image_once_that_a_sampler_repeats():
    metric = IncrementalIoUMetric(groups=GROUPS)
    metric.dataset_meta = dict(classes=('background', 'a', 'b', 'c'))
    for _ in range(2):
        metric.process({}, [sample([[1, 2]], [[1, 1]])])
    metric.evaluate(1)
    assert metric.confusion.sum() == 2
