# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Estimates the robot's own times (heads, resizing, publishing) and the residuals of the predicted latencies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.estimators.service import ServiceTimes

#: Weight of the newest frame in the mean times of resizing and publishing: the means follow a change within about ten
#: frames. A larger weight follows single slow frames.
_NEWEST_WEIGHT = 0.1
#: Largest plausible time, in seconds; a longer one is a measurement error and is ignored.
_LONGEST_S = 10.0
#: Wait of an image, in seconds, above which the robot was busy. Only then the time between two frames consists of the
#: robot's work alone. With 0, the jitter of the camera counts as publishing time.
_BUSY_S = 0.002
#: Share of a head's time for which the robot may finish another frame before the head's time is ignored: finishing
#: slows the head down. A larger share makes the robot look slow.
_FINISHING_SHARE = 0.001
#: Standard deviation (natural logarithm) of the robot's factor before its first measurement: a factor of 1.6. With a
#: smaller one, the estimate follows a wrong profile too late.
_SPREAD = 0.5

#: Weight of the newest frame in a residual; largest difference that counts, as a share of the prediction; factor by
#: which each frame reduces all residuals (to a half after 700 frames). With larger values, single slow frames change
#: the choice. With smaller ones, a biased prediction keeps a worse choice for minutes.
_RESIDUAL_WEIGHT = 0.05
_LARGEST_RESIDUAL = 0.25
_RESIDUAL_DECAY = 0.999


class RobotEstimator:
    """Estimates how long the robot takes for its own part; ``times`` corrects its profile."""

    def __init__(self) -> None:
        self.times = ServiceTimes(_SPREAD)
        self.resize_s = 0.0
        self._publish_s = 0.0
        self._last_local: tuple[int, float] | None = None  # sequence number and end of the latest frame if it was local

    @property
    def publish_s(self) -> float:
        """Mean time that the robot spends on a frame after its head, in seconds."""
        return max(0.0, self._publish_s)

    def on_head(self, cut: int, head_s: float, finishing_s: float, profiled_s: float, now_s: float) -> None:
        """Take the time of a head, during ``finishing_s`` seconds of which the robot finished another frame."""
        if finishing_s <= _FINISHING_SHARE * head_s:
            self.times.observe(cut, head_s, profiled_s, now_s)

    def on_frame(
        self, sequence: int, is_local: bool, wait_s: float, resize_s: float, head_s: float, now_s: float
    ) -> None:
        """
        Take the other times of a frame, in seconds, that ended at ``now_s``.

        While images wait, the rest of the time between the ends of two consecutive local frames is publishing time.
        """
        if not 0 <= resize_s < _LONGEST_S:
            return
        self.resize_s += _NEWEST_WEIGHT * (resize_s - self.resize_s)
        last, self._last_local = self._last_local, (sequence, now_s) if is_local else None
        if is_local and last is not None and last[0] + 1 == sequence and wait_s > _BUSY_S:
            publish_s = now_s - last[1] - resize_s - head_s
            if abs(publish_s) < _LONGEST_S:
                self._publish_s += _NEWEST_WEIGHT * (publish_s - self._publish_s)


class ResidualEstimator:
    """
    Estimates for each cut the mean difference between measured and predicted latency: ``residual_s``, in seconds.

    Profiles are measured while nothing else runs. On a small robot, sending and receiving also take processor time, and
    the wait of images depends on more than means. With the residual, the prediction for the choice in force has no
    long-term bias, so a choice that only seems the best does not stay.
    """

    def __init__(self, cuts: int) -> None:
        self.residual_s: NDArray[np.float64] = np.zeros(cuts)

    def on_frame(self, cut: int, latency_s: float, predicted_s: float, was_sent: bool) -> None:
        """Take the latency of a frame; a sent frame also counts for all other cuts that send."""
        if not 0 < latency_s < _LONGEST_S:
            return
        largest_s = _LARGEST_RESIDUAL * predicted_s
        step_s = _RESIDUAL_WEIGHT * min(max(latency_s - predicted_s, -largest_s), largest_s)
        if was_sent:
            self.residual_s[:-1] += step_s
        self.residual_s *= _RESIDUAL_DECAY
        self.residual_s[cut] += step_s
