"""What EWC, PI and RW share: importance gathered while training, and weights held back by it afterwards."""
from __future__ import annotations

from typing import Mapping

import torch
from mmseg.registry import MODELS
from torch import Tensor

from ...utils.errors import UserError
from ..losses.importance import (
    normalise_importance,
    path_contribution,
    path_importance,
    quadratic_penalty,
    restoring_force,
    riemannian_score,
    running_fisher,
)
from .base import IncrementalSegmentor

ByName = dict[str, Tensor]


class ImportanceSegmentor(IncrementalSegmentor):
    """Fine-tuning in which weights that mattered to earlier steps are drawn back to where those left them.

    Just before each optimizer step (see ``ImportanceHook``), when gradients are averaged over processes and free of any
    loss scale, the gradient of the task's loss is taken into the statistics; then the penalty's own gradient is added
    to it. So, as published, the penalty is no part of the importance. Rows of the classifier that are new have none.

    Args:
        weight: of the penalty.
        **kwargs: see ``IncrementalSegmentor``.
    """
    needs_teacher = False
    # Step 0 gathers importance, and its checkpoint holds it.
    shares_first_step = False
    hooks = ('ImportanceHook', 'TrainingStateHook')

    def __init__(self, *, weight: float, **kwargs) -> None:
        super().__init__(**kwargs)
        if not weight >= 0:
            raise UserError(f'method.weight={weight} must not be negative.')
        self.weight = weight
        self._check_previous()
        # Kept by parameter name: what the statistics of this step are so far, and how many updates made them.
        self.statistics: dict[str, ByName] = {}
        self.num_updates = 0
        self._anchor: ByName = {}
        self._importance: ByName = {}

    # -- what a method defines ---------------------------------------------------------------------------------------

    def start_statistics(self, previous: Mapping[str, ByName]) -> dict[str, ByName]:
        """Statistics before the first update; ``previous`` is ``importance_state`` of the step before, or empty."""
        raise NotImplementedError(f'{type(self).__name__} must define start_statistics.')

    def update_statistics(self, weights: ByName, gradients: ByName) -> None:
        """Take in one update's gradients, those of the task's loss alone, at the weights they were computed for."""
        raise NotImplementedError(f'{type(self).__name__} must define update_statistics.')

    def importance_state(self) -> dict[str, ByName]:
        """What the next step needs of this one."""
        raise NotImplementedError(f'{type(self).__name__} must define importance_state.')

    def importance_of(self, previous: Mapping[str, ByName]) -> ByName:
        """Importance of each weight, from ``importance_state`` of the previous step."""
        raise NotImplementedError(f'{type(self).__name__} must define importance_of.')

    # -- during a step -----------------------------------------------------------------------------------------------

    def init_weights(self) -> None:
        super().init_weights()
        self.num_updates = 0
        previous, self._previous_state = self._previous_state or {}, None
        self.statistics = self.start_statistics(previous)
        if not self.first_step:
            none = self.filled(0.)
            self._importance = {
                name: with_first_rows(none[name], tensor) for name, tensor in self.importance_of(previous).items()
            }
            self._anchor = {name: weight.detach().clone() for name, weight in self._weights().items()}

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        losses = self.student.loss(inputs, data_samples)
        # For the log: the optimizer step adds its gradient.
        losses['penalty'] = self.weight * self.penalty()
        return losses

    @torch.no_grad()
    def penalty(self) -> Tensor:
        """Scalar: importance times squared distance from the previous step, over all weights."""
        weights = self._weights()
        return sum(quadratic_penalty(weights[name], self._anchor[name], importance)
                   for name, importance in self._importance.items())

    @torch.no_grad()
    def before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Gather importance from the gradients, then add the penalty's gradient to them."""
        weights = {name: weight for name, weight in self._weights().items() if weight.grad is not None}
        self.update_statistics({name: weight.detach() for name, weight in weights.items()},
                               {name: weight.grad.detach() for name, weight in weights.items()})
        self.num_updates += 1
        rates = {id(weight): group['lr'] for group in optimizer.param_groups for weight in group['params']}
        for name, weight in weights.items():
            if name in self._importance and rates.get(id(weight), 0) > 0:
                weight.grad += restoring_force(weight, self._anchor[name], self._importance[name], self.weight,
                                               max_stiffness=1 / rates[id(weight)])

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def method_state(self) -> dict:
        return dict(method=type(self).__name__, **_on_cpu(self.importance_state()))

    def training_state(self) -> dict:
        return dict(statistics=_on_cpu(self.statistics), num_updates=self.num_updates)

    def load_training_state(self, state: dict) -> None:
        weights = self._weights()
        self.statistics = {
            kind: {name: tensor.to(weights[name].device) for name, tensor in tensors.items()}
            for kind, tensors in state['statistics'].items()
        }
        self.num_updates = state['num_updates']

    def _check_previous(self) -> None:
        if self.first_step:
            return
        name = type(self).__name__
        trained_by = (self._previous_state or {}).get('method')
        if trained_by != name:
            raise UserError(f'The checkpoint of the previous step holds no importance of {name}' +
                             (f', but of {trained_by}' if trained_by else '') +
                             f': {name} gathers it while training, so every step, from 0 on, must be trained by '
                             f'method.type={name}.')

    # -- tensors by parameter ----------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, torch.nn.Parameter]:
        return {name: weight for name, weight in self.student.named_parameters() if weight.requires_grad}

    def filled(self, value: float) -> ByName:
        """A constant for every weight."""
        return {name: torch.full_like(weight, value) for name, weight in self._weights().items()}


