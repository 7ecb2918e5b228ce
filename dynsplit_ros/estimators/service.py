# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How a machine's times compare with its profile: one factor for the machine, one more for each cut."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: Measured times below this say more about the clock than about the machine, in seconds.
SHORTEST_S = 5e-4
#: Standard deviations, all of natural logarithms: of one measurement, at least and at most; of a cut's own factor,
#: before it is known; and of the machine's drift, per square root of a second.
_NOISE = 0.08
_LOUDEST = 0.3
_CUT = 0.2
_DRIFT = 0.15
#: Weight of the newest difference in the variance of measurements, as long as it is no more than so many times that.
_NEWEST = 0.05
_LARGEST = 9.0
#: A cut's own factor is thought to return to its profile with this time constant, in seconds.
_CUT_FORGETTING_S = 600.0
#: That takes effect every so many seconds.
_AGING_S = 1.0
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

    The logarithm of measured over profiled time is the machine's factor (throttled, shared) plus the cut's own (what
    the profile got wrong about it, and what else the machine does for frames that are split there), and noise. A
    Kalman filter estimates all of them jointly: a measurement of one cut moves the prediction of every cut, and a
    change of cut tells how the two compare, since the machine is the same before and after it. How much measurements
    vary is told by the differences of those that follow each other: where a machine's time is dealt out in slices,
    more than their mean does.
    """

    def __init__(self, spread: float, confirmations: int = 1) -> None:
        """
        Start at the profile, ``spread`` being the standard deviation of the logarithm of the machine's factor.

        An outlier is believed when ``confirmations`` more follow it in the same direction.
        """
        self._confirmations = confirmations
        self._surprises = 0
        self._spread = spread
        # The logarithms of the machine's factor and of the own ones of the cuts that were measured, and their
        # covariance.
        self._rows: dict[int, int] = {}
        self._logs: NDArray[np.float64] = np.zeros(1)
        self._covariance: NDArray[np.float64] = np.full((1, 1), spread**2)
        self._noise = _NOISE**2
        self._last: tuple[int, float] | None = None
        self._own: NDArray[np.float64] | None = None
        self._updated_s: float | None = None
        self._unaged_s = 0.0
        self._forgetting_s = _FORGETTING_S
        self._forgotten_s = -math.inf
        self._remembered: float | None = None
        self._surprise = 0.0  # the last innovation that was too large to believe at once

    @property
    def spread(self) -> float:
        """Standard deviation of the logarithm of the machine's factor."""
        return math.sqrt(self._covariance.item(0))

    @property
    def factor(self) -> float:
        """Times as long as profiled, for the machine as a whole."""
        return math.exp(self._logs.item(0))

    def cut_factors(self, count: int) -> NDArray[np.float64]:
        """Return how many times as long as the machine's factor says, for the cuts 0 to ``count`` - 1."""
        if self._own is None or len(self._own) != count:
            self._own = np.ones(count)
            for cut, row in self._rows.items():
                self._own[cut] = math.exp(self._logs.item(row))
        return self._own

    def factor_of(self, cut: int) -> float:
        """Return how many times as long as profiled, for one cut."""
        row = self._rows.get(cut)
        return math.exp(self._logs.item(0) + self._logs.item(row)) if row else self.factor

    def observe(self, cut: int | None, measured_s: float, profiled_s: float, now_s: float) -> None:
        """
        Take a measured time into account; ``cut`` None is a statement about the machine as a whole.

        Times too short to mean anything, and impossible ones, are passed over.
        """
        if not (SHORTEST_S <= profiled_s and profiled_s / _ABSURD < measured_s < profiled_s * _ABSURD):
            return
        self._pass(now_s)
        row = 0 if cut is None else self._row(cut)
        measured = math.log(measured_s / profiled_s)
        innovation = measured - self._logs.item(0) - (self._logs.item(row) if row else 0.0)
        varies = self._varies(cut, measured) + (_PAUSE_S / profiled_s) ** 2
        shared, total = self._shared(row, varies)
        if innovation**2 > _SURPRISE**2 * total:
            self._surprises = self._surprises + 1 if self._surprise * innovation > 0 else 1
            self._surprise = innovation
            if self._surprises <= self._confirmations:
                return
            self._covariance[0, 0] += innovation**2
            shared, total = self._shared(row, varies)
        self._surprise, self._surprises = 0.0, 0
        if self._remembered is not None:
            same = (self._logs.item(0) + innovation - self._remembered) ** 2 < _SURPRISE**2 * varies
            self._forgetting_s = min(2 * self._forgetting_s, _LONGEST_FORGETTING_S) if same else _FORGETTING_S
            self._remembered = None
        self._logs += shared * (innovation / total)
        self._covariance -= shared[:, None] * (shared / total)
        self._own = None  # who asked before keeps what was true then

    def _row(self, cut: int) -> int:
        """Return where a cut's own factor is in the state, from the first measurement on."""
        row = self._rows.get(cut)
        if row is None:
            row = self._rows[cut] = len(self._logs)
            self._logs = np.append(self._logs, 0.0)
            self._covariance = np.pad(self._covariance, (0, 1))
            self._covariance[row, row] = _CUT**2
        return row

    def _pass(self, now_s: float) -> None:
        """Let time pass: the machine drifts, no further than its spread, and what is known of the cuts ages."""
        elapsed_s = 0.0 if self._updated_s is None else max(0.0, now_s - self._updated_s)
        self._updated_s = now_s
        covariance = self._covariance
        variance: float = covariance.item(0)
        covariance[0, 0] = max(variance, min(self._spread**2, variance + _DRIFT**2 * elapsed_s))
        self._unaged_s += elapsed_s
        if self._unaged_s > _AGING_S:
            kept = math.exp(-self._unaged_s / _CUT_FORGETTING_S)
            self._unaged_s = 0.0
            self._logs[1:] *= kept
            covariance[1:] *= kept
            covariance[:, 1:] *= kept
            covariance.flat[len(covariance) + 1::len(covariance) + 1] += (1 - kept**2) * _CUT**2

    def _varies(self, cut: int | None, measured: float) -> float:
        """Return the variance of measurements, by what the last two of the same cut differ too."""
        if cut is not None:
            if self._last is not None and self._last[0] == cut:
                squared = min((measured - self._last[1]) ** 2 / 2, _LARGEST * self._noise)
                self._noise = min(max(self._noise + _NEWEST * (squared - self._noise), _NOISE**2), _LOUDEST**2)
            self._last = cut, measured
        return self._noise

    def _shared(self, row: int, varies: float) -> tuple[NDArray[np.float64], float]:
        """Return the covariance of the state with a measurement, and the variance of that."""
        if not row:
            return self._covariance[0].copy(), self._covariance.item(0) + varies
        shared = self._covariance[0] + self._covariance[row]
        return shared, shared.item(0) + shared.item(row) + varies

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
            if self._surprises == 0:  # believed; the next measurement, perhaps of this very frame, may deny it at once
                self._surprise, self._surprises = -math.inf, self._confirmations

    def forget(self, now_s: float) -> None:
        """Return towards the profile when nothing was measured for long, so that what has passed is tried again."""
        if self._updated_s is not None and now_s > self._forgotten_s:
            since_s = max(self._updated_s, self._forgotten_s)
            kept = math.exp(-max(0.0, now_s - since_s) / self._forgetting_s)
            if self._remembered is None and now_s - self._updated_s > 1.0:
                self._remembered = self._logs.item(0)
            self._logs[0] *= kept
            self._covariance[0, 0] += (1 - kept) * max(0.0, self._spread**2 - self._covariance.item(0))
            self._forgotten_s = now_s
