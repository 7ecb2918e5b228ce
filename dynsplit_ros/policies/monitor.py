# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
What the monitor does with each observation: estimates of link and edge, probes, and decisions. It has no clock.

The node and the simulation pass observations to :class:`MonitorPolicy` (``on_...``). They call ``on_time`` after each
observation and at the instant of the latest WakeAt, and carry out the actions that it returns, in their order.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
import math
from typing import TypeVar

import numpy as np

from dynsplit_ros.estimators.link import LinkEstimate, LinkEstimator, Probe
from dynsplit_ros.estimators.load import LoadEstimate, LoadEstimator, LoadReport
from dynsplit_ros.estimators.probing import LinkRules
from dynsplit_ros.estimators.robot import ResidualEstimator, RobotEstimator
from dynsplit_ros.planner import Plan, Planner, PlannerConstraints, STEADY, SystemEstimate
from dynsplit_ros.policies.audit import AuditLedger
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import Choice, FrameRecord, Outcome, SplitDecision
from dynsplit_ros.profile.profile import SystemCut, SystemProfile

#: Time between two looks for a probe or heartbeat to send, and for a silence of the edge, in seconds. Both are then
#: late by this much at most; a shorter time costs processor time on the robot.
TICK_S = 0.02
#: Frames offered per second until a camera has measured the rate.
_FRAME_RATE_HZ = 10.0
#: The planner follows a measured rate that differs by this factor from the rate before.
_RATE_CHANGE = 1.1
#: Without a new observation, the monitor reviews its decision after this time, in seconds: estimates age.
_REVIEW_S = 0.25
#: The monitor does not plan again while no estimate has moved by more than this share, and no time by more than this
#: share of the latency. Planning is the largest part of the monitor's processor time.
_MOVED = 0.01
#: A new decision for the same choice is announced only if the latency, or the answer timeout, differs by this share.
_LATENCY_CHANGE, _TIMEOUT_CHANGE = 0.02, 0.1
_NO_RATES = np.zeros(0)

Settings = TypeVar('Settings', PlannerConstraints, LinkRules)


@dataclass(frozen=True)
class Announce:
    """Publish the decision, which camera and edge follow."""

    decision: SplitDecision


@dataclass(frozen=True)
class SendProbe:
    """Send the probe or heartbeat; call ``on_probe_sent`` if it has a lead."""

    probe: Probe


@dataclass(frozen=True)
class WakeAt:
    """Call ``on_time`` at this instant; replaces the WakeAt before it."""

    at_s: float


Action = Announce | SendProbe | WakeAt


@dataclass(frozen=True)
class _Basis:
    """The estimates on which a choice was the best: ``factors`` count by their ratio, ``times_s`` are in seconds."""

    factors: tuple[float, ...]
    times_s: tuple[float, ...]

    def has_moved(self, other: _Basis, latency_s: float) -> bool:
        """Whether the estimates of ``other`` differ so much that another choice may be the best."""
        return any(abs(now - before) > _MOVED * before for now, before in zip(other.factors, self.factors)) or any(
            abs(now - before) > _MOVED * latency_s for now, before in zip(other.times_s, self.times_s))


