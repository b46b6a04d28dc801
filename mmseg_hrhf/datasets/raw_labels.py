"""What the values in a dataset's masks mean, read from its class and options; no file is touched."""
from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

from ..scenario import IGNORE, Scenario
from ..utils.errors import UserError
from .class_names import check_class_names, is_background_name, letters

# They may mean background, pixels without an annotation, or a class: only the user knows.
_UNCLEAR_NAMES = ('void', 'unlabeled', 'unlabelled', 'unlabel', 'nolabel', 'notlabeled', 'notlabelled', 'unknown',
                  'undefined', 'unannotated', 'unclassified', 'ignore', 'ignored', 'nodata', 'none', 'null', 'empty',
                  'nothing', 'noclass', 'hintergrund', 'arriereplan', 'arrièreplan', 'fondo', 'fundo', 'sfondo',
                  'achtergrond', 'фон', '背景', '배경')
# How alike a name must be to 'background' to be taken for a slip of the pen.
_ALIKE = 0.88


def _is_unclear(name: str) -> bool:
    """Whether a class of this name may be background: ``'background clutter'``, ``'backgroud'``."""
    plain = letters(name)
    if is_background_name(name):
        return False
    return (plain in _UNCLEAR_NAMES or 'background' in plain
            or difflib.SequenceMatcher(None, plain, 'background').ratio() >= _ALIKE)


