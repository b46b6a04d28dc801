"""Initialises a step from the weights of the previous one: grows the classifier by the new classes."""
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
    """State dict of a model with ``num_classes`` channels, initialised from a model with ``num_old``.

    Args:
        new_state: state dict of the new model.
        old_state: state dict of the old model.
        num_old, num_classes: channels of the old and the new model, background included.
        start: initialisation of new rows, one of ``CLASSIFIER_STARTS``.
    Raises:
        UserError: no rule explains how the shape of a tensor changes, or only one of the models has it; names it.
    """
    if start not in CLASSIFIER_STARTS:
        raise UserError(f'classifier_start={start!r} is not one of {CLASSIFIER_STARTS}.')
    lone = sorted(set(new_state) ^ set(old_state))
    if lone:
        raise UserError(f'{lone[0]!r} is in only one of the model and the checkpoint of the previous step '
                         f'({len(lone)} such tensors): both steps must use the same architecture.')
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
    """A tensor of two consecutive steps.

    Args:
        name: in the state dict of a segmentor.
        new: initialised tensor of the new network.
        old: trained tensor of the old network.
        new_state, old_state: complete state dicts.
        num_old, num_classes: channels of the old and the new network, background included.
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
        """Whether exactly the given dimensions grew by the new classes.

        Args:
            dims: maps each dimension to the number of its entries besides the classes; None: any number.
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
    """Copy the rows of old classes from ``old`` and initialise the rows of new classes from background, as MiB does.

    Background and the new classes all get the weights of background, and its bias minus ``log(N_new + 1)``. Their
    probabilities therefore sum to the former probability of background.

    Args:
        new: (C, ...) initialised.
        old: (K, ...) with K < C, row 0 background.
        is_bias: ``old`` holds biases.
        start: ``'mib'``, or ``'random'``: new rows from ``new``, background from ``old``.
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

    New rows start from background, not from no-object. For mmseg's query-based heads, background is an ordinary class
    and was the label of the new classes' pixels, so the background query covers them. As in MiB, the shares sum to the
    former probability of background, in each query and so in each pixel. Starting from no-object would make idle
    queries, which are the majority, vote for the new classes everywhere.
    """
    rows = grow_tensor(growth.new[:-1], growth.old[:-1], growth.is_bias, growth.start)
    return torch.cat([rows, growth.old[-1:].to(rows)])


def grow_presence(growth: Growth) -> Tensor:
    """EncHead's independent predictions of whether a class is in the image.

    The classes share no probability, so old rows are kept. New rows keep their initialisation: background's row would
    predict the new class in nearly every image.
    """
    return grow_tensor(growth.new, growth.old, growth.is_bias, 'random')


def grow_embeddings(growth: Growth) -> Tensor:
    """Segmenter's class tokens, (1, K, D): new ones are copies of background's."""
    return grow_tensor(growth.new.transpose(0, 1), growth.old.transpose(0, 1), False, growth.start).transpose(0, 1)


def grow_inputs(growth: Growth) -> Tensor:
    """PointRend's layers, whose last input channels are the coarse logits: new channels get zero weights."""
    return F.pad(growth.old, (0, 0, 0, growth.new.shape[1] - growth.old.shape[1]))


def grow_rows_and_inputs(growth: Growth) -> Tensor:
    """PointRend's classifier, whose last input channels are the coarse logits."""
    return grow_tensor(growth.new, grow_inputs(growth), False, growth.start)


def compensate_bias(growth: Growth) -> Tensor:
    """Bias of a PointRend layer: compensates what MiB's start subtracts from background's coarse logit."""
    bias, name = growth.old, growth.name[:-len('bias')] + 'weight'
    weight = growth.old_state[name]
    if growth.start == 'mib' and growth.new_state[name].shape[1] > weight.shape[1]:
        background = weight.shape[1] - growth.num_old
        bias = bias + math.log(growth.num_classes - growth.num_old + 1) * weight[:, background, 0].to(bias)
    return bias


def compensate_bias_and_grow_rows(growth: Growth) -> Tensor:
    """Bias of PointRend's classifier."""
    return grow_tensor(growth.new, compensate_bias(growth), True, growth.start)


class Rule(NamedTuple):
    """Applies ``grow`` to tensors whose names match ``names`` and whose ``dims`` grew (see ``Growth.changes``)."""
    names: str
    dims: dict
    grow: Callable[[Growth], Tensor]
    least_dims: int = 1

    def explains(self, growth: Growth) -> bool:
        named = re.search(self.names, growth.name) is not None
        return named and growth.new.ndim >= self.least_dims and growth.changes(self.dims)


