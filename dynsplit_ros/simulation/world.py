# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""One robot, its link and its edges, event by event; the monitor decides, or an oracle that knows the future."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
import math
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.engine_names import EAGER, Engines
from dynsplit_ros.estimators.link import Probe
from dynsplit_ros.planner import codecs_to_choose_from, engines_to_use, local_engine_to_use
from dynsplit_ros.policies.camera import (
    Action,
    CameraPolicy,
    Deliver,
    Encode,
    Finish,
    InterruptHead,
    Prepare,
    Report,
    RunHead,
    Send,
    StopFinishing,
)
from dynsplit_ros.policies.edge import ReportLoad
from dynsplit_ros.policies.monitor import Announce, MonitorPolicy, SendProbe
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import EdgeFrame, FrameRecord, Outcome, SplitDecision, Status
from dynsplit_ros.policies.wake import WakeAt
from dynsplit_ros.profile.profile import CodecProfile, SystemCut, SystemProfile
from dynsplit_ros.simulation.edge import ROBOT, SimulatedEdge
from dynsplit_ros.simulation.link import Disturbances, OneWayLink, Pauses, ProcessClock, true_profile
from dynsplit_ros.simulation.oracle import Future, PlannedFrame, Search, WIDTH
from dynsplit_ros.simulation.processor import Processor
from dynsplit_ros.simulation.timeline import Timeline
from dynsplit_ros.simulation.trace import constant, Trace

#: Bytes of an acknowledgement, of the answer to a probe and of a payload's lead; bytes of a load report.
_ACKNOWLEDGEMENT_BYTES = 32
_REPORT_BYTES = 64
#: Least time between the arrivals of two messages as the edge sees them, in seconds.
_MIN_DISPERSION_S = 5e-5
#: Longest time, in seconds, for which a simulation goes on after the last image, so that all frames are delivered.
AFTER_S = 60.0
FIRST_EDGE = 'edge1'


@dataclass(frozen=True)
class EdgeScenario:
    """
    One more edge behind the robot's link.

    ``slowdown`` and ``others_hz`` are as in a scenario. Messages to this edge and back take ``extra_rtt_s`` seconds
    longer. The edge's process lives while ``is_alive`` is above 0. An edge without the robot's model only sends load
    reports.
    """

    slowdown: Trace = field(default_factory=lambda: constant(1.0, 1.0))
    others_hz: Trace = field(default_factory=lambda: constant(0.0, 1.0))
    extra_rtt_s: float = 0.0
    is_alive: Trace = field(default_factory=lambda: constant(1.0, 1.0))
    has_model: bool = True


@dataclass(frozen=True)
class Scenario:
    """
    The conditions of a simulated robot.

    ``link`` is the rate of the uplink in bit/s; the downlink has ``downlink_ratio`` times this rate. ``base_rtt_s`` is
    the round trip of an empty message, and both ways together add exponential delays of mean ``jitter_s``. ``slowdown``
    is the ratio of the edge's times to the profiled ones. Other robots send ``others_hz`` frames per second to the
    edge, each with a tail of ``others_s`` seconds (before slowdown). Their number follows from the largest
    ``others_hz`` and this robot's frame rate. ``noise`` is the relative spread (log-normal) of each computation's time.
    ``resize_s`` is the time to convert and resize an image; the oracles leave it out. The camera offers
    ``frame_rate_hz`` images per second, the first at ``first_image_s``. ``disturbances`` of link and machines come in
    addition. The edge's process lives while ``is_alive`` is above 0; ``further_edges`` share the robot's link with it.
    All randomness follows from ``seed``.
    """

    link: Trace
    duration_s: float
    slowdown: Trace = field(default_factory=lambda: constant(1.0, 1.0))
    others_hz: Trace = field(default_factory=lambda: constant(0.0, 1.0))
    others_s: float = 0.02
    base_rtt_s: float = 0.004
    jitter_s: float = 0.0002
    downlink_ratio: float = 1.0
    noise: float = 0.02
    resize_s: float = 0.0
    frame_rate_hz: float = 10.0
    first_image_s: float = 0.0
    batch: int = 1
    disturbances: Disturbances = Disturbances()
    is_alive: Trace = field(default_factory=lambda: constant(1.0, 1.0))
    further_edges: tuple[EdgeScenario, ...] = ()
    seed: int = 0


