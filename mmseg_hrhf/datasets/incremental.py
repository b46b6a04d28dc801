"""A learning step's view of any mmseg dataset."""
from __future__ import annotations

import copy
import inspect
import os.path as osp
from typing import Any, Callable, Optional

import cv2
import numpy as np
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from torch.utils.data import Dataset

from ..image_list import load_image_list
from ..randomness import sample_randomness
from ..scenario import IGNORE, Scenario
from .class_index import class_index


def build_source(cfg: dict, **overrides) -> BaseSegDataset:
    """Build the dataset that a scenario divides; refuse what would renumber its labels.

    Raises:
        ValueError: a missing folder or list, ``reduce_zero_label``, or classes chosen by ``metainfo``.
    """
    cfg = dict(copy.deepcopy(cfg), **overrides)
    check_paths(cfg)
    _refuse_reduce_zero_label(cfg)
    dataset = DATASETS.build(dict(cfg, lazy_init=True))
    if not isinstance(dataset, BaseSegDataset):
        raise ValueError(f'{cfg["type"]} is no BaseSegDataset, so its images cannot be divided into learning steps; '
                         'give the dataset itself (no wrapper such as RepeatDataset or ConcatDataset).')
    if dataset.reduce_zero_label:
        raise ValueError(f'{cfg["type"]} has reduce_zero_label=True, but class-incremental training needs label 0 as '
                         'background: set reduce_zero_label=False in train, val and test dataset.')
    if dataset.label_map is not None:
        raise ValueError(f'{cfg["type"]} chooses classes by metainfo, which renumbers labels: leave metainfo.classes '
                         'out and name the classes of each step in scenario.steps.')
    if not dataset.load_data_list():
        raise ValueError(f'{cfg["type"]} at {dataset.data_root!r} holds no image: check data_root, data_prefix, '
                         f'ann_file and img_suffix={dataset.img_suffix!r}.')
    dataset.full_init()
    return dataset


def check_paths(cfg: dict) -> None:
    """Raise ``ValueError`` naming the first folder or list of a dataset config that is missing.

    Datasets that make their own data (``prepare``) are let to do so first.
    """
    dataset_class = DATASETS.get(cfg['type']) if isinstance(cfg['type'], str) else cfg['type']
    if dataset_class is None:
        raise ValueError(f'Dataset type {cfg["type"]!r} is not registered: check its spelling and custom_imports.')
    root = cfg.get('data_root') or ''
    if hasattr(dataset_class, 'prepare'):
        dataset_class.prepare(root)
    if cfg.get('backend_args') or '://' in str(root):
        return
    if root and not osp.isdir(root):
        raise ValueError(f'data_root {root!r} of {cfg["type"]} does not exist: set data_root to the folder that holds '
                         'the dataset (see docs/datasets.md).')
    for key, prefix in (cfg.get('data_prefix') or {}).items():
        if prefix and not osp.isdir(osp.join(root, prefix)):
            raise ValueError(f'Folder {osp.join(root, prefix)!r} (data_prefix.{key} of {cfg["type"]}) does not exist: '
                             'set data_root or data_prefix.')
    ann_file = cfg.get('ann_file')
    if ann_file and not osp.exists(osp.join(root, ann_file)):
        raise ValueError(f'Image list {osp.join(root, ann_file)!r} (ann_file of {cfg["type"]}) does not exist.')


def _refuse_reduce_zero_label(cfg: dict) -> None:
    for transform in cfg.get('pipeline', []):
        if isinstance(transform, dict) and transform.get('reduce_zero_label'):
            raise ValueError(f'{transform["type"]} in the pipeline of {cfg["type"]} has reduce_zero_label=True, but '
                             'class-incremental training needs label 0 as background: remove it.')


def scenario_of(dataset: BaseSegDataset, options: dict) -> Scenario:
    """The scenario that a config's ``scenario`` dict describes on ``dataset``.

    A first class called 'background' has raw label 0 and is no class to learn. Without one, masks number their
    classes from 0 (Cityscapes), or from 1 with 0 for void where the dataset's own default is ``reduce_zero_label``
    (ADE20K); ``scenario.first_label`` states it for other datasets.
    """
    options = dict(options)
    names = list(dataset.metainfo.get('classes') or [])
    if not names:
        raise ValueError(f'{type(dataset).__name__} names no classes: give metainfo=dict(classes=...).')
    has_background = names[0].lower() == 'background'
    default = inspect.signature(type(dataset).__init__).parameters.get('reduce_zero_label')
    numbered_from_one = default is not None and default.default is True
    first = options.pop('first_label', 1 if has_background or numbered_from_one else 0)
    if first not in (0, 1) or (has_background and first == 0):
        raise ValueError(f'scenario.first_label={first!r}: the first foreground class has raw label 0 (masks without '
                         'background) or 1 (0 is background or void).')
    foreground = names[1:] if has_background else names
    if len(foreground) + first > IGNORE:
        raise ValueError(f'{len(foreground)} classes do not fit 8-bit masks, in which {IGNORE} means "ignore".')
    labels = {name: first + i for i, name in enumerate(foreground)}
    if len(labels) != len(foreground):
        raise ValueError(f'{type(dataset).__name__} has two classes of one name: {names}.')
    options.setdefault('background', 0 if first == 1 else None)
    options.setdefault('zero_is_void', first == 1 and not has_background)
    return Scenario.build(labels, **options)


