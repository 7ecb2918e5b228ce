# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Disturbances of links and machines: token buckets, lost messages, pauses, wrong profiles."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
import math

import numpy as np

from dynsplit_ros.profile.profile import SystemProfile
from dynsplit_ros.simulation.trace import constant, Trace

#: Rate at which a burst passes a token bucket, in bit/s.
_LINE_BPS = 1e9


@dataclass(frozen=True)
class Pauses:
    """
    The pauses of a process.

    The process pauses ``per_s`` times per second, each time for an exponential duration of mean ``mean_s`` seconds. A
    scheduler lets it run for ``slice_share`` (0 to 1) of each ``slice_s`` seconds (0: always).
    """

    per_s: float = 0.0
    mean_s: float = 0.0
    slice_s: float = 0.0
    slice_share: float = 1.0


@dataclass(frozen=True)
class Disturbances:
    """
    The disturbances of a scenario, beyond rate, delay and jitter.

    A token bucket lets ``burst_bytes`` through at once after a silence. ``loss`` is the share (0 to 1) of probes and
    acknowledgements that are lost; every probe of more than ``buffer_bytes`` (0: no limit) is lost. ``handover_s`` is
    the time between a lead and its message on the robot. ``robot`` and ``edge`` are pauses of the processes.
    ``robot_slowdown`` is the ratio of the robot's times to the profiled ones. ``profile_error`` is the standard
    deviation of the natural logarithm of each cut's true times over its profiled ones.
    """

    burst_bytes: int = 0
    loss: float = 0.0
    buffer_bytes: int = 0
    handover_s: float = 0.0
    robot: Pauses = Pauses()
    edge: Pauses = Pauses()
    robot_slowdown: Trace = field(default_factory=lambda: constant(1.0, 1.0))
    profile_error: float = 0.0


class OneWayLink:
    """
    One direction of a link, which carries one message after the other at the rate of a trace (bit/s).

    ``free_s`` is when the link is free for the next message. A message arrives ``delay_s`` seconds after its last bit
    left, and never before the message that was sent before it.
    """

    def __init__(self, rate: Trace, delay_s: float, burst_bytes: int = 0) -> None:
        self.rate = rate
        self.free_s = 0.0
        self._delay_s = delay_s
        self._burst_bits = 8 * burst_bytes
        self._full_s = 0.0  # when the bucket is full again
        self._arrived_s = 0.0

    def transmit(self, now_s: float, size_bytes: int, jitter_s: float) -> float:
        """Send a message at ``now_s``; return when it arrives, infinity if never."""
        bits = 8 * size_bytes
        self._full_s = self.rate.end_of(max(now_s, self._full_s), bits)
        if self._burst_bits and math.isfinite(self._full_s):
            behind = self.rate.integral(self._full_s) - self.rate.integral(now_s) - self._burst_bits
            passed_s = self.rate.end_of(now_s, behind) if behind > 0 else now_s
            self.free_s = max(self.free_s, passed_s) + bits / _LINE_BPS
        else:
            self.free_s = self._full_s
        self._arrived_s = max(self._arrived_s, self.free_s + self._delay_s + jitter_s)
        return self._arrived_s


class ProcessClock:
    """Computes when a process with pauses runs and ends its work; pauses are drawn for ``duration_s`` seconds."""

    def __init__(self, pauses: Pauses, duration_s: float, rng: np.random.Generator) -> None:
        intervals = []
        if pauses.per_s > 0:
            begins_s = np.cumsum(rng.exponential(1 / pauses.per_s, int(2 * pauses.per_s * duration_s) + 10))
            intervals += list(zip(begins_s, begins_s + rng.exponential(pauses.mean_s, len(begins_s))))
        if pauses.slice_s > 0:
            ends_s = np.arange(1, duration_s / pauses.slice_s + 1) * pauses.slice_s
            intervals += list(zip(ends_s - (1 - pauses.slice_share) * pauses.slice_s, ends_s))
        self._begins_s, self._ends_s = _disjoint(intervals)

    def after(self, time_s: float) -> float:
        """Return the first instant from ``time_s`` on at which the process runs."""
        number = bisect.bisect_right(self._begins_s, time_s) - 1
        return max(time_s, self._ends_s[number]) if number >= 0 else time_s

    def end_of(self, start_s: float, work_s: float) -> float:
        """Return when ``work_s`` seconds of computation are done that start at ``start_s``."""
        now_s = self.after(start_s)
        for number in range(bisect.bisect_right(self._begins_s, now_s), len(self._begins_s)):
            if now_s + work_s <= self._begins_s[number]:
                break
            work_s -= self._begins_s[number] - now_s
            now_s = self._ends_s[number]
        return now_s + work_s


def _disjoint(intervals: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return starts and ends of the union of the intervals, ascending."""
    begins_s: list[float] = []
    ends_s: list[float] = []
    for begin_s, end_s in sorted(intervals):
        if ends_s and begin_s <= ends_s[-1]:
            ends_s[-1] = max(ends_s[-1], float(end_s))
        else:
            begins_s.append(float(begin_s))
            ends_s.append(float(end_s))
    return begins_s, ends_s


def true_profile(profile: SystemProfile, error: float, seed: int) -> SystemProfile:
    """Return ``profile`` with times that differ by a random ``error`` (see :class:`Disturbances`)."""
    if error == 0:
        return profile
    factors = np.exp(error * np.random.default_rng([seed, 6]).standard_normal((len(profile.cuts), 2))).tolist()
    cuts = []
    for cut, (head, tail) in zip(profile.cuts, factors):
        cuts.append(
            replace(
                cut,
                head_s={batch: head * time_s for batch, time_s in cut.head_s.items()},
                tail_s={batch: tail * time_s for batch, time_s in cut.tail_s.items()},
                engine_head_s={
                    engine: {batch: head * time_s for batch, time_s in times_s.items()}
                    for engine, times_s in cut.engine_head_s.items()
                },
                engine_tail_s={
                    engine: {batch: tail * time_s for batch, time_s in times_s.items()}
                    for engine, times_s in cut.engine_tail_s.items()
                },
            )
        )
    return replace(profile, cuts=tuple(cuts))
