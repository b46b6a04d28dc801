"""Meaning of the values in a dataset's masks, from its class and options; reads no files."""
from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

from ..scenario import IGNORE, Scenario
from ..utils.errors import UserError
from .class_names import check_class_names, is_background_name, letters

# These may mean background, unlabelled pixels or a class; only the user knows.
_UNCLEAR_NAMES = ('void', 'unlabeled', 'unlabelled', 'unlabel', 'nolabel', 'notlabeled', 'notlabelled', 'unknown',
                  'undefined', 'unannotated', 'unclassified', 'ignore', 'ignored', 'nodata', 'none', 'null', 'empty',
                  'nothing', 'noclass', 'hintergrund', 'arriereplan', 'arrièreplan', 'fondo', 'fundo', 'sfondo',
                  'achtergrond', 'фон', '背景', '배경')
# Similarity to 'background' from which a name is taken for a typo of it.
_TYPO_SIMILARITY = 0.88


def _is_unclear(name: str) -> bool:
    """Whether a class of this name may be background, such as ``'background clutter'`` or ``'backgroud'``."""
    plain = letters(name)
    if is_background_name(name):
        return False
    return (plain in _UNCLEAR_NAMES or 'background' in plain
            or difflib.SequenceMatcher(None, plain, 'background').ratio() >= _TYPO_SIMILARITY)


