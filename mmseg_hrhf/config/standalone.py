"""The plain config of a step, with which mmseg evaluates it without this package."""
from __future__ import annotations

import ast
import copy
import io
import logging
import os.path as osp
from pathlib import Path
from typing import Iterator, Optional, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.fileio import get as read_bytes
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS, VISBACKENDS, VISUALIZERS
from PIL import Image

from ..datasets.incremental import IncrementalDataset, palette_of
from ..datasets.source import Source, without_reduce_zero_label
from ..scenario import IGNORE, Scenario
from ..utils.io import atomic_write, write_text
from ..utils.randomness import EVALUATION, seeded
from ..work_dir.layout import StepFiles
from .load import named_types
from .plain import PACKAGE, set_classes

# mmengine replaces this with the folder of the config file, so a step's folder can be moved.
_HERE = '{{ fileDirname }}'
# Packages that mmseg depends on; file backends of mmengine.
_STOCK = ('mmseg', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'torch', 'torchvision', 'builtins')
_BACKENDS = ('local', 'disk', 'petrel', 'ceph', 'memcached', 'lmdb', 'http', 'nccl')
_REGISTRIES = (MODELS, TRANSFORMS, DATASETS, METRICS, HOOKS, VISUALIZERS, VISBACKENDS)
# Keys that evaluation reads; all others are for training or are variables of the user's file.
_EVALUATION_KEYS = ('model', 'test_pipeline', 'tta_model', 'tta_pipeline', 'default_scope', 'custom_imports', 'env_cfg',
                    'default_hooks', 'vis_backends', 'visualizer', 'log_processor', 'log_level', 'randomness')


def write_plain_config(plain: Config, scenario: Scenario, source: Source, positions: np.ndarray, files: StepFiles,
                       view: IncrementalDataset) -> None:
    """Write ``step_<t>/config.py`` and the list of its test images, and check that mmseg can use them.

    The paths of images and masks come from the dataset, whatever its class. If mmseg's own ``metainfo.classes`` maps
    labels as the scenario does, the dataset's masks are used directly. If it cannot (class order, future classes that
    count as background, separate void label), or if masks are not named after their images, mapped copies of the test
    masks are written to ``step_<t>/masks``.

    The first lines of the file state what it needs besides mmseg, or why mmseg cannot use it (which is also logged).

    Args:
        plain: mmseg config of the step.
        scenario: scenario of the run.
        source: the test dataset.
        positions: positions of the step's test images in ``source``.
        files: files of the step.
        view: the test dataset of the step, with which the written one is compared.
    """
    out, step = copy.deepcopy(plain), files.step
    loader = copy.deepcopy(out.get('test_dataloader') or out.val_dataloader)
    evaluator = copy.deepcopy(out.get('test_evaluator') or out.val_evaluator)
    preprocessor = out.get('data_preprocessor')
    for key in list(out.keys()):
        if key not in _EVALUATION_KEYS:
            out.pop(key)
    if out.get('default_hooks'):
        out.default_hooks.pop('checkpoint', None)  # may be a hook of this package
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
    modules, unnamed = _needed_modules(out)
    out.pop('custom_imports', None)
    if modules:
        out.custom_imports = dict(imports=modules, allow_failed_imports=False)
    text = Config(named_types(out.to_dict())).pretty_text
    needs = f'# Needs, besides mmseg and the weights in this folder: {", ".join(modules)}.\n' if modules else ''
    write_text(files.config, needs + text)
    reason = unnamed or _difference(files, view)
    if reason is not None:
        write_text(files.config, f'# mmseg cannot use this file as it is: {reason}\n{needs}{text}')
        print_log(f'mmseg cannot use {files.config} as it is: {reason} Evaluate the step with tools/test.py and the '
                  "run's config.", logger='current', level=logging.WARNING)


def _needed_modules(out: Config) -> tuple[list[str], Optional[str]]:
    """Modules outside the toolbox that register types of the config; and why a type would not be registered, if so."""
    given = (out.get('custom_imports') or {}).get('imports') or []
    given = [given] if isinstance(given, str) else list(given)
    needed, unnamed = [], None
    if any(backend not in _BACKENDS for backend in _values_of(out.to_dict(), 'backend')):
        needed += given  # one of them registers the backend
    for kind in _values_of(out.to_dict(), 'type'):
        owner = _owner(kind)
        package = owner.split('.')[0]
        if package in _STOCK or not package:
            continue
        if package == PACKAGE:
            # Modules of this package, such as LeakyResNet, make the evaluation depend on it.
            found = [PACKAGE]
        else:
            found = [name for name in given if name == owner or name.split('.')[0] == package]
        if not found:
            unnamed = f'{kind!r} is defined in {owner}, which the custom_imports of the config do not import.'
        needed += [name for name in found if name not in needed]
    return needed, unnamed


def _values_of(value: object, key: str) -> Iterator:
    """Every value of ``key``, at any depth."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == key and not isinstance(item, (dict, list, tuple)):
                yield item
            yield from _values_of(item, key)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _values_of(item, key)


def _owner(kind: object) -> str:
    """Module of a type's class; empty if the type is not registered (``type='color'``)."""
    if isinstance(kind, str):
        kind = next((found for found in (held.get(kind) for held in _REGISTRIES) if found is not None), None)
    return getattr(kind, '__module__', '') if callable(kind) else ''


