"""Wraps any mmseg dataset to show the images and labels of one learning step."""
from __future__ import annotations

import copy
import os.path as osp
from typing import Any, Mapping, Optional, Union

import cv2
import numpy as np
from mmengine.dataset import Compose
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from torch.utils.data import Dataset

from ..scenario import IGNORE, Scenario
from ..utils.compat import dataset_metainfo
from ..utils.errors import UserError, reason_of
from ..utils.randomness import sample_randomness
from .class_index import class_index
from .image_check import ImageReader
from .raw_labels import RawLabels
from .source import Source, load_image_list, split_mix, type_name, unwrap, without_reduce_zero_label


def build_source(cfg: dict, **overrides) -> Source:
    """Build the data of a scenario: a ``BaseSegDataset``, or several in ``ConcatDataset`` and ``RepeatDataset``.

    Args:
        cfg: config of a dataset, as in a plain mmseg config.
        **overrides: override options of each dataset.
    Raises:
        UserError: a folder or image list is missing, or a dataset has no images or cannot be divided into steps.
    """
    leaves, order = unwrap(cfg)
    return Source([_build_dataset(dict(leaf, **overrides)) for leaf in leaves], order)


def _build_dataset(cfg: dict) -> BaseSegDataset:
    check_paths(cfg)
    pipeline = cfg.get('pipeline') or []
    options = dict(copy.deepcopy(cfg), pipeline=without_reduce_zero_label(pipeline), lazy_init=True)
    try:
        dataset = DATASETS.build(options)
    except (TypeError, KeyError, AttributeError, AssertionError, ImportError) as error:
        raise UserError(f'The dataset {type_name(cfg)} or its pipeline cannot be built from the config: '
                        f'{reason_of(error)}.') from error
    if not isinstance(dataset, BaseSegDataset):
        raise UserError(f'{type_name(cfg)} is not a BaseSegDataset, so its images cannot be divided into learning '
                        'steps: use a subclass of BaseSegDataset.')
    _check_labels(cfg, dataset)
    if not dataset.load_data_list():
        raise UserError(f'{type_name(cfg)} at {dataset.data_root!r} contains no images: check data_root, data_prefix, '
                        f'ann_file and img_suffix={dataset.img_suffix!r}.')
    dataset.full_init()
    return dataset


def _check_labels(cfg: dict, dataset: BaseSegDataset) -> None:
    """Raise ``UserError`` if an option changes the meaning of labels in a way that the scenario cannot know."""
    name = type_name(cfg)
    if dataset.ignore_index != IGNORE:
        raise UserError(f'{name} has ignore_index={dataset.ignore_index}, but ignored pixels are always {IGNORE}: '
                        'remove ignore_index, and leave that class out of scenario.steps.')
    raw = RawLabels.of(type(dataset), dataset.metainfo.get('classes'), dataset.reduce_zero_label)
    if _reduces(cfg.get('pipeline')) and raw.offset == 0:
        raise UserError(f'A transform of {name} has reduce_zero_label=True, but the dataset does not, which mmseg does '
                        'not allow: set it on the dataset if label 0 is void in its masks, else remove it.')
    usual = {i: raw.chosen.index(c) if c in raw.chosen else IGNORE for i, c in enumerate(raw.names)}
    if dataset.label_map not in (None, usual):
        raise UserError(f'{name} renumbers the labels of its masks in a non-standard way: remove metainfo.classes, and '
                        'name the classes of each step in scenario.steps.')


def check_paths(cfg: dict) -> None:
    """Raise ``UserError`` if a folder or image list of a dataset config is missing.

    Datasets that generate their own data (``prepare``) do so first.
    """
    dataset_class = DATASETS.get(cfg['type']) if isinstance(cfg['type'], str) else cfg['type']
    if dataset_class is None:
        raise UserError(f'Dataset type {cfg["type"]!r} is not registered: check its spelling and custom_imports.')
    root = cfg.get('data_root') or ''
    if hasattr(dataset_class, 'prepare'):
        dataset_class.prepare(root)
    if cfg.get('backend_args') or '://' in str(root):
        return
    if root and not osp.isdir(root):
        raise UserError(f'data_root {root!r} of {cfg["type"]} does not exist: set data_root to the folder of the '
                        'dataset (see docs/datasets.md).')
    for key, prefix in (cfg.get('data_prefix') or {}).items():
        if prefix and not osp.isdir(osp.join(root, prefix)):
            raise UserError(f'Folder {osp.join(root, prefix)!r} (data_prefix.{key} of {cfg["type"]}) does not exist: '
                            'set data_root or data_prefix.')
    ann_file = cfg.get('ann_file')
    if ann_file and not osp.exists(osp.join(root, ann_file)):
        raise UserError(f'Image list {osp.join(root, ann_file)!r} (ann_file of {cfg["type"]}) does not exist: set '
                        'data_root or ann_file.')


