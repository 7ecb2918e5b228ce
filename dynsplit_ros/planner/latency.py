# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The latency model of docs/how_it_decides.md: the predicted latency of every choice, term by term."""

from __future__ import annotations

from dataclasses import dataclass
import functools

import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.estimators.rate import RATE_EDGES
from dynsplit_ros.planner.choices import Choices
from dynsplit_ros.planner.constraints import PlannerConstraints
from dynsplit_ros.policies.staleness import mean_age

Array = NDArray[np.float64]

#: Default answer timeout: this many times the predicted wait, and at least this many seconds. A longer timeout makes a
#: lost frame later; a shorter one has the robot finish frames whose answers are on their way.
_TIMEOUT_FACTOR, _LEAST_TIMEOUT_S = 3.0, 0.2
#: A correction learned from frames reduces a prediction by at most this share, so that no prediction becomes negative.
_MOST_FASTER = 0.5
#: Relative standard deviation of the slowest stage's time: whether a stage keeps up with the images is known no better.
_STAGE_SPREAD = 0.03
#: Busy periods of the slowest stage at which the mean age of images is tabulated; beyond the last it hardly changes.
_BUSY_PERIODS: Array = np.linspace(0.0, 20.0, 4001, dtype=np.float64)
#: Mean age of images, in periods, where single transfers take longer than a period though the mean does not: with
#: and without waiting for newer images.
_LINK_AGE, _LINK_AGE_WITHOUT_WAITING = 0.15, 0.5


@dataclass
class SystemEstimate:
    """
    What is known of link and machines when a choice is made; times in seconds.

    ``now_s`` serves for differences only. ``rates_bps`` are the rates (bit/s) of the next transfer at
    :data:`~dynsplit_ros.estimators.rate.RATE_SHARES`; ``rate_spread`` is the standard deviation of the natural
    logarithm of the link's rate. ``alive`` says whether the edge answers. ``robot_factor`` and ``edge_factor`` are
    measured over profiled times of the machines, ``robot_spread`` and ``edge_spread`` the standard deviations of their
    natural logarithms; ``robot`` and ``edge`` hold the further factor of each split's head and tail, by split index.
    ``resize_s`` precedes each head, ``publish_s`` follows each frame. ``residual_s`` is, by split index, the mean
    difference between measured and predicted latency.
    """

    now_s: float
    rates_bps: Array
    rate_spread: float
    rtt_s: float
    alive: bool
    queueing_s: float
    robot: Array
    edge: Array
    residual_s: Array
    robot_factor: float
    edge_factor: float
    robot_spread: float
    edge_spread: float
    resize_s: float = 0.0
    publish_s: float = 0.0


