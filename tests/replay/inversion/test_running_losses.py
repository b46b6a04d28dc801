import pytest
import torch

from mmseg_hrhf.replay.inversion.base import FakeRequest
from mmseg_hrhf.replay.inversion.objective import RunningLosses
from mmseg_hrhf.utils.errors import UserError

REQUEST = FakeRequest(((1, ), (2, )), seed=7)


def fill(losses, number, total=1.0, gradient=0.5):
    for i in range(number):
        losses.add(i, dict(classification=torch.tensor(float(i))), torch.tensor(total), torch.tensor(gradient))


def test_every_iteration_is_reported_once_and_in_order():
    seen = []
    losses = RunningLosses(REQUEST, seen.append, at_once=False)
    fill(losses, 40)
    assert 0 < len(seen) < 40
    losses.read()
    losses.read()
    assert [report['classification'] for report in seen] == list(range(40)) and losses.last == seen[-1]


def test_at_once_reports_as_iterations_end():
    losses = RunningLosses(REQUEST, None, at_once=True)
    for i in range(3):
        losses.add(i, dict(classification=torch.tensor(float(i))), torch.tensor(1.), torch.tensor(1.))
        assert losses.last == dict(classification=i)


@pytest.mark.parametrize('values, message', [
    (dict(total=float('nan')), r'loss is NaN or Inf at iteration 0 of the batch with seed 7 and classes \[\(1,\)'),
    (dict(gradient=float('inf')), r'gradient is NaN or Inf at iteration 0 of .* seed 7\. Lower replay\.inversion\.lr'),
])
def test_what_is_not_finite_is_named_with_its_iteration(values, message):
    losses = RunningLosses(REQUEST, None, at_once=False)
    fill(losses, 2, **values)
    with pytest.raises(UserError, match=message):
        losses.read()