# The first matching rule applies. Only the layers of PointRend's head take features followed by coarse logits.
_RULES = (
    Rule(r'\.cls_embed\.(weight|bias)$', {0: 1}, grow_before_no_object),
    Rule(r'\.se_layer\.(weight|bias)$', {0: 0}, grow_presence),
    Rule(r'\.cls_emb$', {1: 0}, grow_embeddings),
    # A norm over classes: its output for old classes depends on the new ones, whatever their initialisation.
    # Background's values make each new class another copy of background.
    Rule(r'\.mask_norm\.(weight|bias)$', {0: 0}, grow_rows),
    Rule(r'\.fcs\.\d+\.conv\.weight$', {1: None}, grow_inputs),
    Rule(r'\.fcs\.\d+\.conv\.bias$', {}, compensate_bias),
    Rule(r'\.fc_seg\.weight$', {0: 0, 1: None}, grow_rows_and_inputs),
    Rule(r'\.fc_seg\.bias$', {0: 0}, compensate_bias_and_grow_rows),
    # conv_seg of every other head and similar layers: DANet's pam_ and cam_, DDRNet's aux_, PIDNet's p_.
    # A weight vector over classes is not a classifier.
    Rule(r'weight$', {0: 0}, grow_rows, least_dims=2),
    Rule(r'bias$', {0: 0}, grow_rows),
)


def rule_of(growth: Growth) -> Optional[Callable[[Growth], Tensor]]:
    """Function that computes the grown tensor; None if no rule applies."""
    for rule in _RULES:
        if rule.explains(growth):
            return rule.grow
    return (lambda growth: growth.old) if growth.new.shape == growth.old.shape else None


def start_network(network: nn.Module) -> None:
    """Initialise the weights of a network as configured.

    Raises:
        UserError: pretrained weights cannot be loaded; names them.
    """
    try:
        network.init_weights()
    except (OSError, RuntimeError, EOFError) as error:  # no network, missing file, not a checkpoint
        wanted = sorted({cfg['checkpoint'] for module in network.modules()
                         for cfg in _inits(getattr(module, 'init_cfg', None)) if cfg.get('checkpoint')})
        if not wanted:
            raise
        raise UserError(f'Cannot load the pretrained weights {", ".join(wanted)}: {error}. Set init_cfg.checkpoint '
                        '(or pretrained) to a local file, or train from scratch with model.pretrained=None '
                        'model.backbone.init_cfg=None.') from error


def _inits(init_cfg) -> list:
    return list(init_cfg) if isinstance(init_cfg, (list, tuple)) else [init_cfg] if init_cfg else []


def load_first_step(segmentor: nn.Module, path: str, scenario: Scenario, names: Sequence[str] = ()) -> None:
    """Load all weights of a network trained elsewhere.

    Args:
        segmentor: of step 0.
        path: local checkpoint of mmengine, or of a step of a run.
        scenario: of the run.
        names: class names of the dataset, background included.
    Raises:
        UserError: the file contains more than data, or belongs to other classes or another network.
    """
    checkpoint = load_weights('first_step_from', path)
    if not isinstance(checkpoint, dict):
        raise UserError(f'first_step_from={path!r} contains a {type(checkpoint).__name__} instead of weights: set it '
                         'to a checkpoint of mmengine or a state dict.')
    wanted = list(scenario.class_names(0))
    held = held_classes(checkpoint)
    if held and not _is_background(held[0], names, scenario):
        raise UserError(f'first_step_from={path!r} has the classes {held}, but class 0 of step 0 is background: '
                         'use a network whose channel 0 is background.')
    if held and held[1:] != wanted[1:]:
        raise UserError(f'first_step_from={path!r} has the classes {held}, but step 0 of the scenario has {wanted}, '
                         'in this order: set scenario.steps or scenario.class_order to match it.')
    try:
        segmentor.load_state_dict(checkpoint.get('state_dict', checkpoint))
    except RuntimeError as error:
        raise UserError(f'first_step_from={path!r} is not the network of step 0, which has {len(wanted)} classes, '
                         f'background included: {error}') from error


def _is_background(name: str, names: Sequence[str], scenario: Scenario) -> bool:
    """Whether a name means background: a usual name, or a name of the dataset, that is not a foreground class."""
    return (is_background_name(name) or name in names) and name not in scenario.labels