def with_first_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """``tensor`` with its first rows replaced: a parameter may have grown, in any dimension, since they were made."""
    out = tensor.clone()
    out[tuple(slice(size) for size in rows.shape)] = rows.to(out)
    return out


def _on_cpu(state: Mapping[str, ByName]) -> dict[str, ByName]:
    return {kind: {name: tensor.detach().cpu() for name, tensor in tensors.items()} for kind, tensors in state.items()}


@MODELS.register_module()
class EWC(ImportanceSegmentor):
    """Importance is a moving average of squared gradients (Kirkpatrick et al., PNAS 2017; online, as MiB compares it).

    Args:
        weight: of the penalty, from MiB's comparison.
        **kwargs: see ``ImportanceSegmentor``.
    """

    def __init__(self, *, weight: float = 500.0, **kwargs) -> None:
        super().__init__(weight=weight, **kwargs)

    def start_statistics(self, previous: Mapping[str, ByName]) -> dict[str, ByName]:
        fisher = self.filled(1.)
        for name, tensor in previous.get('fisher', {}).items():
            fisher[name] = with_first_rows(fisher[name], tensor)
        return dict(fisher=fisher)

    def update_statistics(self, weights: ByName, gradients: ByName) -> None:
        fisher = self.statistics['fisher']
        for name, gradient in gradients.items():
            fisher[name] = running_fisher(fisher[name], gradient)

    def importance_state(self) -> dict[str, ByName]:
        return dict(fisher=self.statistics['fisher'])

    def importance_of(self, previous: Mapping[str, ByName]) -> ByName:
        return {name: normalise_importance(tensor) for name, tensor in previous['fisher'].items()}


@MODELS.register_module()
class PI(ImportanceSegmentor):
    """Importance is the loss a weight's way took away, by its squared length (Zenke et al., ICML 2017; as MiB has it).

    A step's importance is added to that of the steps before.

    Args:
        weight: of the penalty, from MiB's comparison.
        **kwargs: see ``ImportanceSegmentor``.
    """

    def __init__(self, *, weight: float = 500.0, **kwargs) -> None:
        super().__init__(weight=weight, **kwargs)

    def start_statistics(self, previous: Mapping[str, ByName]) -> dict[str, ByName]:
        none = self.filled(0.)
        earlier = {name: with_first_rows(none[name], tensor) for name, tensor in previous.get('score', {}).items()}
        return dict(path=self.filled(0.), start={}, before={}, earlier=earlier)

    def update_statistics(self, weights: ByName, gradients: ByName) -> None:
        path, start, before = (self.statistics[kind] for kind in ('path', 'start', 'before'))
        for name, weight in weights.items():
            if name in before:
                path[name] += path_contribution(gradients[name], before[name], weight)
            else:
                start[name] = weight.clone()
            before[name] = weight.clone()

    def importance_state(self) -> dict[str, ByName]:
        path, start, earlier = (self.statistics[kind] for kind in ('path', 'start', 'earlier'))
        score = {}
        for name, weight in self._weights().items():
            end = weight.detach()
            score[name] = path_importance(path[name], start[name], end) if name in start else torch.zeros_like(end)
            if name in earlier:
                score[name] = score[name] + earlier[name]
        return dict(score=score)

    def importance_of(self, previous: Mapping[str, ByName]) -> ByName:
        return {name: normalise_importance(tensor) for name, tensor in previous['score'].items()}


# Updates between two looks at the path.
INTERVAL = 10


@MODELS.register_module()
class RW(ImportanceSegmentor):
    """EWC's importance plus a path integral in the space of outputs (Chaudhry et al., ECCV 2018; as MiB compares it).

    A step's score is averaged with that of the step before.

    Args:
        weight: of the penalty, from MiB's comparison.
        **kwargs: see ``ImportanceSegmentor``.
    """

    def __init__(self, *, weight: float = 100.0, **kwargs) -> None:
        super().__init__(weight=weight, **kwargs)

    def start_statistics(self, previous: Mapping[str, ByName]) -> dict[str, ByName]:
        fisher = self.filled(1.)
        for name, tensor in previous.get('fisher', {}).items():
            fisher[name] = with_first_rows(fisher[name], tensor)
        return dict(fisher=fisher, score=self.filled(0.), before={}, earlier=dict(previous.get('score', {})))

    def update_statistics(self, weights: ByName, gradients: ByName) -> None:
        fisher, score, before = (self.statistics[kind] for kind in ('fisher', 'score', 'before'))
        for name, weight in weights.items():
            if self.num_updates % INTERVAL == 0:
                if name in before:
                    score[name] += riemannian_score(gradients[name], before[name], weight, fisher[name])
                before[name] = weight.clone()
            fisher[name] = running_fisher(fisher[name], gradients[name])

    def importance_state(self) -> dict[str, ByName]:
        scores = {}
        for name, score in self.statistics['score'].items():
            scores[name] = score.clamp_min(0)
            if name in self.statistics['earlier']:
                # New rows of a classifier have no score to be averaged with: they keep their own.
                earlier = with_first_rows(scores[name], self.statistics['earlier'][name])
                scores[name] = 0.5 * (scores[name] + earlier)
        return dict(fisher=self.statistics['fisher'], score=scores)

    def importance_of(self, previous: Mapping[str, ByName]) -> ByName:
        return {
            name: normalise_importance(tensor) + normalise_importance(previous['score'][name])
            for name, tensor in previous['fisher'].items()
        }
