# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A processor that several threads share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Events(Protocol):
    """The simulation's clock and its event queue."""

    @property
    def now_s(self) -> float:
        """The instant of the latest event."""

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Schedule an action at an instant."""


class Processor:
    """Runs one computation of each thread; n threads at once each run at 1/n of the speed."""

    def __init__(self, events: Events) -> None:
        self._events = events
        # Remaining seconds at full speed, and what to call at the end.
        self._work: dict[str, tuple[float, Callable[[], None]]] = {}
        self._updated_s = 0.0
        self._version = 0

    def start(self, thread: str, work_s: float, done: Callable[[], None]) -> None:
        """Start a computation of ``work_s`` seconds in a thread, and call ``done`` at its end."""
        self._update()
        self._work[thread] = work_s, done
        self._schedule()

    def stop(self, thread: str) -> None:
        """End a thread's computation before it is done."""
        self._update()
        del self._work[thread]
        self._schedule()

    def _update(self) -> None:
        """Subtract the work done since the last update from the remaining work."""
        if self._work:
            share_s = (self._events.now_s - self._updated_s) / len(self._work)
            self._work = {thread: (left_s - share_s, done) for thread, (left_s, done) in self._work.items()}
        self._updated_s = self._events.now_s

    def _schedule(self) -> None:
        """Schedule the end of the computation that ends first; replaces the end that was scheduled before."""
        self._version += 1
        if not self._work:
            return
        version = self._version
        thread, (left_s, _) = min(self._work.items(), key=lambda item: item[1][0])

        def end() -> None:
            if version == self._version:
                self._update()
                _, done = self._work.pop(thread)
                self._schedule()
                done()

        self._events.at(self._events.now_s + max(0.0, left_s) * len(self._work), end)