def palette_of(dataset: BaseSegDataset, scenario: Scenario, step: int) -> list[list[int]]:
    """RGB colour of each class index at ``step``."""
    names = list(dataset.metainfo['classes'])
    colours = dict(zip(names, dataset.metainfo['palette']))
    background = colours[names[0]] if names[0].lower() == 'background' else [0, 0, 0]
    return [list(background)] + [list(colours[name]) for name in scenario.seen_classes(step)]


def image_names(dataset: BaseSegDataset) -> list[str]:
    """File stem of each image, in the dataset's order."""
    return [osp.splitext(osp.basename(dataset.get_data_info(i)['img_path']))[0] for i in range(len(dataset))]


def presence_of(dataset: BaseSegDataset, scenario: Scenario, cache_dir: Optional[str] = None) -> np.ndarray:
    """(N, 256) bool matrix of the labels in each mask of ``dataset``, whose local images are checked on the way."""
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    paths = [info.get('seg_map_path') for info in infos]
    if None in paths:
        raise ValueError(f'{type(dataset).__name__} has no masks: set data_prefix.seg_map_path.')
    # From a file backend every image would be fetched once more.
    images = None if dataset.backend_args else [info['img_path'] for info in infos]
    return class_index(paths, scenario.known_labels(), cache_dir, dataset.backend_args, images)


def select_images(dataset: BaseSegDataset, scenario: Scenario, presence: np.ndarray, step: int,
                  test_mode: bool) -> np.ndarray:
    """Positions of the images of ``step``: the scenario's rule, or the list its user gives.

    Raises:
        ValueError: the step has no image.
    """
    if test_mode:
        positions, purpose = scenario.select_test(presence, step), 'evaluation'
    elif step in scenario.image_lists:
        positions, purpose = load_image_list(scenario.image_lists[step], image_names(dataset)), 'training'
    else:
        positions, purpose = scenario.select_train(presence, step), 'training'
    if len(positions) == 0:
        raise ValueError(f'Step {step} ({", ".join(scenario.steps[step])}) has no {purpose} image under the '
                         f'{scenario.setting} setting, of {len(dataset)} images in {dataset.data_root!r}: check the '
                         'data, or put these classes into another step.')
    return positions


def load_sample(pipeline: Callable, dataset: Dataset, idx: int, max_refetch: int = 1000) -> Any:
    """Image ``idx`` of ``dataset`` (which has ``get_data_info``) through a pipeline; another one if that returns None.

    Raises:
        ValueError: an image or mask is unreadable or does not fit; names it.
    """
    for _ in range(max_refetch + 1):
        info = dataset.get_data_info(idx)
        path = info['img_path']
        try:
            data = pipeline(info)
        except (OSError, AssertionError, AttributeError, TypeError, cv2.error) as error:
            # A broken file makes the decoder raise, or return None, over which the next transform trips.
            raise ValueError(f'Image {path!r} or its mask cannot be read or transformed: {error}. '
                             'Replace the file, or drop it from the image list.') from error
        if data is not None:
            return data
        idx = np.random.randint(len(dataset))
    raise RuntimeError(f'The pipeline returned no sample {max_refetch + 1} times in a row, last for {path!r}.')


@DATASETS.register_module()
class IncrementalDataset(Dataset):
    """Images and labels that one learning step sees of another dataset.

    The dataset's own pipeline is kept. Its annotation loader is handed a ``label_map`` per image that holds only the
    labels of that image which change.

    Args:
        dataset: config of a ``BaseSegDataset``.
        scenario: options of :meth:`Scenario.build`.
        step: learning step.
        test_mode: evaluation rules (images and labels) instead of training rules.
        cache_dir: folder for the class index.
    """

    def __init__(self,
                 dataset: dict,
                 scenario: dict,
                 step: int,
                 test_mode: bool = False,
                 cache_dir: Optional[str] = None) -> None:
        self.source = build_source(dataset, test_mode=test_mode)
        self.scenario = scenario_of(self.source, scenario)
        self.step = step
        self.test_mode = test_mode
        presence = presence_of(self.source, self.scenario, cache_dir)
        self.positions = select_images(self.source, self.scenario, presence, step, test_mode)
        self.presence = presence[self.positions]
        self.label_map = (self.scenario.test_label_map if test_mode else self.scenario.train_label_map)(step)

    @property
    def metainfo(self) -> dict:
        return dict(
            classes=self.scenario.class_names(self.step), palette=palette_of(self.source, self.scenario, self.step))

    def full_init(self) -> None:
        """Nothing is left to do; mmengine calls this on every dataset."""

    def __len__(self) -> int:
        return len(self.positions)

    def get_data_info(self, idx: int) -> dict:
        info = self.source.get_data_info(int(self.positions[idx]))
        held = np.flatnonzero(self.presence[idx]).tolist()
        info['label_map'] = {raw: self.label_map[raw] for raw in held if self.label_map[raw] != raw}
        info['sample_idx'] = idx
        return info

    def __getitem__(self, idx: int) -> Any:
        with sample_randomness(idx):
            return load_sample(self.source.pipeline, self, idx, self.source.max_refetch)
