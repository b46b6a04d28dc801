"""PI: path integral, also known as synaptic intelligence."""
from __future__ import annotations

from typing import Mapping

import torch
from mmseg.registry import MODELS

from ..losses.importance import normalise_importance, path_contribution, path_importance
from .importance import ByName, ImportanceSegmentor, with_first_rows


@MODELS.register_module()
class PI(ImportanceSegmentor):
    """Importance is the loss a weight's way took away, by its squared length (Zenke et al., ICML 2017; as MiB has it).

    A step's importance is added to that of the steps before.

    Args:
        weight: of the penalty, from MiB's comparison.
        **kwargs: see :class:`ImportanceSegmentor`.
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
