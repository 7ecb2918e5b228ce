# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Ask the planner what it would choose under known conditions, and where its choice changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.planner import Candidate, codecs_to_choose_from, Planner, PlannerConstraints, SystemEstimate
from dynsplit_ros.profile.profile import SystemProfile

#: Rates that are looked at between the lowest and the highest; a choice that holds for less than this is not found.
GRID = 240


@dataclass(frozen=True)
class Advice:
    """
    What the planner chooses for a link of ``rate_bps`` (bit/s) and an edge that takes ``slowdown`` times as profiled.

    ``local`` and ``offloading`` are what it predicts for local inference and for the best codec at split 0.
    """

    rate_bps: float
    slowdown: float
    best: Candidate
    local: Candidate
    offloading: Candidate

    @property
    def gain_over_local(self) -> float:
        """Share of local inference's latency that is saved; negative where the objective is not the latency."""
        return 1 - self.best.latency_s / self.local.latency_s

    @property
    def gain_over_offloading(self) -> float:
        """Share of full offloading's latency that is saved; negative where offloading is faster, but not allowed."""
        return 1 - self.best.latency_s / self.offloading.latency_s


@dataclass(frozen=True)
class Range:
    """Link rates, from ``first.rate_bps`` to ``last.rate_bps``, over which the same split and codec are chosen."""

    first: Advice
    last: Advice


class Adviser:
    """
    The planner's choices for a robot with an edge on a link whose rate and round trip are known and steady.

    ``constraints`` are what the monitor would be given, its ``frame_rate_hz`` the images offered per second; ``rtt_s``
    is the round trip of an empty message in seconds. Raises DynsplitError for what the planner refuses.
    """

    def __init__(self, profile: SystemProfile, constraints: PlannerConstraints, rtt_s: float, batch: int = 1) -> None:
        self.profile = profile
        self.constraints = constraints
        self.rtt_s = rtt_s
        self.batch = batch
        if not codecs_to_choose_from(profile.cuts[0], batch, constraints.codecs, constraints.min_agreement):
            raise DynsplitError(
                f'none of the codecs {", ".join(constraints.codecs)} was measured for the image (split 0); name '
                f'one of {", ".join(profile.cuts[0].codecs)}'
            )

    def at(self, rate_bps: float, slowdown: float) -> Advice:
        """Return the choice at a link rate (bit/s, > 0) with an edge ``slowdown`` (> 0) times as slow as profiled."""
        # A new planner each time: one that has chosen before holds on to its choice.
        plan = Planner(self.profile, self.constraints, self.batch).plan(
            SystemEstimate.as_profiled(len(self.profile.cuts), rate_bps, self.rtt_s, edge_factor=slowdown)
        )
        candidates = plan.candidates
        best = next(c for c in candidates if (c.split_index, c.codec) == (plan.split_index, plan.codec))
        offloading = min((c for c in candidates if c.split_index == 0), key=lambda c: c.latency_s)
        return Advice(rate_bps, slowdown, best, candidates[-1], offloading)

    def ranges(self, low_bps: float, high_bps: float, slowdown: float) -> list[Range]:
        """Return the choices from one link rate to another, in order; where one ends is found to 0.1 %."""
        grid = [self.at(rate_bps, slowdown) for rate_bps in np.geomspace(low_bps, high_bps, GRID).tolist()]
        found = []
        first = before = grid[0]
        for advice in grid[1:]:
            if not _same(before, advice):
                before, advice = self._change(before, advice)
                found.append(Range(first, before))
                first = advice
            before = advice
        return [*found, Range(first, grid[-1])]

    def _change(self, before: Advice, after: Advice) -> tuple[Advice, Advice]:
        """Return the last advice like ``before`` and the first that is not."""
        while after.rate_bps > 1.001 * before.rate_bps:
            middle = self.at((before.rate_bps * after.rate_bps) ** 0.5, before.slowdown)
            before, after = (middle, after) if _same(before, middle) else (before, middle)
        return before, after


def _same(one: Advice, other: Advice) -> bool:
    return (one.best.split_index, one.best.codec) == (other.best.split_index, other.best.codec)


def pays_from_bps(ranges: Sequence[Range], local_index: int) -> float | None:
    """
    Return the link rate, in bit/s, below which splitting stops paying: above it the robot is never best alone.

    0 where something is sent at every rate that was looked at, None where nothing is at the highest one.
    """
    if ranges[-1].last.best.split_index == local_index:
        return None
    alone = [found.last.rate_bps for found in ranges if found.last.best.split_index == local_index]
    return alone[-1] if alone else 0.0


def offloading_from_bps(ranges: Sequence[Range]) -> float | None:
    """Return the link rate, in bit/s, from which on full offloading is chosen; None where it is not at the highest."""
    first = None
    for found in reversed(ranges):
        if found.first.best.split_index != 0:
            break
        first = found.first.rate_bps
    return first


def largest_gain(ranges: Sequence[Range]) -> Advice:
    """Return where splitting gains most over the better of local inference and full offloading."""
    ends = [advice for found in ranges for advice in (found.first, found.last)]
    return min(ends, key=lambda a: a.best.latency_s / min(a.local.latency_s, a.offloading.latency_s))
