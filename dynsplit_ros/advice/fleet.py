# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How many replicas of the tails a fleet needs."""

from __future__ import annotations

from collections.abc import Sequence

from dynsplit_ros.advice.conditions import Advice, Adviser, Range
from dynsplit_ros.policies.pool_size import replicas_for


def fleet_load(adviser: Adviser, advice: Advice, robots: int) -> float:
    """Return how many replicas are busy on average when each robot of a fleet follows the advice."""
    best = advice.best
    rate_hz = min(best.frame_rate_hz, adviser.constraints.frame_rate_hz)
    return robots * rate_hz * (best.decode_s + best.tail_s)


def replicas_by_rate(adviser: Adviser, ranges: Sequence[Range], robots: int) -> list[tuple[int, float, float]]:
    """
    Return numbers of replicas with the lowest and the highest link rate (bit/s) for which a fleet needs them.

    The number of a range of one choice is the larger one of its ends, 0 where the robots run the whole network.
    """
    found: list[tuple[int, float, float]] = []
    for each in ranges:
        replicas = max(replicas_for(fleet_load(adviser, advice, robots)) for advice in (each.first, each.last))
        if found and found[-1][0] == replicas:
            found[-1] = replicas, found[-1][1], each.last.rate_bps
        else:
            found.append((replicas, each.first.rate_bps, each.last.rate_bps))
    return found