def _reduces(pipeline: Any) -> bool:
    if isinstance(pipeline, dict):
        return bool(pipeline.get('reduce_zero_label')) or any(_reduces(value) for value in pipeline.values())
    return isinstance(pipeline, (list, tuple)) and any(_reduces(item) for item in pipeline)


def scenario_of(source: Source, options: Mapping[str, Any]) -> Scenario:
    """The scenario over the classes of a source; see ``RawLabels.scenario``."""
    return source.raw_labels.scenario(options)


def scenario_of_config(cfg: dict, options: Mapping[str, Any]) -> Scenario:
    """Like ``scenario_of``, from a dataset's config; reads no files."""
    leaf = unwrap(split_mix(cfg)[0])[0][0]
    dataset = DATASETS.get(leaf['type']) if isinstance(leaf['type'], str) else leaf['type']
    if dataset is None:
        raise UserError(f'Dataset type {leaf["type"]!r} is not registered: check its spelling and custom_imports.')
    metainfo = dataset_metainfo(dataset, leaf.get('metainfo'))
    return RawLabels.of(dataset, metainfo.get('classes'), leaf.get('reduce_zero_label')).scenario(options)


def palette_of(source: Source, scenario: Scenario, step: int) -> list[list[int]]:
    """RGB colour of each class index at ``step``."""
    colours = dict(zip(source.metainfo['classes'], source.metainfo['palette']))
    names = {label: name for name, label in source.raw_labels.labels.items()}
    name = None if scenario.background is None else names.get(scenario.background)
    background = colours.get(name, [0, 0, 0])
    return [list(background)] + [list(colours[name]) for name in scenario.seen_classes(step)]


def image_names(source: Source) -> list[str]:
    """File stem of each image, in the dataset's order."""
    return [osp.splitext(osp.basename(source.get_data_info(i)['img_path']))[0] for i in range(len(source))]


def image_paths(source: Source) -> list[str]:
    """Path of each image in the image folder of its dataset, without extension, in the dataset's order.

    Unlike the stem it is unique, and unlike the whole path the same on every machine.
    """
    paths = []
    for part in source.parts:
        folder = part.data_prefix.get('img_path') or part.data_root or ''
        for path in (part.get_data_info(i)['img_path'] for i in range(len(part))):
            within = path[len(folder):] if folder and path.startswith(folder) else osp.basename(path)
            paths.append(osp.splitext(within.replace('\\', '/').lstrip('/'))[0])
    return paths


def count_labels(source: Source, scenario: Scenario, cache_dir: Optional[str] = None) -> np.ndarray:
    """Count the pixels of each raw label in the masks of ``source``, and check its local images.

    Args:
        source: images of the scenario.
        scenario: defines which labels are valid.
        cache_dir: folder of the class index; None: the masks are always read.
    Returns:
        (N, 256) uint32 pixel counts.
    """
    known, rows = scenario.known_labels(), []
    for part in source.parts:
        infos = [part.get_data_info(i) for i in range(len(part))]
        paths = [info.get('seg_map_path') for info in infos]
        if None in paths:
            raise UserError(f'{type(part).__name__} has no masks: set data_prefix.seg_map_path.')
        # A file backend would have to download every image an extra time.
        images = None if part.backend_args else [info['img_path'] for info in infos]
        rows.append(class_index(paths, known, cache_dir, part.backend_args, images, ImageReader(part)))
    return np.concatenate(rows)


