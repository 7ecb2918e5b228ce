# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Hysteresis: when another choice replaces the one in force."""

from __future__ import annotations

import math

from dynsplit_ros.planner.choices import Array, Choices
from dynsplit_ros.planner.constraints import PlannerConstraints
from dynsplit_ros.planner.latency import Prediction, SystemEstimate

#: Largest standard deviation of a machine's factor (natural logarithm) that counts as a fluctuation. An estimate with a
#: larger one was never measured or has just changed; hysteresis does not apply to the rest of it.
_MACHINE_FLUCTUATION = 0.03
#: The same for the link's rate. Larger doubt is already in the expected latencies, and waiting for more measurements
#: would cost frames.
_LINK_FLUCTUATION = 0.10
#: A rate that moved this far (natural logarithm) since the choice in force was last the best has changed: the doubt
#: about the rate no longer delays a change of choice.
_RATE_CHANGE = 0.5
#: A missed gain of this many predicted latencies overrules the doubt. Less makes choices flap, more keeps a worse one.
_MISSED_LATENCIES = 2.0
#: Longest time, in seconds, for which one look at the choices accounts.
_LONGEST_LOOK_S = 1.0


class Hysteresis:
    """
    Holds the choice in force until another one gains more than the doubt about the gain, or until missed gains add up.

    ``missed_s`` is the sum of the gains missed so far (s), ``looked_s`` when the choices were last compared.
    """

    def __init__(self, choices: Choices, constraints: PlannerConstraints) -> None:
        self._choices = choices
        self.constraints = constraints
        self.current: int | None = None
        self.missed_s = 0.0
        self.looked_s = 0.0
        self._bit_s = math.inf  # median time of a bit when the choice in force was last the best

    def confirm(self, now_s: float) -> None:
        """Note that the choice in force is the best at ``now_s``: nothing is missed by it."""
        self.missed_s, self.looked_s = 0.0, now_s

    def choose(
        self, best: int, score: Array, prediction: Prediction, estimate: SystemEstimate
    ) -> tuple[int, bool, str]:
        """Return the choice from now on, whether it is another one than before, and why; ``score`` is in seconds."""
        current = self.current
        if current is not None and best == current and math.isfinite(score[current]):
            self._adopt(best, prediction, estimate)
            why = f'{self._choices.describe(current)} is still best' if estimate.alive else 'the edge does not answer'
            return current, False, why
        if current is None or not math.isfinite(score[current]):
            why = self._why_not(current, estimate)
        else:
            gain_s = float(score[current] - score[best])
            cost_s = self.constraints.switching_cost * float(score[current])
            needed_s = cost_s + self.constraints.confidence * self._gain_spread_s(best, current, prediction, estimate)
            self._miss(gain_s - cost_s, estimate.now_s)
            if gain_s <= needed_s and self.missed_s < _MISSED_LATENCIES * float(score[current]):
                return current, False, (f'{self._choices.describe(best)} would gain {gain_s * 1e3:.1f} ms, but '
                                        f'{needed_s * 1e3:.1f} ms are needed to change')
            why = f'{gain_s * 1e3:.1f} ms less than {self._choices.describe(current)}'
        self._adopt(best, prediction, estimate)
        return best, best != current, f'{self._choices.describe(best)}: {why}; {_conditions(estimate)}'

    def _adopt(self, choice: int, prediction: Prediction, estimate: SystemEstimate) -> None:
        self.current, self._bit_s = choice, prediction.bit_time.median_s
        self.confirm(estimate.now_s)

    def _miss(self, net_gain_s: float, now_s: float) -> None:
        """Add up what is missed by not changing: the net gain of each frame since the last look."""
        frames = self.constraints.frame_rate_hz * min(_LONGEST_LOOK_S, now_s - self.looked_s)
        self.missed_s = max(0.0, self.missed_s + frames * net_gain_s)
        self.looked_s = now_s

    def _gain_spread_s(self, best: int, current: int, prediction: Prediction, estimate: SystemEstimate) -> float:
        """Return the standard deviation of the gain: its change per standard deviation of each estimate, in squares."""
        bit_s = prediction.bit_time.median_s
        rate_changed = abs(math.log(bit_s / self._bit_s)) > _RATE_CHANGE
        rate_spread = 0.0 if rate_changed else min(estimate.rate_spread, _LINK_FLUCTUATION)
        robot_spread = min(estimate.robot_spread, _MACHINE_FLUCTUATION)
        edge_spread = min(estimate.edge_spread, _MACHINE_FLUCTUATION)

        def difference(stage_s: Array) -> float:
            return float(stage_s[current] - stage_s[best])

        return math.hypot(
            rate_spread * difference(prediction.on_link_s),
            robot_spread * difference(prediction.robot_s),
            edge_spread * difference(prediction.edge_s),
        )

    def _why_not(self, current: int | None, estimate: SystemEstimate) -> str:
        """Return why the choice in force cannot stay."""
        if current is None:
            return 'first choice by these settings'
        if not estimate.alive:
            return 'the edge does not answer'
        if self.constraints.pinned_split >= 0:
            return 'pinned, and the edge answers'
        return f'{self._choices.describe(current)} is not allowed now'


def _conditions(estimate: SystemEstimate) -> str:
    """Return the conditions of a change in words."""
    rate_mbps = float(estimate.rates_bps[len(estimate.rates_bps) // 2]) / 1e6
    return (f'{rate_mbps:.3g} Mbit/s, round trip {estimate.rtt_s * 1e3:.1f} ms, edge queue '
            f'{estimate.queueing_s * 1e3:.1f} ms, edge {estimate.edge_factor:.2g} times its profile')