@dataclass
class Run:
    """The outcome of one policy in one scenario."""

    policy: str
    frames: list[FrameRecord]
    dropped: int
    late_answers: int
    decisions_changed: list[float]
    estimates: list[tuple[float, float]]
    payload_bytes: int
    heartbeat_bytes: int
    probe_bytes: int
    capacity_bytes: float

    def latencies(self, since_s: float = 0.0) -> NDArray[np.float64]:
        """Latency of each frame whose image arrived at ``since_s`` or later."""
        return np.array([frame.latency_s for frame in self.frames if frame.arrived_s >= since_s])

    def mean_s(self, since_s: float = 0.0) -> float:
        """Mean latency, in seconds."""
        return float(self.latencies(since_s).mean())

    def mean_per_image_s(self, since_s: float = 0.0) -> float:
        """
        Mean over all images offered at ``since_s`` or later, in seconds.

        A dropped image counts with the latency of the frame before it, which kept the camera busy. The mean over frames
        would be better for a policy that drops more images while frames are slow.
        """
        weights = images_of_frames(self.frames) * [frame.arrived_s >= since_s for frame in self.frames]
        latencies = [frame.latency_s for frame in self.frames]
        return float(np.average(latencies, weights=weights)) if weights.any() else math.nan

    def estimate_bps(self, time_s: float) -> float:
        """Estimated rate of the link at an instant; 0 while the link counts as lost, NaN before the first estimate."""
        number = bisect.bisect_right(self.estimates, time_s, key=operator.itemgetter(0))
        return self.estimates[number - 1][1] if number else math.nan

    def p95_s(self, since_s: float = 0.0) -> float:
        """95th percentile of the latency, in seconds."""
        return float(np.percentile(self.latencies(since_s), 95))


def images_of_frames(frames: Sequence[FrameRecord]) -> NDArray[np.int_]:
    """Return the number of images that each frame counts for: its own and those that were dropped after it."""
    images = [frame.image for frame in frames]
    return np.diff(images, append=images[-1] + 1) if images else np.zeros(0, dtype=int)


