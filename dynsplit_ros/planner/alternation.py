# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Alternation of offloading and local inference: when it pays, and which images the robot computes itself."""

from __future__ import annotations

import math

import numpy as np

from dynsplit_ros.planner.choices import Array, Choices, Flags
from dynsplit_ros.planner.constraints import PlannerConstraints
from dynsplit_ros.planner.image_age import image_age
from dynsplit_ros.planner.latency import Prediction, SystemEstimate

#: Standard deviation (natural logarithm) of the rate below which a link counts as steady. The planner lets robot and
#: link alternate only on a steady link; another link may become faster while the robot computes.
STEADY_SPREAD = 0.1
#: Least gain of alternation, as a ratio of latencies. With 1, the choice flaps, because the planner does not know
#: exactly when frames end between two images.
_ALTERNATION_GAIN = 1.02


def with_alternation_s(
    choices: Choices, constraints: PlannerConstraints, prediction: Prediction, estimate: SystemEstimate, allowed: Flags
) -> Array:
    """
    Return the expected latency of each choice in seconds, or the mean of sent and local frames where that is less.

    With alternation, the link carries one image while the robot computes the next one, from its arrival on.
    """
    local, period_s = choices.local, 1 / constraints.frame_rate_hz
    if not (allowed[local] and constraints.objective == 'latency' and estimate.rate_spread < STEADY_SPREAD):
        return prediction.latency_s
    robot_periods = float(prediction.robot_s[local]) / period_s
    age_s = period_s * float(image_age(robot_periods, constraints.latency_waiting_share, alternating=True))
    alternating_s = _ALTERNATION_GAIN * (prediction.without_age_s + prediction.without_age_s[local] + age_s) / 2
    possible = (prediction.robot_s < period_s) & (prediction.on_link_s > prediction.edge_s)
    return np.where(possible, np.minimum(prediction.latency_s, alternating_s), prediction.latency_s)


def local_if_wait_s(
    choices: Choices,
    constraints: PlannerConstraints,
    prediction: Prediction,
    estimate: SystemEstimate,
    allowed: Flags,
    chosen: int,
    alternates: bool,
) -> float:
    """
    Return the wait for link and edge above which local inference of an image is better, in seconds.

    Where robot and link alternate, this is half of what a frame that is sent at once gains. Otherwise, where a stage
    of predictable time does not keep up with the images, it is what is left of the mean wait.
    """
    local, period_s = choices.local, 1 / constraints.frame_rate_hz
    local_s, latency_s = float(prediction.without_age_s[local]), float(prediction.latency_s[chosen])
    if alternates:
        return max(0.0, local_s - float(prediction.without_age_s[chosen])) / 2
    is_predictable = estimate.rate_spread < STEADY_SPREAD or prediction.edge_s[chosen] > prediction.on_link_s[chosen]
    behind = prediction.slowest_stage_s[chosen] > period_s
    robot_idle = prediction.robot_s[chosen] < period_s / 2
    if allowed[local] and is_predictable and behind and robot_idle and local_s < latency_s:
        return max(0.0, local_s - latency_s + period_s / 2)
    return math.inf
