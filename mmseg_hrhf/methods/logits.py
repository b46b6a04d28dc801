"""Per-pixel logits of the student, taken from the pass that computes its own loss."""
from __future__ import annotations

import contextlib
from typing import Callable, Iterator

from torch import Tensor, nn

# What each family of decode heads hands to `loss_by_feat`, and where the main logits are in it.
_ADAPTERS: dict[str, Callable] = {
    'DAHead': lambda output: output[0],
    'EncHead': lambda output: output[0],
    'DDRHead': lambda output: output[0],
    'PIDHead': lambda output: output[1],
    'IterativeDecodeHead': lambda output: output[-1],
}


def register_logits_adapter(head: str, adapter: Callable) -> None:
    """Teach where a decode head's logits are.

    Args:
        head: class name of the head.
        adapter: maps the first argument of its ``loss_by_feat`` to (N, C, h, w) logits.
    """
    _ADAPTERS[head] = adapter


def main_logits(head: nn.Module, output) -> Tensor:
    """(N, C, h, w) logits from what ``head`` hands to its ``loss_by_feat``."""
    for parent in type(head).__mro__:
        if parent.__name__ in _ADAPTERS:
            return _ADAPTERS[parent.__name__](output)
    if isinstance(output, Tensor) and output.ndim == 4:
        return output
    raise ValueError(
        f'{type(head).__name__} hands {type(output).__name__} to loss_by_feat, and no adapter says where its per-pixel '
        'logits are. Register one:\n    from mmseg_hrhf.methods.logits import register_logits_adapter\n'
        f"    register_logits_adapter('{type(head).__name__}', lambda output: output[0])")


@contextlib.contextmanager
def captured_logits(segmentor: nn.Module) -> Iterator[list]:
    """Collect the main decode head's logits while ``segmentor.loss`` runs inside the block.

    ``loss_by_feat`` of the (last) decode head is called exactly once per loss in every family of mmseg; forward hooks
    would not fire, since mmseg calls ``head.forward``.
    """
    head = segmentor.decode_head
    if isinstance(head, nn.ModuleList):
        head = head[-1]
    original, captured = head.loss_by_feat, []
    patched = head.__dict__.get('loss_by_feat')

    def loss_by_feat(output, *args, **kwargs):
        captured.append(main_logits(head, output))
        return original(output, *args, **kwargs)

    head.loss_by_feat = loss_by_feat
    try:
        yield captured
    finally:
        del head.loss_by_feat
        if patched is not None:
            head.loss_by_feat = patched
