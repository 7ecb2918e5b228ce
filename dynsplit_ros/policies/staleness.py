# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Decides when the camera waits for a newer image instead of a stale one, and computes the resulting age of images."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: An image younger than this share of a period counts as new. With 0, the camera waits almost a period to gain little
#: age; a larger share leaves images stale.
_NEW_AGE = 0.1
#: Share of a period by which the newer image may be late before the wait ends. With 0, jitter of the camera ends waits
#: just before the image arrives; a larger share costs more time when the image does not come.
_LATENESS = 0.1
#: Number of frames over which :func:`mean_age` averages. With fewer, the first frames count too much; more cost time.
_AVERAGED_FRAMES = 250


class StalenessControl:
    """
    Keeps images from being stale when their head starts.

    If a stage takes longer than the period of the images, each frame starts on an image that has waited a little longer
    than the one before: up to a whole period, half a period on average. Waiting for the next image resets this age to
    0. The control waits when it has saved enough time. It saves ``share`` of the time between two starts, so the frame
    rate falls by at most this share.
    """

    def __init__(self) -> None:
        self._saved_s = 0.0
        self._started_s = -math.inf
        self._possible_s: float | None = None

    def start_s(self, arrived_s: float, possible_s: float, period_s: float, now_s: float) -> float:
        """
        Return when to start the newest image unless another one arrives before.

        The image arrived at ``arrived_s``. Its head can start at ``possible_s``, or now if that instant has passed.
        Images arrive every ``period_s`` (NaN: unknown). ``now_s`` is the present instant of the same clock (s).
        """
        possible_s = max(possible_s, now_s)
        if self._possible_s is None or now_s < self._possible_s:
            self._possible_s = possible_s
        age_s, wait_s = possible_s - arrived_s, arrived_s + period_s - possible_s
        if age_s > _NEW_AGE * period_s and 0 < wait_s <= self._saved_s:
            return arrived_s + (1 + _LATENESS) * period_s
        return possible_s

    def on_start(self, period_s: float, share: float, now_s: float) -> None:
        """Note that a head starts, and save ``share`` (0 to 1) of the time since the last start."""
        waited_s = now_s - self._possible_s if self._possible_s is not None else 0.0
        since_s = now_s - self._started_s if math.isfinite(self._started_s) else 0.0
        saved_s = self._saved_s - waited_s + share * since_s
        # No wait is longer than a period; without a share or a known period there is none.
        self._saved_s = min(max(saved_s, 0.0), period_s) if share > 0 and period_s > 0 else 0.0
        self._started_s, self._possible_s = now_s, None


def mean_age(periods: NDArray[np.float64], share: float, alternating: bool = False) -> NDArray[np.float64]:
    """
    Return the mean age of images when their head starts, in periods.

    ``periods`` (>= 0) is how many periods the slowest stage takes for a frame. Up to one period, images are new. Above
    one, the mean age is half a period, or less if ``share`` of the time is spent on waiting. The function plays the
    rule of :class:`StalenessControl` frame by frame, for all ``periods`` at once.

    With ``alternating``, the robot sends every other frame at once and computes the next image itself, from its
    arrival on and for ``periods``. The result is then the age of the images that are sent.
    """
    if share <= 0 and not alternating:
        return np.where(periods >= 1, 0.5, 0.0)
    age, saved, total = np.zeros_like(periods), np.zeros_like(periods), np.zeros_like(periods)
    for _ in range(_AVERAGED_FRAMES):
        total += age
        if alternating:
            saved += share * (1 - age)
            age = np.zeros_like(periods)
        saved = np.minimum(saved + share * periods, 1.0)
        age = (age + periods) % 1
        wait = 1 - age
        waits = (age > _NEW_AGE) & (wait <= saved)
        saved -= np.where(waits, (1 - share) * wait, 0.0)
        age[waits] = 0.0
    return np.where(periods >= 1, total / _AVERAGED_FRAMES, 0.0)
