# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How busy the edge is: utilisation, queueing delay and slowdown over a report's period."""

from __future__ import annotations

from collections.abc import Collection
import math

from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.policies.edge_queue import FairQueue, RobotQueue
from dynsplit_ros.policies.records import Tail


class LoadMeter:
    """
    Measures the load of the edge from the runs of its tails.

    ``unloaded_s`` is the time of a tail on this machine when nothing else runs, by tail and images. If it is empty,
    the fastest run of each tail so far takes its place. ``edge`` and ``session`` are the edge's name and run in the
    reports. ``servers`` is the number of tails that can run at the same time.
    """

    def __init__(
        self, unloaded_s: dict[tuple[Tail, int], float], edge: str = '', session: int = 0, servers: int = 1
    ) -> None:
        self._edge, self._session = edge, session
        self._learns = not unloaded_s
        self._unloaded_s = dict(unloaded_s)
        self._reports = 0
        self._slowdown = 1.0  # of the latest tails
        self._since_s = math.nan  # start of the period
        self._servers = servers
        self._running = 0
        self._counted_s = math.nan  # instant up to which the two below count
        self._busy_s = self._capacity_s = 0.0  # seconds of all busy servers, and of all servers
        self._full_s = math.nan  # when the last server became busy; NaN: one is free
        self._ahead: list[tuple[RobotQueue, float]] = []
        self._tail_s = self._expected_s = 0.0
        self._answered = 0

    def start(self, now_s: float) -> None:
        """Begin the first period."""
        self._since_s = self._counted_s = now_s

    def set_unloaded(self, unloaded_s: dict[tuple[Tail, int], float]) -> None:
        """Use these times of unloaded tails from now on."""
        self._learns, self._unloaded_s = not unloaded_s, dict(unloaded_s)

    def set_servers(self, servers: int, now_s: float) -> None:
        """Note how many servers there are from now on."""
        self._count(now_s)
        if servers > self._servers:
            self._end_full(now_s)
        self._servers = servers

    def begin_run(self, first: RobotQueue | None, under_way: Collection[str], robots: FairQueue, now_s: float) -> None:
        """
        Note that a run begins with the first frame of the queue ``first`` (None: with frames of a lost server).

        ``under_way`` names the robots with frames in a run, this one included. If no server is free from now on, frames
        of other robots wait for this run. This also counts for a frame that would have arrived since the run's first
        frame became first, unless its robot was served longer ago.
        """
        self._count(now_s)
        self._running += 1
        if self._running >= self._servers:
            self._full_s = now_s
            self._ahead = [
                (queue, now_s - first.first_s if first and first.served_s < queue.served_s else 0.0)
                for robot, queue in robots
                if robot not in under_way
            ]

    def on_tail(self, tail: Tail, images: int, frames: int, tail_s: float) -> None:
        """Note a run of a tail that took ``tail_s`` seconds for ``frames`` frames with ``images`` images in all."""
        key = tail, images
        if self._learns:
            self._unloaded_s[key] = min(tail_s, self._unloaded_s.get(key, tail_s))
        self._tail_s += tail_s
        self._expected_s += self._unloaded_s.get(key, tail_s)
        self._answered += frames

    def end_run(self, now_s: float) -> None:
        """
        Note the end of a run.

        From the instant at which the last server becomes busy until the next end of a run, an arriving frame finds no
        free server. A frame arrives in this interval with the probability of its share of the period. It then waits for
        half of the interval on average (the mean residual life: S²/2 for a time of S seconds), and before that for each
        frame that is served first.
        """
        self._count(now_s)
        self._running -= 1
        self._end_full(now_s)

    def _end_full(self, now_s: float) -> None:
        full_s = now_s - self._full_s
        for queue, ahead_s in self._ahead:
            queue.queueing_s2 += full_s * (full_s / 2 + ahead_s)
        self._ahead, self._full_s = [], math.nan

    def _count(self, now_s: float) -> None:
        """Add the time since the last count to the busy time and to the capacity."""
        elapsed_s = now_s - self._counted_s
        self._busy_s += self._running * elapsed_s
        self._capacity_s += self._servers * elapsed_s
        self._counted_s = now_s

    def report(self, robots: FairQueue, refused: int, now_s: float) -> tuple[LoadReport, dict[str, float]]:
        """Return the load since the last report, and the queueing delay of each robot; begin the next period."""
        period_s = now_s - self._since_s
        self._count(now_s)  # including runs that have not ended
        if self._expected_s > 0 and self._tail_s > 0:  # a coarse clock may show 0 for a short tail
            self._slowdown = self._tail_s / self._expected_s
        self._reports += 1
        queueing_s = {robot: queue.queueing_s2 / period_s for robot, queue in robots}
        report = LoadReport(
            edge=self._edge,
            edge_session=self._session,
            sequence=self._reports,
            period_s=period_s,
            servers=self._servers,
            # The sum of busy times has rounding errors, and a server may be lost while it is busy.
            utilisation=min(1.0, self._busy_s / self._capacity_s) if self._capacity_s > 0 else 0.0,
            queue_length=len(robots),
            queueing_s=max(queueing_s.values(), default=0.0),
            slowdown=self._slowdown if self._busy_s > 0 else 1.0,
            robots=robots.active(now_s),
            frame_rate_hz=self._answered / period_s,
            refused_total=refused,
        )
        self._since_s = now_s
        self._busy_s = self._capacity_s = self._tail_s = self._expected_s = 0.0
        self._answered = 0
        for _, queue in robots:
            queue.queueing_s2 = 0.0
        return report, queueing_s
