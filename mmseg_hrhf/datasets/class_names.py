"""Checks of class names and palettes in a config; names that mean background."""
from __future__ import annotations

import os.path as osp
import re
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from ..utils.compat import dataset_metainfo
from ..utils.errors import UserError
from ..utils.options import suggest

BACKGROUND_NAMES = ('background', 'bg')


def is_background_name(name: Any) -> bool:
    """Whether a class name is ``background`` or ``bg``, ignoring case and separators.

    ``'void'`` and ``'unlabeled'`` do not count: their meaning depends on the dataset.
    """
    return isinstance(name, str) and letters(name) in BACKGROUND_NAMES


def letters(name: str) -> str:
    """The letters of a name in lower case: ``'background'`` for ``'_Back-ground_'``."""
    return re.sub(r'[\W\d_]+', '', name).lower()


def check_class_names(names: Any, owner: str) -> None:
    """Raise ``UserError`` unless ``names`` is a list or tuple of strings, or None.

    Args:
        names: value from a config.
        owner: the option that it belongs to, for the message.
    """
    if names is None:
        return
    if isinstance(names, str):
        raise UserError(f'{owner} is the string {names!r}, but must be a list of names: {one_name(names)}.')
    if not isinstance(names, (list, tuple)):
        raise UserError(f"{owner} is {names!r}, but must be a list of names, such as ['background', 'cat'].")
    for name in names:
        if isinstance(name, (list, tuple)):
            raise UserError(f'{owner} contains the list {name!r}, but its items must be names: remove the inner '
                            'brackets.')
        if not isinstance(name, str):
            raise UserError(f'{owner} contains {name!r}, but class names must be strings: write {str(name)!r}.')
        if not name.strip():
            raise UserError(f'{owner} contains the empty name {name!r}: name every class.')


def one_name(name: str) -> str:
    """Hint on how to write a list of one name."""
    return f'a tuple of one name needs a trailing comma, ({name!r}, )'


def check_scenario_names(options: Mapping) -> None:
    """Raise ``UserError`` for ``steps`` or ``class_order`` of a ``scenario`` that are not lists of names."""
    steps, order = options.get('steps'), options.get('class_order')
    wanted = "must be a list of lists of names, one for each step, such as [['cat', 'dog'], ['cow']]"
    if steps is not None and not isinstance(steps, (list, tuple)):
        raise UserError(f'scenario.steps={steps!r} {wanted}.')
    for t, names in enumerate(steps or ()):
        if isinstance(names, str):
            raise UserError(f'scenario.steps={steps!r} {wanted}; steps[{t}] is the string {names!r}: '
                            f'{one_name(names)}.')
        if not isinstance(names, (list, tuple)):
            raise UserError(f'scenario.steps={steps!r} {wanted}; steps[{t}] is {names!r}.')
        check_class_names(names, f'scenario.steps[{t}]')
    if isinstance(order, str):
        raise UserError(f'scenario.class_order={order!r} must be a list of all class names: {one_name(order)}.')


def check_dataset_names(cfg: Any, loader: str) -> None:
    """Check ``metainfo.classes`` and ``metainfo.palette`` of all datasets of a data loader, without reading the data.

    Args:
        cfg: config of the loader's dataset.
        loader: name of the loader, for the message.
    Raises:
        UserError: a value is not a list of names or colours, or does not match the dataset's classes.
    """
    for leaf in _leaves(cfg):
        kind = leaf.get('type')
        dataset = DATASETS.get(kind) if isinstance(kind, str) else kind
        # Types that are not registered or cannot be divided into steps are reported by another check.
        if isinstance(dataset, type) and issubclass(dataset, BaseSegDataset):
            _check_metainfo(dataset, leaf.get('metainfo'), f'{loader} ({dataset.__name__})')


def _leaves(cfg: Any) -> Iterator[Mapping]:
    """The datasets inside all wrappers."""
    if isinstance(cfg, (list, tuple)):
        for item in cfg:
            yield from _leaves(item)
    elif isinstance(cfg, Mapping):
        inner = cfg.get('dataset', cfg.get('datasets'))
        if inner is None:
            yield cfg
        else:
            yield from _leaves(inner)


def _check_metainfo(dataset: type[BaseSegDataset], given: Any, owner: str) -> None:
    if given is not None and not isinstance(given, (Mapping, Config)):
        raise UserError(f'metainfo={given!r} of {owner} must be a dict, such as dict(classes=[...], palette=[...]).')
    for key in ('classes', 'palette'):
        value = (given or {}).get(key, ())
        if value is None:
            raise UserError(f'metainfo.{key} of {owner} is None: set a list, or remove it.')
        # mmengine takes a string as the path of a file with one item per line.
        if isinstance(value, str) and '://' not in value and not osp.isfile(value):
            hint = one_name(value) if key == 'classes' else 'an item is three numbers, such as [255, 0, 0]'
            raise UserError(f'metainfo.{key} of {owner} is the string {value!r}, but must be a list: {hint}. '
                            '(A string is read as the path of a file with one item per line; there is no such file.)')
    metainfo = dataset_metainfo(dataset, given)
    names, palette = metainfo.get('classes'), metainfo.get('palette', ())
    check_class_names(names, f'metainfo.classes of {owner}')
    own = dataset.METAINFO.get('classes')
    if names is None:
        return  # another check reports this
    if own is not None and list(names) != list(own):
        _check_subset(dataset, names, owner)
    _check_palette(palette, names, own, owner)


def _check_subset(dataset: type[BaseSegDataset], names: Sequence[str], owner: str) -> None:
    if not names:
        raise UserError(f'metainfo.classes of {owner} is empty: name some of its classes, or remove it to use all.')
    if dataset.get_label_map.__func__ is not BaseSegDataset.get_label_map.__func__:
        return
    own = dataset.METAINFO['classes']
    for name in names:
        if name not in own:
            hint = suggest(name, own, ': choose among its classes, or use BaseSegDataset for others.')
            raise UserError(f'metainfo.classes of {owner} names {name!r}, which is not one of its classes{hint}')


def _check_palette(palette: Any, names: Sequence[str], own: Any, owner: str) -> None:
    """Check a palette; ``own`` are all classes of the dataset, if its type defines them."""
    example = 'RGB colours, such as [[0, 0, 0], [255, 0, 0]]'
    if not hasattr(palette, '__len__') or isinstance(palette, (str, Mapping)):
        raise UserError(f'metainfo.palette={palette!r} of {owner} must be a list of {example}.')
    for i, colour in enumerate(palette):
        if not _is_colour(colour):
            raise UserError(f'metainfo.palette[{i}]={colour!r} of {owner} must be three whole numbers from 0 to 255: '
                            f'set the palette to {example}.')
    # If only some classes are chosen, the palette may still be for all of them.
    chosen_some = own is not None and list(names) != list(own)
    if len(palette) not in (0, len(names)) and not (chosen_some and len(palette) >= len(own)):
        raise UserError(f'metainfo.palette of {owner} has {len(palette)} colours for {len(names)} classes '
                        f'({", ".join(map(repr, names[:6]))}{", ..." if len(names) > 6 else ""}): set one for each, or '
                        'remove the palette. (Without a comma between them, Python joins two names.)')


def _is_colour(value: Any) -> bool:
    return hasattr(value, '__len__') and len(value) == 3 and all(map(_is_8_bit, value))


def _is_8_bit(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= int(value) <= 255
