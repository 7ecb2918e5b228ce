# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How a machine's times compare with its profile while it runs: one factor for the machine, one more for each cut."""

from __future__ import annotations

from collections.abc import Hashable
import math

#: Measured times below this say more about the clock than about the machine, in seconds.
SHORTEST_S = 5e-4
#: Standard deviations, all of natural logarithms: of one measurement; of a cut's own factor, before it is known;
#: and of the machine's drift, per square root of a second.
_NOISE = 0.08
_CUT = 0.10
_DRIFT = 0.15
#: An innovation beyond this many standard deviations is an outlier if it stays alone, a change if the next agrees.
_SURPRISE = 3.5
#: A measurement this many times too long or too short is a fault, not a time.
_ABSURD = 1e3


class ServiceTimes:
    """
    Correction of profiled times by measured ones.

    The logarithm of measured over profiled time is the machine's factor (throttled, shared) plus the cut's own (what
    the profile got wrong about it), each with a variance, updated as a Kalman filter does: a measurement of one cut
    moves the prediction of all of them, less so what is already known of it alone.
    """

    def __init__(self) -> None:
        self._log = 0.0
        self._variance = 0.5**2
        self._cuts: dict[Hashable, tuple[float, float]] = {}
        self._updated_s: float | None = None
        self._surprise = 0.0

    @property
    def factor(self) -> float:
        """Times as long as profiled, for the machine as a whole."""
        return math.exp(self._log)

    def factor_of(self, cut: Hashable) -> float:
        """Times as long as profiled, for one cut."""
        known = self._cuts.get(cut)
        return math.exp(self._log + known[0]) if known else math.exp(self._log)

    def observe(self, cut: Hashable | None, measured_s: float, profiled_s: float, now_s: float) -> None:
        """
        Take a measured time into account; ``cut`` None is a statement about the machine as a whole.

        Times too short to mean anything, and impossible ones, are passed over.
        """
        if not (SHORTEST_S <= profiled_s and profiled_s / _ABSURD < measured_s < profiled_s * _ABSURD):
            return
        elapsed_s = 0.0 if self._updated_s is None else max(0.0, now_s - self._updated_s)
        self._updated_s = now_s
        self._variance = min(1.0, self._variance + _DRIFT**2 * elapsed_s)
        mean, variance = self._cuts.get(cut, (0.0, _CUT**2)) if cut is not None else (0.0, 0.0)
        innovation = math.log(measured_s / profiled_s) - self._log - mean
        total = self._variance + variance + _NOISE**2
        if innovation**2 > _SURPRISE**2 * total:
            confirmed = self._surprise * innovation > 0
            self._surprise = innovation
            if not confirmed:
                return
            self._variance += innovation**2
            total += innovation**2
        self._surprise = 0.0
        self._log += self._variance / total * innovation
        if cut is not None:
            self._cuts[cut] = (mean + variance / total * innovation, variance * (1 - variance / total))
        self._variance *= 1 - self._variance / total

    def forget(self, share: float) -> None:
        """Move ``share`` (0..1) of the way back to what the profile says of the machine."""
        self._log *= 1 - share
        self._variance = min(1.0, self._variance + share)
