# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Predicts when to start an image so that its payload is ready when link and edge are free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
import heapq
import math
from typing import Protocol

from dynsplit_ros.policies.records import Choice
from dynsplit_ros.protocol import MOST_EDGES

#: Weight of the newest frame in the mean service time of the edge (0 to 1). With 1, one slow tail would delay the next
#: head; a much smaller weight follows an edge that becomes slower too late.
_SERVICE_WEIGHT = 0.3
#: Default and largest value of camera_node's parameter max_unanswered, the number of frames of a robot that wait for
#: their answers. Fewer than 3 leave an edge idle while answers travel. The largest value also bounds the servers that
#: the scheduler counts: no more of them ever have a frame of this robot.
DEFAULT_UNANSWERED, MAX_UNANSWERED = 3, 16


class Unanswered(Protocol):
    """A frame without an answer: its choice and edge, and when it was sent and acknowledged (NaN: not yet)."""

    edge: str
    split_index: int
    codec: str
    sent_s: float
    acknowledged_s: float


@dataclass
class _EdgeTimes:
    """Latest durations with one edge (s): transfers by choice, service times by split; when its servers were free."""

    transfer_s: dict[Choice, float] = field(default_factory=dict)
    # By split only: decoding is a small part of the service time.
    service_s: dict[int, float] = field(default_factory=dict)
    #: When each server finished the latest frame of this robot, ascending.
    done_s: list[float] = field(default_factory=lambda: [-math.inf])


class SendScheduler:
    """
    Predicts from the latest durations of each choice when the next head may start.

    All durations are in seconds, from the robot's clock and the times that each edge reports.
    """

    def __init__(self) -> None:
        self._ready_s: dict[Choice, float] = {}
        self._edges: dict[str, _EdgeTimes] = {}

    def _times(self, edge: str) -> _EdgeTimes:
        if edge not in self._edges and len(self._edges) >= MOST_EDGES:
            del self._edges[next(iter(self._edges))]
        return self._edges.setdefault(edge, _EdgeTimes())

    def on_servers(self, servers: int, edge: str = '') -> None:
        """Note the number of frames that an edge can run at the same time; at least 1 counts."""
        servers, times = min(max(1, servers), MAX_UNANSWERED), self._times(edge)
        times.done_s = sorted([-math.inf] * servers + times.done_s)[-servers:]

    def on_ready(self, choice: Choice, spent_s: float) -> None:
        """Note the time from a frame's start until its payload was ready or, for local inference, until it was done."""
        self._ready_s[choice] = spent_s

    def on_acknowledged(self, choice: Choice, spent_s: float, edge: str = '') -> None:
        """Note the time from sending a payload to its acknowledgement."""
        self._times(edge).transfer_s[choice] = spent_s

    def on_answered(self, frame: Unanswered, answered_s: float, held_s: float) -> None:
        """Note when a frame's answer arrived, and how long the edge held the frame."""
        edge, acknowledged_s = self._times(frame.edge), self._acknowledged_s(frame)
        done_s = min(acknowledged_s + held_s, answered_s) if held_s >= 0 else answered_s
        # The edge starts a frame when it has arrived and a server is free.
        service_s = max(0.0, done_s - max(acknowledged_s, edge.done_s[0]))
        edge.done_s = sorted([*edge.done_s, done_s])[1:]
        before_s = edge.service_s.get(frame.split_index, service_s)
        edge.service_s[frame.split_index] = before_s + _SERVICE_WEIGHT * (service_s - before_s)

    def _acknowledged_s(self, frame: Unanswered) -> float:
        if math.isnan(frame.acknowledged_s):
            return frame.sent_s + self._times(frame.edge).transfer_s.get((frame.split_index, frame.codec), 0.0)
        return frame.acknowledged_s

    def remaining_s(self, choice: Choice, spent_s: float) -> float:
        """Return the remaining time of a head after ``spent_s`` seconds; at most 0 without a measurement."""
        return self._ready_s.get(choice, 0.0) - spent_s

    def send_s(self, choice: Choice, unanswered: Iterable[Unanswered], to_edge: str = '') -> float:
        """Return when a payload may leave to find link and edge free; -inf for any time."""
        edge = self._times(to_edge)
        send_s, done_s = -math.inf, edge.done_s.copy()
        for frame in unanswered:
            acknowledged_s = self._acknowledged_s(frame)
            if math.isnan(frame.acknowledged_s):
                send_s = max(send_s, acknowledged_s)
            if frame.edge == to_edge:
                heapq.heapreplace(done_s, max(acknowledged_s, done_s[0]) + edge.service_s.get(frame.split_index, 0.0))
                send_s = max(send_s, done_s[0] - edge.transfer_s.get(choice, math.inf))
        return send_s

    def start_s(self, choice: Choice, send_s: float) -> float:
        """Return when to start an image whose payload may leave at ``send_s``."""
        return send_s - self._ready_s.get(choice, math.inf)
