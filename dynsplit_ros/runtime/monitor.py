# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Watches link and edge, and decides: what the monitor node and the simulation both drive. It has no clock."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
import math
from typing import Any, TypeVar

import numpy as np

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.link import LinkEstimate, LinkEstimator, Probe
from dynsplit_ros.estimators.load import LoadEstimate, LoadEstimator, LoadReport
from dynsplit_ros.estimators.probing import LinkRules
from dynsplit_ros.estimators.service import ServiceTimes
from dynsplit_ros.planner import ALL_CODECS, Planner, PlannerConstraints, STEADY, SystemEstimate
from dynsplit_ros.policies.records import FrameRecord, Outcome, SplitDecision
from dynsplit_ros.profile.profile import SystemProfile

__all__ = [
    'LinkEstimate',
    'LoadEstimate',
    'LoadReport',
    'Monitor',
    'MonitorSettings',
    'Probe',
]


def _setting(
    default: object,
    description: str,
    unit: str = '',
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    return field(
        default=default,
        metadata={
            'description': description,
            'unit': unit,
            'minimum': minimum,
            'maximum': maximum,
            'choices': choices,
        },
    )


@dataclass(frozen=True)
class MonitorSettings:
    """Settings of the monitor; the metadata of each field holds description, unit, minimum, maximum and choices."""

    objective: str = _setting(
        'latency',
        'Quantity to optimise: the latency of a frame, or the sustained frame rate.',
        choices=('latency', 'frame_rate'),
    )
    codecs: tuple[str, ...] = _setting(
        ALL_CODECS,
        "Codecs that the planner may choose; [''] allows every codec of the profiles that min_agreement allows. A name "
        'here does not override min_agreement.',
    )
    min_agreement: float = _setting(
        1.0,
        'Smallest share of images whose output a lossy codec must keep (classification: the best class; detection: F1 '
        "of the boxes; segmentation: pixels). It bounds the lower end of the 95 % interval in the robot's profile. 1 "
        'allows only lossless codecs, 0 every codec.',
        '',
        0.0,
        1.0,
    )
    shallowest_split: int = _setting(
        0,
        'Smallest split index whose activation may leave the robot; 1 keeps the image itself on the robot.',
        minimum=0,
        maximum=65535,
    )
    pinned_split: int = _setting(
        -1,
        'For debugging: the only split to use while the edge answers; -1 lets the planner choose.',
        minimum=-1,
        maximum=65535,
    )
    bandwidth_bps: float = _setting(
        0.0, 'Upper bound on the mean rate of the payloads; 0 sets no bound.', 'bit/s', 0.0, 1e12
    )
    frame_rate_hz: float = _setting(
        0.0,
        'Frames that the camera offers per second. The planner needs the rate for the wait of an image and for '
        'bandwidth_bps. 0 takes the rate that camera_node measures.',
        '1/s',
        0.0,
        1000.0,
    )
    batch: int = _setting(1, 'Images in a frame.', '', 1, 1024)
    switching_cost: float = _setting(
        0.01, 'Smallest gain that justifies a change of split, as a share of the predicted latency.', '', 0.0, 1.0
    )
    confidence: float = _setting(
        3.5,
        'A change of split must also gain this many standard deviations of the predicted gain.',
        '',
        0.0,
        10.0,
    )
    answer_timeout_s: float = _setting(
        0.0,
        'Answer timeout: the robot finishes a frame itself when it expires. With 0, the planner chooses the timeout of '
        'each split: at most three times the predicted wait or 0.2 s, whichever is longer.',
        's',
        0.0,
        60.0,
    )
    waiting_share: float = _setting(
        0.08,
        'Largest share of the frame rate that the camera may give up to wait for a newer image when the system cannot '
        'process every image. It gives up nothing for the objective frame_rate.',
        '',
        0.0,
        0.5,
    )
    heartbeat_period_s: float = _setting(
        0.25, 'Period of the heartbeats, which measure the round-trip time.', 's', 0.02, 10.0
    )
    silence_s: float = _setting(
        0.5,
        "The monitor takes the link for lost when an answer or the edge's periodic report is overdue by this time and "
        'no other message came from the edge.',
        's',
        0.05,
        60.0,
    )
    probe_share: float = _setting(
        0.01, 'Largest share of the estimated rate that heartbeats and throughput probes may take.', '', 0.0, 0.5
    )
    probe_period_s: float = _setting(
        0.2, 'The monitor sends a throughput probe when nothing measured the rate for this time.', 's', 0.02, 60.0
    )
    report_timeout_s: float = _setting(
        1.0, 'The monitor ignores a load report of the edge that is older than this.', 's', 0.05, 60.0
    )
    downlink_ratio: float = _setting(
        1.0, 'Rate of the downlink (answers) divided by the rate of the uplink (payloads).', '', 0.001, 1000.0
    )

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, allowed = getattr(self, setting.name), setting.metadata
            if allowed['choices'] and value not in allowed['choices']:
                raise DynsplitError(
                    f'{setting.name} is {value!r}, but must be one of {", ".join(allowed["choices"])}'
                )
            if allowed['minimum'] is not None and not allowed['minimum'] <= value <= allowed['maximum']:
                raise DynsplitError(
                    f'{setting.name} is {value}, but must be between {allowed["minimum"]} and {allowed["maximum"]} '
                    f'{allowed["unit"]}'.rstrip()
                )


#: Until a camera has measured at which rate frames are offered, this is taken, in frames per second.
_FRAME_RATE_HZ = 10.0
#: A measured rate is followed when it differs from the one planned for by this factor.
_RATE_CHANGE = 1.1
_NO_RATES = np.zeros(0)
_Part = TypeVar('_Part', PlannerConstraints, LinkRules)

#: Weight of the newest frame in the mean times of resizing and publishing, and a time that is a fault, in seconds.
_NEWEST = 0.1
_LONGEST_S = 10.0
#: An image that waited longer than this for its head, in seconds, found the robot busy.
_BUSY_S = 0.002
#: Weight of the newest frame in by how much frames of its split take longer than predicted, and, if it was sent, in by
#: how much all those do; the most that one counts as a share of the prediction, and what is kept with each frame: half
#: after seven hundred.
_NEWEST_RESIDUAL = 0.05
_MOST_RESIDUAL = 0.25
_KEPT_RESIDUAL = 0.999
#: A head that shared the robot for more than this share of its time was slowed down.
_BESIDE = 0.001
#: Without news, what is believed is looked at again after this time, in seconds.
_IDLE_S = 0.25
#: The best choice stays it while no belief moves by more than this share, and no time by this share of the latency.
_MOVED = 0.01


def _planner(profile: SystemProfile, settings: MonitorSettings, measured_hz: float = _FRAME_RATE_HZ) -> Planner:
    rules = _part(PlannerConstraints, replace(settings, frame_rate_hz=settings.frame_rate_hz or measured_hz))
    return Planner(profile, rules, settings.batch, settings.downlink_ratio)


def _part(kind: type[_Part], settings: MonitorSettings) -> _Part:
    """Return the settings that ``kind`` has fields for."""
    return kind(**{field.name: getattr(settings, field.name) for field in fields(kind)})


def _beliefs(rate_bps: float, estimate: SystemEstimate, split: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what a choice of ``split`` rests on: numbers that count by their share, and times in seconds."""
    robot, edge = estimate.robot_factor, estimate.edge_factor
    return (
        (rate_bps, 1 + estimate.rate_spread, float(estimate.alive), robot, edge,
         robot * float(estimate.robot[split]), edge * float(estimate.edge[split])),
        (estimate.rtt_s, estimate.queueing_s, estimate.resize_s, estimate.publish_s, float(estimate.residual_s[split]),
         float(estimate.residual_s[0]), float(estimate.residual_s[-1])),
    )


class Monitor:
    """
    Estimates link and load from what the robot sees and decides which split comes next.

    ``edge`` is the name of the edge that the decisions are for.

    ``now_s`` is always the robot's monotonic clock. Nothing that a peer or a clock says raises from here:
    what cannot be is dropped.
    """

    def __init__(
        self, profile: SystemProfile, settings: MonitorSettings = MonitorSettings(), edge: str = ''
    ) -> None:
        self.profile = profile
        self.edge = edge
        self._link = LinkEstimator(_part(LinkRules, settings))
        self._load = LoadEstimator(settings.report_timeout_s)
        self._planner = _planner(profile, settings)
        self.settings = settings
        # What else the robot does now and then slows a head down: three such in a row are believed.
        self._robot = ServiceTimes(0.5, confirmations=2)
        self._resize_s = self._publish_s = 0.0
        self._residual_s = np.zeros(len(profile.cuts))
        self._last_local: tuple[int, float] | None = None
        self._now_s = -math.inf
        self._last_frame = -1
        self._news = True
        self._unforeseen = True  # something that only a new decision can answer
        self._believed: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # where the best was chosen
        self._decision: SplitDecision | None = None
        self._looked_s = -math.inf

    def reconfigure(self, settings: MonitorSettings) -> None:
        """
        Go by other settings from now on, with what is known of link and machines.

        Raises DynsplitError, and changes nothing, when they leave nothing to choose.
        """
        self._planner = _planner(self.profile, settings, self.frame_rate_hz)
        self._link.rules = _part(LinkRules, settings)
        self._load.stale_after_s = settings.report_timeout_s
        self.settings = settings
        self._unforeseen = True

    # What happens

    def on_sent(
        self, sequence: int, now_s: float, split_index: int, codec: str, payload_bytes: int, gap_s: float = 0.0
    ) -> None:
        """Note that the camera began at ``now_s`` to hand a payload to the link, and was done ``gap_s`` later."""
        cut = self._cut(split_index)
        if cut is None or not (math.isfinite(now_s) and payload_bytes > 0):
            return
        service_s = self._load.queueing_s + cut.tail_s[self.settings.batch] * self._load.times.factor_of(
            split_index
        )
        if self._link.on_sent(sequence, now_s, payload_bytes, service_s, gap_s):
            self._news = True

    def on_acknowledgement(self, sequence: int, now_s: float, dispersion_s: float = math.nan) -> None:
        """Take the edge's acknowledgement of a payload; acknowledgements may come late or never."""
        if math.isfinite(now_s) and self._link.on_acknowledgement(sequence, now_s, dispersion_s):
            self._news = True

    def on_frame(self, frame: FrameRecord) -> None:
        """Take a finished frame into account; ``sequence`` is the number by which ``on_sent`` knows it."""
        cut = self._cut(frame.split_index)
        if cut is None:
            return
        batch = frame.images if frame.images in cut.head_s else self.settings.batch
        late = frame.outcome == Outcome.LATE  # then the same frame was reported before, when the robot had finished it
        if not late:
            self._last_frame = max(self._last_frame, frame.sequence)
        self._news = True
        # After one that the edge failed, the camera trusts only a decision that knows of it.
        decided = self._decision is not None and frame.split_index == self._decision.split_index
        if not decided or frame.outcome not in (Outcome.ANSWERED, Outcome.LOCAL) or math.isfinite(frame.given_up_s):
            self._unforeseen = True
        self._expect(frame.offered_hz)
        now_s = self._now_s
        for seen_s in (frame.sent_s, frame.answered_s):
            if now_s < seen_s < math.inf:
                now_s = seen_s
        self._compare(frame)
        if not late and frame.finishing_s <= _BESIDE * frame.head_s:
            self._robot.observe(frame.split_index, frame.head_s, cut.head_s[batch], now_s)
        if not late and 0 <= frame.resize_s < _LONGEST_S:
            self._resize_s += _NEWEST * (frame.resize_s - self._resize_s)
            self._observe_publishing(frame)
        if frame.outcome == Outcome.FELL_BACK:
            self._link.on_given_up(frame.sequence)
            arrived_s = self._link.arrived_s(frame.sequence)
            if arrived_s is not None:
                waited_s = frame.given_up_s - arrived_s
                self._load.on_silence(frame.split_index, waited_s, cut.tail_s[batch], now_s)
        elif frame.outcome in (Outcome.ANSWERED, Outcome.LATE) and math.isfinite(frame.answered_s):
            if math.isfinite(frame.acknowledged_s):
                self._link.on_acknowledgement(frame.sequence, frame.acknowledged_s)
            held_s = frame.held_s if math.isfinite(frame.held_s) else -1.0
            if self._link.on_answer(frame.sequence, frame.answered_s, held_s, frame.answer_bytes):
                self._load.on_answer(
                    frame.split_index, frame.queueing_s, frame.tail_s, cut.tail_s[batch], frame.answered_s
                )

    def _compare(self, frame: FrameRecord) -> None:
        """
        Learn by how much frames take longer than predicted, split by split, and together for those that are sent.

        The parts are measured where nothing else happens; on a small robot, who sends and receives also computes, and
        how images wait follows from more than means. What is chosen is thus predicted without bias in the long run, and
        a choice that only seems the best does not stay.
        """
        decided = self._decision
        if decided is None or (frame.split_index, frame.codec) != (decided.split_index, decided.codec):
            return
        if not (0 < frame.latency_s < _LONGEST_S and frame.outcome in (Outcome.ANSWERED, Outcome.LOCAL)):
            return
        most_s = _MOST_RESIDUAL * decided.predicted_latency_s
        step_s = _NEWEST_RESIDUAL * min(max(frame.latency_s - decided.predicted_latency_s, -most_s), most_s)
        if frame.outcome == Outcome.ANSWERED:
            if decided.local_if_wait_s < math.inf or self._link.rate_spread >= STEADY:  # in turns, images are newer
                return
            self._residual_s[:-1] += step_s
        self._residual_s *= _KEPT_RESIDUAL
        self._residual_s[frame.split_index] += step_s

    def _observe_publishing(self, frame: FrameRecord) -> None:
        """Learn what the robot still does for a frame that is done, from local ones that followed without a pause."""
        local = frame.outcome == Outcome.LOCAL
        last, self._last_local = self._last_local, (frame.sequence, self._now_s) if local else None
        if local and last is not None and last[0] + 1 == frame.sequence and frame.wait_s > _BUSY_S:
            publish_s = self._now_s - last[1] - frame.resize_s - frame.head_s
            if abs(publish_s) < _LONGEST_S:
                self._publish_s = self._publish_s + _NEWEST * (publish_s - self._publish_s)

    def _expect(self, offered_hz: float) -> None:
        ratio = offered_hz / self._planner.constraints.frame_rate_hz
        if self.settings.frame_rate_hz == 0 and 0.01 <= offered_hz <= 1000.0:
            if not 1 / _RATE_CHANGE < ratio < _RATE_CHANGE:
                self._planner.set_frame_rate(offered_hz)
                self._unforeseen = True

    @property
    def waiting_share(self) -> float:
        """What the camera may give up of the frame rate to wait for newer images (0..1)."""
        return self._planner.waiting_share

    @property
    def frame_rate_hz(self) -> float:
        """Frames offered per second that are planned for."""
        return self._planner.constraints.frame_rate_hz

    def on_probe_answer(
        self, probe_id: int, now_s: float, held_s: float = 0.0, dispersion_s: float = math.nan
    ) -> None:
        """Take the answer to a heartbeat or probe into account, and what the edge says of its dispersion."""
        if (
            math.isfinite(now_s)
            and math.isfinite(held_s)
            and self._link.on_answer(('probe', probe_id), now_s, held_s, 0, dispersion_s)
        ):
            self._news = True

    def on_probe_sent(self, probe_id: int, gap_s: float) -> None:
        """Note how long it took to send a probe with its lead, in seconds of the robot's clock."""
        self._link.on_gap(('probe', probe_id), gap_s)

    def on_load(self, report: LoadReport, now_s: float) -> None:
        """Take the edge's report into account."""
        if math.isfinite(now_s):
            self._link.on_report(now_s, report.period_s)
            if self._load.on_report(report, now_s):
                self._news = True

    def next_probe(self, now_s: float) -> Probe | None:
        """Return the heartbeat or probe to send now, None for none; to be asked every few tens of milliseconds."""
        return self._link.next_probe(now_s) if math.isfinite(now_s) else None

    # What follows

    def tick(self, now_s: float) -> SplitDecision | None:
        """
        Let time pass and return a new decision, if there is one.

        To be called after each event, and every few tens of milliseconds between them.
        """
        if not math.isfinite(now_s):
            return None
        self._now_s = max(self._now_s, now_s)
        self._link.tick(now_s)
        last, degraded = self._decision, not self._link.alive
        turned = last is None or last.degraded != degraded
        overdue = self._link.overdue(now_s) is not None
        if not (self._news or self._unforeseen or turned or overdue or now_s - self._looked_s >= _IDLE_S):
            return None
        if self._link.rate_awaited and last is not None:
            return None  # a probe is about to tell
        if self._link.confirms_rise and not (self._unforeseen or turned or overdue):
            return None  # what is best depends on how much faster it is, and that is known in a moment
        self._looked_s, self._news = now_s, False
        rate = self._link.belief(now_s)
        estimate = self._estimate_system(now_s, rate.level_spread)
        if not (self._unforeseen or turned or overdue or self._moved(rate.median_bps, estimate)):
            self._planner.hysteresis.confirm(now_s)
            return None
        estimate.rates_bps = rate.next_transfer_bps()
        plan = self._planner.plan(estimate)
        self._believed = _beliefs(rate.median_bps, estimate, plan.split_index) if plan.settled else None
        unforeseen, self._unforeseen = self._unforeseen, False
        if (
            last is not None
            and not (plan.changed or turned or unforeseen)
            and (
                abs(plan.predicted_s - last.predicted_latency_s) <= 0.02 * last.predicted_latency_s
                and abs(plan.answer_timeout_s - last.answer_timeout_s) <= 0.1 * last.answer_timeout_s
            )
        ):
            return None
        self._decision = SplitDecision(
            split_index=plan.split_index,
            codec=plan.codec,
            answer_timeout_s=plan.answer_timeout_s,
            last_frame=self._last_frame,
            local_if_wait_s=plan.local_if_wait_s,
            predicted_latency_s=plan.predicted_s,
            waiting_share=self.waiting_share,
            degraded=degraded,
            split_name=plan.split_name,
            edge=self.edge,
            reason=plan.reason,
            changed=plan.changed,
            plan=plan,
        )
        return self._decision

    @property
    def decision(self) -> SplitDecision | None:
        """The decision in force."""
        return self._decision

    @property
    def link(self) -> LinkEstimate:
        """What is believed of the link at the latest tick."""
        return self._link.estimate(self._now_s)

    @property
    def load(self) -> LoadEstimate:
        """What is believed of the edge at the latest tick."""
        return self._load.estimate(self._now_s)

    def _moved(self, rate_bps: float, estimate: SystemEstimate) -> bool:
        """Whether so much else is believed than when the best was chosen that another choice may be better by now."""
        if self._believed is None or self._decision is None:
            return True
        latency_s = self._decision.predicted_latency_s
        shares, times = _beliefs(rate_bps, estimate, self._decision.split_index)
        shares_before, times_before = self._believed
        for now, before in zip(shares, shares_before):
            if abs(now - before) > _MOVED * before:
                return True
        for now, before in zip(times, times_before):
            if abs(now - before) > _MOVED * latency_s:
                return True
        return False

    def _estimate_system(self, now_s: float, rate_spread: float) -> SystemEstimate:
        """Return what is believed but the rates of the next transfer, which take long and may not be wanted."""
        load, edge, cuts = self._load.estimate(now_s), self._load.times, len(self.profile.cuts)
        self._robot.forget(now_s)
        return SystemEstimate(
            now_s=now_s,
            rates_bps=_NO_RATES,
            rate_spread=rate_spread,
            rtt_s=self._link.rtt_s,
            # On a guess of its rate, a payload may take a slow link for seconds.
            alive=self._link.alive and not (self._link.blocked or self._link.rate_awaited),
            queueing_s=load.queueing_s,
            robot=self._robot.cut_factors(cuts),
            edge=edge.cut_factors(cuts),
            robot_factor=self._robot.factor,
            edge_factor=edge.factor,
            robot_spread=self._robot.spread,
            edge_spread=edge.spread,
            resize_s=self._resize_s,
            publish_s=max(0.0, self._publish_s),
            residual_s=self._residual_s.copy(),
        )

    def _cut(self, split_index: int):  # type: ignore[no-untyped-def]
        known = 0 <= split_index < len(self.profile.cuts)
        return self.profile.cuts[split_index] if known else None
