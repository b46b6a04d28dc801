"""A finished network in the place of step 0."""
from __future__ import annotations

from torch import nn

from .checkpoint import held_classes, load_weights
from .scenario import Scenario


def load_first_step(segmentor: nn.Module, path: str, scenario: Scenario) -> None:
    """Load all weights of a network that was trained elsewhere.

    Args:
        segmentor: of step 0.
        path: local checkpoint of mmengine, or of a step of a run.
        scenario: of the run.
    Raises:
        ValueError: it holds more than data, is of other classes, or of another network.
    """
    checkpoint = load_weights('first_step_from', path)
    wanted = list(scenario.class_names(0))
    held = held_classes(checkpoint)
    if held and held != wanted:
        raise ValueError(f'first_step_from={path!r} knows the classes {held}, but step 0 of the scenario has {wanted}, '
                         'in this order: choose scenario.steps or scenario.class_order after it.')
    try:
        segmentor.load_state_dict(checkpoint.get('state_dict', checkpoint))
    except RuntimeError as error:
        raise ValueError(f'first_step_from={path!r} is not the network of step 0, which has {len(wanted)} classes, '
                         f'background included: {error}') from error