def _difference(files: StepFiles, view: IncrementalDataset) -> Optional[str]:
    """Why the written config does not yield the first test sample of the step; None if it does."""
    try:
        dataset = DATASETS.build(Config.fromfile(files.config).test_dataloader.dataset)
        if len(dataset) != len(view):
            return f'it finds {len(dataset)} test images instead of {len(view)}.'
        samples = []
        for each in (dataset, view):
            with seeded(0, EVALUATION):
                samples.append(each[0])
    except Exception as error:  # whatever a user's own classes raise
        return f'{type(error).__name__}: {" ".join(str(error).split())}.'
    plain, ours = samples
    if not torch.equal(plain['inputs'], ours['inputs']):
        return 'its first test image differs from the one that the step was tested on.'
    labels = [sample['data_samples'].gt_sem_seg.data for sample in samples]
    if not torch.equal(*labels):
        return 'the labels of its first test image differ from those that the step was tested on.'
    return None


def is_complete_plain_config(files: StepFiles, num_images: int) -> bool:
    """Whether a step's plain config can be parsed, sets what a test needs, and has a list of ``num_images`` images."""
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
    original, classes = source.first, scenario.class_names(step)
    folder, names, suffix = list_files([info['img_path'] for info in infos], original.data_prefix.get('img_path'),
                                       original.img_suffix)
    write_text(osp.join(files.folder, 'test_images.txt'), '\n'.join(names) + '\n')
    plain = dict(
        type=dataset['type'],
        data_root=original.data_root,
        data_prefix=dict(img_path=folder),
        ann_file=f'{_HERE}/test_images.txt',
        img_suffix=suffix,
        metainfo=dict(classes=classes, palette=palette_of(source, scenario, step)),
        pipeline=without_reduce_zero_label(dataset['pipeline']),
        test_mode=True)
    if original.backend_args:
        plain['backend_args'] = original.backend_args
    wanted = scenario.test_label_map(step)
    masks = _common_masks([info['seg_map_path'] for info in infos], names, original.data_prefix.get('seg_map_path'))
    if masks is None or original.reduce_zero_label or not _mmseg_maps(type(original), classes, wanted):
        plain.update(type='BaseSegDataset', reduce_zero_label=False)
        if masks is None or any(raw != label for raw, label in wanted.items()):
            write_masks(infos, wanted, osp.join(files.folder, 'masks'), names, original.backend_args)
            masks = f'{_HERE}/masks', '.png'
    plain['data_prefix']['seg_map_path'], plain['seg_map_suffix'] = masks
    _make_relative(plain)
    return plain


def list_files(paths: Sequence[str], folder: Optional[str], suffix: str) -> tuple[str, list[str], str]:
    """Folder, names and suffix, such that each path is folder + name + suffix.

    Args:
        paths: paths of files, in any folders.
        folder, suffix: those of the dataset, kept if they apply to all files.
    """
    folder = str(folder or '')
    if not all(path.startswith(folder.rstrip('/') + '/') for path in paths) or not folder:
        folder = _common_folder(paths)
    start = len(folder.rstrip('/')) + 1 if folder else 0
    names = [path[start:] for path in paths]
    if not suffix or not all(name.endswith(suffix) and len(name) > len(suffix) for name in names):
        return folder, names, ''
    return folder, [name[:-len(suffix)] for name in names], suffix


def _common_folder(paths: Sequence[str]) -> str:
    """The innermost folder that contains all files; paths may also be URLs of a remote backend."""
    parts = [path.split('/')[:-1] for path in paths]
    shared = 0
    while all(len(part) > shared and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return '/'.join(parts[0][:shared]) or ('/' if paths[0].startswith('/') else '')


def _common_masks(paths: Sequence[str], names: Sequence[str], folder: Optional[str]) -> Optional[tuple[str, str]]:
    """Folder and suffix such that each mask's path is folder + name + suffix; None if there are none."""
    folder, found, _ = list_files(paths, folder, '')
    if not found[0].startswith(names[0]):
        return None
    suffix = found[0][len(names[0]):]
    return (folder, suffix) if all(mask == name + suffix for mask, name in zip(found, names)) else None


def _make_relative(plain: dict) -> None:
    """Make prefixes inside ``data_root`` relative to it, so that the data can be moved."""
    root = str(plain['data_root'] or '').rstrip('/')
    prefix = plain['data_prefix']
    inside = [str(value) == root or str(value).startswith(f'{root}/') for value in prefix.values()]
    if root and any(inside):
        plain['data_prefix'] = {key: str(value)[len(root) + 1:] if within else value
                                for (key, value), within in zip(prefix.items(), inside)}
        if all(within or _is_anchored(value) for value, within in zip(prefix.values(), inside)):
            return
        plain['data_prefix'] = prefix
    plain['data_root'] = None


def _is_anchored(path: str) -> bool:
    return osp.isabs(path) or path.startswith(_HERE) or '://' in path


def _mmseg_maps(dataset_class: type[BaseSegDataset], classes: tuple, wanted: dict) -> bool:
    """Whether mmseg's dataset, with these classes, maps every raw label as in ``wanted``."""
    if dataset_class.__module__.split('.')[0] != 'mmseg' or dataset_class is BaseSegDataset:
        return False
    try:
        mapping = dataset_class.get_label_map(classes) or {}
    except ValueError:  # a class that mmseg does not know by this name, such as ADE20K's background
        return False
    return all(mapping.get(raw, raw) == label for raw, label in wanted.items())


def write_masks(infos: list, mapping: dict, folder: str, names: list, backend_args: Optional[dict] = None) -> None:
    """Write mapped copies of masks as greyscale PNGs under the images' names, each atomically."""
    table = np.full(256, IGNORE, dtype=np.uint8)
    for raw, label in mapping.items():
        table[raw] = label
    for info, name in zip(infos, names):
        with Image.open(io.BytesIO(read_bytes(info['seg_map_path'], backend_args=backend_args))) as mask:
            mapped = table[np.asarray(mask, dtype=np.uint8)]
        with atomic_write(Path(folder) / f'{name}.png') as file:
            Image.fromarray(mapped).save(file, format='PNG')