@dataclass(frozen=True)
class RawLabels:
    """The classes of a dataset and their labels in its masks.

    Args:
        names: names of all classes in the masks; the i-th has raw label ``i + offset``.
        chosen: names of the classes to learn, in natural order (``metainfo.classes`` may name a subset of ``names``).
        offset: 1 if label 0 is void (``reduce_zero_label``), else 0.
        dataset: type of the dataset, for messages.
    """
    names: tuple[str, ...]
    chosen: tuple[str, ...]
    offset: int
    dataset: str

    @classmethod
    def of(cls, dataset_class: type, classes: Optional[Sequence[str]], reduce_zero_label: Optional[bool]) -> RawLabels:
        """Build from a dataset's class, its ``metainfo.classes`` and its ``reduce_zero_label``.

        ``reduce_zero_label`` only tells whether classes start at label 1; it is not applied. If a dataset class enables
        it by default, 0 is void in its masks, even if the config disables it.
        """
        check_class_names(classes, f'metainfo.classes of {dataset_class.__name__}')
        names = tuple(getattr(dataset_class, 'METAINFO', {}).get('classes') or classes or ())
        chosen = tuple(classes or names)
        if not names:
            raise UserError(f'{dataset_class.__name__} names no classes: set metainfo=dict(classes=...).')
        if len(set(names)) != len(names) or len(set(chosen)) != len(chosen):
            raise UserError(f'{dataset_class.__name__} has two classes with the same name, {list(chosen)}: rename one.')
        default = inspect.signature(dataset_class.__init__).parameters.get('reduce_zero_label')
        numbered_from_one = bool(reduce_zero_label) or (default is not None and default.default is True)
        left_out = [name for name in names if is_background_name(name) and name not in chosen]
        if left_out:
            raise UserError(f'metainfo.classes of {dataset_class.__name__} lacks {left_out[0]!r}, which every step '
                            'needs: put it first.')
        return cls(names, chosen, int(numbered_from_one), dataset_class.__name__)

    @property
    def labels(self) -> dict[str, int]:
        """Raw label of every class, including background."""
        return {name: self.offset + i for i, name in enumerate(self.names)}

    def background_of(self, options: dict) -> Optional[str]:
        """Name of the background class; None if there is none.

        Args:
            options: options of the scenario; ``background`` (name or raw label of a class) overrides class names.
        Raises:
            UserError: two classes could be background, or ``background`` is neither a class nor an unused label.
        """
        given = options.get('background')
        by_label = {label: name for name, label in self.labels.items()}
        if isinstance(given, str) and given not in self.labels:
            raise UserError(f'scenario.background={given!r} is not a class of {self.dataset}: set it to one of '
                            f'{", ".join(self.names)}, to the raw label of background, or to None.')
        if isinstance(given, int) and not 0 <= given < IGNORE:
            raise UserError(f'scenario.background={given} must be a raw label from 0 to {IGNORE - 1}, the name of a '
                            'class, or None if the masks have no background.')
        named = [name for name in self.names if is_background_name(name)]
        if isinstance(given, (str, int)) and not isinstance(given, bool):
            chosen = given if isinstance(given, str) else by_label.get(given)
        elif 'background' in options:
            chosen = None
        elif len(named) > 1:
            raise UserError(f'{self.dataset} has {len(named)} classes whose names mean background, {named}: rename '
                            'all but one, since only the first channel of the network is background.')
        else:
            chosen = named[0] if named else None
        others = [name for name in named if name != chosen]
        if others:
            raise UserError(f'scenario.background={given!r}, but {self.dataset} has the class {others[0]!r}, which '
                            f'results could not distinguish from background: rename it, or set scenario.background='
                            f'{others[0]!r}.')
        return chosen

    def scenario(self, options: Mapping[str, Any]) -> Scenario:
        """The scenario over these classes.

        Args:
            options: options of ``Scenario.build``. The defaults of ``background`` and ``zero_is_void`` depend on the
                classes; ``background`` may be the name or the raw label of a class.
        Raises:
            UserError: it is unclear whether a class is background, or an option does not match the classes.
        """
        options = dict(options)
        background = self.background_of(options)
        foreground = tuple(name for name in self.names if name != background)
        self._check_unclear(options, background)
        if max(self.labels.values()) >= IGNORE:
            raise UserError(f'{len(foreground)} classes do not fit into 8-bit masks, in which {IGNORE} means "ignore": '
                            'use fewer classes.')
        if background is not None:
            options['background'] = self.labels[background]
        options.setdefault('background', 0 if self.offset else None)
        options.setdefault('zero_is_void', bool(self.offset))
        labels = {name: self.labels[name] for name in foreground}
        classes = [name for name in self.chosen if name in labels]
        scenario = Scenario.build(labels, classes=classes, **options)
        for step, learnt in enumerate(scenario.steps):
            for name in learnt:
                if name not in classes:
                    raise UserError(f'scenario.steps[{step}] names {name!r}, which is missing from metainfo.classes of '
                                    f'{self.dataset}: add it there.')
        self._check_label_zero(scenario, _flat(options.get('ignored_classes')))
        return scenario

    def _check_unclear(self, options: dict, background: Optional[str]) -> None:
        """Raise ``UserError`` if a class is named ``void`` or similar and the config does not define its role."""
        if options.get('background', 0) is None or (options.get('steps') is not None and background is not None):
            return  # every class is learnt, or the steps define which are
        named: list = [background]
        for key in ('ignored_classes', 'steps', 'class_order'):
            named += _flat(options.get(key))
        for name in self.chosen:
            if _is_unclear(name) and name not in named and self.labels[name] not in named:
                raise UserError(f'{self.dataset} has the class {name!r} (raw label {self.labels[name]}), whose role is '
                                f'unclear: set scenario.background={name!r} if it is background, '
                                f'scenario.ignored_classes=[{name!r}] to ignore its pixels, or name it in '
                                'scenario.steps or scenario.class_order to learn it.')

    def _check_label_zero(self, scenario: Scenario, ignored: Sequence[str]) -> None:
        """Raise ``UserError`` if no class is background and no step learns label 0, which is probably background."""
        if scenario.background is not None:
            return
        scheduled = scenario.seen_classes(scenario.num_steps - 1)
        for name, label in scenario.labels.items():
            if label == 0 and name in self.chosen and name not in scheduled and name not in ignored:
                raise UserError(f'{self.dataset} has no background, and no step learns {name!r} (raw label 0): set '
                                f'scenario.background={name!r} if it is background, or '
                                f'scenario.ignored_classes=[{name!r}] to ignore its pixels.')


def _flat(value) -> list:
    """Items of a list and of the lists in it; other types are rejected elsewhere."""
    if not isinstance(value, (list, tuple)):
        return []
    return [item for part in value for item in (part if isinstance(part, (list, tuple)) else [part])]
