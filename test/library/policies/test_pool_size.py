# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The number of replicas that a pool wants, report by report."""

from __future__ import annotations

from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.policies.pool_size import PoolSize, replicas_for

PERIOD_S = 0.2


def follow(size: PoolSize, seconds: float, *, busy: float = 0.0, waiting: int = 0) -> int:
    """Report this load for a while; the pool always gets the replicas that it wants."""
    wanted = size.wanted
    for number in range(round(seconds / PERIOD_S)):
        share = min(1.0, busy / max(1, wanted))
        wanted = size.on_load(LoadReport(1, number + 1, share, waiting, 0.0, 1.0, period_s=PERIOD_S, servers=wanted))
    return wanted


def test_replicas_follow_a_load_that_lasts_and_not_a_burst() -> None:
    size = PoolSize(1, 8)
    assert follow(size, 10.0, busy=0.5) == 1
    assert follow(size, PERIOD_S, busy=1.0, waiting=2) == 1, 'a burst'
    assert follow(size, 20.0, busy=3.0, waiting=1) == replicas_for(4.0) == 5
    assert follow(size, 5.0) == 5, 'a pause'
    assert follow(size, 300.0) == 1


def test_replicas_stay_between_minimum_and_maximum() -> None:
    size = PoolSize(2, 3)
    assert size.wanted == 2 and follow(size, 60.0) == 2
    assert follow(size, 60.0, busy=3.0, waiting=100) == 3


def test_frames_that_wait_at_most_double_the_replicas_in_a_step() -> None:
    size = PoolSize(1, 64)
    assert size.on_load(LoadReport(1, 1, 1.0, 1000, 0.0, 1.0, period_s=2.0, servers=1)) == 2


def test_a_pool_without_replicas_wants_its_minimum() -> None:
    assert PoolSize(2, 4).on_load(LoadReport(1, 1, 0.0, 0, 0.0, 1.0, servers=0)) == 2
