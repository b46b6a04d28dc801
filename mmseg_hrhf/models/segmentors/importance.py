"""EWC, PI and RW: fine-tuning with a penalty on changes of important weights."""
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
    """Base class of fine-tuning with a penalty on changes of weights that were important for earlier steps.

    Before each optimizer step (see ``ImportanceHook``), when gradients are averaged over processes and unscaled, the
    statistics are updated with the gradient of the task loss. Then the gradient of the penalty is added. The penalty
    therefore does not contribute to the importance, as published. New rows of the classifier have importance 0.

    Args:
        weight: weight of the penalty.
        **kwargs: see ``IncrementalSegmentor``.
    """
    needs_teacher = False
    # Step 0 accumulates importance, and its checkpoint contains it.
    shares_first_step = False
    hooks = ('ImportanceHook', 'TrainingStateHook')

    def __init__(self, *, weight: float, **kwargs) -> None:
        super().__init__(**kwargs)
        if not weight >= 0:
            raise UserError(f'method.weight={weight} must not be negative.')
        self.weight = weight
        self._check_previous()
        # By parameter name: statistics of this step, and the number of updates so far.
        self.statistics: dict[str, ByName] = {}
        self.num_updates = 0
        self._anchor: ByName = {}
        self._importance: ByName = {}

    # -- defined by each method --------------------------------------------------------------------------------------

    def start_statistics(self, previous: Mapping[str, ByName]) -> dict[str, ByName]:
        """Statistics before the first update; ``previous`` is the previous step's ``importance_state``, or empty."""
        raise NotImplementedError(f'{type(self).__name__} must define start_statistics.')

    def update_statistics(self, weights: ByName, gradients: ByName) -> None:
        """Update the statistics with the gradients of the task loss, and the weights they were computed at."""
        raise NotImplementedError(f'{type(self).__name__} must define update_statistics.')

    def importance_state(self) -> dict[str, ByName]:
        """State that the next step needs."""
        raise NotImplementedError(f'{type(self).__name__} must define importance_state.')

    def importance_of(self, previous: Mapping[str, ByName]) -> ByName:
        """Importance of each weight, from the previous step's ``importance_state``."""
        raise NotImplementedError(f'{type(self).__name__} must define importance_of.')

    # -- during a step -----------------------------------------------------------------------------------------------

    def init_weights(self) -> None:
        super().init_weights()
        self.num_updates = 0
        weights = self._weights()
        # The previous step may have trained weights that this step freezes.
        previous = {kind: {name: tensor for name, tensor in tensors.items() if name in weights}
                    for kind, tensors in (self.previous_state or {}).items() if kind != 'method'}
        self.previous_state = None
        self.statistics = self.start_statistics(previous)
        if not self.first_step:
            none = self.filled(0.)
            self._importance = {
                name: with_first_rows(none[name], tensor) for name, tensor in self.importance_of(previous).items()
            }
            self._anchor = {name: weight.detach().clone() for name, weight in weights.items()}

    def incremental_loss(self, inputs: Tensor, data_samples: list) -> dict:
        losses = self.student.loss(inputs, data_samples)
        # Only for the log: before_optimizer_step adds its gradient.
        losses['penalty'] = self.weight * self.penalty()
        return losses

    @torch.no_grad()
    def penalty(self) -> Tensor:
        """Scalar: importance times squared distance from the previous step, summed over all weights."""
        weights = self._weights()
        return sum(quadratic_penalty(weights[name], self._anchor[name], importance)
                   for name, importance in self._importance.items())

    @torch.no_grad()
    def before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the statistics with the gradients, then add the gradient of the penalty to them."""
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
        trained_by = (self.previous_state or {}).get('method')
        if trained_by != name:
            raise UserError(f'The checkpoint of the previous step contains no importance of {name}' +
                            (f', only of {trained_by}' if trained_by else '') +
                            f'. {name} accumulates it during training: train every step, including step 0, with '
                            f'method.type={name}.')

    # -- tensors by parameter ----------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, torch.nn.Parameter]:
        return {name: weight for name, weight in self.student.named_parameters() if weight.requires_grad}

    def filled(self, value: float) -> ByName:
        """Tensors filled with ``value``, one per weight."""
        return {name: torch.full_like(weight, value) for name, weight in self._weights().items()}


def with_first_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """Copy ``rows`` into the start of ``tensor``, which may be larger in any dimension."""
    out = tensor.clone()
    out[tuple(slice(size) for size in rows.shape)] = rows.to(out)
    return out


def _on_cpu(state: Mapping[str, ByName]) -> dict[str, ByName]:
    return {kind: {name: tensor.detach().cpu() for name, tensor in tensors.items()} for kind, tensors in state.items()}


@MODELS.register_module()
class EWC(ImportanceSegmentor):
    """Importance is a moving average of squared gradients (Kirkpatrick et al., PNAS 2017; online, as in MiB).

    Args:
        weight: weight of the penalty, from MiB's comparison.
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
    """Importance is loss decrease per squared distance of a weight (Zenke et al., ICML 2017; as in MiB).

    Importance is summed over steps.

    Args:
        weight: weight of the penalty, from MiB's comparison.
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


# Updates between two evaluations of the path integral.
INTERVAL = 10


@MODELS.register_module()
class RW(ImportanceSegmentor):
    """EWC's importance plus a path integral in output space (Chaudhry et al., ECCV 2018; as in MiB).

    The score of a step is averaged with that of the previous step.

    Args:
        weight: weight of the penalty, from MiB's comparison.
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
                # New rows of the classifier have no earlier score to average with and keep their own.
                earlier = with_first_rows(scores[name], self.statistics['earlier'][name])
                scores[name] = 0.5 * (scores[name] + earlier)
        return dict(fisher=self.statistics['fisher'], score=scores)

    def importance_of(self, previous: Mapping[str, ByName]) -> ByName:
        return {
            name: normalise_importance(tensor) + normalise_importance(previous['score'][name])
            for name, tensor in previous['fisher'].items()
        }