class MonitorPolicy:
    """
    Estimates link and load from what the robot observes, and decides which split comes next.

    ``edge`` is the name of the edge that the decisions are for. ``now_s`` is always the robot's monotonic clock. No
    observation raises, whatever a peer or a clock says: impossible ones are ignored.
    """

    def __init__(self, profile: SystemProfile, settings: MonitorSettings | None = None, edge: str = '') -> None:
        self.profile = profile
        self.edge = edge
        self.settings = settings = settings or MonitorSettings()
        self._link = LinkEstimator(_part(LinkRules, settings))
        self._load = LoadEstimator(settings.report_timeout_s)
        self._robot = RobotEstimator()
        self._residuals = ResidualEstimator(len(profile.cuts))
        self._planner = _planner(profile, settings, _FRAME_RATE_HZ)
        #: Audits of the lossy choices, and which of them are taken out.
        self.audits = AuditLedger()
        self._decision: SplitDecision | None = None
        self._basis: _Basis | None = None  # of the decision
        self._last_frame = -1
        self._now_s = self._reviewed_s = self._wake_s = -math.inf
        self._has_news = True
        self._must_decide = True  # after an event that only a new decision can answer

    def reconfigure(self, settings: MonitorSettings) -> None:
        """
        Use other settings from now on, and keep the estimates.

        Raises DynsplitError, and changes nothing, when they leave nothing to choose.
        """
        keeps_bound = settings.min_agreement == self.settings.min_agreement
        removed = self.audits.removed if keeps_bound else ()
        self._planner = _planner(_without(self.profile, removed), settings, self.frame_rate_hz)
        if not keeps_bound:
            self.audits.reset()  # a choice is taken out for one bound
        self._link.rules = _part(LinkRules, settings)
        self._load.stale_after_s = settings.report_timeout_s
        self.settings = settings
        self._must_decide = True

    # ---- what can be asked ---------------------------------------------------------------------------------------

    @property
    def decision(self) -> SplitDecision | None:
        """The decision in force."""
        return self._decision

    @property
    def link(self) -> LinkEstimate:
        """The estimate of the link at the latest instant."""
        return self._link.estimate(self._now_s)

    @property
    def load(self) -> LoadEstimate:
        """The estimate of the edge's load at the latest instant."""
        return self._load.estimate(self._now_s)

    @property
    def waiting_share(self) -> float:
        """The share (0 to 1) of the frame rate that the camera may give up to wait for newer images."""
        return self._planner.waiting_share

    @property
    def frame_rate_hz(self) -> float:
        """Frames offered per second that the planner expects."""
        return self._planner.constraints.frame_rate_hz

    # ---- observations --------------------------------------------------------------------------------------------

    def on_sent(
        self, sequence: int, now_s: float, split_index: int, codec: str, payload_bytes: int, gap_s: float = 0.0
    ) -> None:
        """Note that the camera began at ``now_s`` to hand a payload to the link, and was done ``gap_s`` later."""
        cut = self._cut(split_index)
        if cut is None or not (math.isfinite(now_s) and payload_bytes > 0):
            return
        service_s = self._load.queueing_s + cut.tail_s[self.settings.batch] * self._load.times.factor_of(split_index)
        if self._link.on_sent(sequence, now_s, payload_bytes, service_s, gap_s):
            self._has_news = True

    def on_acknowledgement(self, sequence: int, now_s: float, dispersion_s: float = math.nan) -> None:
        """Take the edge's acknowledgement of a payload; acknowledgements may be late, or lost."""
        if math.isfinite(now_s) and self._link.on_acknowledgement(sequence, now_s, dispersion_s):
            self._has_news = True

    def on_frame(self, frame: FrameRecord) -> None:
        """Take a finished frame; ``sequence`` is the number by which ``on_sent`` knows it."""
        cut = self._cut(frame.split_index)
        if cut is None:
            return
        batch = frame.images if frame.images in cut.head_s else self.settings.batch
        is_late = frame.outcome == Outcome.LATE  # the frame was reported before, when the robot had finished it
        if not is_late:
            self._last_frame = max(self._last_frame, frame.sequence)
        self._has_news = True
        # After a frame that the edge failed, the camera trusts only a decision that takes that frame into account.
        expected = self._decision is not None and frame.split_index == self._decision.split_index
        if not expected or frame.outcome not in (Outcome.ANSWERED, Outcome.LOCAL) or math.isfinite(frame.given_up_s):
            self._must_decide = True
        self._follow_frame_rate(frame.offered_hz)
        now_s = max([self._now_s, *filter(math.isfinite, (frame.sent_s, frame.answered_s))])
        self._learn_residual(frame)
        if not is_late:
            self._robot.on_head(frame.split_index, frame.head_s, frame.finishing_s, cut.head_s[batch], now_s)
            self._robot.on_frame(frame.sequence, frame.outcome == Outcome.LOCAL, frame.wait_s, frame.resize_s,
                                 frame.head_s, self._now_s)
        self._learn_edge(frame, cut.tail_s[batch], now_s)

    def on_probe_sent(self, probe_id: int, gap_s: float) -> None:
        """Note how many seconds this machine took to send a probe with its lead."""
        self._link.on_gap(('probe', probe_id), gap_s)

    def on_probe_answer(
        self, probe_id: int, now_s: float, held_s: float = 0.0, dispersion_s: float = math.nan
    ) -> None:
        """Take the answer to a probe, with the seconds that the edge held it and the dispersion that it measured."""
        if not (math.isfinite(now_s) and math.isfinite(held_s)):
            return
        if self._link.on_answer(('probe', probe_id), now_s, held_s, 0, dispersion_s):
            self._has_news = True

    def on_load(self, report: LoadReport, now_s: float) -> None:
        """Take a load report of the edge."""
        if math.isfinite(now_s):
            self._link.on_report(now_s, report.period_s)
            if self._load.on_report(report, now_s):
                self._has_news = True

    def on_audit(self, split_index: int, codec: str, agreement: float) -> str:
        """Take an audit; return why its choice is taken out from now on, empty if it is not."""
        cut = self._cut(split_index)
        if cut is None or codec not in cut.codecs:
            return ''
        reason = self.audits.on_audit((split_index, codec), agreement, self.settings.min_agreement)
        if reason:
            # What was pinned for debugging does not override the bound.
            is_pinned = self.settings.pinned_split == split_index
            settings = replace(self.settings, pinned_split=-1) if is_pinned else self.settings
            self._planner = _planner(_without(self.profile, self.audits.removed), settings, self.frame_rate_hz)
            self._must_decide = True
        return reason

    def _learn_edge(self, frame: FrameRecord, profiled_s: float, now_s: float) -> None:
        if frame.outcome == Outcome.FELL_BACK:
            self._link.on_given_up(frame.sequence)
            arrived_s = self._link.arrived_s(frame.sequence)
            if arrived_s is not None:
                self._load.on_silence(frame.split_index, frame.given_up_s - arrived_s, profiled_s, now_s)
        elif frame.outcome in (Outcome.ANSWERED, Outcome.LATE) and math.isfinite(frame.answered_s):
            if math.isfinite(frame.acknowledged_s):
                self._link.on_acknowledgement(frame.sequence, frame.acknowledged_s)
            held_s = frame.held_s if math.isfinite(frame.held_s) else -1.0
            if self._link.on_answer(frame.sequence, frame.answered_s, held_s, frame.answer_bytes):
                self._load.on_answer(
                    frame.split_index, frame.queueing_s, frame.tail_s, profiled_s, frame.answered_s)

    def _learn_residual(self, frame: FrameRecord) -> None:
        """Compare a frame of the choice in force with its prediction."""
        decided, was_sent = self._decision, frame.outcome == Outcome.ANSWERED
        if decided is None or frame.choice != decided.choice or not (was_sent or frame.outcome == Outcome.LOCAL):
            return
        if was_sent and (decided.local_if_wait_s < math.inf or self._link.rate_spread >= STEADY):
            return  # where sent and local frames take turns, the images of those that are sent are newer
        self._residuals.on_frame(frame.split_index, frame.latency_s, decided.predicted_latency_s, was_sent)

    def _follow_frame_rate(self, offered_hz: float) -> None:
        ratio = offered_hz / self.frame_rate_hz
        if self.settings.frame_rate_hz == 0 and 0.01 <= offered_hz <= 1000.0:
            if not 1 / _RATE_CHANGE < ratio < _RATE_CHANGE:
                self._planner.set_frame_rate(offered_hz)
                self._must_decide = True

    # ---- probes and decisions ------------------------------------------------------------------------------------

    def on_time(self, now_s: float) -> list[Action]:
        """Return what to do now: to be called after each observation, and at the instant of the latest WakeAt."""
        actions: list[Action] = []
        is_tick = now_s >= self._wake_s
        if is_tick and (probe := self.next_probe(now_s)) is not None:
            actions.append(SendProbe(probe))
        if (decision := self.tick(now_s)) is not None:
            actions.append(Announce(decision))
        if is_tick:
            self._wake_s = now_s + TICK_S
            actions.append(WakeAt(self._wake_s))
        return actions

    def next_probe(self, now_s: float) -> Probe | None:
        """Return the heartbeat or probe to send now, None for none."""
        return self._link.next_probe(now_s) if math.isfinite(now_s) else None

    def tick(self, now_s: float) -> SplitDecision | None:
        """Let time pass and return a new decision, None if the one in force stays."""
        if not math.isfinite(now_s):
            return None
        self._now_s = max(self._now_s, now_s)
        self._link.tick(now_s)
        is_urgent = self._is_urgent(now_s)
        if not (self._has_news or is_urgent or now_s - self._reviewed_s >= _REVIEW_S):
            return None
        if self._link.rate_awaited and self._decision is not None:
            return None  # a probe is about to measure the rate
        self._reviewed_s, self._has_news = now_s, False
        rate = self._link.belief(now_s)
        estimate = self._estimate_system(now_s, rate.level_spread)
        if not (is_urgent or self._has_moved(rate.median_bps, estimate)):
            self._planner.hysteresis.confirm(now_s)
            return None
        estimate.rates_bps = rate.next_transfer_bps()
        plan = self._planner.plan(estimate)
        self._basis = _basis(rate.median_bps, estimate, plan.split_index) if plan.settled else None
        must_announce = self._must_decide or self._has_turned()
        self._must_decide = False
        return self._decide(plan) if must_announce or self._differs(plan) else None

    def _is_urgent(self, now_s: float) -> bool:
        """Whether the decision cannot wait for better estimates."""
        return self._must_decide or self._has_turned() or self._link.overdue(now_s) is not None

    def _has_turned(self) -> bool:
        """Whether the edge became silent, or ended its silence, since the decision in force."""
        return self._decision is None or self._decision.degraded == self._link.alive

    def _differs(self, plan: Plan) -> bool:
        """Whether a plan differs from the decision in force so much that camera and edge must know."""
        last = self._decision
        return last is None or plan.changed or not (
            abs(plan.predicted_s - last.predicted_latency_s) <= _LATENCY_CHANGE * last.predicted_latency_s
            and abs(plan.answer_timeout_s - last.answer_timeout_s) <= _TIMEOUT_CHANGE * last.answer_timeout_s)

    def _decide(self, plan: Plan) -> SplitDecision:
        self._decision = SplitDecision(
            split_index=plan.split_index,
            codec=plan.codec,
            answer_timeout_s=plan.answer_timeout_s,
            last_frame=self._last_frame,
            local_if_wait_s=plan.local_if_wait_s,
            predicted_latency_s=plan.predicted_s,
            waiting_share=self.waiting_share,
            degraded=not self._link.alive,
            split_name=plan.split_name,
            edge=self.edge,
            reason=plan.reason,
            changed=plan.changed,
            plan=plan,
        )
        return self._decision

    def _has_moved(self, rate_bps: float, estimate: SystemEstimate) -> bool:
        """Whether the estimates moved so much since the decision in force that another choice may be better."""
        decided = self._decision
        if self._basis is None or decided is None:
            return True
        return self._basis.has_moved(_basis(rate_bps, estimate, decided.split_index), decided.predicted_latency_s)

    def _estimate_system(self, now_s: float, rate_spread: float) -> SystemEstimate:
        """Return all estimates but the rates of the next transfer, which are computed only for a plan."""
        load, edge, robot, cuts = self._load.estimate(now_s), self._load.times, self._robot, len(self.profile.cuts)
        robot.times.forget(now_s)
        return SystemEstimate(
            now_s=now_s,
            rates_bps=_NO_RATES,
            rate_spread=rate_spread,
            rtt_s=self._link.rtt_s,
            # With a guessed rate, a payload may take a slow link for seconds.
            alive=self._link.alive and not (self._link.blocked or self._link.rate_awaited),
            queueing_s=load.queueing_s,
            robot=robot.times.cut_factors(cuts),
            edge=edge.cut_factors(cuts),
            robot_factor=robot.times.factor,
            edge_factor=edge.factor,
            robot_spread=robot.times.spread,
            edge_spread=edge.spread,
            resize_s=robot.resize_s,
            publish_s=robot.publish_s,
            residual_s=self._residuals.residual_s.copy(),
        )

    def _cut(self, split_index: int) -> SystemCut | None:
        return self.profile.cuts[split_index] if 0 <= split_index < len(self.profile.cuts) else None


