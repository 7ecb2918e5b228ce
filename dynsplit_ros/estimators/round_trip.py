# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Round trip of an empty message and what it varies by, from heartbeats."""

from __future__ import annotations

from collections import deque
import math
import statistics

#: Before the first heartbeat is answered, the round trip is guessed, and known no better than the guess, in
#: seconds.
_GUESSED_S = 0.005
#: No clock, scheduler and middleware together time a message better than this, in seconds.
_LEAST_JITTER_S = 2e-4
#: Heartbeats that the round trip is taken from, and the fewest that tell how it varies.
_KEPT = 25
_SETTLED = 3


class RoundTrip:
    """
    The mean of the latest heartbeats without outliers, less what their own bytes took.

    ``rtt_s`` and ``jitter_s`` are in seconds; before anything was heard both are a guess.
    """

    def __init__(self) -> None:
        self.rtt_s = _GUESSED_S
        self.jitter_s = _GUESSED_S
        self._heartbeats: deque[tuple[float, float]] = deque(maxlen=_KEPT)

    @property
    def settled(self) -> bool:
        """Whether enough was heard to tell how it varies."""
        return len(self._heartbeats) >= _SETTLED

    @property
    def young(self) -> bool:
        """Whether more heartbeats would still tell it better."""
        return len(self._heartbeats) < _KEPT // 2

    def observe(self, total_s: float, own_s: float) -> None:
        """Learn from a heartbeat: what it took, and its own bytes' share of that; NaN while no rate is known."""
        self._heartbeats.append((total_s, own_s))
        self.update(0.0 if math.isnan(own_s) else own_s)

    def update(self, own_s: float) -> None:
        """Reckon again: ``own_s`` is what the bytes take of a heartbeat that came before any rate was known."""
        if not self._heartbeats:
            return
        rtts = sorted(total - (own_s if math.isnan(own) else own) for total, own in self._heartbeats)
        middle = statistics.median(rtts)
        # 1.4826 makes the median deviation that of a normal distribution. Where a machine is stopped now and then until
        # its next slice of time, most round trips are alike: there the middle four fifths tell. 3.1 makes both alike
        # for delays that are spread exponentially.
        usual_s = 1.4826 * statistics.median([abs(rtt - middle) for rtt in rtts])
        outer = len(rtts) // 10
        self.jitter_s = max(usual_s, (rtts[-1 - outer] - rtts[outer]) / 3.1, _LEAST_JITTER_S)
        limit_s = 3 * self.jitter_s
        near = [rtt for rtt in rtts if abs(rtt - middle) <= limit_s]
        self.rtt_s = max(0.0, sum(near) / len(near))
        if not self.settled:
            self.jitter_s = max(self.jitter_s, self.rtt_s / 4)
