# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""When to wait for a newer image rather than to start on one that has aged, and how old images are then."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: An image younger than this share of a period is as good as new.
_NEW = 0.1
#: A newer image is waited for until it is late by this share of a period.
_PUNCTUAL = 0.1
#: Frames that are played through to tell how old images are on average, and those before, which do not count.
_PLAYED = 200
_SETTLING = 50


class Freshness:
    """
    Keeps images from being old already when their head starts.

    Where a stage takes longer than images come apart, each frame starts on an image that has waited a little longer
    than the one before, up to a whole period, half of one on average. Waiting for the next image begins that anew at no
    age. It is done when the wait is short enough: what a share of the time since has saved up pays for it, so that the
    frame rate falls by no more than that share.
    """

    def __init__(self) -> None:
        self._saved_s = 0.0
        self._taken_s = -math.inf
        self._possible_s: float | None = None

    def start_s(self, arrived_s: float, possible_s: float, period_s: float, now_s: float) -> float:
        """
        Return when to start on the newest image unless another comes before.

        It arrived at ``arrived_s`` and could be started on at ``possible_s``, or now if that has passed; images come
        ``period_s`` apart (NaN: nobody knows). All in seconds of one clock, which shows ``now_s``.
        """
        possible_s = max(possible_s, now_s)
        if self._possible_s is None or now_s < self._possible_s:
            self._possible_s = possible_s
        age_s, wait_s = possible_s - arrived_s, arrived_s + period_s - possible_s
        if age_s > _NEW * period_s and 0 < wait_s <= self._saved_s:
            # Where the robot keeps up, a delay passes by itself: then only where the wait is the smaller loss.
            keeps_up = self._possible_s - self._taken_s < period_s
            if wait_s <= age_s or not keeps_up:
                return arrived_s + (1 + _PUNCTUAL) * period_s
        return possible_s

    def took(self, period_s: float, share: float, now_s: float) -> None:
        """Note that a head starts, and save ``share`` (0..1) of the time since the last one did."""
        waited_s = max(0.0, now_s - self._possible_s) if self._possible_s is not None else 0.0
        since_s = now_s - self._taken_s if math.isfinite(self._taken_s) else 0.0
        saved_s = self._saved_s - waited_s + share * since_s
        # No wait is longer than a period; without a share or a known period there is none.
        self._saved_s = min(max(saved_s, 0.0), period_s) if share > 0 and period_s > 0 else 0.0
        self._taken_s, self._possible_s = now_s, None


def mean_age(periods: NDArray[np.float64], share: float, turns: bool = False) -> NDArray[np.float64]:
    """
    Return how old images are on average when their head starts, in periods.

    ``periods`` (>= 0) is for how many the slowest stage is busy with a frame; up to one, images are new. Beyond, it is
    half a period, or less where ``share`` of the time goes into waiting: what :class:`Freshness` then comes to, played
    through for many frames of each of ``periods`` at once. With ``turns`` every other frame is one that leaves the
    robot at once, so that the next one is begun when its image arrives and keeps the robot busy for ``periods``: how
    old the former images are.
    """
    if share <= 0 and not turns:
        return np.where(periods >= 1, 0.5, 0.0)
    age, saved, total = np.zeros_like(periods), np.zeros_like(periods), np.zeros_like(periods)
    for number in range(-_SETTLING, _PLAYED):
        if number >= 0:
            total += age
        if turns:
            saved += share * (1 - age)
            age = np.zeros_like(periods)
        saved = np.minimum(saved + share * periods, 1.0)
        age = (age + periods) % 1
        wait = 1 - age
        waits = (age > _NEW) & (wait <= saved)
        saved -= np.where(waits, (1 - share) * wait, 0.0)
        age[waits] = 0.0
    return np.where(periods >= 1, total / _PLAYED, 0.0)
