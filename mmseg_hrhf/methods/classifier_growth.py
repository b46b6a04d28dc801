"""From the weights of one step to the start of the next: a classifier with more rows."""
from __future__ import annotations

import math
from typing import Mapping

import torch
from torch import Tensor, nn

CLASSIFIER_STARTS = ('mib', 'random')


def grow_tensor(new: Tensor, old: Tensor, is_bias: bool, start: str = 'mib') -> Tensor:
    """Rows of known classes from ``old``, rows of new classes from background (MiB's start).

    The probability of background is shared between background and the new classes: each gets its weights, and its
    bias less ``log(N_new + 1)``, so that their summed probability is what background alone had.

    Args:
        new: (C, ...) freshly initialised.
        old: (K, ...) with K < C, row 0 background.
        is_bias: ``old`` holds biases.
        start: ``'mib'``, or ``'random'``: new rows as in ``new``, background as in ``old``.
    Returns:
        (C, ...).
    """
    num_old, num_new = len(old), len(new) - len(old)
    grown = new.clone()
    grown[:num_old] = old.to(grown)
    if start == 'mib':
        grown[num_old:] = old[:1].to(grown)
        if is_bias:
            grown[0] -= math.log(num_new + 1)
            grown[num_old:] -= math.log(num_new + 1)
    return grown


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
        ValueError: a tensor that neither has its old shape nor grew from ``num_old`` to ``num_classes`` rows, or that
            only one of the models has; names it.
    """
    if start not in CLASSIFIER_STARTS:
        raise ValueError(f'classifier_start={start!r} is not one of {CLASSIFIER_STARTS}.')
    lone = sorted(set(new_state) ^ set(old_state))
    if lone:
        raise ValueError(f'{lone[0]!r} is in only one of the model and the checkpoint of the previous step '
                         f'({len(lone)} such tensors): both steps must use one architecture.')
    grown = {}
    for name, new in new_state.items():
        old = old_state[name]
        if new.shape == old.shape:
            grown[name] = old
        elif _grew(name, old.shape, new.shape, num_old, num_classes):
            grown[name] = grow_tensor(new, old, is_bias=name.endswith('bias'), start=start)
        else:
            raise ValueError(f'{name!r} has shape {tuple(old.shape)} in the checkpoint of the previous step and '
                             f'{tuple(new.shape)} in the model. Only a first dimension that grows from {num_old} to '
                             f'{num_classes} classes is understood: is this the checkpoint of another model or step?')
    return grown


def check_growth(old: nn.Module, new: nn.Module) -> None:
    """Raise ``ValueError`` for a tensor of ``new`` that :func:`grow_state` could not fill from ``old``."""
    grow_state(new.state_dict(), old.state_dict(), old.num_classes, new.num_classes)


def _grew(name: str, old: torch.Size, new: torch.Size, num_old: int, num_classes: int) -> bool:
    if old.numel() == num_old and new.numel() == num_classes and not name.endswith('bias'):
        return False  # a weight over classes, such as Segmenter's mask_norm, is no row of a classifier
    return old[:1] == (num_old, ) and new[:1] == (num_classes, ) and old[1:] == new[1:]


@torch.no_grad()
def grow_classifier(model: nn.Module, old_state: Mapping[str, Tensor], num_old: int, num_classes: int,
                    start: str) -> None:
    """Load :func:`grow_state` into ``model``."""
    model.load_state_dict(grow_state(model.state_dict(), old_state, num_old, num_classes, start))
