"""What the values in a dataset's masks mean, read from its class and options; no file is touched."""
from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Optional, Sequence

from ..scenario import IGNORE, Scenario
from .class_names import check_class_names


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
            raise ValueError(f'{dataset_class.__name__} names no classes: give metainfo=dict(classes=...).')
        if len(set(names)) != len(names) or len(set(chosen)) != len(chosen):
            raise ValueError(f'{dataset_class.__name__} has two classes of one name: {list(chosen)}.')
        default = inspect.signature(dataset_class.__init__).parameters.get('reduce_zero_label')
        numbered_from_one = bool(reduce_zero_label) or (default is not None and default.default is True)
        if names[0].lower() == 'background' and names[0] not in chosen:
            raise ValueError(f'{dataset_class.__name__} leaves {names[0]!r} out of metainfo.classes, but what no step '
                             'has learnt is background: put it first.')
        return cls(names, chosen, int(numbered_from_one), dataset_class.__name__)

    def scenario(self, options: dict) -> Scenario:
        """The scenario over these classes.

        Args:
            options: of :meth:`Scenario.build`. ``background`` and ``zero_is_void`` are found from the classes unless
                given; ``first_label`` (0 or 1) states where the foreground classes begin.
        """
        options = dict(options)
        has_background = self.names[0].lower() == 'background'
        foreground = self.names[has_background:]
        found = self.offset + has_background
        first = options.pop('first_label', found)
        if first not in (0, 1, found) or (has_background and first == 0):
            raise ValueError(f'scenario.first_label={first!r}: the first foreground class has raw label 0 (masks '
                             'without background) or 1 (0 is background or void).')
        if first == 0 and self.offset:
            raise ValueError(f'scenario.first_label=0 contradicts reduce_zero_label=True of {self.dataset}, by which '
                             'label 0 is void and classes begin at 1: leave one of them out.')
        if len(foreground) + first > IGNORE:
            raise ValueError(f'{len(foreground)} classes do not fit 8-bit masks, in which {IGNORE} means "ignore".')
        options.setdefault('background', first - 1 if first else None)
        options.setdefault('zero_is_void', first == 2 or (first == 1 and not has_background))
        labels = {name: first + i for i, name in enumerate(foreground)}
        classes = [name for name in self.chosen if name in labels]
        scenario = Scenario.build(labels, classes=classes, **options)
        for step, learnt in enumerate(scenario.steps):
            for name in learnt:
                if name not in classes:
                    raise ValueError(f'scenario.steps[{step}] names {name!r}, which metainfo.classes of {self.dataset} '
                                     'leaves out: name it there.')
        return scenario
