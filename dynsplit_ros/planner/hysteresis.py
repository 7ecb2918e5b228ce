# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Hysteresis: decides when another choice or another edge replaces the one in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import math

from dynsplit_ros.planner.choices import Array, Choices
from dynsplit_ros.planner.constraints import PlannerConstraints
from dynsplit_ros.planner.latency import Prediction, SystemEstimate

#: Largest standard deviation of a machine's factor (natural logarithm) that counts as a fluctuation: computation times
#: vary by about 3 %. A larger deviation means that the factor was never measured or has just changed. Waiting for a
#: better estimate would then keep a worse choice for seconds.
MACHINE_FLUCTUATION = 0.03
#: The same for the link's rate. The expected latencies already include a larger deviation. A larger value delays the
#: reaction to a step of the rate; with a smaller one, a noisy rate changes the split.
_LINK_FLUCTUATION = 0.10
#: Change of the rate (natural logarithm) since the choice in force was last the best, above which the deviation of the
#: rate no longer delays a change of choice. With a smaller value, fluctuations count as changes.
_RATE_CHANGE = 0.5
#: A regret of this many predicted latencies outweighs the deviation of the gain. With fewer, the choice flaps; with
#: more, a worse choice stays for longer.
_REGRET_LATENCIES = 2.0
#: Longest time, in seconds, for which one comparison adds regret. Without this limit, the first comparison after a long
#: silence outweighs every deviation.
_LONGEST_COMPARISON_S = 1.0
#: Difference of latencies, in seconds, below which two edges count as equal. The round trip to the edge in use is
#: measured between frames; the one to another edge is measured without load and was 1 ms shorter. With less, the
#: monitor switched between two equal edges again and again.
_EQUAL_EDGES_S = 0.0015


class Regret:
    """
    The regret of keeping the choice in force: the sum of the gains that its frames missed, ``total_s`` in seconds.

    ``compared_s`` is when the choices were last compared.
    """

    def __init__(self) -> None:
        self.total_s = 0.0
        self.compared_s = 0.0

    def reset(self, now_s: float) -> None:
        """Set the regret to 0: the choice in force is the best at ``now_s``, or a new one."""
        self.total_s, self.compared_s = 0.0, now_s

    def add(self, net_gain_s: float, frame_rate_hz: float, now_s: float) -> None:
        """Add the net gain that each frame since the last comparison missed."""
        frames = frame_rate_hz * min(_LONGEST_COMPARISON_S, now_s - self.compared_s)
        self.total_s = max(0.0, self.total_s + frames * net_gain_s)
        self.compared_s = now_s

    def is_excessive(self, score_s: float) -> bool:
        """Whether the regret outweighs the deviation of the gain, where the choice in force has this score."""
        return self.total_s >= _REGRET_LATENCIES * score_s


@dataclass(frozen=True)
class EdgeScore:
    """
    The predicted score of the best choice with one edge, and its uncertainty (seconds).

    ``edge_spread_s`` is the part of the score's standard deviation that comes from the link and the edge. ``robot_s``
    is the robot's part of the latency, and ``robot_spread`` its relative standard deviation; both edges share the
    robot.
    """

    score_s: float
    edge_spread_s: float
    robot_s: float
    robot_spread: float


class EdgeHysteresis:
    """Keeps the edge in use until another edge gains enough; the rules are those of :class:`Hysteresis`."""

    def __init__(self) -> None:
        self.regret = Regret()

    def choose(
        self, current: str, edge_scores: Mapping[str, EdgeScore], constraints: PlannerConstraints, now_s: float
    ) -> tuple[str, float]:
        """Return the edge to use from now on, and the gain of a change to it in seconds."""
        best = min(edge_scores, key=lambda edge: (edge_scores[edge].score_s, edge != current))
        before, after = edge_scores[current], edge_scores[best]
        if best == current:
            self.regret.reset(now_s)
            return current, 0.0
        gain_s = before.score_s - after.score_s
        cost_s = max(constraints.switching_cost * before.score_s, _EQUAL_EDGES_S)
        spread_s = math.hypot(
            before.edge_spread_s, after.edge_spread_s, before.robot_spread * (before.robot_s - after.robot_s)
        )
        self.regret.add(gain_s - cost_s, constraints.frame_rate_hz, now_s)
        if gain_s <= cost_s + constraints.confidence * spread_s and not self.regret.is_excessive(before.score_s):
            return current, 0.0
        self.regret.reset(now_s)
        return best, gain_s


