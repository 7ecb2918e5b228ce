# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Estimates the round-trip time of an empty message and its jitter from heartbeats."""

from __future__ import annotations

from collections import deque
import math
import statistics

#: Prior of round-trip time and jitter, in seconds: those of a usual Wi-Fi. The first heartbeats replace them within
#: half a second.
_PRIOR_S = 0.005
#: Least jitter, in seconds: that of clock, scheduler and middleware together. With 0, a few equal round trips would
#: make every delay look like a change of the rate.
_MIN_JITTER_S = 2e-4
#: Number of heartbeats in the estimate (6 s at the default period), and the least number that measures jitter. With
#: fewer, the mean follows single delays; with more, it follows a change of route too late.
_WINDOW = 25
_SETTLED = 3


class RoundTrip:
    """
    The mean of the latest heartbeats without outliers, minus the transmission time of their bytes.

    ``rtt_s`` and ``jitter_s`` (a standard deviation) are in seconds; both are guesses before the first heartbeat.
    """

    def __init__(self) -> None:
        self.rtt_s = _PRIOR_S
        self.jitter_s = _PRIOR_S
        self._heartbeats: deque[tuple[float, float]] = deque(maxlen=_WINDOW)

    @property
    def settled(self) -> bool:
        """Whether there are enough heartbeats for the jitter."""
        return len(self._heartbeats) >= _SETTLED

    @property
    def is_converging(self) -> bool:
        """Whether the estimate rests on few heartbeats."""
        return len(self._heartbeats) < _WINDOW // 2

    def observe(self, total_s: float, transmission_s: float) -> None:
        """Take a heartbeat: its total time, and the transmission time of its bytes (NaN before a rate is known)."""
        self._heartbeats.append((total_s, transmission_s))
        # Heartbeats before a rate was known had the same number of bytes as this one.
        transmission_s = 0.0 if math.isnan(transmission_s) else transmission_s
        rtts = sorted(total - (transmission_s if math.isnan(own) else own) for total, own in self._heartbeats)
        middle = statistics.median(rtts)
        # 1.4826 times the median absolute deviation is the standard deviation of a normal distribution. On a machine
        # with time slices, most round trips are equal and some are much longer; there the range of the middle four
        # fifths shows the jitter. The factor 3.1 makes both measures equal for exponentially distributed delays.
        usual_s = 1.4826 * statistics.median([abs(rtt - middle) for rtt in rtts])
        outer = len(rtts) // 10
        self.jitter_s = max(usual_s, (rtts[-1 - outer] - rtts[outer]) / 3.1, _MIN_JITTER_S)
        limit_s = 3 * self.jitter_s
        near = [rtt for rtt in rtts if abs(rtt - middle) <= limit_s]
        self.rtt_s = max(0.0, sum(near) / len(near))
