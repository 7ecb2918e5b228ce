# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Threads that share a processor, at instants that are computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dynsplit_ros.simulation.processor import Processor


class Events:
    """A clock and the events that are still to come."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.coming: list[tuple[float, Callable[[], None]]] = []

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        self.coming.append((time_s, action))

    def run(self, until_s: float) -> None:
        while due := [event for event in self.coming if event[0] <= until_s]:
            event = min(due, key=lambda event: event[0])
            self.coming.remove(event)
            self.now_s = event[0]
            event[1]()
        self.now_s = until_s


def test_two_threads_at_once_run_at_half_speed() -> None:
    events, ends = Events(), {}
    processor = Processor(events)
    processor.start('a', 2.0, lambda: ends.update(a=events.now_s))
    events.run(1.0)
    processor.start('b', 0.25, lambda: ends.update(b=events.now_s))
    events.run(10.0)
    assert ends == {'b': pytest.approx(1.5), 'a': pytest.approx(2.25)}


def test_a_stopped_computation_never_ends_and_no_longer_slows_the_other() -> None:
    events, ends = Events(), {}
    processor = Processor(events)
    processor.start('a', 1.0, lambda: ends.update(a=events.now_s))
    processor.start('b', 5.0, lambda: ends.update(b=events.now_s))
    events.run(1.0)
    processor.stop('b')
    events.run(10.0)
    assert ends == {'a': pytest.approx(1.5)}


def test_the_end_of_one_computation_can_start_the_next() -> None:
    events, ends = Events(), []
    processor = Processor(events)

    def again() -> None:
        ends.append(events.now_s)
        if len(ends) < 3:
            processor.start('a', 1.0, again)

    processor.start('a', 1.0, again)
    events.run(10.0)
    assert ends == [1.0, 2.0, 3.0]
