# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Corrects a machine's profile by measured times: one factor for the machine and one for each cut."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: Shortest profiled time, in seconds, that is compared with measured times. A shorter time consists mostly of clock
#: error.
SHORTEST_S = 5e-4
#: Standard deviation (natural logarithm) of one measurement. With a smaller one, the estimate follows single outliers;
#: with a larger one, it follows a real change too late.
_NOISE = 0.08
#: Standard deviation (natural logarithm) of a cut's own factor before its first measurement: in a profile, the ratio of
#: two cuts has an error of about 20 %. With a larger one, the first measurement of a cut counts for that cut alone.
_CUT_SPREAD = 0.2
#: Drift of the machine's factor: standard deviation of its natural logarithm per square root of a second. With less,
#: the estimate follows a real change too late; with more, it follows noise.
_DRIFT = 0.15
#: Time constant, in seconds, with which a cut's own factor returns to 1. Without this return, the planner would never
#: again try a cut that was slow once.
_CUT_FORGETTING_S = 600.0
#: Usual pause of a process, in seconds, as noise of short computations. Without it, a pause during a short tail makes
#: an edge look slow.
_PAUSE_S = 1e-3
#: Number of standard deviations beyond which an innovation is an outlier, unless the next one has the same sign. With
#: fewer, usual changes count one frame late; with more, single outliers count.
_OUTLIER = 3.5
#: Number of standard deviations of the machine's factor beyond which a long silence needs confirmation, because a pause
#: is more likely than a machine that slow. With more, one pause makes the planner avoid an edge for minutes.
_UNLIKELY_SILENCE = 2.0
#: Time constant, in seconds, with which the machine's factor returns to 1 without measurements. With a longer one, the
#: planner tries a recovered machine too late; with a shorter one, it tries a slow machine too often.
_FORGETTING_S = 60.0
#: Largest plausible ratio of measured and profiled time; a measurement beyond it is wrong and is ignored.
_LARGEST_RATIO = 1e3


