# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The monitor's estimates of one edge's link and load, and its plan for this edge."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.estimators.link import LinkEstimator
from dynsplit_ros.estimators.load import LoadEstimator
from dynsplit_ros.estimators.probing import LinkRules
from dynsplit_ros.estimators.robot import RobotEstimator
from dynsplit_ros.planner import Plan, Planner, PlannerConstraints, SystemEstimate
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import Choice, FrameRecord, Outcome
from dynsplit_ros.profile.profile import SystemCut, SystemProfile

#: The monitor plans again when a factor has changed by this share, or a time by this share of the latency. Planning is
#: the largest part of the monitor's processor time, so a smaller share costs more of it; a larger share delays a change
#: of choice.
_REPLAN_CHANGE = 0.01
_NO_RATES = np.zeros(0)
#: The monitor leaves an edge that fails this number of frames in a row although it answers probes: the edge refuses
#: frames, or its tails raise errors. With 1, a single late answer would change the edge. After the second number, in
#: seconds, the monitor tries the edge again.
_FAILURES, _AVOIDED_S = 3, 10.0

Settings = TypeVar('Settings', PlannerConstraints, LinkRules)


@dataclass(frozen=True)
class _PlanInputs:
    """The estimates that a plan rests on: ``factors`` differ by their ratio, ``times_s`` (s) by their difference."""

    factors: tuple[float, ...]
    times_s: tuple[float, ...]

    def differs(self, other: _PlanInputs, latency_s: float) -> bool:
        """Whether the estimates of ``other`` differ so much that another choice may be the best."""
        factors, times_s = zip(other.factors, self.factors), zip(other.times_s, self.times_s)
        return any(abs(now - before) > _REPLAN_CHANGE * before for now, before in factors) or any(
            abs(now_s - before_s) > _REPLAN_CHANGE * latency_s for now_s, before_s in times_s
        )


