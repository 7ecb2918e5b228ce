# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The predicted share of frames that miss a deadline, from the distributions of the estimates."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from dynsplit_ros.planner.choices import Array, Choices
from dynsplit_ros.planner.hysteresis import MACHINE_FLUCTUATION
from dynsplit_ros.planner.latency import Prediction, SystemEstimate
from dynsplit_ros.planner.timeout import latest_finish_s

#: Quantiles of equal mass of the standard normal distribution, over which the times of robot and edge are averaged.
#: With fewer, the share of late frames jumps when one quantile passes the deadline.
_DEVIATIONS = np.array([NormalDist().inv_cdf((number + 0.5) / 15) for number in range(15)])


def late_share(choices: Choices, deadline_s: float, prediction: Prediction, estimate: SystemEstimate) -> Array:
    """
    Return, for each choice, the probability that a frame's latency is above ``deadline_s``.

    The time of a bit has the distribution of the link's next transfer. The times of robot and edge have the deviations
    of their estimates, at most MACHINE_FLUCTUATION: otherwise the planner would never try a machine that was never
    measured. The image's age has its mean. The share is 0 if the robot, after the answer timeout, can still finish the
    frame before the deadline (:func:`~dynsplit_ros.planner.timeout.answer_timeout_s`).
    """
    slack_s = deadline_s - prediction.start_s - np.where(choices.sends, prediction.off_link_s, 0.0)
    robot_spread, edge_spread = (
        min(spread, MACHINE_FLUCTUATION) for spread in (estimate.robot_spread, estimate.edge_spread)
    )
    deviation_s = np.hypot(robot_spread * prediction.robot_s, edge_spread * prediction.edge_s)
    left_s = slack_s - _DEVIATIONS[:, None] * deviation_s
    on_link = prediction.bit_time.share_beyond(left_s / np.maximum(choices.bits, 1e-9))
    late = np.where(left_s < 0, 1.0, np.where(choices.sends, on_link, 0.0)).mean(axis=0)
    is_safe = choices.sends & (prediction.start_s + latest_finish_s(prediction) <= deadline_s)
    return np.where(is_safe, 0.0, late)