class World:
    """
    Simulates one policy.

    Camera, edge and monitor are the policies that the nodes run: :class:`~dynsplit_ros.policies.camera.CameraPolicy`,
    :class:`~dynsplit_ros.policies.edge.EdgePolicy` and :class:`~dynsplit_ros.policies.monitor.MonitorPolicy`. This
    class schedules their events at the instants that follow from link, load and computation times.

    ``policy`` is 'dynamic', 'look-ahead oracle', 'eager oracle', 'patient oracle' or a split index as text ('0' is
    full offloading, the local index local inference); fixed splits are the monitor's own pinned split, with its
    fallback and its choice of codec.

    The look-ahead oracle knows the whole future and minimises the mean latency over all images
    (:mod:`dynsplit_ros.simulation.oracle`). ``plan`` replaces its plan.

    A greedy oracle takes, for each image, the choice with the least true latency from the image's arrival to its
    prediction. It knows the future of link and load, the frame's computation times and jitter, and the messages on the
    link and in the edge's queue. It ignores the cost of a choice for later frames, so a policy that waits can be
    better. There are two of them. The 'eager oracle' counts the time until link and edge are free for the frame, so it
    prefers local inference to waiting. The 'patient oracle' does not count this time. 'oracle' is the one of both with
    the lower mean. Oracles know the first edge only.

    ``shared`` is the first edge if this robot, called ``robot``, is one of a fleet
    (:mod:`dynsplit_ros.simulation.fleet`).
    """

    def __init__(
        self,
        profile: SystemProfile,
        scenario: Scenario,
        policy: str,
        settings: MonitorSettings | None = None,
        plan: Sequence[PlannedFrame] | None = None,
        shared: SimulatedEdge | None = None,
        robot: str = ROBOT,
    ) -> None:
        self._profile = true_profile(profile, scenario.disturbances.profile_error, scenario.seed)
        self._scenario = scenario
        self._policy = policy
        self._oracle = policy.endswith('oracle')
        self._patient = policy == 'patient oracle'
        base = settings or MonitorSettings()
        pinned = base.pinned_split if self._oracle or policy == 'dynamic' else int(policy)
        self._settings = replace(
            base,
            pinned_split=pinned,
            batch=scenario.batch,
            frame_rate_hz=scenario.frame_rate_hz,
            downlink_ratio=scenario.downlink_ratio,
        )
        self.monitor = MonitorPolicy(profile, self._settings, FIRST_EDGE)
        disturbances, delay_s, ends_s = scenario.disturbances, scenario.base_rtt_s / 2, scenario.duration_s + AFTER_S
        self._up = OneWayLink(scenario.link, delay_s, disturbances.burst_bytes)
        self._down = OneWayLink(scenario.link.scaled(scenario.downlink_ratio), delay_s, disturbances.burst_bytes)
        self._robot = ProcessClock(disturbances.robot, ends_s, np.random.default_rng([scenario.seed, 4]))
        self._pauses = disturbances.robot != Pauses()
        self.timeline = shared.timeline if shared is not None else Timeline()
        self._name = robot
        images = int(scenario.duration_s * scenario.frame_rate_hz) + 1
        rng = np.random.default_rng([scenario.seed, 1])
        # Drawn for each image, so that all policies have the same times.
        self._noise = np.exp(scenario.noise * rng.standard_normal((images, 3))).tolist()
        self._delays = rng.exponential(scenario.jitter_s / 2 + 1e-12, (images, 3)).tolist()
        self._rng = np.random.default_rng([scenario.seed, 2])
        self._others = self._draw_others(scenario.others_hz, np.random.default_rng([scenario.seed, 3]))
        #: The first edge, and all edges by their names.
        self.edge = shared or self._make_edge(FIRST_EDGE, scenario, self._others, 0.0, 5)
        self.edges = {FIRST_EDGE: self.edge}
        self._is_alive = {FIRST_EDGE: scenario.is_alive}
        self._add_further_edges(profile)
        for edge in self.edges.values():
            edge.robots[robot] = self
        self._followed = FIRST_EDGE
        self.plan = (plan or self.look_ahead()) if policy == 'look-ahead oracle' else ()
        self._steps = deque(self.plan)
        self.camera = CameraPolicy(profile.local_index, choose=self._choose if self._oracle else None)
        self._actions: deque[Action] = deque()
        self._acting = False
        self._wake_s = math.inf
        self._period_s = 1 / scenario.frame_rate_hz
        self._acknowledged_s: dict[int, float] = {}  # when the acknowledgement of each payload arrives
        self._processor = Processor(self)
        # Results
        self._frames: list[FrameRecord] = []
        self._changes: list[float] = []
        self._estimates: list[tuple[float, float]] = []

    def _make_edge(
        self, name: str, scenario: Scenario | EdgeScenario, others_at_s: list[float], extra_rtt_s: float, *stream: int
    ) -> SimulatedEdge:
        """Return an edge; ``stream`` is the part of the seed for its pauses."""
        robot = self._scenario
        rng = np.random.default_rng([robot.seed, *stream])
        return SimulatedEdge(
            self.monitor.profile,
            self.timeline,
            ProcessClock(robot.disturbances.edge, robot.duration_s + AFTER_S, rng),
            name=name,
            extra_rtt_s=extra_rtt_s,
            slowdown=scenario.slowdown,
            batch=robot.batch,
            others_at_s=others_at_s,
            others_s=robot.others_s,
            other_robots=max(1, math.ceil(max(scenario.others_hz.values) / robot.frame_rate_hz)),
        )

    def _add_further_edges(self, profile: SystemProfile) -> None:
        for number, further in enumerate(self._scenario.further_edges):
            name = f'edge{number + 2}'
            if further.has_model:
                self.monitor.set_edge(name, profile)
            rng = np.random.default_rng([self._scenario.seed, 7, number])
            others_at_s = self._draw_others(further.others_hz, rng)
            self.edges[name] = self._make_edge(name, further, others_at_s, further.extra_rtt_s, 8, number)
            self._is_alive[name] = further.is_alive

    def run(self) -> Run:
        """Simulate, until every accepted frame is delivered."""
        self.begin()
        for name, edge in self.edges.items():
            edge.start()
            was_alive = True
            for time_s, is_alive in zip(self._is_alive[name].times_s, self._is_alive[name].values):
                if bool(is_alive) != was_alive:
                    self.at(time_s, edge.restart if is_alive else edge.kill)
                    was_alive = bool(is_alive)
        deadline_s = self._scenario.duration_s + AFTER_S
        self.timeline.run(
            lambda time_s: time_s > deadline_s or (time_s > self._scenario.duration_s and self.camera.idle)
        )
        return self.outcome()

    def begin(self) -> None:
        """Schedule the images and the first actions of the monitor."""
        for image in range(len(self._noise)):
            time_s = self._scenario.first_image_s + image / self._scenario.frame_rate_hz
            if time_s <= self._scenario.duration_s:
                self.at(
                    time_s,
                    lambda image=image: self._handle(  # type: ignore[misc]
                        self.camera.on_image, image, period_s=self._period_s
                    ),
                )
        if not self._oracle:
            self.at(0.0, self._let_monitor_act)

    def outcome(self) -> Run:
        """Return the result so far."""
        links = [edge.link for edge in self.monitor.edges.values()]
        return Run(
            self._policy,
            self._frames,
            self.camera.counters.dropped,
            self.camera.counters.late_answers,
            self._changes,
            self._estimates,
            sum(link.payload_bytes for link in links),
            sum(link.heartbeat_bytes for link in links),
            sum(link.probe_bytes for link in links),
            self._scenario.link.integral(self.now_s) / 8,
        )

    @property
    def now_s(self) -> float:
        """The instant of the latest event."""
        return self.timeline.now_s

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Schedule an action at an instant."""
        self.timeline.at(time_s, action)

    # ---- camera --------------------------------------------------------------------------------------------

    def _handle(self, event: Callable[..., list[Action]], *values: Any, **options: Any) -> None:
        """Pass an event to the camera's policy, and carry out the actions that follow, one after the other."""
        self._actions.extend(event(*values, now_s=self.now_s, **options))
        if self._acting:
            return
        self._acting = True
        while self._actions:
            self._carry_out(self._actions.popleft())
        self._acting = False

    def _carry_out(self, action: Action) -> None:
        camera, batch = self.camera, self._scenario.batch
        match action:
            case Prepare():
                if self._scenario.resize_s:
                    self._compute('head', self._scenario.resize_s, lambda: self._handle(camera.on_prepared, batch))
                else:
                    self._handle(camera.on_prepared, batch)
            case RunHead(frame):
                head_s = self._head(frame.image, frame.split_index, frame.codec, frame.head_engine)[0]
                self._compute('head', head_s, lambda: self._handle(camera.on_head_done, None))
            case InterruptHead():
                self._processor.stop('head')
                self._handle(camera.on_head_interrupted)
            case Encode(frame):
                encode_s = self._head(frame.image, frame.split_index, frame.codec, frame.head_engine)[1]
                size = self._profile.cuts[frame.split_index].codecs[frame.codec].payload_bytes[batch]
                self._compute('head', encode_s, lambda: self._handle(camera.on_payload_ready, size))
            case Send(frame):
                self._send(frame)
            case Finish(frame):
                finish_s = self._profile.cuts[frame.split_index].finish_s[batch] * self._noise[frame.image][1]
                number = frame.sequence
                self._compute('finish', finish_s, lambda: self._handle(camera.on_finished, number, None))
            case StopFinishing():
                self._processor.stop('finish')
            case Deliver(frame):
                self._frames.append(frame)
            case Report(frame):
                self._report(frame)
            case WakeAt(at_s):
                self._wake_s = at_s
                self.at(at_s, lambda: self._handle(camera.on_time) if self._wake_s == at_s else None)

    def _send(self, frame: FrameRecord) -> None:
        """Send the lead of a payload now, and the payload when the robot has handed it over."""
        edge = self.edges[frame.edge]
        led_s = self._up.transmit(self.now_s, _ACKNOWLEDGEMENT_BYTES, self._jitter_s()) + edge.extra_rtt_s / 2

        def hand_over() -> None:
            delays = self._delays[frame.image]
            arrives_s = self._up.transmit(self.now_s, frame.payload_bytes, delays[0]) + edge.extra_rtt_s / 2
            self._acknowledged_s[frame.sequence] = (
                self._down.rate.end_of(arrives_s, _ACKNOWLEDGEMENT_BYTES * 8)
                + self._scenario.base_rtt_s / 2
                + delays[1]
            )
            timeout_s = frame.answer_timeout_s
            dispersion_s = self._dispersion_s(edge, led_s, arrives_s)
            self.at(edge.clock.after(arrives_s), lambda: self._on_payload(edge, frame, timeout_s, dispersion_s))
            self._handle(self.camera.on_payload_sent)

        self._hand_over(hand_over)

    def _hand_over(self, send: Callable[[], None]) -> None:
        """Send the message after a lead, once the robot has handed it to the middleware."""
        ready_s = self._robot.end_of(self.now_s, self._scenario.disturbances.handover_s)
        if ready_s <= self.now_s:
            send()
        else:
            self.at(ready_s, send)

    def _dispersion_s(self, edge: SimulatedEdge, led_s: float, arrives_s: float) -> float:
        """Return the time between the arrivals of lead and message as the edge sees them."""
        return max(edge.clock.after(arrives_s) - edge.clock.after(led_s), _MIN_DISPERSION_S)

    def _jitter_s(self) -> float:
        return float(self._rng.exponential(self._scenario.jitter_s / 2 + 1e-12))

    def _is_lost(self, size_bytes: int = 0) -> bool:
        """Whether a best-effort message of this size is lost."""
        disturbances = self._scenario.disturbances
        too_large = 0 < disturbances.buffer_bytes < size_bytes
        return too_large or disturbances.loss > 0 and self._rng.random() < disturbances.loss

    def _robot_sees(self, at_s: float, action: Callable[[], None]) -> None:
        """Schedule the arrival of a message at the robot, whose process takes it when it runs."""
        self.at(self._robot.after(at_s), action)

    def _report(self, frame: FrameRecord) -> None:
        if self._oracle:
            return
        if frame.outcome is Outcome.SENT:
            self.monitor.on_sent(
                frame.sequence,
                frame.sent_s,
                frame.split_index,
                frame.codec,
                frame.payload_bytes,
                frame.send_s,
                frame.edge,
                frame.tail_engine,
            )
        else:
            self.monitor.on_frame(frame)
        self._let_monitor_act()

    @property
    def _answer_bytes(self) -> int:
        return self._profile.answer_bytes * self._scenario.batch

    def _head(self, image: int, split: int, codec: str, engine: str) -> tuple[float, float]:
        cut, batch = self._profile.cuts[split], self._scenario.batch
        noise = self._noise[image][0] * self._scenario.disturbances.robot_slowdown.at(self.now_s)
        encode_s = cut.codecs[codec].encode_s[batch] if codec else 0.0
        return cut.head_on(engine)[batch] * noise, encode_s * noise

    def _compute(self, thread: str, work_s: float, done: Callable[[], None]) -> None:
        """Run a computation of ``work_s`` seconds in a thread of the robot."""
        work_s = self._robot.end_of(self.now_s, work_s) - self.now_s if self._pauses else work_s
        self._processor.start(thread, work_s, done)

    # ---- monitor -------------------------------------------------------------------------------------------

    def _let_monitor_act(self) -> None:
        """Carry out the monitor's actions."""
        for action in self.monitor.on_time(self.now_s):
            match action:
                case SendProbe(probe):
                    self._send_probe(probe)
                case Announce(decision):
                    self._announce(decision)
                case WakeAt(at_s):
                    link = self.monitor.link
                    self._estimates.append((self.now_s, link.throughput_bps if link.alive else 0.0))
                    self.at(at_s, self._let_monitor_act)

    def _announce(self, decision: SplitDecision) -> None:
        """Pass a decision to camera and edge."""
        if decision.changed:
            self._changes.append(self.now_s)
        split_index, codec = decision.choice
        edge, before = self.edges[decision.edge], self.edges[self._followed]
        self._followed = decision.edge
        arrives_s = self.now_s + self._scenario.base_rtt_s / 2
        self.at(arrives_s, lambda: edge.on_decision(self._name, split_index, codec, decision.tail_engine))
        if before is not edge:
            self.at(arrives_s, lambda: before.on_decision_elsewhere(self._name))
        self._handle(self.camera.on_decision, decision)

    def _send_probe(self, probe: Probe) -> None:
        began_s, edge = self.now_s, self.edges[probe.edge]
        extra_s = edge.extra_rtt_s / 2
        led_s = (
            self._up.transmit(began_s, probe.lead_bytes, self._jitter_s()) + extra_s if probe.lead_bytes else (math.nan)
        )

        def hand_over() -> None:
            if probe.lead_bytes:
                self.monitor.on_probe_sent(probe.id, self.now_s - began_s, probe.edge)
            arrives_s = extra_s + self._up.transmit(
                self.now_s, probe.payload_bytes - probe.lead_bytes, self._jitter_s()
            )
            dispersion_s = self._dispersion_s(edge, led_s, arrives_s) if probe.lead_bytes else math.nan
            if not self._is_lost(probe.payload_bytes):
                self.at(edge.clock.after(arrives_s), lambda: self._on_probe(edge, probe, dispersion_s))

        if probe.lead_bytes:
            self._hand_over(hand_over)
        else:
            hand_over()

    def _on_probe(self, edge: SimulatedEdge, probe: Probe, dispersion_s: float) -> None:
        if not edge.is_receiving:
            return
        answered_s = self._down.transmit(self.now_s, _ACKNOWLEDGEMENT_BYTES, self._jitter_s()) + edge.extra_rtt_s / 2

        def answered() -> None:
            self.monitor.on_probe_answer(probe.id, self.now_s, 0.0, dispersion_s, probe.edge)
            self._let_monitor_act()

        if not self._is_lost():
            self._robot_sees(answered_s, answered)

    # ---- edge ----------------------------------------------------------------------------------------------

    def _draw_others(self, others_hz: Trace, rng: np.random.Generator) -> list[float]:
        """Return the arrivals of other robots' frames: a Poisson process of the given rate."""
        arrivals: list[float] = []
        amount = 0.0
        while True:
            amount += float(rng.exponential(1.0))
            time_s = others_hz.end_of(0.0, amount)
            if time_s > self._scenario.duration_s + AFTER_S:
                return arrivals
            arrivals.append(time_s)

    def _on_payload(self, edge: SimulatedEdge, frame: FrameRecord, timeout_s: float, dispersion_s: float) -> None:
        if not edge.is_receiving:
            return
        cut, batch = self._profile.cuts[frame.split_index], self._scenario.batch
        noise = self._noise[frame.image][2]
        service_s = cut.codecs[frame.codec].decode_s[batch] * noise, cut.tail_on(frame.tail_engine)[batch] * noise
        edge.submit(
            self._name,
            (frame, dispersion_s),
            frame.split_index,
            frame.codec,
            timeout_s,
            frame.payload_bytes,
            batch,
            frame.tail_engine,
            service_s,
        )

    def acknowledge(self, edge: SimulatedEdge, frame: EdgeFrame) -> None:
        """Put the edge's acknowledgement of this robot's frame on the downlink."""
        sent, dispersion_s = frame.source
        arrives_s = self._down.transmit(self.now_s, _ACKNOWLEDGEMENT_BYTES, self._delays[sent.image][1])
        if not self._is_lost():
            self._robot_sees(
                arrives_s + edge.extra_rtt_s / 2,
                lambda: self._on_acknowledgement(sent.sequence, dispersion_s, edge.name),
            )

    def answer(self, edge: SimulatedEdge, frame: EdgeFrame) -> None:
        """Put the edge's answer to this robot's frame on the downlink."""
        sent, _ = frame.source
        status, reason, times = frame.status, frame.reason, frame.times
        answer_bytes = self._answer_bytes if status is Status.OK else _ACKNOWLEDGEMENT_BYTES
        answered_s = self._down.transmit(self.now_s, answer_bytes, self._delays[sent.image][2])
        self._robot_sees(
            answered_s + edge.extra_rtt_s / 2,
            lambda: self._handle(
                self.camera.on_answer, self.camera.session, sent.sequence, status, reason, None, answer_bytes, times
            ),
        )

    def report_load(self, edge: SimulatedEdge, action: ReportLoad) -> None:
        """Put a load report of the edge on the downlink."""
        report = replace(action.report, queueing_s=action.queueing_s.get(self._name, 0.0))
        arrives_s = self._down.transmit(self.now_s, _REPORT_BYTES, self._jitter_s())

        def arrived() -> None:
            self.monitor.on_load(report, self.now_s)
            self._let_monitor_act()

        if not self._oracle:
            self._robot_sees(arrives_s + edge.extra_rtt_s / 2, arrived)

    def _on_acknowledgement(self, sequence: int, dispersion_s: float, edge: str) -> None:
        if not self._oracle:
            self.monitor.on_acknowledgement(sequence, self.now_s, dispersion_s, edge)
        self._handle(self.camera.on_acknowledgement, self.camera.session, sequence, edge=edge)
        if not self._oracle:
            self._let_monitor_act()

    # ---- oracles -------------------------------------------------------------------------------------------

    def _choose(self, image: int, arrived_s: float, now_s: float) -> tuple[SplitDecision, float]:
        """Return an oracle's choice for this image, and when its head must start."""
        if self._steps:
            return self._next_step(self._steps, image, now_s)
        split, codec, start_s = self._best(image)
        return replace(self._decision(split, codec), waiting_share=self.monitor.waiting_share), start_s

    def _decision(self, split: int, codec: str) -> SplitDecision:
        head, tail = self._engines(self._profile.cuts[split], codec)
        return SplitDecision(
            split,
            codec,
            answer_timeout_s=math.inf,
            head_engine=head,
            tail_engine=tail,
            local_engine=head if not codec else EAGER,
            edge=self.edge.name,
        )

    def _engines(self, cut: SystemCut, codec: str) -> Engines:
        """Return the fastest engines that the settings allow for a choice."""
        batch, bound = self._scenario.batch, self._settings.min_agreement
        if not codec:
            return local_engine_to_use(self._profile, batch, bound), ''
        return engines_to_use(cut, batch, codec, bound) or (EAGER, EAGER)

    def look_ahead(self, width: int | None = WIDTH) -> list[PlannedFrame]:
        """Return the best sequence of choices that a beam of this width finds; None searches exhaustively."""
        scenario, profile = self._scenario, self._profile
        future = Future(
            up=self._up.rate,
            down=self._down.rate,
            slowdown=scenario.slowdown,
            others_at_s=self._others,
            others_s=scenario.others_s,
            noise=self._noise,
            delays_s=self._delays,
            one_way_s=scenario.base_rtt_s / 2,
            lead_bytes=_ACKNOWLEDGEMENT_BYTES,
            acknowledgement_bytes=_ACKNOWLEDGEMENT_BYTES,
            frame_rate_hz=scenario.frame_rate_hz,
            batch=scenario.batch,
        )
        choices = [
            (cut.index, codec)
            for cut in profile.cuts[self._settings.shallowest_split : profile.local_index]
            for codec in self._codecs_of(cut)
        ]
        choices.append((profile.local_index, ''))
        engines = [self._engines(profile.cuts[split], codec) for split, codec in choices]
        return Search(profile, future, choices, engines, self.monitor.waiting_share).best(width)

    def _codecs_of(self, cut: SystemCut) -> dict[str, CodecProfile]:
        """Return the codecs that the settings allow at a cut, without those that are best at no rate."""
        settings = self._settings
        return codecs_to_choose_from(cut, self._scenario.batch, settings.codecs, settings.min_agreement)

    def _next_step(self, steps: deque[PlannedFrame], image: int, now_s: float) -> tuple[SplitDecision, float]:
        """Return the plan's choice for an image and its start; infinity if the plan skips the image."""
        while len(steps) > 1 and steps[1].image <= image:
            steps.popleft()
        step = steps[0]
        start_s = step.start_s if step.image <= image else math.inf
        if start_s <= now_s:
            steps.popleft()
        return self._decision(*step.choice), start_s

    def _best(self, image: int) -> tuple[int, str, float]:
        profile, batch = self._profile, self._scenario.batch
        local = profile.local_index
        local_engine, _ = self._engines(profile.cuts[local], '')
        best = (self.now_s + self._head(image, local, '', local_engine)[0], local, '', self.now_s)
        slot_s = self._true_slot_s()
        edge_s = self.edge.free_s(self.now_s)
        base_s = self._scenario.base_rtt_s / 2
        delays, noise = self._delays[image], self._noise[image][2]
        for cut in profile.cuts[self._settings.shallowest_split : local]:
            for name, codec in self._codecs_of(cut).items():
                head, tail = self._engines(cut, name)
                ready_s = sum(self._head(image, cut.index, name, head))
                send_s = max(self.now_s + ready_s, slot_s)
                arrives_s = (
                    self._up.rate.end_of(max(send_s, self._up.free_s), codec.payload_bytes[batch] * 8)
                    + base_s
                    + delays[0]
                )
                if math.isinf(arrives_s):
                    continue
                # The payload need not arrive before the edge is free; a newer image may arrive until then.
                take_s = max(self.now_s, send_s - ready_s + max(0.0, edge_s - arrives_s))
                start_s = max(arrives_s, self.edge.free_s(arrives_s))
                served_s = (
                    (codec.decode_s[batch] + cut.tail_on(tail)[batch]) * noise * self._scenario.slowdown.at(start_s)
                )
                back_s = max(start_s + served_s, self._down.free_s)
                done_s = self._down.rate.end_of(back_s, self._answer_bytes * 8) + base_s + delays[2]
                if self._patient:
                    done_s -= take_s - self.now_s
                if done_s < best[0]:
                    best = (done_s, cut.index, name, take_s)
        return best[1], best[2], best[3]

    def _true_slot_s(self) -> float:
        """Return when the link can take the next payload."""
        if not self.camera.link_is_full:
            return self.now_s
        unanswered = self.camera.unanswered
        on_link = [self._acknowledged_s[frame.sequence] for frame in unanswered if math.isnan(frame.acknowledged_s)]
        answers = [self.edge.free_s(self.now_s)] if len(unanswered) >= self.camera.max_unanswered else []
        return max(self.now_s, *on_link, *answers)


def simulate(
    profile: SystemProfile, scenario: Scenario, policy: str = 'dynamic', settings: MonitorSettings | None = None
) -> Run:
    """Run one policy in one scenario; 'oracle' is the better of the two oracles. See :class:`World`."""
    if policy == 'oracle':
        runs = [World(profile, scenario, name, settings).run() for name in ('eager oracle', 'patient oracle')]
        return min(runs, key=Run.mean_s)
    return World(profile, scenario, policy, settings).run()