class KnownEdge:
    """
    Estimates the link to one edge and its load, and plans split and codec for frames to this edge.

    ``profile`` is the profile of the robot with this edge. Callers may read ``link``, ``load`` and ``planner`` at any
    time. Raises DynsplitError if the settings allow no choice with this profile.
    """

    def __init__(
        self,
        name: str,
        profile: SystemProfile,
        settings: MonitorSettings,
        frame_rate_hz: float,
        removed: Collection[Choice],
    ) -> None:
        self.name = name
        self.profile = profile
        self.planner = make_planner(profile, settings, frame_rate_hz, removed)
        self.link = LinkEstimator(settings_for(LinkRules, settings))
        self.load = LoadEstimator(settings.report_timeout_s)
        #: The latest plan; None before the first one.
        self.plan: Plan | None = None
        self._inputs: _PlanInputs | None = None  # of the plan
        #: Whether payloads could be sent to the edge when the plan was last reviewed.
        self.is_possible = False
        self._failures = 0  # in a row
        self._avoided_until_s = -math.inf

    @property
    def is_usable(self) -> bool:
        """Whether the edge answers and has a server that runs tails."""
        return self.link.alive and self.load.servers > 0

    @property
    def predicted_s(self) -> float:
        """Latency that the latest plan predicts, infinite before the first one."""
        return self.plan.predicted_s if self.plan is not None else math.inf

    def is_failing(self, now_s: float) -> bool:
        """Whether the edge failed several frames in a row within the last seconds."""
        return now_s < self._avoided_until_s

    def set_frame_rate(self, frame_rate_hz: float) -> None:
        """Plan for another number of offered frames per second from now on."""
        self.planner.set_frame_rate(frame_rate_hz)
        self._inputs = None

    def reconfigure(self, planner: Planner, settings: MonitorSettings) -> None:
        """Plan with another planner from now on, and keep the estimates."""
        self.planner, self._inputs = planner, None
        self.link.rules = settings_for(LinkRules, settings)
        self.load.stale_after_s = settings.report_timeout_s

    def cut(self, split_index: int) -> SystemCut | None:
        """Return the cut of a split; None if the profile has no such split."""
        return self.profile.cuts[split_index] if 0 <= split_index < len(self.profile.cuts) else None

    def on_sent(
        self,
        sequence: int,
        now_s: float,
        cut: SystemCut,
        tail_engine: str,
        batch: int,
        payload_bytes: int,
        gap_s: float,
    ) -> bool:
        """Note a payload; return whether its acknowledgement has already arrived."""
        service_s = self.load.queueing_s + cut.tail_on(tail_engine)[batch] * self.load.times.factor_of(cut.index)
        return self.link.on_sent(sequence, now_s, payload_bytes, service_s, gap_s)

    def on_frame(self, frame: FrameRecord, profiled_s: float, now_s: float) -> None:
        """Learn from a frame that was sent to this edge; ``profiled_s`` is the profiled time of its tail."""
        if frame.outcome == Outcome.FELL_BACK:
            if math.isfinite(frame.sent_s):  # the edge cannot fail a frame that it never received
                self._failures += 1
                if self._failures >= _FAILURES:
                    self._avoided_until_s = now_s + _AVOIDED_S
            self.link.on_given_up(frame.sequence)
            arrived_s = self.link.arrived_s(frame.sequence)
            if arrived_s is not None:
                self.load.on_silence(frame.split_index, frame.given_up_s - arrived_s, profiled_s, now_s)
        elif frame.outcome in (Outcome.ANSWERED, Outcome.LATE) and math.isfinite(frame.answered_s):
            if math.isfinite(frame.acknowledged_s):
                self.link.on_acknowledgement(frame.sequence, frame.acknowledged_s)
            held_s = frame.held_s if math.isfinite(frame.held_s) else -1.0
            self._failures, self._avoided_until_s = 0, -math.inf  # an edge that answers late is slow but does not fail
            if self.link.on_answer(frame.sequence, frame.answered_s, held_s, frame.answer_bytes):
                self.load.on_answer(frame.split_index, frame.queueing_s, frame.tail_s, profiled_s, frame.answered_s)

    def review(
        self,
        now_s: float,
        robot: RobotEstimator,
        residual_s: NDArray[np.float64],
        *,
        in_use: bool,
        held_back: bool,
        is_urgent: bool,
        latency_s: float,
    ) -> None:
        """
        Plan again if an estimate has moved, or if ``is_urgent``.

        Hysteresis does not apply to an edge that is not in use. ``held_back`` says that payloads to this edge would
        wait behind a payload to another one. Changes of times are compared to the predicted latency ``latency_s``.
        """
        rate = self.link.belief(now_s)
        estimate = self._estimate_system(now_s, rate.level_spread, robot, residual_s, held_back)
        self.is_possible = estimate.alive
        if not self.link.alive:  # the lost link explains the failures
            self._failures, self._avoided_until_s = 0, -math.inf
        moved = (
            self.plan is None
            or self._inputs is None
            or self._inputs.differs(_inputs(rate.median_bps, estimate, self.plan.split_index), latency_s)
        )
        if not (is_urgent or moved):
            self.planner.hysteresis.regret.reset(now_s)
            return
        if not in_use:
            self.planner.hysteresis.current = None
        estimate.rates_bps = rate.next_transfer_bps()
        self.plan = self.planner.plan(estimate)
        self._inputs = _inputs(rate.median_bps, estimate, self.plan.split_index) if self.plan.settled else None

    def _estimate_system(
        self, now_s: float, rate_spread: float, robot: RobotEstimator, residual_s: NDArray[np.float64], held_back: bool
    ) -> SystemEstimate:
        """Return all estimates except the rates of the next transfer, which only a plan needs."""
        load, edge, cuts = self.load.estimate(now_s), self.load.times, len(self.profile.cuts)
        robot.times.forget(now_s)
        is_blocked = held_back or self.link.blocked_since_s > -math.inf
        return SystemEstimate(
            now_s=now_s,
            rates_bps=_NO_RATES,
            rate_spread=rate_spread,
            rtt_s=self.link.rtt_s,
            # At a guessed rate, a payload may occupy a slow link for seconds.
            alive=self.is_usable and not (is_blocked or self.link.awaits_rate),
            servers=load.servers,
            queueing_s=load.queueing_s,
            robot=robot.times.cut_factors(cuts),
            edge=edge.cut_factors(cuts),
            robot_factor=robot.times.factor,
            edge_factor=edge.factor,
            robot_spread=robot.times.spread,
            edge_spread=edge.spread,
            resize_s=robot.resize_s,
            publish_s=robot.publish_s,
            residual_s=residual_s.copy(),
        )


def make_planner(
    profile: SystemProfile, settings: MonitorSettings, frame_rate_hz: float, removed: Collection[Choice]
) -> Planner:
    """Return a planner for this profile without the choices that audits have removed."""
    rules = settings_for(PlannerConstraints, replace(settings, frame_rate_hz=frame_rate_hz))
    return Planner(_without_removed(profile, removed), rules, settings.batch, settings.downlink_ratio)


def _without_removed(profile: SystemProfile, removed: Collection[Choice]) -> SystemProfile:
    return replace(
        profile,
        cuts=tuple(
            replace(cut, codecs={name: codec for name, codec in cut.codecs.items() if (cut.index, name) not in removed})
            for cut in profile.cuts
        ),
    )


def settings_for(kind: type[Settings], settings: MonitorSettings) -> Settings:
    """Return a ``kind`` with the settings of the same names."""
    return kind(**{field.name: getattr(settings, field.name) for field in fields(kind)})


def _inputs(rate_bps: float, estimate: SystemEstimate, split: int) -> _PlanInputs:
    """Return the estimates on which a choice of ``split`` rests."""
    robot, edge = estimate.robot_factor, estimate.edge_factor
    return _PlanInputs(
        (
            rate_bps,
            1 + estimate.rate_spread,
            float(estimate.alive),
            float(estimate.servers),
            robot,
            edge,
            robot * float(estimate.robot[split]),
            edge * float(estimate.edge[split]),
        ),
        (
            estimate.rtt_s,
            estimate.queueing_s,
            estimate.resize_s,
            estimate.publish_s,
            float(estimate.residual_s[split]),
            float(estimate.residual_s[0]),
            float(estimate.residual_s[-1]),
        ),
    )
