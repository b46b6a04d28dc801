"""Capturing the main head's logits from the pass that computes its loss."""
from types import SimpleNamespace

import mmseg.models  # noqa: F401
import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

from mmseg_hrhf.models import heads as module
from mmseg_hrhf.models.heads import captured_logits, check_head, main_logits, register_logits_adapter


class Head(nn.Module):
    """Hands ``output`` to its loss, as mmseg's decode heads do."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def loss(self, factor=1, error=None):
        return self.loss_by_feat(self.output, factor, error=error)

    def loss_by_feat(self, output, factor, error=None):
        if error is not None:
            raise error
        return dict(loss=factor * 2)


def logits(value=1.0):
    return torch.full((2, 3, 4, 5), value)


def segmentor(*heads):
    return SimpleNamespace(decode_head=heads[0] if len(heads) == 1 else nn.ModuleList(heads))


def test_logits_are_those_of_the_loss_and_the_loss_is_unchanged():
    head = Head(logits())
    with captured_logits(segmentor(head)) as captured:
        losses = head.loss(factor=5)
    assert losses == dict(loss=10)
    assert len(captured) == 1 and captured[0] is head.output


def test_each_loss_is_captured_once():
    head = Head(logits())
    with captured_logits(segmentor(head)) as captured:
        head.loss()
        head.loss()
    assert len(captured) == 2


def test_last_head_of_a_cascade_counts():
    heads = Head(logits(1.0)), Head(logits(2.0))
    with captured_logits(segmentor(*heads)) as captured:
        for head in heads:
            head.loss()
    assert len(captured) == 1 and captured[0] is heads[1].output


def test_gradient_flows_through_the_captured_logits():
    weight = torch.ones(1, requires_grad=True)
    head = Head(logits() * weight)
    with captured_logits(segmentor(head)) as captured:
        head.loss()
    captured[0].sum().backward()
    assert weight.grad.item() == 2 * 3 * 4 * 5


@pytest.mark.parametrize('error', [None, KeyError('in the loss')])
def test_head_is_as_before_afterwards(error):
    head = Head(logits())
    before = set(vars(head))
    try:
        with captured_logits(segmentor(head)) as captured:
            head.loss(error=error)
    except KeyError:
        assert error is not None
    assert set(vars(head)) == before and head.loss_by_feat.__func__ is Head.loss_by_feat
    head.loss()
    assert len(captured) == 1


def test_blocks_can_be_nested():
    head = Head(logits())
    with captured_logits(segmentor(head)) as outer, captured_logits(segmentor(head)) as inner:
        head.loss()
    assert len(outer) == len(inner) == 1
    assert 'loss_by_feat' not in vars(head)


def test_unknown_output_is_refused_by_the_name_of_the_head():
    class StrangeHead(Head):
        pass

    head = StrangeHead((logits(), logits()))
    message = r"(?s)StrangeHead passes tuple to .*register_logits_adapter\('StrangeHead'"
    with pytest.raises(ValueError, match=message), captured_logits(segmentor(head)):
        head.loss()
    assert 'loss_by_feat' not in vars(head)


@pytest.mark.parametrize('output', [torch.zeros(2, 3, 4), None, [], {}])
def test_output_that_is_no_map_of_logits_is_refused(output):
    with pytest.raises(ValueError, match=f'Head passes {type(output).__name__}'):
        main_logits(Head(output), output)


def test_registered_adapter_serves_the_head_and_its_subclasses(monkeypatch):
    monkeypatch.setattr(module, '_ADAPTERS', dict(module._ADAPTERS))

    class PairHead(Head):
        pass

    class ChildHead(PairHead):
        pass

    register_logits_adapter('PairHead', lambda output, *_: output[1])
    pair = logits(1.0), logits(2.0)
    assert main_logits(PairHead(pair), pair) is main_logits(ChildHead(pair), pair) is pair[1]


@pytest.mark.parametrize('name, position', [('DAHead', 0), ('EncHead', 0), ('DDRHead', 0), ('PIDHead', 1),
                                            ('IterativeDecodeHead', -1)])
def test_heads_of_mmseg_with_several_outputs(name, position):
    assert MODELS.get(name) is not None, f'mmseg has no {name}'
    output = [logits(1.0), logits(2.0), logits(3.0)]
    head = type(name, (Head, ), {})(output)
    with captured_logits(segmentor(head)) as captured:
        head.loss()
    assert captured[0] is output[position]


class PointHead(nn.Module):
    pass


class MyPointHead(PointHead):
    pass


def test_a_head_known_to_have_no_logits_is_refused_before_it_runs():
    with pytest.raises(ValueError, match=r"(?s)MyPointHead passes logits of some points .*register_logits_adapter"):
        check_head(MyPointHead())
    check_head(nn.Conv2d(1, 1, 1))
