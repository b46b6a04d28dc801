"""IoU of old, new and all classes, with and without background."""
from __future__ import annotations

import inspect
from typing import Mapping, Optional, Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor

from ..utils.options import check_names


def confusion_counts(prediction: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Confusion matrix, in pixels.

    Args:
        prediction, label: class indices, of the same shape.
        num_classes: C.
        ignore_index: label of pixels that are not counted.
    Returns:
        (C, C) int64; row: true class, column: predicted class.
    """
    counted = label != ignore_index
    pairs = label[counted].long() * num_classes + prediction[counted].long()
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def group_means(iou: np.ndarray, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Mean IoU of each group of classes.

    Args:
        iou: (C,) by class index, background first; NaN for a class that neither occurs nor is predicted.
        groups: class indices of ``old``, ``new`` and ``all``, without background.
    Returns:
        ``mIoU_old``, ``mIoU_new``, ``mIoU_all`` without background (as in the paper and MiB);
        ``mIoU_old_with_background`` and ``mIoU_all_with_background`` (as in later papers: "0-15", "all").
        NaN for a group without classes.
    """
    means = {f'mIoU_{name}': _mean(iou, classes) for name, classes in groups.items()}
    for name in ('old', 'all'):
        means[f'mIoU_{name}_with_background'] = _mean(iou, (0, *groups[name]))
    return means


def _mean(iou: np.ndarray, classes: Sequence[int]) -> float:
    values = iou[list(classes)]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float('nan')


@METRICS.register_module()
class IncrementalIoUMetric(IoUMetric):
    """mmseg's ``IoUMetric`` plus the groups of a learning step. All values are percentages.

    IoUs are computed from one confusion matrix over all images. In addition to the values of ``IoUMetric`` (whose
    ``mIoU`` includes background, like ``mIoU_all_with_background``), it reports ``group_means`` and ``IoU/<class>`` for
    every class. After an evaluation, ``confusion`` is the (C, C) confusion matrix (see ``confusion_counts``).

    Args:
        groups: class indices of ``old``, ``new`` and ``all``, without background.
        **kwargs: see ``IoUMetric``.
    """

    def __init__(self, groups: Mapping[str, Sequence[int]], **kwargs) -> None:
        # IoUMetric itself ignores unknown options.
        known = {name for kind in (IoUMetric, BaseMetric) for name in inspect.signature(kind).parameters}
        check_names('test_evaluator IoUMetric', kwargs, known - {'kwargs'})
        super().__init__(**kwargs)
        self.groups = {name: tuple(classes) for name, classes in groups.items()}
        self.confusion: Optional[np.ndarray] = None

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        super().process(data_batch, data_samples)
        if self.format_only:
            return
        num_classes = len(self.dataset_meta['classes'])
        # Append each image's confusion to its areas, so that ranks and repeated images are handled as for IoU. Keep
        # non-zero entries only, since an image contains few of the classes.
        for i, sample in enumerate(data_samples, start=len(self.results) - len(data_samples)):
            prediction = sample['pred_sem_seg']['data'].squeeze()
            label = sample['gt_sem_seg']['data'].squeeze().to(prediction)
            counts = confusion_counts(prediction, label, num_classes, self.ignore_index).flatten().cpu()
            pairs = counts.nonzero()[:, 0]
            self.results[i] = (*self.results[i], (pairs, counts[pairs]))

    def compute_metrics(self, results: list) -> dict[str, float]:
        metrics = super().compute_metrics([result[:4] for result in results])
        if self.format_only:
            return metrics
        num_classes = len(self.dataset_meta['classes'])
        confusion = torch.zeros(num_classes**2, dtype=torch.int64)
        for *_, (pairs, counts) in results:
            confusion[pairs] += counts
        self.confusion = confusion.reshape(num_classes, num_classes).numpy()
        intersect, union = (sum(result[i] for result in results).double().numpy() for i in (0, 1))
        iou = np.full(len(union), np.nan)
        np.divide(intersect, union, out=iou, where=union > 0)
        iou *= 100
        metrics.update(group_means(iou, self.groups))
        metrics.update({f'IoU/{name}': float(value) for name, value in zip(self.dataset_meta['classes'], iou)})
        groups = ', '.join(f'{name} {metrics[f"mIoU_{name}"]:.2f}' for name in self.groups)
        print_log(
            f'mIoU without background: {groups}; with background: old '
            f'{metrics["mIoU_old_with_background"]:.2f}, all {metrics["mIoU_all_with_background"]:.2f}',
            logger=MMLogger.get_current_instance())
        return metrics