class BitTime:
    """
    Distribution of the time that one bit takes on the link: x = 1 / rate, in seconds.

    ``rates_bps`` are its quantiles as :class:`SystemEstimate` holds them.
    """

    #: Probability mass at each grid time, and the mass beyond it. Times ascend from 0; no mass is at 0.
    _MASS: Array = np.concatenate((np.zeros(1), np.diff(RATE_EDGES)[::-1]))
    BEYOND: Array = 1 - np.cumsum(_MASS)

    def __init__(self, rates_bps: Array) -> None:
        self.times_s: Array = np.concatenate((np.zeros(1), 1 / rates_bps[::-1]))
        #: E[min(x, c)] = E[x; x <= c] + c P(x > c) at each c of ``times_s``.
        self.capped_means_s: Array = np.cumsum(self._MASS * self.times_s) + self.BEYOND * self.times_s
        self.median_s = float(self.times_s[len(self.times_s) // 2])
        self.mean_s = float(self.capped_means_s[-1])

    def capped_mean_s(self, cap_s: Array) -> Array:
        """Return E[min(x, c)] for each cap c; a negative cap counts as 0."""
        return np.interp(cap_s, self.times_s, self.capped_means_s)

    def share_beyond(self, time_s: Array) -> Array:
        """Return P(x > t) for each time t."""
        return np.interp(time_s, self.times_s, self.BEYOND)


@dataclass
class Prediction:
    """
    The predicted parts of the latency of each choice, arrays of shape [choices] in seconds.

    ``before_send_s`` is resizing, head and encoding; ``at_edge_s`` queueing, decoding and tail; ``on_link_s`` payload
    and answer at the median rate; ``timeout_s`` the longest wait for an answer; ``transfer_s`` the expected time on
    the link with that timeout; ``image_age_s`` the mean age of the image when its head starts. ``slowest_stage_s`` is
    the longest of robot, edge and link, and ``latency_s`` the expected latency.
    """

    bit_time: BitTime
    before_send_s: Array
    at_edge_s: Array
    rtt_s: Array
    on_link_s: Array
    timeout_s: Array
    finish_s: Array
    transfer_s: Array
    slowest_stage_s: Array
    image_age_s: Array
    latency_s: Array

    @property
    def without_age_s(self) -> Array:
        """The expected latency of an image that is new when its head starts."""
        return self.latency_s - self.image_age_s


class LatencyModel:
    """Predicts the latency of each choice; the symbols in the comments are those of docs/how_it_decides.md."""

    def __init__(self, choices: Choices, constraints: PlannerConstraints) -> None:
        self._choices = choices
        self._constraints = constraints
        self._period_s = 1 / constraints.frame_rate_hz
        self._waiting_share = constraints.latency_waiting_share

    def predict(self, estimate: SystemEstimate) -> Prediction:
        """Predict every choice under the estimate."""
        choices, robot, edge = self._choices, estimate.robot_factor, estimate.edge_factor
        bit_time = BitTime(estimate.rates_bps)
        split, sends = choices.split, choices.sends
        # H + E, Q + D + T, R, B x, F
        before_send_s = estimate.resize_s + robot * (estimate.robot[split] * choices.head_s + choices.encode_s)
        at_edge_s = estimate.queueing_s * sends + edge * (choices.decode_s + estimate.edge[split] * choices.tail_s)
        rtt_s = np.where(sends, estimate.rtt_s, 0.0)
        on_link_s = choices.bits * bit_time.median_s
        finish_s = robot * choices.finish_s
        # W: the answer timeout follows from the wait at the median rate.
        timeout_s = self._timeout_s(rtt_s + at_edge_s + on_link_s)
        # E[min(R + Q + D + T + B x, W + F)] = R + Q + D + T + B E[min(x, cap)]
        cap_s = timeout_s + finish_s - rtt_s - at_edge_s
        bits = np.maximum(choices.bits, 1e-9)
        transfer_s = choices.bits * bit_time.capped_mean_s(cap_s / bits)
        # P a(u)
        slowest_stage_s = np.maximum(np.maximum(before_send_s + estimate.publish_s, at_edge_s), on_link_s)
        image_age_s = self._image_age_s(slowest_stage_s, bit_time)
        predicted_s = before_send_s + rtt_s + at_edge_s + transfer_s
        residual_s = np.maximum(estimate.residual_s[split], -_MOST_FASTER * predicted_s)
        return Prediction(
            bit_time=bit_time,
            before_send_s=before_send_s,
            at_edge_s=at_edge_s,
            rtt_s=rtt_s,
            on_link_s=on_link_s,
            timeout_s=timeout_s,
            finish_s=finish_s,
            transfer_s=transfer_s,
            slowest_stage_s=slowest_stage_s,
            image_age_s=image_age_s,
            latency_s=predicted_s + residual_s + image_age_s,
        )

    def age_in_turns_s(self, before_send_s: float) -> float:
        """Return the mean age of the images that are sent where robot and link take turns."""
        periods = before_send_s / self._period_s
        return float(np.interp(periods, _BUSY_PERIODS, _mean_ages(self._waiting_share, True))) * self._period_s

    def _timeout_s(self, wait_s: Array) -> Array:
        """Return the longest wait for an answer by the predicted one."""
        if self._constraints.fallback_s > 0:
            return np.full(len(wait_s), self._constraints.fallback_s)
        return np.maximum(_TIMEOUT_FACTOR * wait_s, _LEAST_TIMEOUT_S)

    def _image_age_s(self, slowest_stage_s: Array, bit_time: BitTime) -> Array:
        """
        Return the mean age of images when their head starts.

        A stage that does not keep up makes images wait; so does a link that now and then takes longer than a period.
        """
        busy = np.interp(slowest_stage_s / self._period_s, _BUSY_PERIODS, _mean_ages(self._waiting_share, False))
        late = bit_time.share_beyond(self._period_s / np.maximum(self._choices.bits, 1e-9))
        late *= _LINK_AGE if self._waiting_share else _LINK_AGE_WITHOUT_WAITING
        return self._period_s * np.maximum(busy, late)


@functools.lru_cache
def _mean_ages(waiting_share: float, turns: bool) -> Array:
    """Return :func:`mean_age` at each of :data:`_BUSY_PERIODS`, averaged over stages that vary by _STAGE_SPREAD."""
    exact = mean_age(_BUSY_PERIODS, waiting_share, turns)
    deviations = np.linspace(-3, 3, 61)
    weights = np.exp(-(deviations**2) / 2)
    ages = [np.interp(_BUSY_PERIODS * (1 + _STAGE_SPREAD * deviation), _BUSY_PERIODS, exact)
            for deviation in deviations]
    return np.asarray(np.average(ages, axis=0, weights=weights))