class ServiceTimes:
    """
    Correction of profiled times by measured ones.

    The logarithm of the ratio of measured to profiled time is the sum of the machine's factor (throttled, shared), the
    cut's own factor (the profile's error for this cut) and noise. A Kalman filter estimates all factors jointly. So a
    measurement of one cut changes the prediction of every cut. A change of cut shows the ratio of both cuts, because
    the machine is the same before and after it.
    """

    def __init__(self, spread: float) -> None:
        """Start with factors of 1; ``spread`` is the standard deviation of the logarithm of the machine's factor."""
        self._spread = spread
        # State of the Kalman filter: the logarithms of the machine's factor (first) and of the measured cuts' own
        # factors.
        self._rows: dict[int, int] = {}
        self._logs: NDArray[np.float64] = np.zeros(1)
        self._covariance: NDArray[np.float64] = np.full((1, 1), spread**2)
        self._updated_s: float | None = None
        self._forgotten_s = -math.inf
        self._outlier = 0.0  # the last innovation if it was an outlier, else 0

    @property
    def spread(self) -> float:
        """Standard deviation of the logarithm of the machine's factor."""
        return math.sqrt(self._covariance.item(0))

    @property
    def factor(self) -> float:
        """Ratio of measured to profiled time of the machine as a whole."""
        return math.exp(self._logs.item(0))

    def cut_factors(self, count: int) -> NDArray[np.float64]:
        """Return the own factors of the cuts 0 to ``count`` - 1, without the machine's factor."""
        factors: NDArray[np.float64] = np.ones(count)
        for cut, row in self._rows.items():
            factors[cut] = math.exp(self._logs.item(row))
        return factors

    def factor_of(self, cut: int) -> float:
        """Return the ratio of measured to profiled time of one cut."""
        row = self._rows.get(cut)
        return math.exp(self._logs.item(0) + self._logs.item(row)) if row else self.factor

    def observe(self, cut: int | None, measured_s: float, profiled_s: float, now_s: float) -> None:
        """
        Take a measured time of a cut, or of the machine as a whole if ``cut`` is None.

        Too short or impossible times are ignored.
        """
        if not (SHORTEST_S <= profiled_s and profiled_s / _LARGEST_RATIO < measured_s < profiled_s * _LARGEST_RATIO):
            return
        self._elapse(now_s)
        row = 0 if cut is None else self._row(cut)
        measured = math.log(measured_s / profiled_s)
        innovation = measured - self._logs.item(0) - (self._logs.item(row) if row else 0.0)
        noise_variance = _NOISE**2 + (_PAUSE_S / profiled_s) ** 2
        cross, total = self._innovation(row, noise_variance)
        if innovation**2 > _OUTLIER**2 * total:
            if not self._outlier * innovation > 0:
                self._outlier = innovation
                return
            self._covariance[0, 0] += innovation**2
            cross, total = self._innovation(row, noise_variance)
        self._outlier = 0.0
        self._logs += cross * (innovation / total)
        self._covariance -= cross[:, None] * (cross / total)

    def _row(self, cut: int) -> int:
        """Return the row of a cut's own factor in the state; make one for its first measurement."""
        row = self._rows.get(cut)
        if row is None:
            row = self._rows[cut] = len(self._logs)
            self._logs = np.append(self._logs, 0.0)
            self._covariance = np.pad(self._covariance, (0, 1))
            self._covariance[row, row] = _CUT_SPREAD**2
        return row

    def _elapse(self, now_s: float) -> None:
        """Apply the elapsed time: the machine's variance grows, and the cuts' own factors return to 1."""
        elapsed_s = 0.0 if self._updated_s is None else max(0.0, now_s - self._updated_s)
        self._updated_s = now_s
        covariance = self._covariance
        variance: float = covariance.item(0)
        covariance[0, 0] = max(variance, min(self._spread**2, variance + _DRIFT**2 * elapsed_s))
        kept = math.exp(-elapsed_s / _CUT_FORGETTING_S)
        self._logs[1:] *= kept
        covariance[1:] *= kept
        covariance[:, 1:] *= kept
        covariance.flat[len(covariance) + 1 :: len(covariance) + 1] += (1 - kept**2) * _CUT_SPREAD**2

    def _innovation(self, row: int, noise_variance: float) -> tuple[NDArray[np.float64], float]:
        """Return the covariance of the state with a measurement, and the variance of the innovation."""
        if not row:
            return self._covariance[0].copy(), self._covariance.item(0) + noise_variance
        cross = self._covariance[0] + self._covariance[row]
        return cross, cross.item(0) + cross.item(row) + noise_variance

    def observe_unfinished(self, cut: int, elapsed_s: float, profiled_s: float, now_s: float) -> None:
        """
        Note that a computation is not done after ``elapsed_s``; a time within the prediction is ignored.

        One such bound counts at once, unless a pause is more likely than a machine that slow. Otherwise, after one
        silence of 0.2 s during a tail of 1 ms, the planner would avoid the edge for minutes.
        """
        expected_s = profiled_s * self.factor_of(cut)
        if elapsed_s > expected_s:
            if elapsed_s < expected_s * math.exp(_UNLIKELY_SILENCE * self._spread):
                self._outlier = math.inf
            self.observe(cut, elapsed_s, profiled_s, now_s)

    def forget(self, now_s: float) -> None:
        """Move the machine's factor towards 1 without measurements, so that the planner tries a slow machine again."""
        if self._updated_s is not None and now_s > self._forgotten_s:
            since_s = max(self._updated_s, self._forgotten_s)
            kept = math.exp(-max(0.0, now_s - since_s) / _FORGETTING_S)
            self._logs[0] *= kept
            self._covariance[0, 0] += (1 - kept) * (self._spread**2 - self._covariance.item(0))
            self._forgotten_s = now_s
