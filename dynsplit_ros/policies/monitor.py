# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The rules of the monitor: from observations to estimates, probes and decisions, without clock and threads.

The node and the simulation pass observations to :class:`MonitorPolicy` (``on_...``). They call ``on_time`` after each
observation and at the instant of the latest WakeAt, and carry out the actions that it returns, in their order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
import math

import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.engine_names import EAGER
from dynsplit_ros.estimators.link import LinkEstimate, Probe
from dynsplit_ros.estimators.load import LoadEstimate, LoadReport
from dynsplit_ros.estimators.robot import ResidualEstimator, RobotEstimator
from dynsplit_ros.planner import EdgeHysteresis, Plan, STEADY_SPREAD
from dynsplit_ros.policies.audit import AuditLedger
from dynsplit_ros.policies.known_edge import KnownEdge, make_planner
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import Choice, FrameRecord, Outcome, SplitDecision
from dynsplit_ros.policies.wake import WakeAt
from dynsplit_ros.profile.profile import SystemProfile

#: Time, in seconds, between two checks for a due probe and for a silent edge. Both can be late by this time; a shorter
#: time costs processor time on the robot.
TICK_S = 0.02
#: Assumed number of offered frames per second until the camera has measured it: a usual rate of robot cameras.
_FRAME_RATE_HZ = 10.0
#: The planner follows a measured frame rate that differs by this factor. A smaller one causes a new decision for each
#: fluctuation; a larger one plans with a wrong period.
_RATE_CHANGE = 1.1
#: Without a new observation, the monitor reviews its decision after this time, in seconds, because estimates age. A
#: longer time delays the return to an edge that was slow; a shorter one costs processor time.
_REVIEW_S = 0.25
#: A plan with the same choice replaces the decision in force if its latency differs by this share. With a larger share,
#: residuals compare frames with an outdated prediction; with a smaller one, decisions change with noise.
_LATENCY_CHANGE = 0.02
#: A decision for the same choice is announced only if one of its times differs by this share from the announced one.
#: With 2 %, the monitor announced ten decisions per second, which took a third of its processor time. With more, the
#: camera works with an outdated timeout.
_ANNOUNCED_CHANGE = 0.1
#: The heartbeat period of an edge that is not in use is longer by this factor; its load reports show that it is alive.
#: A smaller factor costs more than 1 % of the bytes of small payloads; a larger one delays the measurement of the round
#: trip.
_UNUSED_EDGE_PERIODS = 8.0
#: Share of the bytes sent to the edge in use that may be spent to measure the links to all other edges. With more, a
#: second edge costs more than 1 % of the robot's bytes; with less, a faster edge is found later.
_OTHER_EDGES_SHARE = 0.005


@dataclass(frozen=True)
class Announce:
    """Publish the decision, which camera and edge follow."""

    decision: SplitDecision


@dataclass(frozen=True)
class SendProbe:
    """Send the probe or heartbeat to the edge that it names; call ``on_probe_sent`` if it has a lead."""

    probe: Probe


Action = Announce | SendProbe | WakeAt


