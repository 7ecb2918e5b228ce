# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A simulated edge: the edge's policy with simulated tails, for simulated robots and for other robots."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
import heapq
import math
from typing import Any, Protocol

from dynsplit_ros.policies.edge import (
    Acknowledge,
    Action,
    Answer,
    EdgePolicy,
    EdgeSettings,
    PrepareTail,
    ReportLoad,
    RunTail,
    ServedModel,
)
from dynsplit_ros.policies.records import EdgeFrame
from dynsplit_ros.policies.wake import WakeAt
from dynsplit_ros.profile.profile import SystemProfile
from dynsplit_ros.simulation.link import ProcessClock
from dynsplit_ros.simulation.timeline import Timeline
from dynsplit_ros.simulation.trace import Trace

ROBOT = '/robot'
REPORT_PERIOD_S = 0.1


class ServedRobot(Protocol):
    """The messages of the simulated edge to a robot."""

    def acknowledge(self, edge: SimulatedEdge, frame: EdgeFrame) -> None:
        """Put the edge's acknowledgement of this robot's frame on the downlink."""

    def answer(self, edge: SimulatedEdge, frame: EdgeFrame) -> None:
        """Put the edge's answer to this robot's frame on the downlink."""

    def report_load(self, edge: SimulatedEdge, action: ReportLoad) -> None:
        """Put a load report of the edge on the downlink."""


