import pickle
import random

import numpy as np
import torch

from mmseg_hrhf.utils.randomness import SampleIndex, sample_randomness, seed_process, seeded


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_same_place_same_draws_and_another_place_others():
    found = []
    for entropy in ((1, 2, 3), (1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3)):
        with seeded(*entropy):
            found.append(draws())
    assert found[0] == found[1] and len(set(found)) == 4
    assert all(len({three[i] for three in found[1:]}) == 4 for i in range(3))


def test_what_is_outside_of_the_block_is_not_touched():
    seed_process(5)
    expected = draws() + draws()
    seed_process(5)
    before = draws()
    with seeded(7):
        draws()
    assert before + draws() == expected


def test_the_process_s_state_comes_back_after_an_error():
    seed_process(5)
    expected = draws()
    seed_process(5)
    try:
        with seeded(7):
            raise KeyError
    except KeyError:
        pass
    assert draws() == expected


def test_index_is_a_number_that_takes_its_seed_along_to_data_workers():
    index = pickle.loads(pickle.dumps(SampleIndex(3, (0, 1, 2))))
    assert index == 3 and 'abcd'[index] == 'd' and index.entropy == (0, 1, 2)
    with sample_randomness(index):
        seed = draws()
    with seeded(0, 1, 2):
        assert draws() == seed


def test_a_plain_index_seeds_nothing():
    seed_process(5)
    expected = draws()
    seed_process(5)
    with sample_randomness(3):
        assert draws() == expected
