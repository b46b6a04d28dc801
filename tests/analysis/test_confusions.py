import numpy as np

from mmseg_hrhf.analysis.report import largest_confusions, row_shares

COUNTS = np.array([[90, 10, 0], [30, 50, 20], [0, 0, 0]])


def test_shares_of_each_true_class():
    shares = row_shares(COUNTS)
    assert shares[:2].tolist() == [[90, 10, 0], [30, 50, 20]] and np.isnan(shares[2]).all()


def test_largest_first_without_the_diagonal_and_the_tiny():
    assert largest_confusions('abc', COUNTS, 2) == [('b', 'a', 30.0), ('b', 'c', 20.0)]
    assert largest_confusions('ab', np.array([[999, 1], [0, 1]]), 5) == []
