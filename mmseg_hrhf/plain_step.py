"""The plain config of a step, which mmseg evaluates without this package."""
from __future__ import annotations

import ast
import copy
import io
import os.path as osp
from pathlib import Path
from typing import Optional

import numpy as np
from mmengine.config import Config
from mmengine.fileio import get as read_bytes
from mmseg.datasets import BaseSegDataset
from mmseg.registry import MODELS, TRANSFORMS
from PIL import Image

from .datasets.incremental import palette_of
from .datasets.source import Source, without_reduce_zero_label
from .files import atomic_write, write_text
from .head_classes import set_classes
from .scenario import IGNORE, Scenario
from .step_config import PACKAGE, plain_config
from .step_files import StepFiles

# mmengine replaces this by the folder of the config file, so a step's folder can be moved.
_HERE = '{{ fileDirname }}'
# What evaluation reads of a config; all else trains, or is a variable of the user's file.
_EVALUATION_KEYS = ('model', 'test_pipeline', 'tta_model', 'tta_pipeline', 'default_scope', 'custom_imports', 'env_cfg',
                    'default_hooks', 'vis_backends', 'visualizer', 'log_processor', 'log_level', 'randomness')


def write_plain_config(cfg: Config, scenario: Scenario, step: int, source: Source, positions: np.ndarray,
                       files: StepFiles) -> None:
    """Write ``step_<t>/config.py`` and the list of its test images beside it.

    It names this package in ``custom_imports`` only where the network or the test pipeline uses something of it.

    Where mmseg's own ``metainfo.classes`` maps labels as the scenario does, the dataset's masks are used as they are.
    Where it cannot (a class order, future classes that count as background, a void of its own), mapped copies of the
    test masks are written to ``step_<t>/masks``.

    Args:
        cfg: the user's config.
        scenario, step: what is evaluated.
        source: the test dataset that the scenario divides.
        positions: its images that evaluate ``step``.
        files: of the step.
    """
    out = plain_config(cfg)
    loader = copy.deepcopy(out.get('test_dataloader') or out.val_dataloader)
    evaluator = copy.deepcopy(out.get('test_evaluator') or out.val_evaluator)
    preprocessor = out.get('data_preprocessor')
    for key in list(out.keys()):
        if key not in _EVALUATION_KEYS:
            out.pop(key)
    if out.get('default_hooks'):
        out.default_hooks.pop('checkpoint', None)  # may be ours
    if preprocessor is not None:
        out.model.setdefault('data_preprocessor', preprocessor)
    out.model = set_classes(out.model, scenario.class_names(step))
    loader.dataset = _plain_dataset(loader.dataset, scenario, step, source, positions, files)
    for name in ('test', 'val'):
        out[f'{name}_dataloader'] = loader
        out[f'{name}_evaluator'] = evaluator
    out.test_cfg, out.val_cfg = dict(type='TestLoop'), dict(type='ValLoop')
    out.test_pipeline = loader.dataset['pipeline']
    if out.get('tta_pipeline'):
        out.tta_pipeline = without_reduce_zero_label(out.tta_pipeline)
    if _names_ours(out.model) or _names_ours(out.test_pipeline):
        # What mmseg cannot build by itself, such as LeakyResNet, makes the step's evaluation depend on this package.
        others = out.get('custom_imports', dict(imports=[]))['imports']
        out.custom_imports = dict(imports=[*others, PACKAGE], allow_failed_imports=False)
    write_text(files.config, out.pretty_text)


def _names_ours(cfg) -> bool:
    """Whether some ``type`` in a config is a network or transform of this package."""
    if isinstance(cfg, (list, tuple)):
        return any(_names_ours(item) for item in cfg)
    if not isinstance(cfg, dict):
        return False
    name = cfg.get('type')
    found = (MODELS.get(name) or TRANSFORMS.get(name)) if isinstance(name, str) else name
    return getattr(found, '__module__', '').split('.')[0] == PACKAGE or any(map(_names_ours, cfg.values()))


def is_whole_plain_config(files: StepFiles, num_images: int) -> bool:
    """Whether a step's plain config is Python that sets what a test needs, and lists ``num_images`` test images."""
    try:
        tree = ast.parse(Path(files.config).read_text(encoding='utf-8'))
        listed = Path(files.folder, 'test_images.txt').read_text(encoding='utf-8').splitlines()
    except (OSError, SyntaxError, ValueError):
        return False
    names = {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
             if isinstance(target, ast.Name)}
    return names >= {'model', 'test_dataloader', 'test_evaluator', 'test_cfg'} and len(listed) == num_images


def _plain_dataset(dataset: dict, scenario: Scenario, step: int, source: Source, positions: np.ndarray,
                   files: StepFiles) -> dict:
    infos = [source.get_data_info(int(i)) for i in positions]
    original = source.first
    folder = original.data_prefix['img_path']
    names = [osp.relpath(info['img_path'], folder)[:-len(original.img_suffix)] for info in infos]
    write_text(osp.join(files.folder, 'test_images.txt'), '\n'.join(names) + '\n')
    classes = scenario.class_names(step)
    metainfo = dict(classes=classes, palette=palette_of(source, scenario, step))
    plain = dict(
        dataset,
        ann_file=f'{_HERE}/test_images.txt',
        metainfo=metainfo,
        pipeline=without_reduce_zero_label(dataset['pipeline']),
        test_mode=True,
        img_suffix=original.img_suffix,
        seg_map_suffix=original.seg_map_suffix)
    plain.pop('indices', None)  # the list holds these images alone
    wanted = scenario.test_label_map(step)
    if not original.reduce_zero_label and _mmseg_maps(type(original), classes, wanted):
        return plain
    plain.update(type='BaseSegDataset', reduce_zero_label=False)
    if any(raw != label for raw, label in wanted.items()):
        write_masks(infos, wanted, osp.join(files.folder, 'masks'), names, original.backend_args)
        plain['data_prefix'] = dict(dataset['data_prefix'], seg_map_path=f'{_HERE}/masks')
        plain['seg_map_suffix'] = '.png'
    return plain


def _mmseg_maps(dataset_class: type[BaseSegDataset], classes: tuple, wanted: dict) -> bool:
    """Whether mmseg's dataset, given these classes, maps every raw label as wanted."""
    if dataset_class.__module__.split('.')[0] != 'mmseg' or dataset_class is BaseSegDataset:
        return False
    try:
        mapping = dataset_class.get_label_map(classes) or {}
    except ValueError:  # a class that mmseg does not know by this name, such as ADE20K's background
        return False
    return all(mapping.get(raw, raw) == label for raw, label in wanted.items())


def write_masks(infos: list, mapping: dict, folder: str, names: list, backend_args: Optional[dict] = None) -> None:
    """Write mapped copies of masks as grey PNG, whole files only, under the images' names."""
    table = np.full(256, IGNORE, dtype=np.uint8)
    for raw, label in mapping.items():
        table[raw] = label
    for info, name in zip(infos, names):
        with Image.open(io.BytesIO(read_bytes(info['seg_map_path'], backend_args=backend_args))) as mask:
            mapped = table[np.asarray(mask, dtype=np.uint8)]
        with atomic_write(Path(folder) / f'{name}.png') as file:
            Image.fromarray(mapped).save(file, format='PNG')
