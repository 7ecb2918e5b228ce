# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The latency model of docs/how_it_decides.md: the predicted latency of every choice, term by term."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynsplit_ros.estimators.rate import RATE_EDGES, RATE_SHARES
from dynsplit_ros.planner.choices import Choices
from dynsplit_ros.planner.constraints import PlannerConstraints
from dynsplit_ros.planner.image_age import image_age
from dynsplit_ros.policies.pacing import DEFAULT_UNANSWERED

Array = NDArray[np.float64]

#: Longest wait for an answer, as a multiple of the usual wait, and its least value in seconds. A longer wait delays
#: lost frames; with a shorter one, the robot gives up frames when the link is slow for a moment.
_LONGEST_WAIT_FACTOR, _MIN_LONGEST_WAIT_S = 3.0, 0.2
#: Largest share by which a residual reduces a prediction, so that no prediction becomes negative.
_LARGEST_REDUCTION = 0.5
#: Mean age of images, in periods, on a link whose single transfers sometimes take longer than a period. The first value
#: applies if the camera waits for newer images, the second one if not. With smaller ages, such a link looks too good.
_LINK_AGE, _LINK_AGE_WITHOUT_WAITING = 0.15, 0.5


@dataclass
class SystemEstimate:
    """
    The estimates of link and machines at the time of a choice; times in seconds.

    Only differences of ``now_s`` count. ``rates_bps`` are the rates (bit/s) of the next transfer at
    :data:`~dynsplit_ros.estimators.rate.RATE_SHARES`; ``rate_spread`` is the standard deviation of the natural
    logarithm of the link's rate. ``alive`` says whether the edge answers. ``robot_factor`` and ``edge_factor`` are the
    ratios of measured to profiled times of the machines, ``robot_spread`` and ``edge_spread`` the standard deviations
    of their natural logarithms; ``robot`` and ``edge`` hold the further factor of each split's head and tail, by split
    index. ``servers`` is the number of frames that the edge can run at the same time (0: ``alive`` is false).
    ``resize_s`` is the time of resizing before each head, ``publish_s`` that of publishing after each frame.
    ``residual_s`` is, by split index, the mean difference between measured and predicted latency.
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
    servers: int = 1

    @classmethod
    def as_profiled(cls, cuts: int, rate_bps: float, rtt_s: float, **others: Any) -> SystemEstimate:
        """Return the estimate of a link of this rate and machines as profiled; ``others`` replace its fields."""
        profiled = cls(
            now_s=0.0,
            rates_bps=np.full(len(RATE_SHARES), rate_bps),
            rate_spread=0.0,
            rtt_s=rtt_s,
            alive=True,
            queueing_s=0.0,
            robot=np.ones(cuts),
            edge=np.ones(cuts),
            residual_s=np.zeros(cuts),
            robot_factor=1.0,
            edge_factor=1.0,
            robot_spread=0.0,
            edge_spread=0.0,
        )
        return replace(profiled, **others)


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
    The terms of each choice's latency: arrays of shape [choices] in seconds, at the mean rate of the link.

    ``head_s`` contains the resizing. ``transmit_s`` and ``answer_s`` are payload and answer on the link, ``on_link_s``
    is both at the median rate. ``longest_wait_s`` is the longest wait for an answer, ``finish_s`` the tail on the robot
    after it, and ``expected_wait_s`` the expected wait that these bound. ``slowest_stage_s`` is the longest of robot,
    edge and link, ``image_age_s`` the mean age of the image when its head starts, and ``residual_s`` the mean
    difference between measured and predicted latency.
    """

    bit_time: BitTime
    head_s: Array
    encode_s: Array
    transmit_s: Array
    rtt_s: Array
    queueing_s: Array
    decode_s: Array
    tail_s: Array
    answer_s: Array
    on_link_s: Array
    longest_wait_s: Array
    finish_s: Array
    expected_wait_s: Array
    slowest_stage_s: Array
    image_age_s: Array
    residual_s: Array

    @property
    def latency_s(self) -> Array:
        """The expected latency."""
        return self.without_age_s + self.image_age_s

    @property
    def without_age_s(self) -> Array:
        """The expected latency of an image without its age."""
        return self.robot_s + self.expected_wait_s + self.residual_s

    @property
    def start_s(self) -> Array:
        """The time from an image's arrival until its payload is ready or local inference is done, with the residual."""
        return self.image_age_s + self.robot_s + self.residual_s

    @property
    def robot_s(self) -> Array:
        """The robot's time before it sends."""
        return self.head_s + self.encode_s

    @property
    def edge_s(self) -> Array:
        """The edge's time, with the queueing delay."""
        return self.queueing_s + self.decode_s + self.tail_s

    @property
    def off_link_s(self) -> Array:
        """The part of the wait for an answer that does not depend on the rate of the link."""
        return self.rtt_s + self.edge_s

    @property
    def mean_stage_s(self) -> Array:
        """The slowest stage if the link takes its mean time instead of the median."""
        return np.maximum(self.slowest_stage_s, self.transmit_s + self.answer_s)


