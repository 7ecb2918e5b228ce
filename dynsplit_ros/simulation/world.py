# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""One robot, one link, one edge, event by event: the Monitor's decisions, or an oracle's, on a known future."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
import heapq
import itertools
import math

import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.profile.profile import SystemProfile
from dynsplit_ros.runtime.freshness import Freshness
from dynsplit_ros.runtime.monitor import Decision, FrameObservation, LoadReport, Monitor, MonitorSettings
from dynsplit_ros.runtime.pace import Pace
from dynsplit_ros.simulation.trace import constant, Trace

#: How often the monitor looks at the clock, as its node's timer does.
_TICK_S = 0.02
_REPORT_PERIOD_S = 0.1
#: Bytes of a receipt or a probe's answer, and of a load report.
_RECEIPT_BYTES = 32
_REPORT_BYTES = 64


@dataclass(frozen=True)
class Scenario:
    """
    What the robot meets.

    ``link`` is the uplink's rate in bit/s, the downlink's is ``downlink_ratio`` times it; ``base_rtt_s`` the
    round trip of an empty message, to which each way adds an exponential delay of mean ``jitter_s``.
    ``slowdown`` is how many times as long as profiled the edge takes, ``others_hz`` how many tails per second
    other robots want of it, each of ``others_s`` seconds (before slowdown). ``noise`` is the relative spread
    (log-normal) of each computation's time. ``frame_rate_hz`` images are offered. All randomness follows from
    ``seed``.
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
    frame_rate_hz: float = 10.0
    batch: int = 1
    seed: int = 0


@dataclass
class Frame:
    """What became of one accepted frame; instants and durations in seconds, NaN where there is none."""

    sequence: int
    image: int
    arrived_s: float
    taken_s: float
    split_index: int
    codec: str
    fallback_after_s: float
    restarted_s: float = math.nan
    payload_bytes: int = 0
    head_s: float = math.nan
    finishing_s: float = 0.0
    encode_s: float = math.nan
    sent_s: float = math.nan
    received_s: float = math.nan
    answered_s: float = math.nan
    given_up_s: float = math.nan
    held_s: float = math.nan
    queueing_s: float = math.nan
    decode_s: float = math.nan
    tail_s: float = math.nan
    finish_s: float = math.nan
    waited_s: float = 0.0
    done_s: float = math.nan
    delivered_s: float = math.nan
    outcome: str = ''
    rate_bps: float = math.nan
    estimate_bps: float = math.nan

    @property
    def latency_s(self) -> float:
        """From the image's arrival to its prediction, in order."""
        return self.delivered_s - self.arrived_s


@dataclass
class Run:
    """The outcome of one policy in one scenario."""

    policy: str
    frames: list[Frame]
    passed_over: int
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

    def p95_s(self, since_s: float = 0.0) -> float:
        """95th percentile of the latency, in seconds."""
        return float(np.percentile(self.latencies(since_s), 95))


