"""RealFakeSampler: the ratio in every batch, whole epochs, equal ranks, exact resumption."""
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import DATA_SAMPLERS

from mmseg_hrhf.replay import sampler as module
from mmseg_hrhf.replay.sampler import RealFakeSampler, enlarged_batch, split_batch


class Images:

    def __init__(self, num_real, num_fake):
        self.num_real, self.num_fake = num_real, num_fake

    def __len__(self):
        return self.num_real + self.num_fake


def sampler(num_real, num_fake, batch_size, ratio, rank=0, world_size=1, **kwargs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'get_dist_info', lambda: (rank, world_size))
        return RealFakeSampler(Images(num_real, num_fake), batch_size, ratio, **{'seed': 0, **kwargs})


def batches(indices, batch_size):
    indices = list(indices)
    assert len(indices) % batch_size == 0
    return [indices[i:i + batch_size] for i in range(0, len(indices), batch_size)]


# Whatever the sizes: real and fake images, units of the ratio in a batch, ranks.
SETUPS = dict(
    num_real=st.integers(1, 40),
    num_fake=st.integers(1, 40),
    ratio=st.sampled_from(['1:1', '1:2', '2:1', '3:2']),
    units=st.integers(1, 3),
    world_size=st.integers(1, 3),
    seed=st.integers(0, 1000))


def setup_of(num_real, num_fake, ratio, units, world_size, seed):
    """Batch size, its real share, and the samplers of all ranks."""
    real, fake = (units * int(part) for part in ratio.split(':'))
    ranks = [sampler(num_real, num_fake, real + fake, ratio, rank, world_size, seed=seed) for rank in range(world_size)]
    return real + fake, real, ranks


# -- dividing a batch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('batch_size, ratio, expected', [
    (24, '1:1', (12, 12)),
    (24, '1:2', (8, 16)),
    (24, '2:1', (16, 8)),
    (12, '4:8', (4, 8)),
    (5, '3:2', (3, 2)),
])
def test_split_batch(batch_size, ratio, expected):
    assert split_batch(batch_size, ratio) == expected


@pytest.mark.parametrize('ratio', ['x', '1', '1:1:1', '1:-1', '1.5:1', ' 1:1', '', 1, None])
def test_malformed_ratio_is_named_with_its_form(ratio):
    with pytest.raises(ValueError) as error:
        split_batch(24, ratio)
    assert f'replay.ratio={ratio!r}' in str(error.value) and "'real:fake'" in str(error.value)


@pytest.mark.parametrize('ratio', ['0:1', '1:0', '0:0'])
def test_ratio_without_a_side_names_the_remedy(ratio):
    with pytest.raises(ValueError, match=f"replay.ratio='{ratio}'.*at least 1.*replay=None"):
        split_batch(24, ratio)


@pytest.mark.parametrize('batch_size, ratio, remedy', [(23, '1:1', 24), (10, '1:2', 9), (1, '2:1', 3), (0, '1:1', 2)])
def test_indivisible_batch_names_one_that_can_be_divided(batch_size, ratio, remedy):
    message = rf'batch_size={batch_size} cannot be divided {ratio} .*a multiple of \d, such as {remedy}\.'
    with pytest.raises(ValueError, match=message):
        split_batch(batch_size, ratio)
    assert sum(split_batch(remedy, ratio)) == remedy


@pytest.mark.parametrize('num_real, ratio, expected', [
    (24, '1:1', 48),
    (24, '2:1', 36),
    (12, '1:2', 36),
    (6, '3:2', 10),
])
def test_added_images_enlarge_the_batch(num_real, ratio, expected):
    assert enlarged_batch(num_real, ratio) == expected
    assert split_batch(expected, ratio) == (num_real, expected - num_real)


@pytest.mark.parametrize('num_real, ratio, remedy', [(23, '2:1', 24), (1, '3:2', 3), (0, '1:1', 1)])
def test_a_batch_that_cannot_be_enlarged_names_one_that_can(num_real, ratio, remedy):
    with pytest.raises(ValueError, match=rf'batch_size={num_real} real images .* {ratio}: .*, such as {remedy}\.'):
        enlarged_batch(num_real, ratio)
    assert enlarged_batch(remedy, ratio) > remedy