class LatencyModel:
    """Predicts the latency of each choice; the symbols in the comments are those of docs/how_it_decides.md."""

    def __init__(self, choices: Choices, constraints: PlannerConstraints) -> None:
        self._choices = choices
        self._constraints = constraints
        self._period_s = 1 / constraints.frame_rate_hz  # P
        self._waiting_share = constraints.latency_waiting_share

    def predict(self, estimate: SystemEstimate) -> Prediction:
        """Predict every choice under the estimate."""
        choices, robot, edge = self._choices, estimate.robot_factor, estimate.edge_factor
        bit_time = BitTime(estimate.rates_bps)  # x
        head_s = estimate.resize_s + robot * estimate.robot[choices.split] * choices.head_s  # H
        encode_s = robot * choices.encode_s  # E
        rtt_s = np.where(choices.sends, estimate.rtt_s, 0.0)  # R
        queueing_s = np.where(choices.sends, estimate.queueing_s, 0.0)  # Q
        decode_s = edge * choices.decode_s  # D
        tail_s = edge * estimate.edge[choices.split] * choices.tail_s  # T
        on_link_s = choices.bits * bit_time.median_s  # B x at the median of x
        finish_s = robot * choices.finish_s  # F

        robot_s, edge_s = head_s + encode_s, queueing_s + decode_s + tail_s
        longest_wait_s = self._longest_wait_s(rtt_s + edge_s + on_link_s)  # W
        expected_wait_s = self._expected_wait_s(rtt_s + edge_s, bit_time, longest_wait_s + finish_s)
        servers = min(max(1, estimate.servers), DEFAULT_UNANSWERED)  # N: a robot keeps no more of them busy
        slowest_stage_s = np.maximum(np.maximum(robot_s + estimate.publish_s, edge_s / servers), on_link_s)  # P u
        return Prediction(
            bit_time=bit_time,
            head_s=head_s,
            encode_s=encode_s,
            transmit_s=8 * choices.payload_bytes * bit_time.mean_s,
            rtt_s=rtt_s,
            queueing_s=queueing_s,
            decode_s=decode_s,
            tail_s=tail_s,
            answer_s=choices.answer_bits * bit_time.mean_s,
            on_link_s=on_link_s,
            longest_wait_s=longest_wait_s,
            finish_s=finish_s,
            expected_wait_s=expected_wait_s,
            slowest_stage_s=slowest_stage_s,
            image_age_s=self._image_age_s(slowest_stage_s, bit_time),  # P a(u)
            residual_s=np.maximum(
                estimate.residual_s[choices.split], -_LARGEST_REDUCTION * (robot_s + expected_wait_s)
            ),
        )

    def _longest_wait_s(self, usual_wait_s: Array) -> Array:
        """Return W: the longest wait for an answer, from the wait at the median rate."""
        if self._constraints.answer_timeout_s > 0:
            return np.full(len(usual_wait_s), self._constraints.answer_timeout_s)
        return np.maximum(_LONGEST_WAIT_FACTOR * usual_wait_s, _MIN_LONGEST_WAIT_S)

    def _expected_wait_s(self, off_link_s: Array, bit_time: BitTime, bound_s: Array) -> Array:
        """
        Return E[min(R + Q + D + T + B x, W + F)], where ``off_link_s`` is R + Q + D + T and ``bound_s`` is W + F.

        It equals R + Q + D + T + B E[min(x, c)] with c = (W + F - R - Q - D - T) / B.
        """
        cap_s = (bound_s - off_link_s) / np.maximum(self._choices.bits, 1e-9)
        return np.asarray(off_link_s + self._choices.bits * bit_time.capped_mean_s(cap_s))

    def _image_age_s(self, slowest_stage_s: Array, bit_time: BitTime) -> Array:
        """
        Return P a(u): the mean age of images when their head starts.

        Images wait for a stage that does not keep up, and for a link that sometimes takes longer than a period.
        """
        age = image_age(slowest_stage_s / self._period_s, self._waiting_share)
        late = bit_time.share_beyond(self._period_s / np.maximum(self._choices.bits, 1e-9))
        late_age = late * (_LINK_AGE if self._waiting_share else _LINK_AGE_WITHOUT_WAITING)
        return self._period_s * np.maximum(age, late_age)
