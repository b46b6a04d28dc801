"""Classes, images and labels of each learning step.

A ``Scenario`` is plain data: no torch, no files. There are two kinds of labels. *Raw* labels are the values in the
dataset's mask files. *Class indices* are the channels of the network: 0 is background, followed by the classes in the
order in which they are learnt.
"""
from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Mapping, Optional, Sequence, Union

import numpy as np

from .utils.errors import UserError
from .utils.options import check_choice, check_names, check_types, suggest

SETTINGS = ('overlapped', 'disjoint', 'sequential', 'partitioned')
LABEL_PROTOCOLS = ('mib', 'plop')
IGNORE = 255
# Types of the options; `task`, `setting` and `label_protocol` are checked against their choices instead.
_OPTION_TYPES = dict(
    steps=Optional[Sequence[Sequence[str]]],
    class_order=Optional[Sequence[Union[str, int]]],
    ignored_classes=Optional[Sequence[str]],
    image_lists=Union[Sequence[Optional[str]], Mapping[int, str], None],
    background=Optional[int],
    zero_is_void=bool,
    partition_seed=int)


def class_counts(task: str, num_classes: int) -> tuple[int, ...]:
    """Number of classes of each step of task ``'B-I'``: B base classes, then I at a time.

    Args:
        task: such as ``'15-1'``.
        num_classes: number of foreground classes in the dataset.
    Returns:
        Classes per step, e.g. ``(15, 1, 1, 1, 1, 1)`` for ``('15-1', 20)``.
    Raises:
        UserError: the task is malformed or does not add up to ``num_classes``.
    """
    match = re.fullmatch(r'(\d+)-(\d+)', task) if isinstance(task, str) else None
    if match is None:
        raise UserError(f"scenario.task={task!r} is not of the form 'B-I' (base classes - increment), such as '15-1'.")
    base, increment = map(int, match.groups())
    if base < 1 or increment < 1:
        raise UserError(f'scenario.task={task!r}: base classes and increment must both be at least 1.')
    rest = num_classes - base
    if rest < 0 or rest % increment:
        raise UserError(
            f'scenario.task={task!r} does not fit the {num_classes} foreground classes of the dataset: '
            f"use 'B-I' with B + k*I = {num_classes}, or name the classes of each step in scenario.steps.")
    return (base, ) + (increment, ) * (rest // increment)


@dataclass(frozen=True)
class Scenario:
    """Classes, images and labels of all learning steps (see ``docs/protocol.md``).

    Args:
        labels: raw label of each foreground class of the dataset, by name, in the dataset's natural order.
        steps: class names of each step. Pixels of classes that no step names are always ignored.
        setting: ``'overlapped'`` (images with a new class), ``'disjoint'`` (the same, without future classes),
            ``'sequential'`` (as disjoint, with the labels of old classes) or ``'partitioned'`` (arXiv 2405.09858: each
            image belongs to the step of one of its classes, which is drawn; labels as in overlapped).
        label_protocol: ``'mib'`` (MiB and the HRHF paper) or ``'plop'`` (later work); they differ in the labels of void
            pixels (255) in training and of future classes in evaluation.
        background: raw label of background, or None if the masks have none (Cityscapes).
        zero_is_void: whether 0 marks void in the masks. If they have no other background (ADE20K), 0 is the background
            channel in training; if they have one (LoveDA), 0 is treated as 255.
        image_lists: path to the list of training images, by step; overrides the rule of ``setting``.
        partition_seed: seed of the draw of ``'partitioned'``.
    """
    labels: Mapping[str, int]
    steps: tuple[tuple[str, ...], ...]
    setting: str = 'overlapped'
    label_protocol: str = 'mib'
    background: Optional[int] = 0
    zero_is_void: bool = False
    image_lists: Mapping[int, str] = field(default_factory=dict)
    task: Optional[str] = None
    partition_seed: int = 0

    def __post_init__(self):
        check_choice('scenario.setting', self.setting, SETTINGS)
        check_choice('scenario.label_protocol', self.label_protocol, LABEL_PROTOCOLS)
        if self.background is not None and (not 0 <= self.background < IGNORE
                                            or self.background in self.labels.values()):
            raise UserError(f'scenario.background={self.background!r} must be a raw label from 0 to {IGNORE - 1} that '
                            'is not a class of the dataset, or None if the masks have no background.')
        if not self.steps:
            raise UserError('scenario.steps is empty: set at least one list of class names.')
        seen: set[str] = set()
        for t, names in enumerate(self.steps):
            if not names:
                raise UserError(f'scenario.steps[{t}] is empty: every step must learn at least one class.')
            for name in names:
                if name not in self.labels:
                    hint = suggest(name, self.labels, f'; known classes are {", ".join(self.labels)}.')
                    raise UserError(f'scenario.steps[{t}] names the unknown class {name!r}{hint}')
                if name in seen:
                    raise UserError(f'scenario.steps[{t}] names the class {name!r} a second time: '
                                    'a class belongs to exactly one step.')
                seen.add(name)
        if self.zero_is_void and 0 in self.labels.values():
            raise UserError('scenario.zero_is_void=True, but raw label 0 is a class: remove zero_is_void.')
        for t in self.image_lists:
            if not 0 <= t < self.num_steps:
                raise UserError(f'scenario.image_lists names step {t}, but the steps are 0 to {self.num_steps - 1}.')

    @classmethod
    def build(cls,
              labels: Mapping[str, int],
              task: Optional[str] = None,
              steps: Optional[Sequence[Sequence[str]]] = None,
              class_order: Optional[Sequence[Union[str, int]]] = None,
              ignored_classes: Optional[Sequence[str]] = None,
              image_lists: Union[Mapping, Sequence[Optional[str]], None] = None,
              classes: Optional[Sequence[str]] = None,
              **kwargs) -> Scenario:
        """Build from a config's ``scenario`` dict.

        Args:
            labels: raw label of each foreground class, by name, in natural order.
            task: ``'B-I'``; set either this or ``steps``.
            steps: class names of each step.
            class_order: all class names (or raw labels) in the order in which ``task`` assigns them to steps.
            ignored_classes: classes that belong to no step of ``task``; their pixels are ignored.
            image_lists: path per step (``.npy`` positions or names, ``.txt`` names), as a list or ``{step: path}``.
            classes: the subset of ``labels`` that ``task`` divides; all by default.
            **kwargs: other fields of ``Scenario``.
        """
        check_names('scenario', kwargs, {'task', 'setting', 'label_protocol', *_OPTION_TYPES})
        check_types('scenario', dict(kwargs, steps=steps, class_order=class_order, ignored_classes=ignored_classes,
                                     image_lists=image_lists), _OPTION_TYPES)
        ignored = tuple(ignored_classes or ())
        for name in ignored:
            if name not in labels:
                raise UserError(f'scenario.ignored_classes names {name!r}, which is not a foreground class of the '
                                f'dataset: choose among {", ".join(labels)}.')
            if any(name in names for names in steps or ()):
                raise UserError(f'Both scenario.ignored_classes and scenario.steps name {name!r}: remove it from one '
                                'of them.')
        if (task is None) == (steps is None):
            raise UserError("scenario needs exactly one of task='B-I' and steps=[[class, ...], ...]; "
                            f'got task={task!r}, steps={steps!r}.')
        if steps is not None:
            if class_order is not None:
                raise UserError('scenario.class_order is only for task; scenario.steps already gives the order: remove '
                                'one of them.')
            divided = [tuple(names) for names in steps]
        else:
            order = [name for name in (labels if classes is None else classes) if name not in ignored]
            if class_order is not None:
                order = _resolve_order(class_order, {name: labels[name] for name in order})
            taken, divided = 0, []
            for count in class_counts(str(task), len(order)):
                divided.append(tuple(order[taken:taken + count]))
                taken += count
        if image_lists is None:
            image_lists = {}
        elif not isinstance(image_lists, Mapping):
            image_lists = {t: path for t, path in enumerate(image_lists) if path is not None}
        bad = [t for t in image_lists if not str(t).isdigit()]
        if bad:
            raise UserError(f'scenario.image_lists has the key {bad[0]!r}: its keys must be step numbers.')
        image_lists = {int(t): str(path) for t, path in image_lists.items()}
        return cls(labels=dict(labels), steps=tuple(divided), image_lists=image_lists, task=task, **kwargs)

    @property
    def num_steps(self) -> int:
        return len(self.steps)

    def check_step(self, step: int) -> None:
        if not 0 <= step < self.num_steps:
            raise UserError(f'There is no step {step}: this scenario has steps 0 to {self.num_steps - 1}.')

    def seen_classes(self, step: int) -> tuple[str, ...]:
        """Foreground classes learnt up to and including ``step``; the i-th is class index ``i + 1``."""
        return sum(self.steps[:step + 1], ())

    def num_classes(self, step: int) -> int:
        """Number of channels of the network at ``step``, including background; 0 before the first step."""
        return len(self.seen_classes(step)) + 1 if step >= 0 else 0

    def class_names(self, step: int) -> tuple[str, ...]:
        """Class names by class index at ``step``, background first."""
        return ('background', ) + self.seen_classes(step)

    def metric_groups(self, step: int) -> dict[str, tuple[int, ...]]:
        """Class indices of ``old`` (base), ``new`` (added since) and ``all`` classes, without background."""
        seen, base = len(self.seen_classes(step)), len(self.steps[0])
        return dict(
            old=tuple(range(1, base + 1)), new=tuple(range(base + 1, seen + 1)), all=tuple(range(1, seen + 1)))

    # -- images ------------------------------------------------------------------------------------------------------

    def raw(self, names: Sequence[str]) -> list[int]:
        """Raw labels of the named classes."""
        return [self.labels[name] for name in names]

    def known_labels(self) -> set[int]:
        """Every raw label that a mask of this dataset may contain."""
        labels = set(self.labels.values()) | {IGNORE}
        if self.zero_is_void:
            labels.add(0)
        return labels if self.background is None else labels | {self.background}

    def select_train(self, presence: np.ndarray, step: int, names: Sequence[str] = ()) -> np.ndarray:
        """Training images of ``step``.

        Args:
            presence: (N, 256) bool; ``presence[i, c]``: whether image i contains raw label c.
            step: learning step.
            names: names of the N images, which only ``'partitioned'`` needs.
        Returns:
            Sorted positions of the images.
        """
        self.check_step(step)
        if self.setting == 'partitioned':
            return np.flatnonzero(self._draw_classes(presence, names)[:, self.raw(self.steps[step])].any(axis=1))
        chosen = presence[:, self.raw(self.steps[step])].any(axis=1)
        if self.setting != 'overlapped':
            future = [name for names in self.steps[step + 1:] for name in names]
            chosen &= ~presence[:, self.raw(future)].any(axis=1)
        return np.flatnonzero(chosen)

    def _draw_classes(self, presence: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Draw a class of each image, uniformly among the scheduled classes that it shows.

        The draw depends on nothing but the image's name and ``partition_seed``: not on other images, so that the rest
        of a partition stays when images are added; not on the run's seed, so that the runs of a table differ in
        training alone; not on the classes' order or steps.

        Returns:
            (N, 256) bool: the raw label of the drawn class; none if the image shows no scheduled class.
        """
        if len(names) != len(presence):
            raise ValueError(f'{len(names)} names for {len(presence)} images.')
        shown = np.zeros_like(presence)
        scheduled = self.raw(self.seen_classes(self.num_steps - 1))
        shown[:, scheduled] = presence[:, scheduled]
        digests = (hashlib.sha256(f'{self.partition_seed}/{name}'.encode('utf-8', 'surrogateescape')).digest()
                   for name in names)
        numbers = np.array([int.from_bytes(digest[:4], 'big') for digest in digests], dtype=np.int64)
        order = numbers % np.maximum(shown.sum(axis=1), 1)
        return shown & (shown.cumsum(axis=1) == order[:, None] + 1)

    def select_test(self, presence: np.ndarray, step: int) -> np.ndarray:
        """Test images of ``step``: those with any class learnt so far; all images at the last step."""
        self.check_step(step)
        if step == self.num_steps - 1:
            return np.arange(len(presence))
        return np.flatnonzero(presence[:, self.raw(self.seen_classes(step))].any(axis=1))

    # -- labels ------------------------------------------------------------------------------------------------------

    def train_label_map(self, step: int) -> dict[int, int]:
        """Class index (or 255) of every raw label in training masks of ``step``."""
        self.check_step(step)
        index = {name: i for i, name in enumerate(self.class_names(step))}
        current = set(self.seen_classes(step) if self.setting == 'sequential' else self.steps[step])
        scheduled = set(self.seen_classes(self.num_steps - 1))
        mapping = {} if self.background is None else {self.background: 0}
        for name, label in self.labels.items():
            mapping[label] = index[name] if name in current else 0 if name in scheduled else IGNORE
        # MiB trains void as background (its loss sums over the classes that the step does not know); later work
        # ignores it.
        mapping[IGNORE] = 0 if self.label_protocol == 'mib' else IGNORE
        if self.zero_is_void and self.background != 0:
            mapping[0] = mapping[IGNORE]
        return mapping

    def test_label_map(self, step: int) -> dict[int, int]:
        """Class index (or 255) of every raw label in evaluation masks of ``step``."""
        self.check_step(step)
        index = {name: i for i, name in enumerate(self.class_names(step))}
        scheduled = set(self.seen_classes(self.num_steps - 1))
        future = IGNORE if self.label_protocol == 'mib' else 0
        mapping = {0: IGNORE} if self.zero_is_void else {}
        if self.background is not None:
            void = self.background == 0 and self.zero_is_void and self.label_protocol == 'mib'
            mapping[self.background] = IGNORE if void else 0
        for name, label in self.labels.items():
            mapping[label] = index.get(name, future if name in scheduled else IGNORE)
        mapping[IGNORE] = IGNORE
        return mapping


def _resolve_order(order: Sequence[Union[str, int]], labels: Mapping[str, int]) -> list[str]:
    by_label = {label: name for name, label in labels.items()}
    names: list = [by_label.get(item, item) if isinstance(item, (int, np.integer)) else item for item in order]
    if sorted(map(str, names)) != sorted(labels):
        missing = [name for name in labels if name not in names]
        extra = [name for name in names if name not in labels]
        raise UserError('scenario.class_order must name every class of the dataset exactly once; '
                        f'missing {missing}, unknown {extra}, {len(names)} names for {len(labels)} classes.')
    return names
