# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Estimates queueing delay, slowdown and utilisation of the edge from its load reports and answers."""

from __future__ import annotations

from dataclasses import dataclass
import math

from dynsplit_ros.estimators.service import ServiceTimes

#: Standard deviation (natural logarithm) of the slowdown of an edge that was never measured: a factor of three. With a
#: smaller one, the estimate follows the first answers of a slow edge too late.
_SPREAD = 1.1
#: Largest queueing delay and period of a report, in seconds; a report with a larger one is wrong and is ignored.
_LONGEST_S = 60.0


@dataclass(frozen=True)
class LoadReport:
    """
    A load report of an edge over ``period_s`` seconds.

    ``edge`` is the edge's name. ``edge_session`` identifies its run (a restart changes it), and ``sequence`` counts its
    reports.
    ``servers`` is the number of tails that it can run at the same time (0 while it has no server), ``utilisation`` the
    busy share of them (0 to 1), ``queue_length`` the number of waiting frames, ``queueing_s`` the queueing delay of a
    frame that arrives now, ``slowdown`` the ratio of measured to profiled time of its tails, ``robots`` the number of
    active robots, ``frame_rate_hz`` the rate of its answers, and ``refused_total`` the frames that it refused since its
    start.
    """

    edge_session: int
    sequence: int
    utilisation: float
    queue_length: int
    queueing_s: float
    slowdown: float
    robots: int = 1
    period_s: float = 1.0
    frame_rate_hz: float = 0.0
    refused_total: int = 0
    edge: str = ''
    servers: int = 1


@dataclass
class LoadEstimate:
    """
    The estimate of the edge's load; the fields are those of :class:`LoadReport`.

    ``fresh`` says whether the latest report or answer is not stale.
    """

    queueing_s: float = 0.0
    slowdown: float = 1.0
    utilisation: float = 0.0
    robots: int = 0
    fresh: bool = False
    servers: int = 1


class LoadEstimator:
    """
    Estimates the edge's load; reports and answers older than ``stale_after_s`` (1 s, may be set) are stale.

    ``times`` corrects the edge's profile, ``queueing_s`` is the latest estimate of the queueing delay, ``servers`` the
    latest number of servers.
    """

    def __init__(self, stale_after_s: float = 1.0) -> None:
        self.stale_after_s = stale_after_s
        self.times = ServiceTimes(_SPREAD)
        self.queueing_s = 0.0
        self._utilisation = 0.0
        self._robots = 0
        self.servers = 1
        self._session: int | None = None
        self._sequence = -1
        self._news_s = self._answered_s = -math.inf

    def on_report(self, report: LoadReport, now_s: float) -> bool:
        """Take a report; return False and ignore it when it is late, repeated or impossible."""
        if report.edge_session == self._session and report.sequence <= self._sequence:
            return False
        possible = (
            0 <= report.queueing_s <= _LONGEST_S
            and 0 <= report.utilisation <= 1.001
            and 0 < report.slowdown < math.inf
            and report.queue_length >= 0
            and report.servers >= 0
            and 0 < report.period_s <= _LONGEST_S
        )
        if not possible:
            return False
        if report.edge_session != self._session:
            self.times = ServiceTimes(_SPREAD)
        self._session, self._sequence = report.edge_session, report.sequence
        self._utilisation, self._robots = min(1.0, report.utilisation), report.robots
        self.servers = report.servers
        # In a period with answers, the report repeats their times without their cuts. Used as the machine's factor,
        # these would overwrite the factors that the answers measured for each cut. A period with little work counts
        # little, because one pause of the scheduler can make it look slow.
        if not 0 <= now_s - self._answered_s <= report.period_s:
            busy_s = report.utilisation * report.period_s * report.servers
            self.times.observe(None, busy_s, busy_s / report.slowdown, now_s)
        self._queue(report.queueing_s, now_s)
        return True

    def on_answer(self, cut: int, queueing_s: float, tail_s: float, profiled_s: float, now_s: float) -> None:
        """Take an answered frame: its queueing delay, its tail, and the profiled time of that tail, in seconds."""
        if math.isfinite(tail_s):
            self.times.observe(cut, tail_s, profiled_s, now_s)
            self._answered_s = now_s
        if 0 <= queueing_s <= _LONGEST_S:
            self._queue(queueing_s, now_s)

    def on_silence(self, cut: int, waited_s: float, profiled_s: float, now_s: float) -> None:
        """Note that a frame arrived at the edge ``waited_s`` ago and has no answer."""
        self.times.observe_unfinished(cut, waited_s - self.queueing_s, profiled_s, now_s)

    def estimate(self, now_s: float) -> LoadEstimate:
        """Return the estimate at ``now_s`` (seconds of the robot's monotonic clock)."""
        self.times.forget(now_s)
        if now_s - self._news_s > self.stale_after_s:
            return LoadEstimate(slowdown=self.times.factor, servers=self.servers)
        return LoadEstimate(self.queueing_s, self.times.factor, self._utilisation, self._robots, True, self.servers)

    def _queue(self, queueing_s: float, now_s: float) -> None:
        self.queueing_s, self._news_s = queueing_s, max(self._news_s, now_s)
