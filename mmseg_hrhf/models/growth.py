"""From the weights of one step to the start of the next: a classifier with more rows."""
from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Callable, Mapping, NamedTuple, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.class_names import is_background_name
from ..scenario import Scenario
from ..utils.errors import UserError
from ..work_dir.checkpoint import held_classes, load_weights

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
        UserError: a tensor whose change of shape no rule of ``growth_rules`` explains, or that only one of the models
            has; names it.
    """
    if start not in CLASSIFIER_STARTS:
        raise UserError(f'classifier_start={start!r} is not one of {CLASSIFIER_STARTS}.')
    lone = sorted(set(new_state) ^ set(old_state))
    if lone:
        raise UserError(f'{lone[0]!r} is in only one of the model and the checkpoint of the previous step '
                         f'({len(lone)} such tensors): both steps must use one architecture.')
    grown = {}
    for name, new in new_state.items():
        growth = Growth(name, new, old_state[name], new_state, old_state, num_old, num_classes, start)
        rule = rule_of(growth)
        if rule is None:
            raise UserError(f'{name!r} has shape {tuple(growth.old.shape)} in the checkpoint of the previous step and '
                             f'{tuple(new.shape)} in the model, and no rule explains how it grows from {num_old} to '
                             f'{num_classes} classes: is this the checkpoint of another model or step? The rules are '
                             'in mmseg_hrhf/models/growth.py.')
        grown[name] = rule(growth)
    return grown


def check_growth(old: nn.Module, new: nn.Module) -> None:
    """Raise ``UserError`` for a tensor of ``new`` that ``grow_state`` could not fill from ``old``."""
    grow_state(new.state_dict(), old.state_dict(), old.num_classes, new.num_classes)


@torch.no_grad()
def grow_classifier(model: nn.Module, old_state: Mapping[str, Tensor], num_old: int, num_classes: int,
                    start: str) -> None:
    """Load ``grow_state`` into ``model``."""
    model.load_state_dict(grow_state(model.state_dict(), old_state, num_old, num_classes, start))


@dataclass(frozen=True)
class Growth:
    """A tensor between two steps.

    Args:
        name: in the state dict of a segmentor.
        new: freshly initialised, of the new network.
        old: learnt, of the old one.
        new_state, old_state: the whole states.
        num_old, num_classes: channels of either, background included.
        start: ``'mib'`` or ``'random'``, see ``grow_tensor``.
    """
    name: str
    new: Tensor
    old: Tensor
    new_state: Mapping[str, Tensor]
    old_state: Mapping[str, Tensor]
    num_old: int
    num_classes: int
    start: str

    @property
    def is_bias(self) -> bool:
        return self.name.endswith('bias')

    def changes(self, dims: Mapping[int, Optional[int]]) -> bool:
        """Whether exactly the given dimensions grew as told.

        Args:
            dims: dimension: what it holds beside the classes; None: anything.
        """
        if self.new.ndim != self.old.ndim:
            return False
        for dim, (old, new) in enumerate(zip(self.old.shape, self.new.shape)):
            if dim not in dims:
                if old != new:
                    return False
            else:
                extra = dims[dim]
                if new - old != self.num_classes - self.num_old or (extra is not None and old != self.num_old + extra):
                    return False
        return True


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


def grow_rows(growth: Growth) -> Tensor:
    """A plain classifier."""
    return grow_tensor(growth.new, growth.old, growth.is_bias, growth.start)


def grow_before_no_object(growth: Growth) -> Tensor:
    """Query-based heads: the last row, no-object, stays last.

    New rows start from background here too, not from no-object. Background is an ordinary class to mmseg's query-based
    heads: until now it was the label of the new classes' pixels, so it is the background query that covers them. Both
    shares together are what background had, in each query and so in each pixel, as in MiB. From no-object, the idle
    queries, most of all, would vote for the new classes everywhere and drown the old ones.
    """
    rows = grow_tensor(growth.new[:-1], growth.old[:-1], growth.is_bias, growth.start)
    return torch.cat([rows, growth.old[-1:].to(rows)])


def grow_presence(growth: Growth) -> Tensor:
    """EncHead's independent answers to "is the class in the image?".

    No probability is shared, so old rows stay as they are. New rows stay as initialised: background's would say that
    the new class is in nearly every image.
    """
    return grow_tensor(growth.new, growth.old, growth.is_bias, 'random')


def grow_embeddings(growth: Growth) -> Tensor:
    """Segmenter's class tokens, (1, K, D): new ones are copies of background's."""
    return grow_tensor(growth.new.transpose(0, 1), growth.old.transpose(0, 1), False, growth.start).transpose(0, 1)


def grow_inputs(growth: Growth) -> Tensor:
    """PointRend's layers, whose last input channels are the coarse logits: new ones are not looked at yet."""
    return F.pad(growth.old, (0, 0, 0, growth.new.shape[1] - growth.old.shape[1]))


