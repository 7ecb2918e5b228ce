# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Traces: their values, the ends of transfers, and refused files."""

from __future__ import annotations

import math

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.simulation.trace import constant, load_trace, markov, noisy, sine, steps, Trace

traces = st.lists(
    st.tuples(st.floats(0.01, 5.0), st.sampled_from([0.0, 0.5, 1.0, 3.0, 1e6])), min_size=1, max_size=12
).map(lambda pairs: Trace(np.cumsum([step for step, _ in pairs]).tolist(), [value for _, value in pairs]))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(traces, st.floats(0, 40), st.floats(0.001, 1e6))
def test_a_transfer_ends_when_the_integral_says_so(trace, start_s, amount) -> None:
    end_s = trace.end_of(start_s, amount)
    if math.isinf(end_s):
        assert trace.values[-1] == 0
        assert trace.integral(trace.times_s[-1] + 1) - trace.integral(start_s) < amount * (1 + 1e-6) + 1e-6
    else:
        assert end_s >= start_s
        assert trace.integral(end_s) - trace.integral(start_s) == pytest.approx(amount, rel=1e-6, abs=1e-2)


def test_values_hold_from_their_time_on() -> None:
    trace = Trace([0.0, 1.0, 2.0], [5.0, 0.0, 7.0])
    assert [trace.at(time_s) for time_s in (-1.0, 0.0, 0.99, 1.0, 1.5, 2.0, 99.0)] == [5, 5, 5, 0, 0, 7, 7]
    assert trace.end_of(0.5, 2.5) == pytest.approx(1.0)
    assert trace.end_of(0.5, 9.5) == pytest.approx(3.0)
    assert trace.end_of(math.inf, 1.0) == math.inf


@pytest.mark.parametrize(
    'times, values',
    [
        ([], []),
        ([0.0], [1.0, 2.0]),
        ([0.0, 0.0], [1.0, 1.0]),
        ([1.0, 0.5], [1.0, 1.0]),
        ([0.0], [-1.0]),
        ([0.0], [math.nan]),
        ([math.nan], [1.0]),
        ([0.0], [math.inf]),
    ],
)
def test_impossible_traces_are_refused(times, values) -> None:
    with pytest.raises(DynsplitError):
        Trace(times, values)


GOOD = 'time_s,rate_mbps\n' + ''.join(f'{number / 10},{number % 3}\n' for number in range(40))


def test_a_csv_is_read_in_mbit_per_second(tmp_path) -> None:
    path = tmp_path / 'good.csv'
    path.write_text('# measured on foot\n' + GOOD)
    trace = load_trace(path)
    assert trace.at(0.1) == 1e6
    assert trace.duration_s == pytest.approx(3.9)


@pytest.mark.parametrize(
    'text, message',
    [
        (GOOD + '50.0,1\n', 'gap'),
        (GOOD + '4.0,-1\n', 'negative'),
        (GOOD + '1.0,1\n', 'ascend'),
        (GOOD + '4.0,\n', 'pair of numbers'),
        (GOOD + '4.0,nan\n', 'pair of numbers'),
        (GOOD + '4.0\n', 'pair of numbers'),
        (GOOD + 'four,1\n', 'pair of numbers'),
        ('time_s,rate_kbps\n0,1\n', 'time_s,rate_mbps'),
        ('time_s,rate_mbps\n', 'at least one line'),
        ('', 'header'),
    ],
)
def test_damaged_csv_files_are_refused_by_name(text, message, tmp_path) -> None:
    path = tmp_path / 'spoilt.csv'
    path.write_text(text)
    with pytest.raises(DynsplitError, match=message) as caught:
        load_trace(path)
    assert 'spoilt.csv' in str(caught.value)


def test_files_that_cannot_be_read_are_refused(tmp_path) -> None:
    with pytest.raises(DynsplitError, match='none.csv'):
        load_trace(tmp_path / 'none.csv')
    (tmp_path / 'binary.csv').write_bytes(bytes(range(256)))
    with pytest.raises(DynsplitError, match='binary.csv'):
        load_trace(tmp_path / 'binary.csv')


def test_generated_traces_have_the_shape_of_their_names() -> None:
    assert set(constant(3.0, 10).values) == {3.0}
    assert steps([(0.0, 1.0), (5.0, 10.0)], 10.0).at(5.0) == 10.0
    swing = sine(1.0, 100.0, 10.0, 20.0)
    assert min(swing.values) == pytest.approx(1.0, rel=0.01) and max(swing.values) == pytest.approx(100.0, rel=0.01)
    assert set(markov(2.0, 20.0, 1.0, 60.0, 1).values) == {2.0, 20.0}
    near = noisy(10.0, 0.2, 60.0, 1).values
    assert 8.0 <= min(near) < 8.5 and 11.5 < max(near) <= 12.0


def test_equal_seeds_draw_equal_traces() -> None:
    assert markov(2, 20, 5, 60, 3).times_s == markov(2, 20, 5, 60, 3).times_s
    assert markov(2, 20, 5, 60, 3).times_s != markov(2, 20, 5, 60, 4).times_s
    assert noisy(2, 0.2, 60, 3).values != noisy(2, 0.2, 60, 4).values