class MonitorPolicy:
    """
    Estimates links and load from what the robot observes, and decides which edge, split and codec come next.

    The policy starts with one edge: ``profile`` is the profile of the robot with this edge, ``edge`` its name.
    :meth:`set_edge` adds others that serve the same model. All probes share one budget. While frames are sent to an
    edge, this edge has the largest part. While the robot runs the whole network, all edges have equal parts. ``now_s``
    is always an instant of the robot's monotonic clock. No observation raises an error: impossible ones and those of
    unknown edges are ignored.
    """

    def __init__(self, profile: SystemProfile, settings: MonitorSettings | None = None, edge: str = '') -> None:
        self.settings = settings = settings or MonitorSettings()
        self._measured_hz = _FRAME_RATE_HZ
        self._robot = RobotEstimator()
        # One estimator for all edges: residuals come from the robot and its images.
        self._residuals = ResidualEstimator(len(profile.cuts))
        #: Audits of the lossy choices, and the removed choices.
        self.audits = AuditLedger()
        self._edges: dict[str, KnownEdge] = {}
        self.set_edge(edge, profile)
        #: The edge that the latest decision names.
        self.used: KnownEdge = self._edges[edge]
        self._edge_hysteresis = EdgeHysteresis()
        self._decision: SplitDecision | None = None
        self._announced: SplitDecision | None = None
        self._last_frame = -1
        self._now_s = self._reviewed_s = self._wake_s = -math.inf
        self._has_observation = True
        self._must_decide = True  # after an event that requires a new decision

    def set_edge(self, name: str, profile: SystemProfile) -> None:
        """
        Add an edge, or replace one whose profile has changed; its estimates then start again.

        Raises DynsplitError, and changes nothing, if the settings allow no choice with this profile.
        """
        known = self._edges.get(name)
        if known is not None and known.profile == profile:
            return
        removed = self.audits.removed
        edge = self._edges[name] = KnownEdge(
            name, profile, _planner_settings(self.settings, removed), self.frame_rate_hz, removed
        )
        if known is not None and known is self.used:
            self.used = edge
        self._must_decide = True

    def forget_edge(self, name: str) -> None:
        """Forget an edge; raises ValueError for the only one."""
        if list(self._edges) == [name]:
            raise ValueError('a monitor needs an edge')
        if self._edges.pop(name, None) is self.used:
            self.used = next(iter(self._edges.values()))
            self._must_decide = True

    def reconfigure(self, settings: MonitorSettings) -> None:
        """
        Use other settings from now on, and keep the estimates.

        Raises DynsplitError, and changes nothing, if they allow no choice.
        """
        keeps_bound = settings.min_agreement == self.settings.min_agreement
        removed = self.audits.removed if keeps_bound else ()
        rate_hz = settings.frame_rate_hz or self._measured_hz
        planner_settings = _planner_settings(settings, removed)
        planners = {
            name: make_planner(edge.profile, planner_settings, rate_hz, removed) for name, edge in self._edges.items()
        }
        if not keeps_bound:
            self.audits.reset()  # a choice is removed for one bound
        for name, planner in planners.items():
            self._edges[name].reconfigure(planner, settings)
        self.settings = settings
        self._must_decide = True

    # ---- state ---------------------------------------------------------------------------------------------------

    @property
    def decision(self) -> SplitDecision | None:
        """The decision in force."""
        return self._decision

    @property
    def edges(self) -> Mapping[str, KnownEdge]:
        """The known edges by their names."""
        return self._edges

    @property
    def profile(self) -> SystemProfile:
        """The profile of the robot with the edge in use."""
        return self.used.profile

    @property
    def link(self) -> LinkEstimate:
        """The estimate of the link to the edge in use at the latest instant."""
        return self.link_of(self.used)

    @property
    def load(self) -> LoadEstimate:
        """The estimate of the load of the edge in use at the latest instant."""
        return self.load_of(self.used)

    def link_of(self, edge: KnownEdge) -> LinkEstimate:
        """Return the estimate of the link to an edge at the latest instant."""
        return edge.link.estimate(self._now_s)

    def load_of(self, edge: KnownEdge) -> LoadEstimate:
        """Return the estimate of an edge's load at the latest instant."""
        return edge.load.estimate(self._now_s)

    @property
    def residual_s(self) -> NDArray[np.float64]:
        """Mean difference between measured and predicted latency, in seconds, for each split."""
        return self._residuals.residual_s

    @property
    def waiting_share(self) -> float:
        """The share (0 to 1) of the frame rate that the camera may give up to wait for newer images."""
        return self.used.planner.constraints.latency_waiting_share

    @property
    def frame_rate_hz(self) -> float:
        """Number of offered frames per second that the planner expects."""
        return self.settings.frame_rate_hz or self._measured_hz

    # ---- observations --------------------------------------------------------------------------------------------

    def on_sent(
        self,
        sequence: int,
        now_s: float,
        split_index: int,
        codec: str,
        payload_bytes: int,
        gap_s: float = 0.0,
        edge: str = '',
        tail_engine: str = EAGER,
    ) -> None:
        """Note a payload: the camera sent its lead at ``now_s`` and the payload ``gap_s`` seconds later."""
        sent_to = self._edges.get(edge)
        cut = sent_to.cut(split_index) if sent_to is not None else None
        if sent_to is None or cut is None or not (math.isfinite(now_s) and payload_bytes > 0):
            return
        for other in self._edges.values():
            if other is not sent_to:
                other.link.add_budget(_OTHER_EDGES_SHARE * payload_bytes / (len(self._edges) - 1))
        if sent_to.on_sent(sequence, now_s, cut, tail_engine, self.settings.batch, payload_bytes, gap_s):
            self._has_observation = True

    def on_acknowledgement(self, sequence: int, now_s: float, dispersion_s: float = math.nan, edge: str = '') -> None:
        """Take an edge's acknowledgement of a payload; acknowledgements can be late or lost."""
        known = self._edges.get(edge)
        if known is not None and math.isfinite(now_s) and known.link.on_acknowledgement(sequence, now_s, dispersion_s):
            self._has_observation = True

    def on_frame(self, frame: FrameRecord) -> None:
        """Take a finished frame; ``sequence`` is the number by which ``on_sent`` knows it."""
        was_local = frame.outcome == Outcome.LOCAL
        sent_to = None if was_local else self._edges.get(frame.edge)
        known = sent_to or self.used
        cut = known.cut(frame.split_index)
        if cut is None:
            return
        batch = frame.images if frame.images in known.profile.batches else self.settings.batch
        is_late = frame.outcome == Outcome.LATE  # the robot finished the frame and reported it before
        if not is_late:
            self._last_frame = max(self._last_frame, frame.sequence)
        self._has_observation = True
        # After the edge failed a frame, the camera follows only a decision that accounts for that frame.
        expected = self._decision is not None and frame.split_index == self._decision.split_index
        if not expected or frame.outcome not in (Outcome.ANSWERED, Outcome.LOCAL) or math.isfinite(frame.given_up_s):
            self._must_decide = True
        self._follow_frame_rate(frame.offered_hz)
        now_s = max([self._now_s, *filter(math.isfinite, (frame.sent_s, frame.answered_s))])
        self._learn_residual(frame)
        if not is_late:
            self._robot.on_head(
                frame.split_index, frame.head_s, frame.finishing_s, cut.head_on(frame.head_engine)[batch], now_s
            )
            self._robot.on_frame(frame.sequence, was_local, frame.wait_s, frame.resize_s, frame.head_s, self._now_s)
        if sent_to is not None:
            sent_to.on_frame(frame, cut.tail_on(frame.tail_engine)[batch], now_s)

    def on_probe_sent(self, probe_id: int, gap_s: float, edge: str = '') -> None:
        """Note the seconds between the lead of a probe and the probe on this machine."""
        if (known := self._edges.get(edge)) is not None:
            known.link.on_gap(('probe', probe_id), gap_s)

    def on_probe_answer(
        self, probe_id: int, now_s: float, held_s: float = 0.0, dispersion_s: float = math.nan, edge: str = ''
    ) -> None:
        """Take the answer to a probe; the edge held it for ``held_s`` and measured ``dispersion_s``."""
        known = self._edges.get(edge)
        if known is None or not (math.isfinite(now_s) and math.isfinite(held_s)):
            return
        if known.link.on_answer(('probe', probe_id), now_s, held_s, 0, dispersion_s):
            self._has_observation = True

    def on_load(self, report: LoadReport, now_s: float) -> None:
        """Take a load report of an edge."""
        known = self._edges.get(report.edge)
        if known is not None and math.isfinite(now_s):
            known.link.on_report(now_s, report.period_s)
            if known.load.on_report(report, now_s):
                self._has_observation = True

    def on_audit(self, split_index: int, codec: str, agreement: float) -> str:
        """Take an audit; return the reason if it removes its choice, empty otherwise."""
        if not any((cut := edge.cut(split_index)) is not None and codec in cut.codecs for edge in self._edges.values()):
            return ''
        reason = self.audits.on_audit((split_index, codec), agreement, self.settings.min_agreement)
        if reason:
            settings = _planner_settings(self.settings, self.audits.removed)
            for edge in self._edges.values():
                edge.reconfigure(
                    make_planner(edge.profile, settings, self.frame_rate_hz, self.audits.removed), self.settings
                )
            self._must_decide = True
        return reason

    def _learn_residual(self, frame: FrameRecord) -> None:
        """Compare a frame of the choice in force with its prediction."""
        decided, was_sent = self._decision, frame.outcome == Outcome.ANSWERED
        if decided is None or frame.choice != decided.choice or not (was_sent or frame.outcome == Outcome.LOCAL):
            return
        if was_sent and frame.edge != decided.edge:
            return
        if was_sent and (decided.local_if_wait_s < math.inf or self.used.link.rate_spread >= STEADY_SPREAD):
            return  # with alternation, the images of sent frames are newer
        self._residuals.on_frame(frame.split_index, frame.latency_s, decided.predicted_latency_s, was_sent)

    def _follow_frame_rate(self, offered_hz: float) -> None:
        ratio = offered_hz / self.frame_rate_hz
        if self.settings.frame_rate_hz == 0 and 0.01 <= offered_hz <= 1000.0:
            if not 1 / _RATE_CHANGE < ratio < _RATE_CHANGE:
                self._measured_hz = offered_hz
                for edge in self._edges.values():
                    edge.set_frame_rate(offered_hz)
                self._must_decide = True

    # ---- probes and decisions ------------------------------------------------------------------------------------

    def on_time(self, now_s: float) -> list[Action]:
        """Return the actions that are due; the caller calls this after each observation and at the latest WakeAt."""
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
        """Return the heartbeat or probe to send now, None for none; the edge in use comes first."""
        if not math.isfinite(now_s):
            return None
        sends = self._decision is not None and self._decision.split_index < self.used.profile.local_index
        is_blocked = any(self._is_blocked(edge) for edge in self._edges.values())
        equal_share = 1 / len(self._edges)
        for edge in sorted(
            self._edges.values(), key=lambda edge: (edge is not self.used, edge.link.last_arrived_sent_s)
        ):
            is_used = edge is self.used
            probe = edge.link.next_probe(
                now_s,
                [
                    message
                    for other in self._edges.values()
                    if other is not edge
                    for message in other.link.pending(now_s)
                ],
                budget_share=equal_share if not sends else float(is_used),
                # After a payload that was given up, a heartbeat to any edge shows whether the robot's link works.
                period_factor=1.0 if is_used or is_blocked else _UNUSED_EDGE_PERIODS,
            )
            if probe is not None:
                return replace(probe, edge=edge.name)
        return None

    def tick(self, now_s: float) -> SplitDecision | None:
        """Handle the passing of time; return a decision to announce, None if the announced one still holds."""
        if not math.isfinite(now_s):
            return None
        self._now_s = max(self._now_s, now_s)
        for edge in self._edges.values():
            edge.link.tick(now_s)
        is_urgent = self._is_urgent(now_s)
        if not (self._has_observation or is_urgent or now_s - self._reviewed_s >= _REVIEW_S):
            return None
        if self.used.link.awaits_rate and self._decision is not None:
            return None  # a probe is about to measure the rate
        self._reviewed_s, self._has_observation = now_s, False
        self._review(now_s, is_urgent)
        chosen, why = self._choose_edge(now_s)
        is_forced = self._must_decide or self._has_usability_changed()
        self._must_decide = False
        if chosen is self.used and not is_forced and not self._differs(chosen.plan):
            return None
        decision = self._decide(chosen, why)
        if not is_forced and not _must_announce(decision, self._announced):
            return None
        self._announced = decision
        return decision

    def _review(self, now_s: float, is_urgent: bool) -> None:
        """Plan again for each edge whose estimates have changed."""
        decided = self._decision
        for edge in self._edges.values():
            is_used = edge is self.used
            latency_s = decided.predicted_latency_s if is_used and decided is not None else edge.predicted_s
            edge.review(
                now_s,
                self._robot,
                self._residuals.residual_s,
                in_use=is_used,
                held_back=self._is_held_back(edge),
                is_urgent=is_urgent and is_used,
                latency_s=latency_s,
            )

    def _is_blocked(self, edge: KnownEdge) -> bool:
        """Whether a payload that was given up may still be on its way to an edge that answers."""
        return edge.link.alive and edge.link.blocked_since_s > -math.inf

    def _is_held_back(self, edge: KnownEdge) -> bool:
        """
        Whether a payload to this edge may have to wait behind one to another edge that was given up.

        All links may share the robot's radio, which keeps the order of messages. If a message to this edge was sent
        later and has arrived, the radio is free, and the other edge is the cause.
        """
        return any(
            self._is_blocked(other) and other.link.blocked_since_s > edge.link.last_arrived_sent_s
            for other in self._edges.values()
            if other is not edge
        )

    def _choose_edge(self, now_s: float) -> tuple[KnownEdge, str]:
        """Return the edge to use from now on, and the reason if it is another one than before."""
        used = self.used
        possible = [
            edge
            for edge in self._edges.values()
            if edge.is_possible and edge is not used and not edge.is_failing(now_s)
        ]
        why_leave = (
            f'edge {used.name!r} does not answer'
            if not used.link.alive
            else (f'edge {used.name!r} fails frames' if used.is_failing(now_s) else '')
        )
        if not why_leave:  # a working edge is only replaced by one whose link is known
            possible = [edge for edge in possible if not edge.link.is_uncertain]
        edge_scores = {edge.name: edge.plan.edge_score for edge in (used, *possible) if edge.plan is not None}
        if possible and why_leave:
            del edge_scores[used.name]
            chosen = min(edge_scores, key=lambda name: edge_scores[name].score_s)
            self._edge_hysteresis.regret.reset(now_s)
            return self._edges[chosen], why_leave
        chosen, gain_s = self._edge_hysteresis.choose(used.name, edge_scores, used.planner.constraints, now_s)
        return self._edges[chosen], f'{gain_s * 1e3:.1f} ms less than with edge {used.name!r}'

    def _is_urgent(self, now_s: float) -> bool:
        """Whether the decision cannot wait for better estimates."""
        return self._must_decide or self._has_usability_changed() or self.used.link.overdue(now_s) is not None

    def _silent_edges(self) -> tuple[str, ...]:
        return tuple(name for name, edge in self._edges.items() if not edge.is_usable)

    def _has_usability_changed(self) -> bool:
        """Whether an edge became unusable, or usable again, since the decision in force."""
        return self._decision is None or self._decision.silent_edges != self._silent_edges()

    def _differs(self, plan: Plan | None) -> bool:
        """Whether a plan differs so much from the decision in force that it replaces it."""
        last = self._decision
        return plan is not None and (
            last is None
            or _has_other_choice(plan, last)
            or not (
                abs(plan.predicted_s - last.predicted_latency_s) <= _LATENCY_CHANGE * last.predicted_latency_s
                and abs(plan.answer_timeout_s - last.answer_timeout_s) <= _ANNOUNCED_CHANGE * last.answer_timeout_s
            )
        )

    def _decide(self, edge: KnownEdge, why: str) -> SplitDecision:
        plan, last, moved = edge.plan, self._decision, edge is not self.used
        assert plan is not None  # _choose_edge returns only edges with a plan
        self.used = edge
        self._decision = SplitDecision(
            split_index=plan.split_index,
            codec=plan.codec,
            answer_timeout_s=plan.answer_timeout_s,
            last_frame=self._last_frame,
            local_if_wait_s=plan.local_if_wait_s,
            predicted_latency_s=plan.predicted_s,
            waiting_share=self.waiting_share,
            degraded=not edge.is_usable,
            servers=max(1, edge.load.servers),
            split_name=plan.split_name,
            edge=edge.name,
            silent_edges=self._silent_edges(),
            reason=f'edge {edge.name!r}, {plan.description}: {why}; {plan.conditions}' if moved else plan.reason,
            changed=moved or last is None or _has_other_choice(plan, last),
            head_engine=plan.head_engine,
            tail_engine=plan.tail_engine,
            local_engine=plan.local_engine,
            plan=plan,
            other_plans={name: other.plan for name, other in self._edges.items() if other is not edge},
        )
        return self._decision


def _must_announce(decision: SplitDecision, announced: SplitDecision | None) -> bool:
    """Whether a decision differs so much from the announced one that camera and edge need it."""
    return (
        announced is None
        or decision.changed
        or decision.servers != announced.servers
        or not all(
            math.isclose(getattr(decision, name), getattr(announced, name), rel_tol=_ANNOUNCED_CHANGE)
            for name in ('predicted_latency_s', 'answer_timeout_s', 'local_if_wait_s')
        )
    )


def _has_other_choice(plan: Plan, decided: SplitDecision) -> bool:
    """Whether a plan has another split, codec or engine than a decision."""
    return any(
        getattr(plan, name) != getattr(decided, name)
        for name in ('split_index', 'codec', 'head_engine', 'tail_engine', 'local_engine')
    )


def _planner_settings(settings: MonitorSettings, removed: Collection[Choice]) -> MonitorSettings:
    """Return the settings, without the pinned split if audits removed a choice of it: a pin does not lift the bound."""
    is_removed = settings.pinned_split in {split_index for split_index, _ in removed}
    return replace(settings, pinned_split=-1) if is_removed else settings