@dataclass(frozen=True)
class RawLabels:
    """The classes of a dataset by the labels in its masks.

    Args:
        names: of all classes that masks may hold; the i-th has raw label ``i + offset``.
        chosen: those to be learnt, in their natural order (``metainfo.classes`` may name a part of ``names``).
        offset: 1 where label 0 is void (``reduce_zero_label``), else 0.
        dataset: type of the dataset, for messages.
    """
    names: tuple[str, ...]
    chosen: tuple[str, ...]
    offset: int
    dataset: str

    @classmethod
    def of(cls, dataset_class: type, classes: Optional[Sequence[str]], reduce_zero_label: Optional[bool]) -> RawLabels:
        """Read them from a dataset's class, its ``metainfo.classes`` and its ``reduce_zero_label``.

        ``reduce_zero_label`` says where classes begin, and is not applied. A dataset class that switches it on by
        default has masks of which 0 is void, whether or not it is switched off.
        """
        check_class_names(classes, f'metainfo.classes of {dataset_class.__name__}')
        names = tuple(getattr(dataset_class, 'METAINFO', {}).get('classes') or classes or ())
        chosen = tuple(classes or names)
        if not names:
            raise UserError(f'{dataset_class.__name__} names no classes: give metainfo=dict(classes=...).')
        if len(set(names)) != len(names) or len(set(chosen)) != len(chosen):
            raise UserError(f'{dataset_class.__name__} has two classes of one name: {list(chosen)}.')
        default = inspect.signature(dataset_class.__init__).parameters.get('reduce_zero_label')
        numbered_from_one = bool(reduce_zero_label) or (default is not None and default.default is True)
        left_out = [name for name in names if is_background_name(name) and name not in chosen]
        if left_out:
            raise UserError(f'{dataset_class.__name__} leaves {left_out[0]!r} out of metainfo.classes, but what no '
                             'step has learnt is background: put it first.')
        return cls(names, chosen, int(numbered_from_one), dataset_class.__name__)

    @property
    def labels(self) -> dict[str, int]:
        """Raw label of every class, background included."""
        return {name: self.offset + i for i, name in enumerate(self.names)}

    def background_of(self, options: dict) -> Optional[str]:
        """Name of the class that is background; None where no class is.

        Args:
            options: of the scenario; ``background`` (name or raw label of a class) comes before the classes' names.
        Raises:
            UserError: two classes could be it, or ``background`` is neither a class nor a free label.
        """
        given = options.get('background')
        by_label = {label: name for name, label in self.labels.items()}
        if isinstance(given, str) and given not in self.labels:
            raise UserError(f'scenario.background={given!r} is no class of {self.dataset}: name one of '
                             f'{", ".join(self.names)}, give the raw label of background, or None.')
        if isinstance(given, int) and not 0 <= given < IGNORE:
            raise UserError(f'scenario.background={given} must be a raw label of 0 to {IGNORE - 1}, the name of a '
                             'class, or None if masks have no background.')
        named = [name for name in self.names if is_background_name(name)]
        if isinstance(given, (str, int)) and not isinstance(given, bool):
            chosen = given if isinstance(given, str) else by_label.get(given)
        elif 'background' in options:
            chosen = None
        elif len(named) > 1:
            raise UserError(f'{self.dataset} has {len(named)} classes whose names mean background, {named}: rename '
                             'all but one, since the first channel of the network is the only background.')
        else:
            chosen = named[0] if named else None
        others = [name for name in named if name != chosen]
        if others:
            raise UserError(f'scenario.background={given!r}, but {self.dataset} has the class {others[0]!r}, which '
                             f'could not be told from background in any table: rename it, or set scenario.background='
                             f'{others[0]!r}.')
        return chosen

    def scenario(self, options: Mapping[str, Any]) -> Scenario:
        """The scenario over these classes.

        Args:
            options: of ``Scenario.build``. ``background`` and ``zero_is_void`` are found from the classes unless
                given; ``background`` may be the name or the raw label of a class.
        Raises:
            UserError: a class that may or may not be background, or an option that does not fit the classes; names
                the option that settles it.
        """
        options = dict(options)
        background = self.background_of(options)
        foreground = tuple(name for name in self.names if name != background)
        self._check_unclear(options, background)
        if max(self.labels.values()) >= IGNORE:
            raise UserError(f'{len(foreground)} classes do not fit 8-bit masks, in which {IGNORE} means "ignore".')
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
                    raise UserError(f'scenario.steps[{step}] names {name!r}, which metainfo.classes of {self.dataset} '
                                     'leaves out: name it there.')
        self._check_label_zero(scenario, _flat(options.get('ignored_classes')))
        return scenario

    def _check_unclear(self, options: dict, background: Optional[str]) -> None:
        """Refuse a class named ``void`` or alike of which the config does not say what it is."""
        if options.get('background', 0) is None or (options.get('steps') is not None and background is not None):
            return  # every class is one to learn, or the steps say which are
        named: list = [background]
        for key in ('ignored_classes', 'steps', 'class_order'):
            named += _flat(options.get(key))
        for name in self.chosen:
            if _is_unclear(name) and name not in named and self.labels[name] not in named:
                raise UserError(f'{self.dataset} has the class {name!r} (raw label {self.labels[name]}), and the '
                                 f'config does not say what it is: set scenario.background={name!r} if it is '
                                 f'background, scenario.ignored_classes=[{name!r}] if its pixels are to be ignored, or '
                                 'name it in scenario.steps or scenario.class_order if it is to be learnt.')

    def _check_label_zero(self, scenario: Scenario, ignored: Sequence[str]) -> None:
        """Refuse masks without background whose label 0 no step learns: it is background under some other name."""
        if scenario.background is not None:
            return
        scheduled = scenario.seen_classes(scenario.num_steps - 1)
        for name, label in scenario.labels.items():
            if label == 0 and name in self.chosen and name not in scheduled and name not in ignored:
                raise UserError(f'{self.dataset} has no background, and no step learns {name!r}, its raw label 0, so '
                                 f'that its pixels would be ignored: set scenario.background={name!r} if it is '
                                 f'background, or scenario.ignored_classes=[{name!r}] if they are to be ignored.')


def _flat(value) -> list:
    """Items of a list and of the lists in it; a value of another type is refused where it is read."""
    if not isinstance(value, (list, tuple)):
        return []
    return [item for part in value for item in (part if isinstance(part, (list, tuple)) else [part])]
