"""From the weights of one step to the start of the next: a classifier with more rows."""
from __future__ import annotations

from typing import Mapping

import torch
from torch import Tensor, nn

from .growth_rules import Growth, rule_of

CLASSIFIER_STARTS = ('mib', 'random')


def grow_state(new_state: Mapping[str, Tensor],
               old_state: Mapping[str, Tensor],
               num_old: int,
               num_classes: int,
               start: str = 'mib') -> dict[str, Tensor]:
    """State of a model of ``num_classes`` channels that continues a model of ``num_old``.

    Args:
        new_state: state dict of the new model.
        old_state: state dict of the old model.
        num_old, num_classes: channels of either, background included.
        start: how new rows start, one of ``CLASSIFIER_STARTS``.
    Raises:
        ValueError: a tensor whose change of shape no rule of ``growth_rules`` explains, or that only one of the models
            has; names it.
    """
    if start not in CLASSIFIER_STARTS:
        raise ValueError(f'classifier_start={start!r} is not one of {CLASSIFIER_STARTS}.')
    lone = sorted(set(new_state) ^ set(old_state))
    if lone:
        raise ValueError(f'{lone[0]!r} is in only one of the model and the checkpoint of the previous step '
                         f'({len(lone)} such tensors): both steps must use one architecture.')
    grown = {}
    for name, new in new_state.items():
        growth = Growth(name, new, old_state[name], new_state, old_state, num_old, num_classes, start)
        rule = rule_of(growth)
        if rule is None:
            raise ValueError(f'{name!r} has shape {tuple(growth.old.shape)} in the checkpoint of the previous step and '
                             f'{tuple(new.shape)} in the model, and no rule explains how it grows from {num_old} to '
                             f'{num_classes} classes: is this the checkpoint of another model or step? The rules are '
                             'in mmseg_hrhf/methods/growth_rules.py.')
        grown[name] = rule(growth)
    return grown


def check_growth(old: nn.Module, new: nn.Module) -> None:
    """Raise ``ValueError`` for a tensor of ``new`` that :func:`grow_state` could not fill from ``old``."""
    grow_state(new.state_dict(), old.state_dict(), old.num_classes, new.num_classes)


@torch.no_grad()
def grow_classifier(model: nn.Module, old_state: Mapping[str, Tensor], num_old: int, num_classes: int,
                    start: str) -> None:
    """Load :func:`grow_state` into ``model``."""
    model.load_state_dict(grow_state(model.state_dict(), old_state, num_old, num_classes, start))