class World:
    """
    Simulates one policy.

    The camera side is that of :mod:`dynsplit_ros.runtime.robot`: the newest image replaces one that waits;
    one payload is on the link until its receipt, at most three are unanswered; the next head starts just
    early enough to be ready when link and edge are free, and not while the link is busy for longer than it
    should be; now and then a newer image is waited for
    (:class:`~dynsplit_ros.runtime.freshness.Freshness`). A frame that is not answered in time is finished
    here by a second thread that shares the processor, and no new head starts meanwhile; an answer that
    comes before is still taken, and ends that work. After a frame that the edge failed, all are local until
    the monitor has taken it into account; predictions are in order.

    ``policy`` is 'dynamic', 'eager oracle', 'patient oracle' or a split index as text ('0' is full
    offloading, the local index local inference); fixed splits are the monitor's own pinned split, with its
    fallback and its choice of codec.

    The oracle takes, for each frame, when the head thread is free for it, the choice whose latency, from the
    image's arrival to its prediction, is truly least: it knows the future of link and load, the frame's own
    computation times and jitter, what is still on the link and in the edge's queue. It is bound to the same
    camera side, and does not weigh what a choice does to the frames behind it, which is where something that
    waits can do better. So there are two: the 'eager oracle' counts the time until link and edge are free for
    the frame, and rather computes here than waits; the 'patient oracle' does not count it. 'oracle' stands
    for whichever of them has the lower mean.
    """

    def __init__(
        self, profile: SystemProfile, scenario: Scenario, policy: str, settings: MonitorSettings | None = None
    ) -> None:
        self._profile = profile
        self._scenario = scenario
        self._policy = policy
        self._oracle = policy.endswith('oracle')
        self._patient = policy == 'patient oracle'
        base = settings or MonitorSettings()
        pinned = base.pinned_split if self._oracle or policy == 'dynamic' else int(policy)
        values = {
            **vars(base),
            'pinned_split': pinned,
            'batch': scenario.batch,
            'frame_rate_hz': scenario.frame_rate_hz,
            'downlink_ratio': scenario.downlink_ratio,
        }
        self._monitor = Monitor(profile, MonitorSettings(**values))
        self._settings = self._monitor.settings
        self._up, self._down = scenario.link, scenario.link.scaled(scenario.downlink_ratio)
        self._up_free_s = self._down_free_s = self._edge_free_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.now_s = 0.0
        images = int(scenario.duration_s * scenario.frame_rate_hz) + 1
        rng = np.random.default_rng([scenario.seed, 1])
        # Drawn per image, so that each policy meets the same fortune.
        self._noise = np.exp(scenario.noise * rng.standard_normal((images, 3))).tolist()
        self._delays = rng.exponential(scenario.jitter_s / 2 + 1e-12, (images, 3)).tolist()
        self._rng = np.random.default_rng([scenario.seed, 2])
        self._others = self._draw_others(np.random.default_rng([scenario.seed, 3]))
        self._other = 0
        # Camera
        self._waiting: tuple[int, float] | None = None
        self._freshness = Freshness()
        self._period_s = 1 / scenario.frame_rate_hz
        self._head_busy = False
        self._heading: tuple[Frame, Decision | None] | None = None
        self._staged: tuple[Frame, Decision | None] | None = None
        self._in_flight: dict[int, Frame] = {}
        self._due: dict[int, float] = {}  # when the receipt of each payload will be back
        self._distrusted = -1
        self._finishing: list[Frame] = []
        self._overdue: set[int] = set()  # frames being finished here whose answer may still come
        self._finish_busy: Frame | None = None
        self._sequence = -1
        self._next = 0
        self._done: dict[int, Frame] = {}
        self._pace = Pace()
        self._decision: Decision | None = None
        self._wake = 0
        # Processor shared by head and finish threads: remaining work of each
        self._work: dict[str, tuple[float, Callable[[], None]]] = {}
        self._worked_s = 0.0
        self._work_version = 0
        # Edge's report
        self._reports = 0
        self._period: list[tuple[float, float, float, bool]] = []  # start, wait, tail; whether another robot's
        # Results
        self._frames: list[Frame] = []
        self._passed_over = 0
        self._late = 0
        self._changes: list[float] = []
        self._estimates: list[tuple[float, float]] = []

    def run(self) -> Run:
        """Simulate, until every accepted frame is delivered."""
        for image in range(len(self._noise)):
            time_s = image / self._scenario.frame_rate_hz
            if time_s <= self._scenario.duration_s:
                self._at(time_s, lambda image=image: self._on_image(image))  # type: ignore[misc]
        if not self._oracle:
            self._at(0.0, self._on_tick)
        self._at(_REPORT_PERIOD_S, self._on_report)
        deadline_s = self._scenario.duration_s + 60.0
        while self._events:
            time_s, _, action = heapq.heappop(self._events)
            if time_s > deadline_s or (time_s > self._scenario.duration_s and not self._busy()):
                break
            self.now_s = time_s
            action()
        link = self._monitor.link
        return Run(
            self._policy,
            self._frames,
            self._passed_over,
            self._late,
            self._changes,
            self._estimates,
            link.payload_bytes,
            link.heartbeat_bytes,
            link.probe_bytes,
            self._up.integral(self.now_s) / 8,
        )

    def _busy(self) -> bool:
        return self._next <= self._sequence or self._waiting is not None

    def _at(self, time_s: float, action: Callable[[], None]) -> None:
        if math.isfinite(time_s):
            heapq.heappush(self._events, (time_s, next(self._order), action))

    # ---- camera --------------------------------------------------------------------------------------------

    def _on_image(self, image: int) -> None:
        if self._waiting is not None:
            self._passed_over += 1
        self._waiting = (image, self.now_s)
        self._changed()

    def _changed(self) -> None:
        """Whatever the camera's threads wait for may be so now."""
        if self._staged is not None:
            frame, order = self._staged
            if self._lost_since(order):
                self._staged, self._head_busy = None, False
                self._give_up(frame)
            elif not self._link_full():
                self._staged = None
                self._send(frame)
        if not self._head_busy and self._waiting is not None and not self._overdue:
            image, arrived_s = self._waiting
            split, codec, fallback_s, start_s, order = self._current(image, arrived_s)
            if start_s < math.inf:
                start_s = self._freshness.start_s(arrived_s, start_s, self._period_s, self.now_s)
            if start_s <= self.now_s + 1e-9:
                self._waiting = None
                self._freshness.took(self._period_s, self._monitor.waiting_share, self.now_s)
                self._take(image, arrived_s, split, codec, fallback_s, order)
            else:
                self._wake += 1
                version = self._wake
                self._at(start_s, lambda: self._changed() if version == self._wake else None)

    def _current(self, image: int, arrived_s: float) -> tuple[int, str, float, float, Decision | None]:
        """Return split, codec, fallback, the instant to start, and the decision followed."""
        local = self._profile.local_index
        if self._oracle:
            split, codec, start_s = self._best(image, arrived_s)
            return split, codec, math.inf, start_s, None
        order = self._decision
        if order is None or self._lost_since(order):
            return local, '', 0.0, self.now_s, order
        key = (order.split_index, order.codec)
        start_s = self.now_s
        if order.split_index != local and self._in_flight:
            slot_s = self._pace.free_s(key, self._in_flight.values())
            start_s = self._pace.start_s(key, slot_s, arrived_s + self._period_s, self._monitor.waiting_share)
            if start_s - self.now_s > order.local_if_wait_s:
                return local, '', 0.0, self.now_s, order
            if self._link_full() and slot_s <= self.now_s:
                start_s = (
                    math.inf
                )  # the link should be free and is not: wait for it, or for the decision to change
        return *key, order.fallback_after_s, start_s, order

    def _link_full(self) -> bool:
        on_link = sum(math.isnan(frame.received_s) for frame in self._in_flight.values())
        return on_link >= 1 or len(self._in_flight) >= 3

    def _lost_since(self, order: Decision | None) -> bool:
        if self._oracle:
            return False
        newest = self._decision
        if newest is not None and newest.degraded and order is not None and not order.degraded:
            return True
        return self._distrusted >= 0 and (order is None or order.last_frame < self._distrusted)

    def _take(
        self, image: int, arrived_s: float, split: int, codec: str, fallback_s: float, order: Decision | None
    ) -> None:
        self._sequence += 1
        self._head_busy = True
        frame = Frame(
            self._sequence,
            image,
            arrived_s,
            self.now_s,
            split,
            codec,
            fallback_s,
            rate_bps=self._up.at(self.now_s),
            estimate_bps=math.nan if self._oracle else self._monitor.link.throughput_bps,
        )
        self._run_head(frame, order)

    def _run_head(self, frame: Frame, order: Decision | None) -> None:
        split, codec = key = frame.split_index, frame.codec
        head_s, encode_s = self._head(frame.image, split, codec)
        self._heading = None if math.isfinite(frame.restarted_s) else (frame, order)
        started_s = self.now_s

        def done() -> None:
            self._heading = None
            spent_s = self.now_s - started_s
            self._pace.on_ready(key, spent_s)
            frame.head_s, frame.encode_s = spent_s - encode_s, encode_s
            frame.finishing_s = 2 * (spent_s - head_s - encode_s)  # two at once go at half speed
            if split == self._profile.local_index:
                self._head_busy = False
                frame.outcome = 'local'
                self._complete(frame)
                self._changed()
                return
            self._staged = (frame, order)
            self._changed()

        self._compute('head', head_s + encode_s, done)

    def _overtake(self) -> None:
        """Give up a head that would still take longer than all of what a newer decision promises."""
        newer = self._decision
        if self._heading is None or newer is None or newer.split_index == self._profile.local_index:
            return
        frame, order = self._heading
        left_s = self._pace.left_s((frame.split_index, frame.codec), self.now_s - frame.taken_s)
        changed = order is None or (newer.split_index, newer.codec) != (order.split_index, order.codec)
        if changed and not self._lost_since(newer) and newer.predicted_s < left_s:
            frame.restarted_s = self.now_s
            frame.split_index, frame.codec = newer.split_index, newer.codec
            frame.fallback_after_s = newer.fallback_after_s
            self._cease('head')
            self._run_head(frame, newer)

    def _send(self, frame: Frame) -> None:
        cut = self._profile.cuts[frame.split_index]
        codec = cut.codecs[frame.codec]
        batch = self._scenario.batch
        frame.payload_bytes = codec.payload_bytes[batch]
        frame.sent_s = self.now_s
        newest = self._decision
        if newest is not None and (newest.split_index, newest.codec) == (frame.split_index, frame.codec):
            frame.fallback_after_s = newest.fallback_after_s
        self._head_busy = False
        self._in_flight[frame.sequence] = frame
        if not self._oracle:
            self._monitor.on_sent(
                frame.sequence, self.now_s, frame.split_index, frame.codec, frame.payload_bytes
            )
            self._think()
            self._at(self.now_s + frame.fallback_after_s, lambda: self._on_deadline(frame))
        delays = self._delays[frame.image]
        arrives_s = self._transmit(frame.payload_bytes, delays[0])
        self._due[frame.sequence] = (
            self._down.end_of(arrives_s, _RECEIPT_BYTES * 8) + self._scenario.base_rtt_s / 2 + delays[1]
        )
        self._at(arrives_s, lambda: self._on_payload(frame))

    def _on_deadline(self, frame: Frame) -> None:
        if self._in_flight.get(frame.sequence) is frame:
            self._give_up(frame)

    def _give_up(self, frame: Frame) -> None:
        """Begin to finish a frame here; should its answer come first, that is taken."""
        frame.given_up_s = self.now_s
        frame.waited_s = self.now_s - frame.sent_s if math.isfinite(frame.sent_s) else 0.0
        self._overdue.add(frame.sequence)
        self._finishing.append(frame)
        self._finishing.sort(key=lambda other: other.sequence)
        self._finish()

    def _finish(self) -> None:
        if self._finish_busy is not None or not self._finishing:
            return
        frame = self._finishing.pop(0)
        self._finish_busy = frame
        started_s = self.now_s

        def done() -> None:
            self._finish_busy = None
            self._overdue.discard(frame.sequence)
            self._in_flight.pop(frame.sequence, None)
            self._distrusted = max(self._distrusted, frame.sequence)
            frame.outcome = 'fell_back'
            frame.finish_s = self.now_s - started_s
            self._complete(frame)
            self._finish()
            self._changed()

        cut = self._profile.cuts[frame.split_index]
        self._compute('finish', cut.finish_s[self._scenario.batch] * self._noise[frame.image][1], done)

    def _complete(self, frame: Frame) -> None:
        frame.done_s = self.now_s
        self._done[frame.sequence] = frame
        while self._next in self._done:
            ready = self._done.pop(self._next)
            self._next += 1
            ready.delivered_s = self.now_s
            self._frames.append(ready)
            if not self._oracle:
                self._monitor.on_frame(
                    FrameObservation(
                        sequence=ready.sequence,
                        outcome=ready.outcome,
                        split_index=ready.split_index,
                        codec=ready.codec,
                        batch=self._scenario.batch,
                        payload_bytes=ready.payload_bytes,
                        answer_bytes=self._answer_bytes,
                        sent_s=ready.sent_s,
                        received_s=ready.received_s,
                        answered_s=ready.answered_s,
                        given_up_s=ready.given_up_s,
                        held_s=ready.held_s,
                        queueing_s=ready.queueing_s,
                        decode_s=ready.decode_s,
                        tail_s=ready.tail_s,
                        head_s=ready.head_s,
                        finishing_s=ready.finishing_s,
                        encode_s=ready.encode_s,
                        finish_s=ready.finish_s,
                        latency_s=ready.latency_s,
                    )
                )
        self._think()

    @property
    def _answer_bytes(self) -> int:
        return self._profile.answer_bytes * self._scenario.batch

    def _head(self, image: int, split: int, codec: str) -> tuple[float, float]:
        cut, batch = self._profile.cuts[split], self._scenario.batch
        noise = self._noise[image][0]
        encode_s = cut.codecs[codec].encode_s[batch] if codec else 0.0
        return cut.head_s[batch] * noise, encode_s * noise

    def _compute(self, thread: str, work_s: float, done: Callable[[], None]) -> None:
        """Run ``work_s`` of computation in a thread; two threads at once go at half speed."""
        self._progress()
        self._work[thread] = (work_s, done)
        self._schedule_work()

    def _cease(self, thread: str) -> None:
        """End a thread's computation before it is done."""
        self._progress()
        del self._work[thread]
        self._schedule_work()

    def _progress(self) -> None:
        if self._work:
            share = (self.now_s - self._worked_s) / len(self._work)
            self._work = {thread: (left - share, done) for thread, (left, done) in self._work.items()}
        self._worked_s = self.now_s

    def _schedule_work(self) -> None:
        self._work_version += 1
        if not self._work:
            return
        version = self._work_version
        thread, (left, _) = min(self._work.items(), key=lambda item: item[1][0])

        def finished() -> None:
            if version == self._work_version:
                self._progress()
                _, done = self._work.pop(thread)
                self._schedule_work()
                done()

        self._at(self.now_s + max(0.0, left) * len(self._work), finished)

    # ---- monitor -------------------------------------------------------------------------------------------

    def _think(self) -> None:
        decision = self._monitor.tick(self.now_s)
        if decision is not None:
            if decision.changed:
                self._changes.append(self.now_s)
            self._decision = decision
            if decision.degraded:
                for frame in [frame for frame in self._in_flight.values() if frame.sequence not in self._overdue]:
                    self._give_up(frame)
            self._overtake()
            self._changed()

    def _on_tick(self) -> None:
        probe = self._monitor.next_probe(self.now_s)
        if probe is not None:
            delay, back = self._rng.exponential(self._scenario.jitter_s / 2 + 1e-12, 2)
            arrives_s = self._transmit(probe.payload_bytes, delay)

            def arrived() -> None:
                answered_s = self._transmit_back(_RECEIPT_BYTES, back)

                def answered() -> None:
                    self._monitor.on_probe_answer(probe.id, self.now_s, 0.0)
                    self._think()

                self._at(answered_s, answered)

            self._at(arrives_s, arrived)
        self._think()
        link = self._monitor.link
        self._estimates.append((self.now_s, link.throughput_bps if link.alive else 0.0))
        if self.now_s < self._scenario.duration_s or self._busy():
            self._at(self.now_s + _TICK_S, self._on_tick)

    # ---- link and edge -------------------------------------------------------------------------------------

    def _transmit(self, size_bytes: int, delay_s: float) -> float:
        """Put bytes on the uplink, which carries one message after the other; return when they arrive."""
        self._up_free_s = self._up.end_of(max(self.now_s, self._up_free_s), size_bytes * 8)
        return self._up_free_s + self._scenario.base_rtt_s / 2 + delay_s

    def _transmit_back(self, size_bytes: int, delay_s: float) -> float:
        self._down_free_s = self._down.end_of(max(self.now_s, self._down_free_s), size_bytes * 8)
        return self._down_free_s + self._scenario.base_rtt_s / 2 + delay_s

    def _draw_others(self, rng: np.random.Generator) -> list[float]:
        """Arrivals of other robots' frames: a Poisson process of the given rate."""
        arrivals: list[float] = []
        amount = 0.0
        while True:
            amount += float(rng.exponential(1.0))
            time_s = self._scenario.others_hz.end_of(0.0, amount)
            if time_s > self._scenario.duration_s + 60:
                return arrivals
            arrivals.append(time_s)

    def _serve_others(self, until_s: float, first: int, free_s: float, note: bool) -> tuple[int, float]:
        """Let the others' frames that arrive until ``until_s`` queue; return the next one and when the edge is free."""
        while first < len(self._others) and self._others[first] <= until_s:
            arrived_s = self._others[first]
            start_s = max(arrived_s, free_s)
            slowdown = self._scenario.slowdown.at(start_s)
            free_s = start_s + self._scenario.others_s * slowdown
            if note:
                self._period.append((start_s, start_s - arrived_s, self._scenario.others_s * slowdown, True))
            first += 1
        return first, free_s

    def _on_payload(self, frame: Frame) -> None:
        receipt_s = self._transmit_back(_RECEIPT_BYTES, self._delays[frame.image][1])
        self._at(receipt_s, lambda: self._on_receipt(frame))
        self._other, self._edge_free_s = self._serve_others(self.now_s, self._other, self._edge_free_s, True)
        arrived_s, start_s = self.now_s, max(self.now_s, self._edge_free_s)
        if start_s - arrived_s > frame.fallback_after_s:
            return  # its robot will not wait so long, so the edge does not work on it
        slowdown = self._scenario.slowdown.at(start_s)
        cut, batch = self._profile.cuts[frame.split_index], self._scenario.batch
        noise = self._noise[frame.image][2] * slowdown
        decode_s, tail_s = cut.codecs[frame.codec].decode_s[batch] * noise, cut.tail_s[batch] * noise
        self._edge_free_s = start_s + decode_s + tail_s
        self._period.append((start_s, start_s - arrived_s, tail_s, False))

        def answer() -> None:
            times = (self.now_s - arrived_s, start_s - arrived_s, decode_s, tail_s)
            answered_s = self._transmit_back(self._answer_bytes, self._delays[frame.image][2])
            self._at(answered_s, lambda: self._on_answer(frame, times))

        self._at(self._edge_free_s, answer)

    def _on_receipt(self, frame: Frame) -> None:
        if self._in_flight.get(frame.sequence) is frame:
            frame.received_s = self.now_s
            self._pace.on_received((frame.split_index, frame.codec), self.now_s - frame.sent_s)
        if not self._oracle:
            self._monitor.on_receipt(frame.sequence, self.now_s)
            self._think()
        self._changed()

    def _on_answer(self, frame: Frame, times: tuple[float, float, float, float]) -> None:
        if self._in_flight.pop(frame.sequence, None) is None:
            self._late += 1
            held_s, queueing_s, decode_s, tail_s = times
            self._monitor.on_frame(
                FrameObservation(
                    frame.sequence,
                    'late',
                    frame.split_index,
                    frame.codec,
                    self._scenario.batch,
                    frame.payload_bytes,
                    self._answer_bytes,
                    frame.sent_s,
                    answered_s=self.now_s,
                    held_s=held_s,
                    queueing_s=queueing_s,
                    decode_s=decode_s,
                    tail_s=tail_s,
                )
            )
            self._think()
            return
        self._overdue.discard(frame.sequence)
        self._finishing = [other for other in self._finishing if other is not frame]
        if self._finish_busy is frame:  # no need to finish what is answered
            self._cease('finish')
            self._finish_busy = None
            self._finish()
        frame.answered_s = self.now_s
        frame.held_s, frame.queueing_s, frame.decode_s, frame.tail_s = times
        if math.isnan(frame.given_up_s):
            frame.waited_s = self.now_s - frame.sent_s
        frame.outcome = 'answered'
        self._pace.on_answered(frame, self.now_s, frame.held_s)
        self._complete(frame)
        self._changed()

    def _on_report(self) -> None:
        self._other, self._edge_free_s = self._serve_others(self.now_s, self._other, self._edge_free_s, True)
        since_s = self.now_s - _REPORT_PERIOD_S
        jobs = [job for job in self._period if job[0] <= self.now_s]
        self._period = [job for job in self._period if job[0] > self.now_s]
        busy_s = sum(tail_s for _, _, tail_s, _ in jobs)
        # As the edge itself has it: only others' frames count, each while it is before one that comes meanwhile.
        others_s2 = sum(tail_s * (wait_s + tail_s / 2) for _, wait_s, tail_s, other in jobs if other)
        self._reports += 1
        report = LoadReport(
            session=1,
            sequence=self._reports,
            utilisation=min(1.0, busy_s / (self.now_s - since_s)),
            queue_length=len(self._period),
            queueing_s=others_s2 / _REPORT_PERIOD_S,
            slowdown=self._scenario.slowdown.at(self.now_s) if jobs else 1.0,
            period_s=_REPORT_PERIOD_S,
        )
        arrives_s = self._transmit_back(
            _REPORT_BYTES, float(self._rng.exponential(self._scenario.jitter_s / 2 + 1e-12))
        )

        def arrived() -> None:
            self._monitor.on_load(report, self.now_s)
            self._think()

        if not self._oracle:
            self._at(arrives_s, arrived)
        if self.now_s < self._scenario.duration_s or self._busy():
            self._at(self.now_s + _REPORT_PERIOD_S, self._on_report)

    # ---- oracles -------------------------------------------------------------------------------------------

    def _best(self, image: int, arrived_s: float) -> tuple[int, str, float]:
        """Return the choice of least true latency for this image, and when its head must start."""
        profile, batch = self._profile, self._scenario.batch
        local = profile.local_index
        best = (self.now_s + self._head(image, local, '')[0], local, '', self.now_s)
        slot_s = self._true_slot_s()
        edge_s = self._serve_others(self.now_s, self._other, self._edge_free_s, False)[1]
        base_s = self._scenario.base_rtt_s / 2
        delays, noise = self._delays[image], self._noise[image][2]
        for cut in profile.cuts[self._settings.shallowest_split : local]:
            for name, codec in cut.codecs.items():
                if name not in self._settings.codecs:
                    continue
                ready_s = sum(self._head(image, cut.index, name))
                send_s = max(self.now_s + ready_s, slot_s)
                arrives_s = (
                    self._up.end_of(max(send_s, self._up_free_s), codec.payload_bytes[batch] * 8)
                    + base_s
                    + delays[0]
                )
                if math.isinf(arrives_s):
                    continue
                # No need to be at the edge before it is free; a newer image may come until then.
                take_s = max(self.now_s, send_s - ready_s + max(0.0, edge_s - arrives_s))
                free_s = self._serve_others(arrives_s, self._other, self._edge_free_s, False)[1]
                start_s = max(arrives_s, free_s)
                served_s = (
                    (codec.decode_s[batch] + cut.tail_s[batch]) * noise * self._scenario.slowdown.at(start_s)
                )
                back_s = max(start_s + served_s, self._down_free_s)
                done_s = self._down.end_of(back_s, self._answer_bytes * 8) + base_s + delays[2]
                if self._patient:
                    done_s -= take_s - self.now_s
                if done_s < best[0]:
                    best = (done_s, cut.index, name, take_s)
        return best[1], best[2], best[3]

    def _true_slot_s(self) -> float:
        """When the link takes the next payload."""
        if not self._link_full():
            return self.now_s
        on_link = [
            self._due[frame.sequence] for frame in self._in_flight.values() if math.isnan(frame.received_s)
        ]
        answers = [self._edge_free_s] if len(self._in_flight) >= 3 else []
        return max(self.now_s, *on_link, *answers)


def simulate(
    profile: SystemProfile,
    scenario: Scenario,
    policy: str = 'dynamic',
    settings: MonitorSettings | None = None,
) -> Run:
    """Run one policy in one scenario; 'oracle' is the better of the two oracles. See :class:`World`."""
    if policy == 'oracle':
        runs = [World(profile, scenario, name, settings).run() for name in ('eager oracle', 'patient oracle')]
        return min(runs, key=Run.mean_s)
    return World(profile, scenario, policy, settings).run()