class SimulatedEdge:
    """
    Drives :class:`~dynsplit_ros.policies.edge.EdgePolicy`, the one that the edge node runs.

    ``other_robots`` other robots take turns to send frames at the instants ``others_at_s``. Their frames are of an
    additional cut, whose tail takes ``others_s`` seconds. All tails take ``slowdown`` times as long, and run only while
    ``clock`` lets the edge run. The round trip to this edge is ``extra_rtt_s`` longer than that of the robot's link.
    ``servers`` is the number of tails that run at the same time. ``robots`` are the simulated robots by name.
    """

    def __init__(
        self,
        profile: SystemProfile,
        timeline: Timeline,
        clock: ProcessClock,
        *,
        name: str,
        extra_rtt_s: float = 0.0,
        slowdown: Trace,
        others_at_s: list[float],
        other_robots: int,
        others_s: float,
        batch: int,
        servers: int = 1,
    ) -> None:
        self.timeline = timeline
        self.robots: dict[str, ServedRobot] = {}
        self.clock = clock
        self.name = name
        self.extra_rtt_s = extra_rtt_s
        self.is_alive = True
        #: While false, messages to this edge and from it are lost.
        self.is_reachable = True
        self._life = 1  # the number of the process: actions of an earlier process do not happen
        self._slowdown = slowdown
        self._others_at_s = others_at_s
        self._other_robots = other_robots
        self._others_s = others_s
        self._others_index = profile.local_index
        cuts = profile.cuts[:-1]
        self._fingerprint = profile.fingerprint
        payload_bytes = [max(codec.payload_bytes[batch] for codec in cut.codecs.values()) for cut in cuts]
        model = ServedModel(
            profile.fingerprint,
            [*payload_bytes, 0],
            sorted({name for cut in cuts for name in cut.codecs}),
            [*(cut.tail_s for cut in cuts), {1: others_s}],
            engines={
                engine: {cut.index: cut.engine_tail_s[engine] for cut in cuts if engine in cut.engine_tail_s}
                for engine in {name for cut in cuts for name in cut.engine_tail_s}
            },
        )
        self._settings = EdgeSettings(max_images=batch, load_period_s=REPORT_PERIOD_S)
        self._servers = servers
        self.policy = EdgePolicy(model, self._settings, self._life, name, servers)
        self._runs_end_s = [0.0] * servers  # when each server is free
        self._wake_s = math.inf

    def start(self) -> None:
        """Begin the load reports and the other robots' frames."""
        self._handle(self.policy.on_start)
        self._next_other(0)

    def kill(self) -> None:
        """End the process; its frames are lost."""
        self.is_alive = False
        self._life += 1

    def restart(self) -> None:
        """Start another process after :meth:`kill`."""
        self.is_alive = True
        self.policy = EdgePolicy(self.policy.model, self._settings, self._life, self.name, self._servers)
        self._runs_end_s = [self.timeline.now_s] * self._servers
        self._wake_s = math.inf
        self._handle(self.policy.on_start)

    @property
    def is_receiving(self) -> bool:
        """Whether the edge takes a message that arrives now."""
        return self.is_alive and self.is_reachable

    def _at(self, time_s: float, action: Callable[[], None]) -> None:
        """Schedule an action of this process at an instant; it happens only if the process is still alive."""
        life = self._life
        self.timeline.at(time_s, lambda: action() if life == self._life else None)

    def submit(
        self,
        robot: str,
        source: Any,
        split_index: int,
        codec: str,
        answer_timeout_s: float,
        payload_bytes: int,
        images: int,
        tail_engine: str,
        service_s: tuple[float, float],
    ) -> None:
        """Take a frame of a robot; ``service_s`` are the seconds of decoding and tail without slowdown."""
        self._handle(
            self.policy.on_activation,
            EdgeFrame(
                robot,
                source,
                self._fingerprint,
                split_index,
                codec,
                answer_timeout_s,
                payload=service_s,
                payload_bytes=payload_bytes,
                images=images,
                tail_engine=tail_engine,
            ),
        )

    def on_decision(self, robot: str, split_index: int, codec: str, tail_engine: str) -> None:
        """Take the split that a robot announces; the index of the other robots' cut is that before local inference."""
        index = split_index if split_index < self._others_index else self.policy.model.local_index
        if self.is_receiving:
            self._handle(self.policy.on_decision, robot, self._fingerprint, index, codec, tail_engine)

    def on_decision_elsewhere(self, robot: str) -> None:
        """Take a decision of a robot for another edge."""
        if self.is_receiving:
            self._handle(self.policy.on_decision_elsewhere, robot)

    def free_s(self, until_s: float) -> float:
        """
        Return when a server is free after the waiting frames and those that other robots send until an instant.

        The result assumes first come, first served; the policy may serve a robot earlier.
        """
        free_s, now_s = sorted(self._runs_end_s), self.timeline.now_s
        first, last = (bisect_right(self._others_at_s, time_s) for time_s in (now_s, until_s))
        for arrival_s, service_s in (
            *((now_s, sum(frame.payload)) for frame in self.policy.waiting),
            *((arrival_s, self._others_s) for arrival_s in self._others_at_s[first:last]),
        ):
            start_s = max(free_s[0], arrival_s)
            heapq.heapreplace(free_s, start_s + service_s * self._slowdown.at(start_s))
        return free_s[0]

    def _next_other(self, number: int) -> None:
        def arrive() -> None:
            if self.is_alive:
                self._handle(
                    self.policy.on_activation,
                    EdgeFrame(
                        f'/other{number % self._other_robots}',
                        None,
                        self._fingerprint,
                        self._others_index,
                        'raw',
                        math.inf,
                        payload=(0.0, self._others_s),
                    ),
                )
            self._next_other(number + 1)

        if number < len(self._others_at_s):
            self.timeline.at(self._others_at_s[number], arrive)

    def _handle(self, event: Callable[..., list[Action]], *values: Any) -> None:
        """Pass an event to the policy, and carry out the actions that follow; each one only schedules events."""
        for action in event(*values, now_s=self.timeline.now_s):
            match action:
                case Acknowledge() | Answer() | ReportLoad() if not self.is_reachable:
                    pass
                case Acknowledge(frame) if frame.robot in self.robots:
                    self.robots[frame.robot].acknowledge(self, frame)
                case Answer(frame) if frame.robot in self.robots:
                    self.robots[frame.robot].answer(self, frame)
                case RunTail():
                    self._run(action)
                case ReportLoad():
                    for robot in self.robots.values():
                        robot.report_load(self, action)
                case PrepareTail():  # takes no time here
                    self._at(self.timeline.now_s, lambda: self._handle(self.policy.on_prepared, True))
                case WakeAt(at_s):
                    self._wake_s = at_s
                    self._at(self.clock.after(at_s), lambda at_s=at_s: self._wake(at_s))  # type: ignore[misc]

    def _wake(self, at_s: float) -> None:
        if at_s == self._wake_s:
            self._handle(self.policy.on_time)

    def _run(self, run: RunTail) -> None:
        (frame,) = run.frames  # without max_batch, no frames share a run
        started_s = run.started_s
        decode_s, tail_s = frame.payload
        slowdown = self._slowdown.at(started_s)
        decoded_s = self.clock.end_of(started_s, decode_s * slowdown)
        ends_s = self.clock.end_of(decoded_s, tail_s * slowdown)
        server = min(range(self._servers), key=self._runs_end_s.__getitem__)
        self._runs_end_s[server] = ends_s

        def end() -> None:
            self._handle(self.policy.on_tail_done, run, [None], self.timeline.now_s - decoded_s)

        self._at(ends_s, end)