class Hysteresis:
    """Keeps the choice in force until another one gains more than the gain's deviation, or the regret is large."""

    def __init__(self, choices: Choices, constraints: PlannerConstraints) -> None:
        self._choices = choices
        self.constraints = constraints
        self.current: int | None = None
        self.regret = Regret()
        self._bit_s = math.inf  # median time of a bit at the instant when the choice in force was last the best

    def choose(
        self, best: int, score: Array, prediction: Prediction, estimate: SystemEstimate
    ) -> tuple[int, bool, str]:
        """Return the choice from now on, whether it has changed, and the reason; ``score`` is in seconds."""
        current = self.current
        if current is not None and best == current and math.isfinite(score[current]):
            self._adopt(best, prediction, estimate)
            why = f'{self._choices.describe(current)} is still best' if estimate.alive else _why_unusable(estimate)
            return current, False, why
        if current is None or not math.isfinite(score[current]):
            why = self._why_not(current, estimate)
        else:
            gain_s = float(score[current] - score[best])
            cost_s = self.constraints.switching_cost * float(score[current])
            needed_s = cost_s + self.constraints.confidence * self._gain_spread_s(best, current, prediction, estimate)
            self.regret.add(gain_s - cost_s, self.constraints.frame_rate_hz, estimate.now_s)
            if gain_s <= needed_s and not self.regret.is_excessive(float(score[current])):
                return (
                    current,
                    False,
                    (
                        f'{self._choices.describe(best)} would gain {gain_s * 1e3:.1f} ms, but '
                        f'{needed_s * 1e3:.1f} ms are needed to change'
                    ),
                )
            why = f'{gain_s * 1e3:.1f} ms less than {self._choices.describe(current)}'
        self._adopt(best, prediction, estimate)
        return best, best != current, f'{self._choices.describe(best)}: {why}; {conditions(estimate)}'

    def _adopt(self, choice: int, prediction: Prediction, estimate: SystemEstimate) -> None:
        self.current, self._bit_s = choice, prediction.bit_time.median_s
        self.regret.reset(estimate.now_s)

    def edge_score(self, score_s: float, prediction: Prediction, estimate: SystemEstimate) -> EdgeScore:
        """Return the score of the choice in force, for a comparison with other edges."""
        rate_spread, robot_spread, edge_spread = self._spreads(prediction, estimate)
        current = self.current
        return EdgeScore(
            score_s,
            math.hypot(
                rate_spread * float(prediction.on_link_s[current]), edge_spread * float(prediction.edge_s[current])
            ),
            float(prediction.robot_s[current]),
            robot_spread,
        )

    def _spreads(self, prediction: Prediction, estimate: SystemEstimate) -> tuple[float, float, float]:
        """Return the relative standard deviations of the link's rate, of the robot and of the edge."""
        bit_s = prediction.bit_time.median_s
        rate_changed = abs(math.log(bit_s / self._bit_s)) > _RATE_CHANGE
        rate_spread = 0.0 if rate_changed else min(estimate.rate_spread, _LINK_FLUCTUATION)
        robot_spread = min(estimate.robot_spread, MACHINE_FLUCTUATION)
        edge_spread = min(estimate.edge_spread, MACHINE_FLUCTUATION)
        return rate_spread, robot_spread, edge_spread

    def _gain_spread_s(self, best: int, current: int, prediction: Prediction, estimate: SystemEstimate) -> float:
        """Return the standard deviation of the gain, from the deviations of rate, robot and edge."""
        rate_spread, robot_spread, edge_spread = self._spreads(prediction, estimate)

        def difference(stage_s: Array) -> float:
            return float(stage_s[current] - stage_s[best])

        return math.hypot(
            rate_spread * difference(prediction.on_link_s),
            robot_spread * difference(prediction.robot_s),
            edge_spread * difference(prediction.edge_s),
        )

    def _why_not(self, current: int | None, estimate: SystemEstimate) -> str:
        """Return the reason why the choice in force cannot stay."""
        if current is None:
            return 'first choice with these settings'
        if not estimate.alive:
            return _why_unusable(estimate)
        if self.constraints.pinned_split >= 0:
            return 'pinned, and the edge answers'
        return f'{self._choices.describe(current)} is not allowed now'


def _why_unusable(estimate: SystemEstimate) -> str:
    return 'the edge does not answer' if estimate.servers else 'the edge has no capacity'


def conditions(estimate: SystemEstimate) -> str:
    """Return the estimates at a change as text."""
    rate_mbps = float(estimate.rates_bps[len(estimate.rates_bps) // 2]) / 1e6
    return (
        f'{rate_mbps:.3g} Mbit/s, round trip {estimate.rtt_s * 1e3:.1f} ms, edge queue '
        f'{estimate.queueing_s * 1e3:.1f} ms, edge {estimate.edge_factor:.2g} times its profile'
    )
