import numpy as np

from mmseg_hrhf.datasets.label_check import describe_shares


def test_shares_of_what_is_background_and_what_is_ignored():
    counts = np.zeros(256, dtype=np.uint32)
    counts[[0, 1, 2, 3, 255]] = 50, 20, 20, 8, 2
    text = describe_shares(
        counts, {0: 0, 1: 1, 2: 0, 3: 255, 255: 255}, {0: 'background', 2: 'blue', 3: 'cat', 255: 'void'}
    )
    assert text == 'background 70.0 % (background 50.0 %, blue 20.0 %), ignored 10.0 % (cat 8.0 %, void 2.0 %)'


def test_many_labels_are_counted_and_absent_ones_left_out():
    counts = np.zeros(256, dtype=np.uint64)
    counts[1:11] = range(10, 0, -1)
    text = describe_shares(counts, {**dict.fromkeys(range(1, 20), 0), 255: 255}, {})
    assert text == (
        'background 100.0 % (label 1 18.2 %, label 2 16.4 %, label 3 14.5 %, label 4 12.7 %, label 5 10.9 %, '
        'label 6 9.1 %, 4 more labels), ignored 0.0 %'
    )


def test_as_many_labels_as_are_named_leave_none_over():
    counts = np.zeros(256, dtype=int)
    counts[1:7] = 5
    text = describe_shares(counts, dict.fromkeys(range(1, 7), 0), {})
    assert text.startswith('background 100.0 % (label 1 16.7 %,') and text.endswith('label 6 16.7 %), ignored 0.0 %')
    counts[:] = 0
    counts[2] = 1
    assert describe_shares(counts, {2: 255}, {2: 'b'}) == 'background 0.0 %, ignored 100.0 % (b 100.0 %)'


def test_no_pixels():
    assert describe_shares(np.zeros(256, dtype=int), {0: 0}, {}) == 'background 0.0 %, ignored 0.0 %'
