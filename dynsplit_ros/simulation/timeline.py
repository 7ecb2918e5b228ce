# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The simulation's clock and its event queue, which the robots of a fleet share."""

from __future__ import annotations

from collections.abc import Callable
import heapq
import itertools
import math


class Timeline:
    """Runs events in the order of their instants; ``now_s`` is the instant of the latest one."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Schedule an action at an instant; at infinity it never runs."""
        if math.isfinite(time_s):
            heapq.heappush(self._events, (time_s, next(self._order), action))

    def run(self, until: Callable[[float], bool]) -> None:
        """Run events until there are none, or until ``until`` is true for the instant of the next one."""
        while self._events:
            time_s, _, action = heapq.heappop(self._events)
            if until(time_s):
                break
            self.now_s = time_s
            action()
