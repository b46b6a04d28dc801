"""EWC: elastic weight consolidation."""
from __future__ import annotations

from typing import Mapping

from mmseg.registry import MODELS

from ..losses.importance import normalise_importance, running_fisher
from .importance import ByName, ImportanceSegmentor, with_first_rows


@MODELS.register_module()
class EWC(ImportanceSegmentor):
    """Importance is a moving average of squared gradients (Kirkpatrick et al., PNAS 2017; online, as MiB compares it).

    Args:
        weight: of the penalty, from MiB's comparison.
        **kwargs: see :class:`ImportanceSegmentor`.
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
