# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Offloading and local inference in turns: where that pays, and which images the robot then computes itself."""

from __future__ import annotations

import math

import numpy as np

from dynsplit_ros.planner.choices import Array, Choices, Flags
from dynsplit_ros.planner.constraints import PlannerConstraints
from dynsplit_ros.planner.image_age import image_age
from dynsplit_ros.planner.latency import Prediction, SystemEstimate

#: Standard deviation (natural logarithm) of the rate below which a link is steady. Only on a steady link can the
#: planner foresee that robot and link take turns; another link may become faster while the robot computes.
STEADY = 0.1
#: Taking turns must gain this factor: the planner does not know better how frames fall between the images.
_TURNS_GAIN = 1.02


def with_turns_s(
    choices: Choices, constraints: PlannerConstraints, prediction: Prediction, estimate: SystemEstimate, allowed: Flags
) -> Array:
    """
    Return the expected latency of each choice in seconds: of sent and local frames in turns where that is less.

    In turns, the link carries one image while the robot computes the next one, from the instant of its arrival.
    """
    local, period_s = choices.local, 1 / constraints.frame_rate_hz
    if not (allowed[local] and constraints.objective == 'latency' and estimate.rate_spread < STEADY):
        return prediction.latency_s
    robot_periods = float(prediction.robot_s[local]) / period_s
    age_s = period_s * float(image_age(robot_periods, constraints.latency_waiting_share, turns=True))
    in_turns_s = _TURNS_GAIN * (prediction.without_age_s + prediction.without_age_s[local] + age_s) / 2
    possible = (prediction.robot_s < period_s) & (prediction.on_link_s > prediction.edge_s)
    return np.where(possible, np.minimum(prediction.latency_s, in_turns_s), prediction.latency_s)


def local_if_wait_s(
    choices: Choices,
    constraints: PlannerConstraints,
    prediction: Prediction,
    estimate: SystemEstimate,
    allowed: Flags,
    chosen: int,
    takes_turns: bool,
) -> float:
    """
    Return how long an image may wait for link and edge before local inference, begun at once, is better; in seconds.

    In turns, half of what a frame that is sent at once gains. Otherwise, where a stage that can be foreseen does not
    keep up with the images, what is left of the mean wait.
    """
    local, period_s = choices.local, 1 / constraints.frame_rate_hz
    local_s, latency_s = float(prediction.without_age_s[local]), float(prediction.latency_s[chosen])
    if takes_turns:
        return max(0.0, local_s - float(prediction.without_age_s[chosen])) / 2
    foreseen = estimate.rate_spread < STEADY or prediction.edge_s[chosen] > prediction.on_link_s[chosen]
    behind = prediction.slowest_stage_s[chosen] > period_s
    robot_idle = prediction.robot_s[chosen] < period_s / 2
    if allowed[local] and foreseen and behind and robot_idle and local_s < latency_s:
        return max(0.0, local_s - latency_s + period_s / 2)
    return math.inf
