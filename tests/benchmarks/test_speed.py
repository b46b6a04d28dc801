"""The frame of the speed benchmarks: ratios of rounds, and the table."""
import runpy
import time

import pytest


@pytest.fixture
def timing(repo):
    return runpy.run_path(str(repo / 'benchmarks/timing.py'))


def test_a_ratio_is_the_median_of_the_rounds(timing):
    rounds = timing['Rounds']()
    rounds.seconds.update(floor=[1., 2., 4., 1., 1.], ours=[2., 2., 4., 1.5, 9.])
    ratio = rounds.ratio('ours', 'floor')
    assert (ratio.value, ratio.rounds) == (1.5, 5) and ratio.low == 1 and ratio.high > 1.5
    assert rounds.median('ours') == 2


def test_variants_take_turns_and_calls_are_divided_out(timing):
    order = []

    def slow():
        order.append('slow')
        time.sleep(.002)

    timed = timing['interleaved'](dict(quick=lambda: order.append('quick'), slow=slow), rounds=3, calls=2, warmup=1)
    assert order[:4] == ['quick'] * 2 + ['slow'] * 2 and order[4:8] == ['slow'] * 2 + ['quick'] * 2
    assert [len(held) for held in timed.seconds.values()] == [3, 3] and len(order) == 16
    assert .002 <= timed.median('slow') < .2 and timed.ratio('slow', 'quick').value > 1


def test_own_time_does_not_count_sleep(timing):
    rounds = timing['Rounds'](own_time=True)
    with rounds.time('asleep'):
        time.sleep(.05)
    assert rounds.median('asleep') < .05


def test_the_table_says_what_holds(repo, timing):
    table = runpy.run_path(str(repo / 'benchmarks/speed.py'))['table']
    row = timing['row']
    now = dict(training=dict(rows=[row('a (9 ms)', 1.02, at_most=1.03), row('b', .9, at_least=.95), row('c', 7.)]))
    before = dict(training=dict(rows=[row('a (12 ms)', 1.2, at_most=1.03)]))
    lines = table(now, before, {}).splitlines()
    assert lines[2] == '| training | a (9 ms) | ≤ 1.03 | 1.200 | 1.020 | yes |'
    assert lines[3] == '| training | b | ≥ 0.95 |  | 0.900 | **no** |'
    assert lines[4] == '| training | c |  |  | 7.000 |  |'
    lines = table(now, {}, dict(training=dict(rows=[row('c', 2.)]))).splitlines()
    assert lines[3] == '| training | b | ≥ 0.95 |  | 0.900 | **no** |  |'
    assert lines[4] == '| training | c |  |  | 7.000 |  | 2.000 |'
