# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How a machine's times compare with its profile: one factor for the machine, one more for each cut."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: Measured times below this say more about the clock than about the machine, in seconds.
SHORTEST_S = 5e-4
#: Standard deviations, all of natural logarithms: of one measurement; of a cut's own factor, before it is
#: known; and of the machine's drift, per square root of a second.
_NOISE = 0.08
_CUT = 0.10
_DRIFT = 0.15
#: A process pauses now and then for about this long, in seconds: what takes no longer tells little of the machine.
_PAUSE_S = 1e-3
#: An innovation beyond this many standard deviations is an outlier if it stays alone, a change if the next
#: agrees.
_SURPRISE = 3.5
#: Nor is a machine likely to be slower than it was believed to be by more than this many times its spread.
_UNLIKELY = 2.0
#: Without measurements, the machine is thought to return to its profile with this time constant, in seconds:
#: at first, and at most. It doubles each time a measurement after some forgetting shows that nothing had
#: changed.
_FORGETTING_S = 60.0
_LONGEST_FORGETTING_S = 600.0
#: A measurement this many times too long or too short is a fault, not a time.
_ABSURD = 1e3


class ServiceTimes:
    """
    Correction of profiled times by measured ones.

    The logarithm of measured over profiled time is the machine's factor (throttled, shared) plus the cut's
    own (what the profile got wrong about it), each with a variance, updated as a Kalman filter does: a
    measurement of one cut moves the prediction of all of them, less so what is already known of it alone.
    """

    def __init__(self, spread: float, confirmations: int = 1) -> None:
        """
        Start at the profile, ``spread`` being the standard deviation of the logarithm of the machine's factor.

        An outlier is believed when ``confirmations`` more follow it in the same direction.
        """
        self._confirmations = confirmations
        self._surprises = 0
        self._log = 0.0
        self._spread = spread
        self._variance = spread**2
        self._cuts: dict[int, tuple[float, float]] = {}
        self._own = np.ones(0)
        self._updated_s: float | None = None
        self._forgetting_s = _FORGETTING_S
        self._forgotten_s = -math.inf
        self._remembered: float | None = None
        self._surprise = 0.0  # the last innovation that was too large to believe at once

    @property
    def spread(self) -> float:
        """Standard deviation of the logarithm of the machine's factor."""
        return math.sqrt(self._variance)

    @property
    def factor(self) -> float:
        """Times as long as profiled, for the machine as a whole."""
        return math.exp(self._log)

    def cut_factors(self, count: int) -> NDArray[np.float64]:
        """Return how many times as long as the machine's factor says, for the cuts 0 to ``count`` - 1."""
        if len(self._own) != count:
            self._own = np.ones(count)
            for cut, (mean, _) in self._cuts.items():
                self._own[cut] = math.exp(mean)
        return self._own

    def factor_of(self, cut: int) -> float:
        """Return how many times as long as profiled, for one cut."""
        known = self._cuts.get(cut)
        return math.exp(self._log + known[0]) if known else math.exp(self._log)

    def observe(self, cut: int | None, measured_s: float, profiled_s: float, now_s: float) -> None:
        """
        Take a measured time into account; ``cut`` None is a statement about the machine as a whole.

        Times too short to mean anything, and impossible ones, are passed over.
        """
        if not (SHORTEST_S <= profiled_s and profiled_s / _ABSURD < measured_s < profiled_s * _ABSURD):
            return
        elapsed_s = 0.0 if self._updated_s is None else max(0.0, now_s - self._updated_s)
        self._updated_s = now_s
        self._variance = min(self._spread**2, self._variance + _DRIFT**2 * elapsed_s)
        mean, variance = self._cuts.get(cut, (0.0, _CUT**2)) if cut is not None else (0.0, 0.0)
        innovation = math.log(measured_s / profiled_s) - self._log - mean
        total = self._variance + variance + _NOISE**2 + (_PAUSE_S / profiled_s) ** 2
        if innovation**2 > _SURPRISE**2 * total:
            self._surprises = self._surprises + 1 if self._surprise * innovation > 0 else 1
            self._surprise = innovation
            if self._surprises <= self._confirmations:
                return
            self._variance += innovation**2
            total += innovation**2
        self._surprise, self._surprises = 0.0, 0
        if self._remembered is not None:
            same = abs(self._log + innovation - self._remembered) < _SURPRISE * _NOISE
            self._forgetting_s = min(2 * self._forgetting_s, _LONGEST_FORGETTING_S) if same else _FORGETTING_S
            self._remembered = None
        self._log += self._variance / total * innovation
        if cut is not None:
            mean += variance / total * innovation
            self._cuts[cut] = (mean, variance * (1 - variance / total))
            if cut < len(self._own):
                self._own = self._own.copy()  # who asked before keeps what was true then
                self._own[cut] = math.exp(mean)
        self._variance *= 1 - self._variance / total

    def observe_longer(self, cut: int, elapsed_s: float, profiled_s: float, now_s: float) -> None:
        """
        Take into account that something is not done after ``elapsed_s``: it is news only if it should have been.

        A bound needs no second opinion, unless a pause, or an answer that was sent again, is likelier than a machine
        that slow: one tail of a millisecond that was silent for 0.2 s would have the edge avoided for minutes.
        """
        expected_s = profiled_s * self.factor_of(cut)
        if elapsed_s > expected_s:
            if elapsed_s < expected_s * math.exp(_UNLIKELY * self._spread):
                self._surprise, self._surprises = math.inf, self._confirmations
            self.observe(cut, elapsed_s, profiled_s, now_s)

    def forget(self, now_s: float) -> None:
        """Return towards the profile when nothing was measured for long, so that what has passed is tried again."""
        if self._updated_s is not None and now_s > self._forgotten_s:
            since_s = max(self._updated_s, self._forgotten_s)
            kept = math.exp(-max(0.0, now_s - since_s) / self._forgetting_s)
            if self._remembered is None and now_s - self._updated_s > 1.0:
                self._remembered = self._log
            self._log *= kept
            self._variance = kept * self._variance + (1 - kept) * self._spread**2
            self._forgotten_s = now_s
