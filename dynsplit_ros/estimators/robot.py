# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The robot's own times: heads, resizing and publishing; and the residuals of the predicted latencies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.estimators.service import ServiceTimes

#: Weight of the newest frame in the mean times of resizing and publishing: they follow a change within some ten frames.
_NEWEST_WEIGHT = 0.1
#: A longer time than this, in seconds, is an error of the measurement and is ignored.
_LONGEST_S = 10.0
#: An image that waited longer than this for its head, in seconds, found the robot busy. Only then does the time between
#: two frames consist of the robot's work alone.
_BUSY_S = 0.002
#: The robot slowed a head down if it finished another frame for more than this share of the head's time.
_FINISHING_SHARE = 0.001
#: Standard deviation (natural logarithm) of the robot's factor before its first measurement: a factor of 1.6.
_SPREAD = 0.5

#: Weight of the newest frame in a residual, the largest difference that counts as a share of the prediction, and the
#: factor by which each frame reduces all residuals (half after 700 frames). With larger values, single slow frames
#: change the choice; with smaller ones, a biased prediction keeps a worse choice for minutes.
_RESIDUAL_WEIGHT = 0.05
_LARGEST_RESIDUAL = 0.25
_RESIDUAL_DECAY = 0.999


class RobotEstimator:
    """Estimates how long the robot takes for its own part; ``times`` corrects its profile."""

    def __init__(self) -> None:
        self.times = ServiceTimes(_SPREAD)
        self.resize_s = 0.0
        self._publish_s = 0.0
        self._last_local: tuple[int, float] | None = None  # sequence number of the latest local frame, and its end

    @property
    def publish_s(self) -> float:
        """Mean time that the robot spends on a frame after its head, in seconds."""
        return max(0.0, self._publish_s)

    def on_head(self, cut: int, head_s: float, finishing_s: float, profiled_s: float, now_s: float) -> None:
        """Take the time of a head, during ``finishing_s`` seconds of which the robot finished another frame."""
        if finishing_s <= _FINISHING_SHARE * head_s:
            self.times.observe(cut, head_s, profiled_s, now_s)

    def on_frame(self, sequence: int, is_local: bool, wait_s: float, resize_s: float, head_s: float, now_s: float
                 ) -> None:
        """
        Take the other times of a frame, in seconds, that ended at ``now_s``.

        The time that remains between the ends of two consecutive local frames, while images wait, is for publishing.
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
    Learns by how many seconds frames take longer than predicted, for each cut (``residual_s``).

    The profile's parts are measured while nothing else happens. On a small robot, sending and receiving also take
    processor time, and how long images wait depends on more than means. With the residual, the prediction for the
    choice in force is unbiased in the long run, so a choice that only seems the best does not stay.
    """

    def __init__(self, cuts: int) -> None:
        self.residual_s: NDArray[np.float64] = np.zeros(cuts)

    def on_frame(self, cut: int, latency_s: float, predicted_s: float, was_sent: bool) -> None:
        """Take the latency of a frame; one that was sent also counts for all other cuts that send."""
        if not 0 < latency_s < _LONGEST_S:
            return
        largest_s = _LARGEST_RESIDUAL * predicted_s
        step_s = _RESIDUAL_WEIGHT * min(max(latency_s - predicted_s, -largest_s), largest_s)
        if was_sent:
            self.residual_s[:-1] += step_s
        self.residual_s *= _RESIDUAL_DECAY
        self.residual_s[cut] += step_s
