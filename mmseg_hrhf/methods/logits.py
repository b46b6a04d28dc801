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
# Heads whose loss sees points or queries.
_WITHOUT_LOGITS = ('PointHead', 'MaskFormerHead', 'Mask2FormerHead', 'SideAdapterCLIPHead')


def register_logits_adapter(head: str, adapter: Callable) -> None:
    """Teach where a decode head's logits are.

    Args:
        head: class name of the head.
        adapter: maps the first argument of its ``loss_by_feat`` to (N, C, h, w) logits.
    """
    _ADAPTERS[head] = adapter


def main_logits(head: nn.Module, output) -> Tensor:
    """(N, C, h, w) logits from what ``head`` hands to its ``loss_by_feat``.

    Raises:
        ValueError: no adapter says where they are; names the head and the remedy.
    """
    check_head(head)
    for parent in type(head).__mro__:
        if parent.__name__ in _ADAPTERS:
            return _ADAPTERS[parent.__name__](output)
    if isinstance(output, Tensor) and output.ndim == 4:
        return output
    raise _no_adapter(head, type(output).__name__)


def main_head(segmentor: nn.Module) -> nn.Module:
    """The decode head that predicts: the last one of a cascade."""
    head = segmentor.decode_head
    return head[-1] if isinstance(head, nn.ModuleList) else head


def check_head(head: nn.Module) -> None:
    """Raise ``ValueError`` for a head that is known to hand something else than per-pixel logits to its loss."""
    names = [parent.__name__ for parent in type(head).__mro__]
    if not any(name in _ADAPTERS for name in names) and any(name in _WITHOUT_LOGITS for name in names):
        raise _no_adapter(head, 'no per-pixel logits')


def _no_adapter(head: nn.Module, what: str) -> ValueError:
    name = type(head).__name__
    return ValueError(
        f'{name} hands {what} to loss_by_feat, and no adapter says where its per-pixel logits are. Register one:\n'
        '    from mmseg_hrhf.methods.logits import register_logits_adapter\n'
        f"    register_logits_adapter('{name}', lambda output: output[0])")


@contextlib.contextmanager
def captured_logits(segmentor: nn.Module) -> Iterator[list]:
    """Collect the main decode head's logits while ``segmentor.loss`` runs inside the block.

    ``loss_by_feat`` of the (last) decode head is called exactly once per loss in every family of mmseg; forward hooks
    would not fire, since mmseg calls ``head.forward``.
    """
    head = main_head(segmentor)
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