def grow_rows_and_inputs(growth: Growth) -> Tensor:
    """PointRend's classifier, whose last input channels are the coarse logits."""
    return grow_tensor(growth.new, grow_inputs(growth), False, growth.start)


def keep_answers(growth: Growth) -> Tensor:
    """Bias of a PointRend layer: it makes up for the share that MiB's start takes from background's coarse logit."""
    bias, name = growth.old, growth.name[:-len('bias')] + 'weight'
    weight = growth.old_state[name]
    if growth.start == 'mib' and growth.new_state[name].shape[1] > weight.shape[1]:
        background = weight.shape[1] - growth.num_old
        bias = bias + math.log(growth.num_classes - growth.num_old + 1) * weight[:, background, 0].to(bias)
    return bias


def keep_answers_and_grow_rows(growth: Growth) -> Tensor:
    """Bias of PointRend's classifier."""
    return grow_tensor(growth.new, keep_answers(growth), True, growth.start)


class Rule(NamedTuple):
    """Tensors whose names match ``names`` and whose ``dims`` grew (see ``Growth.changes``) follow ``grow``."""
    names: str
    dims: dict
    grow: Callable[[Growth], Tensor]
    least_dims: int = 1

    def explains(self, growth: Growth) -> bool:
        named = re.search(self.names, growth.name) is not None
        return named and growth.new.ndim >= self.least_dims and growth.changes(self.dims)


# Of each layer of PointRend's head, and only of it, the inputs are features followed by coarse logits. The first rule
# that explains a tensor holds.
_RULES = (
    Rule(r'\.cls_embed\.(weight|bias)$', {0: 1}, grow_before_no_object),
    Rule(r'\.se_layer\.(weight|bias)$', {0: 0}, grow_presence),
    Rule(r'\.cls_emb$', {1: 0}, grow_embeddings),
    # A norm over classes: what it computes of the old ones depends on the new ones, whatever these start from. With
    # background's values they are to it what background is, once more.
    Rule(r'\.mask_norm\.(weight|bias)$', {0: 0}, grow_rows),
    Rule(r'\.fcs\.\d+\.conv\.weight$', {1: None}, grow_inputs),
    Rule(r'\.fcs\.\d+\.conv\.bias$', {}, keep_answers),
    Rule(r'\.fc_seg\.weight$', {0: 0, 1: None}, grow_rows_and_inputs),
    Rule(r'\.fc_seg\.bias$', {0: 0}, keep_answers_and_grow_rows),
    # conv_seg of every other head, and what is like it: DANet's pam_ and cam_, DDRNet's aux_, PIDNet's p_.
    # A vector of weights over classes is no classifier.
    Rule(r'weight$', {0: 0}, grow_rows, least_dims=2),
    Rule(r'bias$', {0: 0}, grow_rows),
)


def rule_of(growth: Growth) -> Optional[Callable[[Growth], Tensor]]:
    """What makes the grown tensor; None where no rule explains it."""
    for rule in _RULES:
        if rule.explains(growth):
            return rule.grow
    return (lambda growth: growth.old) if growth.new.shape == growth.old.shape else None


def load_first_step(segmentor: nn.Module, path: str, scenario: Scenario, names: Sequence[str] = ()) -> None:
    """Load all weights of a network that was trained elsewhere.

    Args:
        segmentor: of step 0.
        path: local checkpoint of mmengine, or of a step of a run.
        scenario: of the run.
        names: of the dataset's classes, background included.
    Raises:
        UserError: it holds more than data, is of other classes, or of another network.
    """
    checkpoint = load_weights('first_step_from', path)
    if not isinstance(checkpoint, dict):
        raise UserError(f'first_step_from={path!r} holds no weights but a {type(checkpoint).__name__}: give a '
                         'checkpoint of mmengine or a state dict.')
    wanted = list(scenario.class_names(0))
    held = held_classes(checkpoint)
    if held and not _is_background(held[0], names, scenario):
        raise UserError(f'first_step_from={path!r} knows the classes {held}, but class 0 of step 0 is background: '
                         'give a network whose channel 0 is the background.')
    if held and held[1:] != wanted[1:]:
        raise UserError(f'first_step_from={path!r} knows the classes {held}, but step 0 of the scenario has {wanted}, '
                         'in this order: choose scenario.steps or scenario.class_order after it.')
    try:
        segmentor.load_state_dict(checkpoint.get('state_dict', checkpoint))
    except RuntimeError as error:
        raise UserError(f'first_step_from={path!r} is not the network of step 0, which has {len(wanted)} classes, '
                         f'background included: {error}') from error


def _is_background(name: str, names: Sequence[str], scenario: Scenario) -> bool:
    """Whether a class is background: by a usual name of it, or by the dataset's own, which is not foreground."""
    return (is_background_name(name) or name in names) and name not in scenario.labels
