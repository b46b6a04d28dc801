"""A finished network in the place of step 0."""
from __future__ import annotations

from typing import Sequence

from torch import nn

from .checkpoint import held_classes, load_weights
from .datasets.class_names import is_background_name
from .scenario import Scenario


def load_first_step(segmentor: nn.Module, path: str, scenario: Scenario, names: Sequence[str] = ()) -> None:
    """Load all weights of a network that was trained elsewhere.

    Args:
        segmentor: of step 0.
        path: local checkpoint of mmengine, or of a step of a run.
        scenario: of the run.
        names: of the dataset's classes, background included.
    Raises:
        ValueError: it holds more than data, is of other classes, or of another network.
    """
    checkpoint = load_weights('first_step_from', path)
    if not isinstance(checkpoint, dict):
        raise ValueError(f'first_step_from={path!r} holds no weights but a {type(checkpoint).__name__}: give a '
                         'checkpoint of mmengine or a state dict.')
    wanted = list(scenario.class_names(0))
    held = held_classes(checkpoint)
    if held and not _is_background(held[0], names, scenario):
        raise ValueError(f'first_step_from={path!r} knows the classes {held}, but class 0 of step 0 is background: '
                         'give a network whose channel 0 is the background.')
    if held and held[1:] != wanted[1:]:
        raise ValueError(f'first_step_from={path!r} knows the classes {held}, but step 0 of the scenario has {wanted}, '
                         'in this order: choose scenario.steps or scenario.class_order after it.')
    try:
        segmentor.load_state_dict(checkpoint.get('state_dict', checkpoint))
    except RuntimeError as error:
        raise ValueError(f'first_step_from={path!r} is not the network of step 0, which has {len(wanted)} classes, '
                         f'background included: {error}') from error


def _is_background(name: str, names: Sequence[str], scenario: Scenario) -> bool:
    """Whether a class is background: by a usual name of it, or by the dataset's own, which is not foreground."""
    return (is_background_name(name) or name in names) and name not in scenario.labels
