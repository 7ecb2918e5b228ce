# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How busy the edge is: queueing delay, slowdown and utilisation, from its reports and its answers."""

from __future__ import annotations

from dataclasses import dataclass
import math

from dynsplit_ros.estimators.service import ServiceTimes

#: Weight of the newest statement about the queue: half, so that a burst shows within a few of them.
_NEWEST = 0.5
#: Before it is heard, an edge may well be three times as slow as profiled, or as fast (natural logarithm).
_SPREAD = 1.1
#: Longer queueing than this is a fault of the report, in seconds.
_LONGEST_S = 60.0


@dataclass(frozen=True)
class LoadReport:
    """
    What an edge says about itself.

    ``session`` names the run of the edge (another one after a restart) and ``sequence`` counts its reports.
    ``utilisation`` is the busy share of its time (0..1), ``queue_length`` the frames waiting, ``queueing_s``
    the delay that a frame arriving now would see, ``slowdown`` how many times as long as profiled its tails
    take, ``robots`` how many robots sent it something lately, and ``period_s`` the seconds that it speaks of.
    """

    session: int
    sequence: int
    utilisation: float
    queue_length: int
    queueing_s: float
    slowdown: float
    robots: int = 1
    period_s: float = 1.0


@dataclass
class LoadEstimate:
    """
    What is believed of the edge; the fields are those of :class:`LoadReport`.

    ``fresh`` is whether anything was heard from it lately.
    """

    queueing_s: float = 0.0
    slowdown: float = 1.0
    utilisation: float = 0.0
    robots: int = 0
    fresh: bool = False


class LoadEstimator:
    """
    The edge's load; statements older than ``stale_after_s`` (1 s, may be set) are no longer believed.

    ``times`` corrects its profile, and ``queueing_s`` is the queueing delay as it was last believed.
    """

    def __init__(self, stale_after_s: float = 1.0) -> None:
        self.stale_after_s = stale_after_s
        self.times = ServiceTimes(_SPREAD)
        self.queueing_s = 0.0
        self._utilisation = 0.0
        self._robots = 0
        self._session: int | None = None
        self._sequence = -1
        self._news_s = self._answered_s = -math.inf

    def on_report(self, report: LoadReport, now_s: float) -> bool:
        """Take a report into account; return whether it was (not if it is late, repeated or impossible)."""
        if report.session == self._session and report.sequence <= self._sequence:
            return False
        possible = (
            0 <= report.queueing_s <= _LONGEST_S
            and 0 <= report.utilisation <= 1.001
            and 0 < report.slowdown < math.inf
            and report.queue_length >= 0
            and 0 < report.period_s <= _LONGEST_S
        )
        if not possible:
            return False
        if report.session != self._session:
            self.times = ServiceTimes(_SPREAD)
            self.queueing_s = report.queueing_s
        self._session, self._sequence = report.session, report.sequence
        self._utilisation, self._robots = min(1.0, report.utilisation), report.robots
        # Of a period with answers it repeats what they have told, and does not say of which cut that was: taken for the
        # machine's, it would deny the cut's own factor. Where nothing ran, nothing was slow, and where little ran, a
        # pause may have made it look so.
        if not 0 <= now_s - self._answered_s <= report.period_s:
            busy_s = report.utilisation * report.period_s
            self.times.observe(None, busy_s, busy_s / report.slowdown, now_s)
        self._queue(report.queueing_s, now_s)
        return True

    def on_answer(self, cut: int, queueing_s: float, tail_s: float, profiled_s: float, now_s: float) -> None:
        """Take into account what the edge says of one frame: seconds waited, seconds of the tail, and its profile."""
        if math.isfinite(tail_s):
            self.times.observe(cut, tail_s, profiled_s, now_s)
            self._answered_s = now_s
        if 0 <= queueing_s <= _LONGEST_S:
            self._queue(queueing_s, now_s)

    def on_silence(self, cut: int, waited_s: float, profiled_s: float, now_s: float) -> None:
        """Take into account that a frame arrived at the edge ``waited_s`` ago and is not answered."""
        self.times.observe_longer(cut, waited_s - self.queueing_s, profiled_s, now_s)

    def estimate(self, now_s: float) -> LoadEstimate:
        """Return what is believed at ``now_s`` (seconds of the robot's monotonic clock)."""
        self.times.forget(now_s)
        if now_s - self._news_s > self.stale_after_s:
            return LoadEstimate(slowdown=self.times.factor)
        return LoadEstimate(self.queueing_s, self.times.factor, self._utilisation, self._robots, True)

    def _queue(self, queueing_s: float, now_s: float) -> None:
        fresh = now_s - self._news_s <= self.stale_after_s
        self.queueing_s = queueing_s if not fresh else (1 - _NEWEST) * self.queueing_s + _NEWEST * queueing_s
        self._news_s = max(self._news_s, now_s)
