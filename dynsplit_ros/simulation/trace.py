# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A rate or load over time, stepwise constant: read from CSV or generated."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
import csv
import math
from pathlib import Path

import numpy as np

from dynsplit_ros.errors import check_file, DynsplitError

#: A step between two lines that is longer than the usual one by this factor is a gap, not a measurement.
_GAP = 10


class Trace:
    """
    Values (>= 0), each valid from its time on; the last one is valid for ever, the first one also before its time.

    ``times_s`` ascends. With bit/s as values, :meth:`end_of` is when a transfer ends. Raises DynsplitError
    for times that do not ascend, and for values that are negative or not finite.
    """

    def __init__(self, times_s: Sequence[float], values: Sequence[float], name: str = 'trace') -> None:
        self.name = name
        if len(times_s) != len(values) or not len(times_s):
            raise DynsplitError(f'{name} has {len(times_s)} times and {len(values)} values: give as many, at least one')
        self.times_s = [float(t) for t in times_s]
        self.values = [float(v) for v in values]
        for i, (time_s, value) in enumerate(zip(self.times_s, self.values)):
            if not (math.isfinite(time_s) and math.isfinite(value)):
                raise DynsplitError(f'{name}, line {i + 1}: {time_s}, {value} is not a pair of numbers; fill the gap')
            if value < 0:
                raise DynsplitError(f'{name}, line {i + 1}: {value:g} at {time_s:g} s is negative; 0 is the least')
            if i and time_s <= self.times_s[i - 1]:
                raise DynsplitError(
                    f'{name}, line {i + 1}: {time_s:g} s comes after {self.times_s[i - 1]:g} s; times must ascend'
                )
        steps = np.diff(self.times_s)
        self._total = np.concatenate(([0.0], np.cumsum(steps * self.values[:-1]))).tolist()

    @property
    def duration_s(self) -> float:
        """Time of the last line, seconds after the first."""
        return self.times_s[-1] - self.times_s[0]

    def at(self, time_s: float) -> float:
        """Return the value at a time."""
        return self.values[max(0, bisect_right(self.times_s, time_s) - 1)]

    def integral(self, time_s: float) -> float:
        """Return the integral of the values from the first time to ``time_s``."""
        i = max(0, bisect_right(self.times_s, time_s) - 1)
        return float(self._total[i]) + self.values[i] * (time_s - self.times_s[i])

    def end_of(self, start_s: float, amount: float) -> float:
        """Return when the integral from ``start_s`` reaches ``amount``; infinite if it never does."""
        if not math.isfinite(start_s):
            return math.inf
        target = self.integral(start_s) + amount
        i = max(bisect_right(self._total, target) - 1, bisect_right(self.times_s, start_s) - 1, 0)
        # The last step that begins below the target is the one that reaches it.
        while i + 1 < len(self._total) and self._total[i + 1] < target:
            i += 1
        while i > 0 and self._total[i] >= target and self.times_s[i] > start_s:
            i -= 1
        if self.values[i] <= 0:
            return math.inf if amount > 0 else start_s
        return max(start_s, self.times_s[i] + (target - float(self._total[i])) / self.values[i])

    def scaled(self, factor: float) -> Trace:
        """Return the trace with each value times ``factor``."""
        return Trace(self.times_s, [value * factor for value in self.values], self.name)


def load_trace(path: str | Path, column: str = 'rate_mbps', factor: float = 1e6) -> Trace:
    """
    Read a CSV with the columns ``time_s`` and ``column``; values are multiplied by ``factor`` (1e6: Mbit/s to bit/s).

    Raises DynsplitError, naming file and line, for a missing column, an empty or negative value, time that
    does not ascend, and a gap: a step ten times as long as the usual (median) one in a trace of more than ten
    lines.
    """
    name = str(path)
    check_file(path, 'the trace')
    try:
        with open(path, newline='', encoding='utf-8') as file:
            rows = list(csv.DictReader(line for line in file if not line.startswith('#')))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DynsplitError(f'cannot read the trace {path}: {error}') from error
    if not rows or 'time_s' not in rows[0] or column not in rows[0]:
        raise DynsplitError(f'the trace {path} needs a header with time_s,{column} and at least one line below it')
    times, values = [], []
    for i, row in enumerate(rows):
        try:
            times.append(float(row['time_s']))
            values.append(float(row[column]) * factor)
        except (TypeError, ValueError):
            raise DynsplitError(
                f'{name}, line {i + 2}: {row["time_s"]!r},{row[column]!r} is not a pair of numbers; fill the gap'
            ) from None
    trace = Trace(times, values, name)
    steps = np.diff(times)
    if len(steps) > 10:
        longest = int(steps.argmax())
        if steps[longest] > _GAP * float(np.median(steps)):
            raise DynsplitError(
                f'{name} has a gap from {times[longest]:g} s to {times[longest + 1]:g} s (usual step '
                f'{np.median(steps):g} s); fill it, with 0 where the link was lost'
            )
    return trace


def constant(value: float, duration_s: float) -> Trace:
    """Return one value for ``duration_s``."""
    return Trace([0.0, duration_s], [value, value], 'constant')


def steps(pairs: Sequence[tuple[float, float]], duration_s: float) -> Trace:
    """Return (time, value) pairs as a trace of ``duration_s``."""
    return Trace([*(t for t, _ in pairs), duration_s], [*(v for _, v in pairs), pairs[-1][1]], 'step')


def sine(low: float, high: float, period_s: float, duration_s: float, step_s: float = 0.1) -> Trace:
    """Return a sine between ``low`` and ``high`` (both > 0) on a logarithmic scale."""
    times = np.arange(0, duration_s + step_s / 2, step_s)
    middle, swing = (math.log(high) + math.log(low)) / 2, (math.log(high) - math.log(low)) / 2
    return Trace(times.tolist(), np.exp(middle + swing * np.sin(2 * np.pi * times / period_s)).tolist(), 'sine')


def markov(low: float, high: float, dwell_s: float, duration_s: float, seed: int) -> Trace:
    """Return a two-state Markov chain: each value lasts for an exponential time of mean ``dwell_s``."""
    rng = np.random.default_rng(seed)
    times, values, now, state = [], [], 0.0, bool(rng.integers(2))
    while now < duration_s:
        times.append(now)
        values.append(high if state else low)
        now += rng.exponential(dwell_s)
        state = not state
    return Trace([*times, duration_s], [*values, values[-1]], f'Markov (seed {seed})')


def noisy(value: float, noise: float, duration_s: float, seed: int, step_s: float = 0.1) -> Trace:
    """Return a value that is multiplied, in each step, by a uniform draw from 1 - ``noise`` to 1 + ``noise``."""
    rng = np.random.default_rng(seed)
    times = np.arange(0, duration_s + step_s / 2, step_s)
    return Trace(
        times.tolist(), (value * rng.uniform(1 - noise, 1 + noise, len(times))).tolist(), 'constant with noise'
    )
