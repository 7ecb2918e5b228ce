# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A simulated edge: simulated tails around the edge's policy, for this robot and for others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
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
    WakeAt,
)
from dynsplit_ros.policies.records import EdgeFrame
from dynsplit_ros.profile.profile import SystemProfile
from dynsplit_ros.simulation.link import ProcessClock
from dynsplit_ros.simulation.trace import Trace

ROBOT = '/robot'
REPORT_PERIOD_S = 0.1


class Surroundings(Protocol):
    """What the simulated edge needs of the simulation."""

    now_s: float

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Have something happen at an instant."""

    def acknowledge(self, edge: SimulatedEdge, frame: EdgeFrame) -> None:
        """Put the edge's acknowledgement of this robot's frame on the downlink."""

    def answer(self, edge: SimulatedEdge, frame: EdgeFrame) -> None:
        """Put the edge's answer to this robot's frame on the downlink."""

    def report_load(self, edge: SimulatedEdge, action: ReportLoad) -> None:
        """Put a load report of the edge on the downlink."""


class SimulatedEdge:
    """
    Drives :class:`~dynsplit_ros.policies.edge.EdgePolicy`, the one that the edge node runs.

    Other robots send frames at the instants ``others_at_s`` in turn, ``other_robots`` of them. Their frames are of one
    more cut, whose tail takes ``others_s`` seconds. All tails take ``slowdown`` times as long as that, and go on only
    while ``clock`` lets the edge run. Messages to this edge and back take ``extra_rtt_s`` longer than the robot's link.
    """

    def __init__(
        self,
        profile: SystemProfile,
        world: Surroundings,
        clock: ProcessClock,
        *,
        name: str,
        extra_rtt_s: float = 0.0,
        slowdown: Trace,
        others_at_s: list[float],
        other_robots: int,
        others_s: float,
        batch: int,
    ) -> None:
        self._world = world
        self.clock = clock
        self.name = name
        self.extra_rtt_s = extra_rtt_s
        self.is_alive = True
        self._life = 1  # the number of the process: what an earlier one had planned does not happen
        self._slowdown = slowdown
        self._others_at_s = others_at_s
        self._other_robots = other_robots
        self._others_s = others_s
        self._others_index = profile.local_index
        cuts = profile.cuts[:-1]
        self._fingerprint = profile.fingerprint
        payload_bytes = [max(codec.payload_bytes[batch] for codec in cut.codecs.values()) for cut in cuts]
        model = ServedModel(
            profile.fingerprint, [*payload_bytes, 0], sorted({name for cut in cuts for name in cut.codecs}),
            [*(cut.tail_s for cut in cuts), {1: others_s}],
            engines={engine: {cut.index: cut.engine_tail_s[engine] for cut in cuts if engine in cut.engine_tail_s}
                     for engine in {name for cut in cuts for name in cut.engine_tail_s}})
        self._settings = EdgeSettings(max_images=batch, load_period_s=REPORT_PERIOD_S)
        self.policy = EdgePolicy(model, self._settings, self._life, name)
        self._run_ends_s = 0.0
        self._wake_s = math.inf

    def start(self) -> None:
        """Begin the load reports and the other robots' frames."""
        self._happen(self.policy.on_start)
        self._next_other(0)

    def kill(self) -> None:
        """End the process: what it had to do is lost."""
        self.is_alive = False
        self._life += 1

    def restart(self) -> None:
        """Start another process after :meth:`kill`."""
        self.is_alive = True
        self.policy = EdgePolicy(self.policy.model, self._settings, self._life, self.name)
        self._run_ends_s = self._world.now_s
        self._wake_s = math.inf
        self._happen(self.policy.on_start)

    def _at(self, time_s: float, action: Callable[[], None]) -> None:
        """Have this process do something at an instant, if it lives by then."""
        life = self._life
        self._world.at(time_s, lambda: action() if life == self._life else None)

    def submit(self, source: Any, split_index: int, codec: str, answer_timeout_s: float, payload_bytes: int,
               images: int, tail_engine: str, service_s: tuple[float, float]) -> None:
        """Take a frame of this robot; ``service_s`` are the seconds of decoding and tail without slowdown."""
        self._happen(self.policy.on_activation, EdgeFrame(
            ROBOT, source, self._fingerprint, split_index, codec, answer_timeout_s, payload=service_s,
            payload_bytes=payload_bytes, images=images, tail_engine=tail_engine))

    def on_decision(self, split_index: int, codec: str, tail_engine: str) -> None:
        """Take the split that this robot announces; the other robots' cut comes before local inference."""
        index = split_index if split_index < self._others_index else self.policy.model.local_index
        if self.is_alive:
            self._happen(self.policy.on_decision, ROBOT, self._fingerprint, index, codec, tail_engine)

    def on_decision_elsewhere(self) -> None:
        """Take a decision of this robot for another edge."""
        if self.is_alive:
            self._happen(self.policy.on_decision_elsewhere, ROBOT)

    def free_s(self, until_s: float) -> float:
        """
        Return when the edge has served all that waits now and all that other robots send until an instant.

        It takes frames as first come, first served; the policy may serve this robot earlier.
        """
        free_s = self._run_ends_s
        for frame in self.policy.waiting:
            start_s = max(free_s, self._world.now_s)
            free_s = start_s + sum(frame.payload) * self._slowdown.at(start_s)
        first, last = (bisect_right(self._others_at_s, time_s) for time_s in (self._world.now_s, until_s))
        for arrival_s in self._others_at_s[first:last]:
            start_s = max(free_s, arrival_s)
            free_s = start_s + self._others_s * self._slowdown.at(start_s)
        return free_s

    def _next_other(self, number: int) -> None:
        def arrive() -> None:
            if self.is_alive:
                self._happen(self.policy.on_activation, EdgeFrame(
                    f'/other{number % self._other_robots}', None, self._fingerprint, self._others_index, 'raw',
                    math.inf, payload=(0.0, self._others_s)))
            self._next_other(number + 1)

        if number < len(self._others_at_s):
            self._world.at(self._others_at_s[number], arrive)

    def _happen(self, event: Callable[..., list[Action]], *values: Any) -> None:
        """Pass an event to the policy, and carry out the actions that follow; each one only schedules events."""
        for action in event(*values, now_s=self._world.now_s):
            match action:
                case Acknowledge(frame) if frame.robot == ROBOT:
                    self._world.acknowledge(self, frame)
                case Answer(frame) if frame.robot == ROBOT:
                    self._world.answer(self, frame)
                case RunTail(frames):
                    self._run(frames)
                case ReportLoad():
                    self._world.report_load(self, action)
                case PrepareTail():  # takes no time here
                    self._at(self._world.now_s, lambda: self._happen(self.policy.on_prepared, True))
                case WakeAt(at_s):
                    self._wake_s = at_s
                    self._at(self.clock.after(at_s), lambda at_s=at_s: self._wake(at_s))  # type: ignore[misc]

    def _wake(self, at_s: float) -> None:
        if at_s == self._wake_s:
            self._happen(self.policy.on_time)

    def _run(self, frames: tuple[EdgeFrame, ...]) -> None:
        (frame,) = frames  # without max_batch, no frames share a run
        started_s = self._world.now_s
        decode_s, tail_s = frame.payload
        slowdown = self._slowdown.at(started_s)
        decoded_s = self.clock.end_of(started_s, decode_s * slowdown)
        self._run_ends_s = self.clock.end_of(decoded_s, tail_s * slowdown)

        def end() -> None:
            self._happen(self.policy.on_tail_done, [None])
            self._happen(self.policy.on_answers_sent)

        self._at(decoded_s, lambda: self._happen(self.policy.on_decoded))
        self._at(self._run_ends_s, end)
