"""RW: Riemannian walk."""
from __future__ import annotations

from typing import Mapping

from mmseg.registry import MODELS

from ..losses.importance import normalise_importance, riemannian_score, running_fisher
from .importance import ByName, ImportanceSegmentor, with_first_rows

# Updates between two looks at the path.
INTERVAL = 10


@MODELS.register_module()
class RW(ImportanceSegmentor):
    """EWC's importance plus a path integral in the space of outputs (Chaudhry et al., ECCV 2018; as MiB compares it).

    A step's score is averaged with that of the step before.

    Args:
        weight: of the penalty, from MiB's comparison.
        **kwargs: see :class:`ImportanceSegmentor`.
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
