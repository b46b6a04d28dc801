"""The start of a larger classifier: MiB's by hand numbers, and errors that name the tensor."""
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmseg_hrhf.models.growth import grow_classifier, grow_state, grow_tensor


def classifier(num_classes, seed=0):
    """A body and a 1 x 1 classifier."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, num_classes, 1)).eval()


@pytest.fixture(autouse=True)
def keep_global_generator():
    with torch.random.fork_rng():
        yield


def images():
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_rows_by_hand():
    # Two old classes, two new: bias of background 0.7, less log 3, for background and both new ones.
    old_weight, old_bias = torch.tensor([[1., 2.], [3., 4.]]), torch.tensor([.7, -.2])
    weight = grow_tensor(torch.full((4, 2), 9.), old_weight, is_bias=False)
    bias = grow_tensor(torch.full((4, ), 9.), old_bias, is_bias=True)
    assert weight.tolist() == [[1, 2], [3, 4], [1, 2], [1, 2]]
    shared = .7 - math.log(3)
    torch.testing.assert_close(bias, torch.tensor([shared, -.2, shared, shared]))


def test_probabilities_by_hand():
    # The old net says .6, .4; the new one .2, .4, .2, .2.
    bias = grow_tensor(torch.zeros(4), torch.tensor([.6, .4]).log(), is_bias=True)
    torch.testing.assert_close(bias.softmax(0), torch.tensor([.2, .4, .2, .2]))


@pytest.mark.parametrize('num_old, num_new', [(2, 1), (4, 1), (4, 5), (1, 3)])
def test_background_and_new_classes_share_what_background_had(num_old, num_new):
    old, new = classifier(num_old), classifier(num_old + num_new, seed=1)
    grow_classifier(new, old.state_dict(), num_old, num_old + num_new, 'mib')
    before, after = old(images()), new(images())
    torch.testing.assert_close(after[:, 1:num_old], before[:, 1:])
    p, q = before.softmax(1), after.softmax(1)
    torch.testing.assert_close(q[:, :1] + q[:, num_old:].sum(1, keepdim=True), p[:, :1])
    torch.testing.assert_close(q[:, num_old:], q[:, :1].expand(-1, num_new, -1, -1))


def test_body_is_the_old_one():
    old, new = classifier(3), classifier(5, seed=1)
    grow_classifier(new, old.state_dict(), 3, 5, 'mib')
    for name, tensor in new.state_dict().items():
        if not name.startswith('2.'):
            assert torch.equal(tensor, old.state_dict()[name]), name


def test_random_start_leaves_new_rows_as_initialised_and_old_ones_as_learnt():
    old, new = classifier(3), classifier(5, seed=1)
    fresh = new[2].weight[3:].clone(), new[2].bias[3:].clone()
    grow_classifier(new, old.state_dict(), 3, 5, 'random')
    assert torch.equal(new[2].weight[3:], fresh[0]) and torch.equal(new[2].bias[3:], fresh[1])
    assert torch.equal(new[2].weight[:3], old[2].weight) and torch.equal(new[2].bias[:3], old[2].bias)


def test_every_classifier_grows():
    old = {'head.weight': torch.rand(3, 2), 'auxiliary.weight': torch.rand(3, 7), 'head.bias': torch.rand(3)}
    new = {'head.weight': torch.rand(4, 2), 'auxiliary.weight': torch.rand(4, 7), 'head.bias': torch.rand(4)}
    grown = grow_state(new, old, 3, 4)
    for name in ('head.weight', 'auxiliary.weight'):
        torch.testing.assert_close(grown[name], torch.cat([old[name], old[name][:1]]))


def test_inputs_are_left_as_they_were():
    old, new = torch.rand(2, 3), torch.rand(4, 3)
    kept = old.clone(), new.clone()
    grow_tensor(new, old, is_bias=False)
    assert torch.equal(old, kept[0]) and torch.equal(new, kept[1])


def test_growth_keeps_the_type_of_the_new_tensor():
    assert grow_tensor(torch.zeros(3), torch.zeros(2, dtype=torch.float16), is_bias=True).dtype == torch.float32


def test_grown_model_is_still_trainable():
    old, new = classifier(3), classifier(5, seed=1)
    grow_classifier(new, old.state_dict(), 3, 5, 'mib')
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in new.parameters())


# -- errors ----------------------------------------------------------------------------------------------------------


def test_unknown_start_lists_the_choices():
    with pytest.raises(ValueError, match=r"classifier_start='mbi' is not one of \('mib', 'random'\)"):
        grow_state({}, {}, 2, 3, start='mbi')


@pytest.mark.parametrize('lacking', ['new', 'old'])
def test_tensor_of_only_one_model_is_named(lacking):
    states = dict(new={'a': torch.zeros(3), 'b': torch.zeros(2)}, old={'a': torch.zeros(2), 'b': torch.zeros(2)})
    del states[lacking]['b']
    with pytest.raises(ValueError, match=r"'b' is in only one of .*\(1 such tensors\): .*the same architecture"):
        grow_state(states['new'], states['old'], 2, 3)


@pytest.mark.parametrize('new_shape, old_shape', [
    ((3, 8), (2, 4)),
    ((4, 4), (2, 4)),
    ((3, 4), (3, 5)),
    ((2, 4), (3, 4)),
    ((3, ), ()),
])
def test_shape_that_is_no_growth_is_named_with_both_shapes(new_shape, old_shape):
    with pytest.raises(ValueError) as error:
        grow_state({'head.w': torch.zeros(new_shape)}, {'head.w': torch.zeros(old_shape)}, 2, 3)
    message = str(error.value)
    assert "'head.w'" in message and str(new_shape) in message and str(old_shape) in message
    assert 'from 2 to 3 classes' in message


@given(num_old=st.integers(1, 6), num_new=st.integers(1, 5), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_whatever_the_sizes_old_probabilities_stay_and_background_is_shared(num_old, num_new, seed):
    old, new = classifier(num_old, seed), classifier(num_old + num_new, seed + 1)
    grow_classifier(new, old.state_dict(), num_old, num_old + num_new, 'mib')
    before, after = old(images()).softmax(1), new(images()).softmax(1)
    torch.testing.assert_close(after[:, 1:num_old], before[:, 1:])
    torch.testing.assert_close(after.sum(1), torch.ones_like(after[:, 0]))
    torch.testing.assert_close(after[:, num_old:] * (num_new + 1), before[:, :1].expand(-1, num_new, -1, -1))


@given(num_old=st.integers(2, 6), num_new=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_growth_commutes_with_an_order_of_the_old_classes(num_old, num_new, seed):
    order = torch.randperm(num_old - 1, generator=torch.Generator().manual_seed(seed)) + 1
    order = torch.cat([torch.zeros(1, dtype=torch.long), order])
    old, fresh = torch.randn(num_old, 3), torch.randn(num_old + num_new, 3)
    whole = torch.cat([order, torch.arange(num_old, num_old + num_new)])
    for is_bias in (False, True):
        pair = (fresh[:, 0], old[:, 0]) if is_bias else (fresh, old)
        grown = grow_tensor(*pair, is_bias=is_bias)
        assert torch.equal(grow_tensor(pair[0], pair[1][order], is_bias=is_bias), grown[whole])


@given(num_old=st.integers(1, 6), num_new=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_random_start_touches_new_rows_alone(num_old, num_new, seed):
    old, new = classifier(num_old, seed), classifier(num_old + num_new, seed + 1)
    fresh = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    grow_classifier(new, old.state_dict(), num_old, num_old + num_new, 'random')
    for name, tensor in new.state_dict().items():
        if name.startswith('2.'):
            assert torch.equal(tensor[:num_old], old.state_dict()[name])
            assert torch.equal(tensor[num_old:], fresh[name][num_old:])