def select_images(source: Source, scenario: Scenario, presence: np.ndarray, step: int,
                  test_mode: bool) -> np.ndarray:
    """Positions of the images of ``step``, by the scenario's rule or from the user's list.

    Raises:
        UserError: the step has no images.
    """
    if test_mode:
        positions, purpose = scenario.select_test(presence, step), 'evaluation'
    elif step in scenario.image_lists:
        positions, purpose = load_image_list(scenario.image_lists[step], image_names(source)), 'training'
    else:
        names = image_paths(source) if scenario.setting == 'partitioned' else ()
        positions, purpose = scenario.select_train(presence, step, names), 'training'
    if len(positions) == 0:
        raise UserError(f'Step {step} ({", ".join(scenario.steps[step])}) has no {purpose} images in the '
                        f'{scenario.setting} setting, out of {len(source)} in {source.data_root!r}: check the data, or '
                        'move these classes to another step.')
    return positions


def load_sample(dataset: Dataset, idx: int, max_refetch: int = 1000) -> Any:
    """Run image ``idx`` through its pipeline; if the pipeline returns None, try a random other image.

    Raises:
        UserError: an image or its mask cannot be read or transformed.
    """
    for _ in range(max_refetch + 1):
        info = dataset.get_data_info(idx)
        path = info['img_path']
        try:
            data = dataset.pipeline_of(idx)(info)
        except (OSError, AssertionError, AttributeError, TypeError, cv2.error) as error:
            # For a broken file the decoder raises, or returns None, on which the next transform fails.
            raise UserError(f'Image {path!r} or its mask cannot be read or transformed: {reason_of(error)}. '
                            'Replace the file, or remove it from the image list.') from error
        if data is not None:
            return data
        idx = np.random.randint(len(dataset))
    raise RuntimeError(f'The pipeline returned no sample {max_refetch + 1} times in a row, last for {path!r}.')


@DATASETS.register_module()
class IncrementalDataset(Dataset):
    """Images and labels of one learning step, from any mmseg dataset or from several, concatenated or repeated.

    The dataset's pipeline is kept, except for ``reduce_zero_label``: label 0 stays 0. Its annotation loader receives a
    ``label_map`` per image that contains only the labels of that image which change.

    Args:
        dataset: config of a ``BaseSegDataset``, which ``ConcatDataset`` and ``RepeatDataset`` may wrap; or the result
            of ``build_source``.
        scenario: options of ``Scenario.build``.
        step: learning step.
        test_mode: select images and labels by the rules of evaluation instead of training.
        cache_dir: folder for the class index.
        presence: (N, 256) bool, the labels in each mask; None: read from the class index, which synchronises all ranks.
    """

    def __init__(self,
                 dataset: Union[dict, Source],
                 scenario: dict,
                 step: int,
                 test_mode: bool = False,
                 cache_dir: Optional[str] = None,
                 presence: Optional[np.ndarray] = None) -> None:
        self.source = dataset if isinstance(dataset, Source) else build_source(dataset, test_mode=test_mode)
        self.scenario = scenario_of(self.source, scenario)
        self.step = step
        self.test_mode = test_mode
        if presence is None:
            presence = count_labels(self.source, self.scenario, cache_dir) > 0
        self.presence = presence
        self.positions = self.source.repeated(
            select_images(self.source, self.scenario, self.presence, step, test_mode))
        self.label_map = (self.scenario.test_label_map if test_mode else self.scenario.train_label_map)(step)

    @property
    def metainfo(self) -> dict:
        return dict(
            classes=self.scenario.class_names(self.step), palette=palette_of(self.source, self.scenario, self.step))

    def full_init(self) -> None:
        """Does nothing; mmengine calls this on every dataset."""

    def __len__(self) -> int:
        return len(self.positions)

    def _position(self, idx: int) -> int:
        # mmseg's RandomMosaic draws indices from 0 to the length, inclusive.
        return int(self.positions[idx % len(self)])

    def pipeline_of(self, idx: int) -> Compose:
        return self.source.pipeline_of(self._position(idx))

    def by_part(self) -> list[np.ndarray]:
        """Indices of the step's images, one array for each concatenated dataset that has any."""
        numbers = self.source.part_numbers(self.positions)
        return [np.flatnonzero(numbers == number) for number in np.unique(numbers)]

    def get_data_info(self, idx: int) -> dict:
        position = self._position(idx)
        info = self.source.get_data_info(position)
        held = np.flatnonzero(self.presence[position]).tolist()
        info['label_map'] = {raw: self.label_map[raw] for raw in held if self.label_map[raw] != raw}
        info['sample_idx'] = idx
        return info

    def __getitem__(self, idx: int) -> Any:
        with sample_randomness(idx):
            return load_sample(self, idx, self.source.max_refetch)