def _planner(profile: SystemProfile, settings: MonitorSettings, measured_hz: float) -> Planner:
    rules = _part(PlannerConstraints, replace(settings, frame_rate_hz=settings.frame_rate_hz or measured_hz))
    return Planner(profile, rules, settings.batch, settings.downlink_ratio)


def _without(profile: SystemProfile, removed: Collection[Choice]) -> SystemProfile:
    """Return the profile without the codecs that audits have taken out at their cuts."""
    return replace(profile, cuts=tuple(
        replace(cut, codecs={name: codec for name, codec in cut.codecs.items() if (cut.index, name) not in removed})
        for cut in profile.cuts))


def _part(kind: type[Settings], settings: MonitorSettings) -> Settings:
    """Return the settings that ``kind`` has fields for."""
    return kind(**{field.name: getattr(settings, field.name) for field in fields(kind)})


def _basis(rate_bps: float, estimate: SystemEstimate, split: int) -> _Basis:
    """Return the estimates on which a choice of ``split`` rests."""
    robot, edge = estimate.robot_factor, estimate.edge_factor
    return _Basis(
        (rate_bps, 1 + estimate.rate_spread, float(estimate.alive), robot, edge,
         robot * float(estimate.robot[split]), edge * float(estimate.edge[split])),
        (estimate.rtt_s, estimate.queueing_s, estimate.resize_s, estimate.publish_s, float(estimate.residual_s[split]),
         float(estimate.residual_s[0]), float(estimate.residual_s[-1])),
    )
