"""The plan of a buffer: balanced over classes, the same each time."""
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_hrhf.replay.inversion.base import FakeRequest, plan_requests


def images_of(requests):
    return [classes for request in requests for classes in request.classes]


@given(
    num_images=st.integers(1, 120),
    num_classes=st.integers(2, 20),
    batch_size=st.integers(1, 17),
    classes_per_image=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    seed=st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_plan(num_images, num_classes, batch_size, classes_per_image, seed):
    requests = plan_requests(num_images, num_classes, batch_size, classes_per_image, seed)
    images = images_of(requests)
    assert len(images) == num_images
    # Full batches but for the last.
    assert [len(request) for request in requests[:-1]] == [batch_size] * (len(requests) - 1)
    assert 1 <= len(requests[-1]) <= batch_size
    # Distinct foreground classes of the teacher in each image, as many as asked for.
    for classes in images:
        assert len(set(classes)) == len(classes) and all(1 <= c < num_classes for c in classes)
        assert len(classes) in {min(wanted, num_classes - 1) for wanted in classes_per_image}
    # Every class equally often, to within one.
    counts = Counter(c for classes in images for c in classes)
    asked = [counts[c] for c in range(1, num_classes)]
    assert max(asked) - min(asked) <= 1


def test_each_class_once_where_images_are_as_many_as_classes():
    images = images_of(plan_requests(5, 6, 2, (1, ), seed=0))
    assert sorted(images) == [(1, ), (2, ), (3, ), (4, ), (5, )]


def test_numbers_of_classes_are_drawn_uniformly():
    sizes = Counter(map(len, images_of(plan_requests(900, 21, 16, (1, 1, 2), seed=0))))
    assert set(sizes) == {1, 2} and 540 < sizes[1] < 660


def test_more_classes_than_there_are_means_all_of_them():
    assert images_of(plan_requests(3, 3, 2, (7, ), seed=0)) == [(1, 2)] * 3


def test_same_seed_same_plan():
    assert plan_requests(40, 7, 8, (1, 2), seed=3) == plan_requests(40, 7, 8, (1, 2), seed=3)


def test_a_plan_is_the_same_in_every_version():
    """A buffer that was stopped half full is filled up by the plan that it was begun with."""
    assert plan_requests(5, 5, 2, (1, 2), seed=7) == [
        FakeRequest(((1, 3), (2, 4)), seed=369571992),
        FakeRequest(((1, 4), (2, )), seed=3466196061),
        FakeRequest(((3, 4), ), seed=1002604896)
    ]


def test_other_seed_other_plan_and_other_batch_seeds():
    a, b = (plan_requests(40, 7, 8, (1, 2), seed=s) for s in (3, 4))
    assert images_of(a) != images_of(b)
    assert not {request.seed for request in a} & {request.seed for request in b}


def test_every_batch_has_a_seed_of_its_own():
    seeds = [request.seed for request in plan_requests(1000, 7, 8, (1, ), seed=0)]
    assert len(set(seeds)) == len(seeds) == 125


def test_plan_of_images_does_not_depend_on_the_batch_size():
    assert images_of(plan_requests(40, 7, 8, (1, 2), seed=3)) == images_of(plan_requests(40, 7, 5, (1, 2), seed=3))


@pytest.mark.parametrize('classes', [(), ((1, ), ), ((1, 2), (3, ), (1, ))])
def test_length_of_a_request_is_its_number_of_images(classes):
    assert len(FakeRequest(classes, seed=0)) == len(classes)
