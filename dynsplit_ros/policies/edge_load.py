# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How busy the edge is: utilisation, queueing delay and slowdown over a report's period."""

from __future__ import annotations

from collections.abc import Sequence
import math

from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.policies.edge_queue import FairQueue, RobotQueue
from dynsplit_ros.policies.records import Tail


class LoadMeter:
    """
    Measures the load of the edge from the runs of its tails.

    ``unloaded_s`` is the time of a tail on this machine when nothing else runs, by tail and images. If it is empty,
    the fastest run so far takes its place. ``edge`` and ``session`` are the edge's name and run in the reports.
    """

    def __init__(self, unloaded_s: dict[tuple[Tail, int], float], edge: str = '', session: int = 0) -> None:
        self._edge, self._session = edge, session
        self._learns = not unloaded_s
        self._unloaded_s = dict(unloaded_s)
        self._reports = 0
        self._slowdown = 1.0  # of the latest tails
        self._since_s = math.nan  # start of the period
        self._busy_since_s = math.nan  # start of the busy time that is not yet counted; NaN: idle
        self._taken_s = math.nan
        self._ahead: list[tuple[RobotQueue, float]] = []
        self._busy_s = self._tail_s = self._expected_s = 0.0
        self._answered = 0

    def start(self, now_s: float) -> None:
        """Begin the first period."""
        self._since_s = now_s

    def begin_run(self, run: Sequence[RobotQueue], robots: FairQueue, now_s: float) -> None:
        """
        Note that the first frames of the queues of ``run`` are about to be taken.

        A frame of another robot that had arrived since the run's first frame became first would have had to wait for
        this run, unless its robot was served longer ago.
        """
        self._busy_since_s = self._taken_s = now_s
        first = run[0]
        self._ahead = [(queue, now_s - first.first_s if first.served_s < queue.served_s else 0.0)
                       for _, queue in robots if queue not in run]

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
        Note the end of the run, after its answers were sent.

        A frame that arrives at a random instant meets this run with the probability of its share of the time. It then
        waits for half of the run on average (the mean residual life: S²/2 for a run of S seconds), and before that for
        each frame whose turn comes first.
        """
        self._busy_s += now_s - self._busy_since_s
        self._busy_since_s = math.nan
        run_s = now_s - self._taken_s
        for queue, ahead_s in self._ahead:
            queue.queueing_s2 += run_s * (run_s / 2 + ahead_s)
        self._ahead = []

    def report(self, robots: FairQueue, refused: int, now_s: float) -> tuple[LoadReport, dict[str, float]]:
        """Return the load since the last report, and the queueing delay of each robot; begin the next period."""
        period_s = now_s - self._since_s
        if not math.isnan(self._busy_since_s):  # a run is under way: count its part so far
            self._busy_s += now_s - self._busy_since_s
            self._busy_since_s = now_s
        if self._expected_s > 0:
            self._slowdown = self._tail_s / self._expected_s
        self._reports += 1
        queueing_s = {robot: queue.queueing_s2 / period_s for robot, queue in robots}
        report = LoadReport(
            edge=self._edge,
            edge_session=self._session,
            sequence=self._reports,
            period_s=period_s,
            utilisation=min(1.0, self._busy_s / period_s),  # the sum of busy times has rounding errors
            queue_length=len(robots),
            queueing_s=max(queueing_s.values(), default=0.0),
            slowdown=self._slowdown if self._busy_s > 0 else 1.0,
            robots=robots.active(now_s),
            frame_rate_hz=self._answered / period_s,
            refused_total=refused,
        )
        self._since_s = now_s
        self._busy_s = self._tail_s = self._expected_s = 0.0
        self._answered = 0
        for _, queue in robots:
            queue.queueing_s2 = 0.0
        return report, queueing_s