@pytest.mark.parametrize('num_real, num_fake, ratio', [(0, 4, '1:1'), (4, 0, '1:1'), (0, 0, None)])
def test_nothing_to_draw_from_is_named(num_real, num_fake, ratio):
    with pytest.raises(ValueError, match=f'got {num_real} real and {num_fake} synthetic'):
        sampler(num_real, num_fake, 4, ratio)


def test_a_dataset_of_real_images_alone_has_no_fakes_for_a_ratio():
    with pytest.raises(ValueError, match='got 10 real and 0 synthetic'):
        RealFakeSampler(range(10), 4, '1:1', seed=0)


# -- batches ---------------------------------------------------------------------------------------------------------


@given(**SETUPS)
@settings(max_examples=40, deadline=None)
def test_every_batch_has_its_ratio(**setup):
    batch_size, real, ranks = setup_of(**setup)
    for one in ranks:
        for batch in batches(one, batch_size):
            is_real = [index < setup['num_real'] for index in batch]
            assert sum(is_real) == real
            assert all(0 <= index < setup['num_real'] + setup['num_fake'] for index in batch)


@given(**SETUPS)
@settings(max_examples=40, deadline=None)
def test_an_epoch_covers_all_real_images_on_equally_long_ranks(**setup):
    batch_size, real, ranks = setup_of(**setup)
    num_real = setup['num_real']
    for epoch in range(2):
        drawn = []
        for one in ranks:
            one.set_epoch(epoch)
            indices = list(one)
            # As many batches as it takes, and no more.
            assert len(indices) == len(one) == -(-num_real // (real * len(ranks))) * batch_size
            drawn += [index for index in indices if index < num_real]
        counts = [drawn.count(i) for i in range(num_real)]
        assert min(counts) >= 1 and max(counts) - min(counts) <= 1


@given(**SETUPS)
@settings(max_examples=40, deadline=None)
def test_fake_images_come_again_only_once_all_have_come(**setup):
    batch_size, _, ranks = setup_of(**setup)
    num_real, num_fake = setup['num_real'], setup['num_fake']
    # Batches of all ranks side by side, over three epochs.
    drawn = []
    for epoch in range(3):
        for one in ranks:
            one.set_epoch(epoch)
        for step in zip(*(batches(one, batch_size) for one in ranks)):
            drawn += [index - num_real for batch in step for index in batch if index >= num_real]
    for start in range(0, len(drawn), num_fake):
        whole_pass = drawn[start:start + num_fake]
        assert len(set(whole_pass)) == len(whole_pass)


@given(skipped=st.integers(0, 30), **SETUPS)
@settings(max_examples=40, deadline=None)
def test_skipping_is_going_on(skipped, **setup):
    batch_size, _, ranks = setup_of(**setup)
    _, _, resumed = setup_of(**setup)
    for one, other in zip(ranks, resumed):
        one.infinite = other.infinite = True
        other.skip(skipped * batch_size)
        expected = list(islice(one, (skipped + 20) * batch_size))[skipped * batch_size:]
        assert list(islice(other, 20 * batch_size)) == expected


@given(**SETUPS)
@settings(max_examples=30, deadline=None)
def test_endless_iteration_is_epoch_after_epoch(**setup):
    _, _, ranks = setup_of(**setup)
    one = ranks[-1]
    epochs = []
    for epoch in range(3):
        one.set_epoch(epoch)
        epochs += list(one)
    one.set_epoch(0)
    one.infinite = True
    assert list(islice(one, len(epochs))) == epochs


def test_real_images_alone_without_a_ratio():
    one = RealFakeSampler(range(10), 4, seed=0)
    assert len(one) == 12
    indices = list(one)
    assert set(indices) == set(range(10)) and len(indices) == 12


def test_dataset_of_real_and_fake_images_without_a_ratio_gives_real_ones():
    assert set(sampler(10, 7, 5, None)) == set(range(10))


def test_two_ranks_share_an_epoch_without_overlap():
    a, b = (list(sampler(12, 12, 4, '1:1', rank, 2)) for rank in range(2))
    assert len(a) == len(b) == 12 and not set(a) & set(b)
    assert {index for index in a + b if index < 12} == set(range(12))


# -- order -----------------------------------------------------------------------------------------------------------


def test_one_seed_one_order():
    assert list(sampler(20, 20, 4, '1:1')) == list(sampler(20, 20, 4, '1:1'))


def test_iterating_again_gives_the_same_epoch():
    one = sampler(20, 20, 4, '1:1')
    assert list(one) == list(one)


def test_seeds_and_epochs_give_other_orders():
    one, other = sampler(50, 50, 4, '1:1'), sampler(50, 50, 4, '1:1', seed=1)
    first = list(one)
    assert list(other) != first
    one.set_epoch(1)
    assert list(one) != first


def test_order_of_fake_images_is_not_that_of_real_ones():
    indices = list(sampler(50, 50, 2, '1:1'))
    assert indices[0::2] != [index - 50 for index in indices[1::2]]


def test_images_are_shuffled():
    indices = list(sampler(50, 50, 2, '1:1'))
    assert indices[0::2] != sorted(indices[0::2]) and indices[1::2] != sorted(indices[1::2])


def test_skipping_within_a_finite_epoch_leaves_its_rest():
    whole, resumed = sampler(20, 9, 4, '1:1'), sampler(20, 9, 4, '1:1')
    whole.set_epoch(2)
    resumed.set_epoch(2)
    resumed.skip(3 * 4)
    assert list(resumed) == list(whole)[12:]


def test_skipping_is_for_the_next_iteration_alone():
    one, resumed = sampler(20, 9, 4, '1:1'), sampler(20, 9, 4, '1:1')
    resumed.skip(3 * 4)
    list(resumed)
    for each in (one, resumed):
        each.set_epoch(1)
    assert list(resumed) == list(one)


def test_skip_is_absolute_as_mmengine_asks_of_samplers():
    # mmengine.dataset.InfiniteSampler.skip: "counted from the start of the stream, not relative".
    one, other = (sampler(20, 20, 4, '1:1', infinite=True) for _ in range(2))
    one.skip(8)
    other.skip(4)
    other.skip(8)
    assert list(islice(one, 8)) == list(islice(other, 8))


def test_built_by_name_with_a_seed_shared_by_all_ranks(monkeypatch):
    monkeypatch.setattr(module, 'sync_random_seed', lambda: 17)
    config = dict(type='RealFakeSampler', batch_size=4, ratio='1:1')
    built = DATA_SAMPLERS.build(config, default_args=dict(dataset=Images(20, 20)))
    assert list(built) == list(sampler(20, 20, 4, '1:1', seed=17))


# -- the place of a sample -------------------------------------------------------------------------------------------


@given(**SETUPS)
@settings(max_examples=40, deadline=None)
def test_ranks_together_draw_what_one_process_of_the_whole_batch_does(**setup):
    batch_size, _, ranks = setup_of(**setup)
    alone = sampler(setup['num_real'], setup['num_fake'], batch_size * len(ranks), setup['ratio'], seed=setup['seed'])
    assert len(alone) == len(ranks[0]) * len(ranks)
    for epoch in range(2):
        for one in (alone, *ranks):
            one.set_epoch(epoch)
        for whole, *parts in zip(batches(alone, batch_size * len(ranks)), *(batches(one, batch_size) for one in ranks)):
            assert places(whole) == places([index for part in parts for index in part])


def places(indices):
    return sorted((int(index), index.entropy) for index in indices)


def test_every_place_has_a_seed_of_its_own():
    one = sampler(5, 3, 4, '1:1', infinite=True)
    seeds = [index.entropy for index in islice(one, 400)]
    assert len(set(seeds)) == 400
    one.skip(100 * 4 - 8)
    assert [index.entropy for index in islice(one, 8)] == seeds[-8:]


def test_order_of_the_datasets_is_kept_without_shuffle():
    assert list(sampler(5, 3, 2, '1:1', shuffle=False)) == [0, 5, 1, 6, 2, 7, 3, 5, 4, 6]
