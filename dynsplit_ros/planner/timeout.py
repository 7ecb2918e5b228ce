# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The answer timeout: how long the camera waits for an answer before the robot finishes the frame itself."""

from __future__ import annotations

from dynsplit_ros.planner.choices import Array, Choices
from dynsplit_ros.planner.constraints import PlannerConstraints
from dynsplit_ros.planner.latency import Prediction

#: Shortest timeout: the usual wait times this factor, plus the pause of a scheduler, in seconds. With a shorter one,
#: the robot finishes frames whose answers are on their way, so both sides compute them.
_SHORTEST_TIMEOUT_FACTOR, _PAUSE_S = 1.5, 0.02
#: Largest ratio of the time of finishing a frame during other work to its profiled time. With a smaller factor, a frame
#: without an answer is done later than the longest wait W.
_FINISHING = 1.5


def shortest_timeout_s(prediction: Prediction) -> Array:
    """Return the shortest sensible answer timeout of each choice, in seconds."""
    return _SHORTEST_TIMEOUT_FACTOR * (prediction.off_link_s + prediction.on_link_s) + _PAUSE_S


def latest_finish_s(prediction: Prediction) -> Array:
    """Return when the robot has finished a frame itself at the shortest timeout, in seconds after sending."""
    return shortest_timeout_s(prediction) + _FINISHING * prediction.finish_s + _PAUSE_S


def answer_timeout_s(choices: Choices, constraints: PlannerConstraints, prediction: Prediction, chosen: int) -> float:
    """
    Return how long after sending the robot waits for an answer before it finishes the frame, in seconds.

    A timeout of tau costs E[min(T, tau)] + P(T > tau) F. The result is the tau of least cost with which the frame is
    finished within the longest wait, but at least the shortest timeout, so that usual answers arrive in time.
    """
    longest_s = float(prediction.longest_wait_s[chosen])
    if constraints.objective == 'deadline':  # finish the frame before the deadline if possible
        longest_s = min(longest_s, constraints.deadline_s - float(prediction.start_s[chosen]))
    if constraints.answer_timeout_s > 0 or chosen == choices.local:
        return longest_s
    bit_time, bits = prediction.bit_time, float(choices.bits[chosen])
    finish_s, held_s = float(prediction.finish_s[chosen]), float(prediction.off_link_s[chosen])
    cost_s: Array = bits * bit_time.capped_means_s + finish_s * bit_time.BEYOND
    cheapest_s = held_s + bits * float(bit_time.times_s[int(cost_s.argmin())])
    shortest_s = float(shortest_timeout_s(prediction)[chosen])
    return max(shortest_s, min(cheapest_s, longest_s - _FINISHING * finish_s - _PAUSE_S))
