# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Chooses split and codec by the predicted latency of every choice."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
import math

import numpy as np

from dynsplit_ros.planner.choices import Array, Choices, Flags
from dynsplit_ros.planner.constraints import PlannerConstraints
from dynsplit_ros.planner.hysteresis import Hysteresis
from dynsplit_ros.planner.latency import LatencyModel, Prediction, SystemEstimate
from dynsplit_ros.profile.profile import SystemProfile

#: Standard deviation (natural logarithm) of the rate below which a link is steady. Only on a steady link can the
#: planner foresee that robot and link take turns; another link may become faster while the robot computes.
STEADY = 0.1
#: Taking turns must gain this factor: how frames fall between the images is foreseen no better.
_TURNS_GAIN = 1.02
#: The answer timeout is at least this many times the predicted wait, plus a pause of a scheduler in seconds: a frame
#: that is finished on the robot too early is computed twice.
_TIMEOUT_FACTOR, _PAUSE_S = 1.5, 0.02
#: Finishing a frame next to other work may take this many times as long as profiled.
_FINISHING = 1.5
#: Weight of the latency in the score for the objective 'frame_rate': it only decides between equal stages.
_TIE_BREAK = 1e-3


@dataclass(frozen=True)
class Candidate:
    """
    The prediction for one choice, and whether it may be chosen.

    ``wait_s`` is the age of the image when its head starts; the other parts follow in their order at the mean rate.
    ``latency_s`` is the expected latency, which counts the answer timeout and the residual.
    """

    split_index: int
    split_name: str
    codec: str
    payload_bytes: int
    wait_s: float
    head_s: float
    encode_s: float
    transmit_s: float
    rtt_s: float
    queueing_s: float
    decode_s: float
    tail_s: float
    answer_s: float
    latency_s: float
    frame_rate_hz: float
    allowed: bool


@dataclass
class Plan:
    """
    A choice, the reason, and the prediction for every choice.

    ``predicted_s`` is the expected latency of a frame from its image's arrival, ``fallback_after_s`` the answer timeout
    after sending. An image that would wait longer than ``local_if_wait_s`` for link and edge is done by local inference
    at once. ``settled`` says that no other choice was predicted to be better.
    """

    split_index: int
    split_name: str
    codec: str
    reason: str
    predicted_s: float
    fallback_after_s: float
    local_if_wait_s: float
    changed: bool
    settled: bool
    _planner: Planner = field(repr=False)
    _estimate: SystemEstimate = field(repr=False)
    _prediction: Prediction = field(repr=False)
    _allowed: Flags = field(repr=False)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The prediction for every choice; computed when asked for."""
        return self._planner.candidates(self._estimate, self._prediction, self._allowed)


class Planner:
    """
    Chooses among the cuts of ``profile`` for frames of ``batch`` images under ``constraints``.

    Raises DynsplitError when the constraints leave nothing to choose.
    """

    def __init__(
        self, profile: SystemProfile, constraints: PlannerConstraints, batch: int = 1, downlink_ratio: float = 1.0
    ) -> None:
        self.constraints = constraints
        self._choices = Choices(profile, constraints, batch, downlink_ratio)
        self.hysteresis = Hysteresis(self._choices, constraints)
        self.set_frame_rate(constraints.frame_rate_hz)

    def set_frame_rate(self, frame_rate_hz: float) -> None:
        """Plan for another number of offered frames per second from now on; the choice in force stays."""
        self.constraints = self.hysteresis.constraints = replace(self.constraints, frame_rate_hz=frame_rate_hz)
        self._model = LatencyModel(self._choices, self.constraints)
        self._period_s = 1 / frame_rate_hz

    @property
    def waiting_share(self) -> float:
        """Share of the frame rate that the camera may give up: nothing where the frame rate is the objective."""
        return self.constraints.latency_waiting_share

    def plan(self, estimate: SystemEstimate) -> Plan:
        """Predict every choice under the estimate, and choose."""
        choices = self._choices
        prediction = self._model.predict(estimate)
        allowed = self._allowed(prediction, estimate)
        with_turns_s = self._with_turns_s(prediction, estimate, allowed)
        score = np.where(allowed, self._score(prediction, with_turns_s), np.inf)
        best = int(score.argmin()) if np.isfinite(score).any() else choices.local
        chosen, changed, reason = self.hysteresis.choose(best, score, prediction, estimate)
        return Plan(
            split_index=int(choices.split[chosen]),
            split_name=choices.names[chosen],
            codec=choices.codecs[chosen],
            reason=reason,
            predicted_s=float(prediction.latency_s[chosen]),
            fallback_after_s=self._answer_timeout_s(chosen, prediction),
            local_if_wait_s=self._local_if_wait_s(chosen, prediction, with_turns_s, estimate, allowed),
            changed=changed,
            settled=chosen == best,
            _planner=self,
            _estimate=estimate,
            _prediction=prediction,
            _allowed=allowed,
        )

    def _allowed(self, prediction: Prediction, estimate: SystemEstimate) -> Flags:
        """Return which choices are possible now: without an edge only local inference, else those within the limits."""
        choices = self._choices
        if not estimate.alive:
            return choices.is_local
        if self.constraints.bandwidth_bps == 0:
            return choices.allowed
        between_frames_s = np.maximum(_mean_stage_s(choices, prediction), self._period_s)
        fits = 8 * choices.payload_bytes / between_frames_s <= self.constraints.bandwidth_bps
        return np.asarray(choices.allowed & fits)

    def _with_turns_s(
        self, prediction: Prediction, estimate: SystemEstimate, allowed: Flags
    ) -> Array:
        """
        Return the expected latency of each choice, of sent and local frames in turns where that is less.

        In turns, the robot computes the next image alone, begun when it arrives, while the link carries this one.
        """
        local = self._choices.local
        if not (allowed[local] and self.constraints.objective == 'latency' and estimate.rate_spread < STEADY):
            return prediction.latency_s
        age_s = self._model.age_in_turns_s(float(prediction.before_send_s[local]))
        sent_s, local_s = prediction.without_age_s, float(prediction.without_age_s[local])
        in_turns_s = _TURNS_GAIN * (sent_s + local_s + age_s) / 2
        possible = (prediction.before_send_s < self._period_s) & (prediction.on_link_s > prediction.at_edge_s)
        return np.where(possible, np.minimum(prediction.latency_s, in_turns_s), prediction.latency_s)

    def _score(self, prediction: Prediction, with_turns_s: Array) -> Array:
        """Return what to minimise, in seconds."""
        if self.constraints.objective == 'latency':
            return with_turns_s
        return _mean_stage_s(self._choices, prediction) + _TIE_BREAK * prediction.latency_s

    def _local_if_wait_s(
        self,
        chosen: int,
        prediction: Prediction,
        with_turns_s: Array,
        estimate: SystemEstimate,
        allowed: Flags,
    ) -> float:
        """
        Return how long an image may wait for link and edge before local inference, begun at once, is better.

        In turns, half of what a frame that is sent at once gains. Otherwise, where a stage that can be foreseen does
        not keep up with the images, what is left of the mean wait.
        """
        local, steady = self._choices.local, estimate.rate_spread < STEADY
        local_s, latency_s = float(prediction.without_age_s[local]), float(prediction.latency_s[chosen])
        if with_turns_s[chosen] < latency_s:
            return max(0.0, local_s - float(prediction.without_age_s[chosen])) / 2
        foreseen = steady or prediction.at_edge_s[chosen] > prediction.on_link_s[chosen]
        behind = prediction.slowest_stage_s[chosen] > self._period_s
        robot_idle = prediction.before_send_s[chosen] < self._period_s / 2
        if allowed[local] and foreseen and behind and robot_idle and local_s < latency_s:
            return max(0.0, local_s - latency_s + self._period_s / 2)
        return math.inf

    def _answer_timeout_s(self, chosen: int, prediction: Prediction) -> float:
        """
        Return how long after sending the robot waits for an answer before it finishes the frame.

        Waiting for tau costs E[min(T, tau)] + P(T > tau) F. The tau with the least cost is taken, so that the frame is
        finished within the longest wait, but never so short that a usual answer comes too late.
        """
        longest_s = float(prediction.timeout_s[chosen])
        if self.constraints.fallback_s > 0 or chosen == self._choices.local:
            return longest_s
        bit_time, bits = prediction.bit_time, float(self._choices.bits[chosen])
        finish_s = float(prediction.finish_s[chosen])
        fixed_s = float(prediction.at_edge_s[chosen] + prediction.rtt_s[chosen])
        cost_s = bits * bit_time.capped_means_s + finish_s * bit_time.BEYOND
        cheapest_s = fixed_s + bits * float(bit_time.times_s[int(cost_s.argmin())])
        usual_s = fixed_s + float(prediction.on_link_s[chosen])
        return max(_TIMEOUT_FACTOR * usual_s + _PAUSE_S, min(cheapest_s, longest_s - _FINISHING * finish_s - _PAUSE_S))

    def candidates(
        self, estimate: SystemEstimate, prediction: Prediction, allowed: Flags
    ) -> tuple[Candidate, ...]:
        """Return the parts of each choice's predicted latency."""
        choices, bit_s = self._choices, prediction.bit_time.mean_s
        robot, edge = estimate.robot_factor, estimate.edge_factor
        stage_s = np.maximum(np.maximum(prediction.before_send_s, prediction.at_edge_s), choices.bits * bit_s)
        return tuple(
            Candidate(
                split_index=split,
                split_name=choices.names[row],
                codec=choices.codecs[row],
                payload_bytes=int(choices.payload_bytes[row]),
                wait_s=float(prediction.image_age_s[row]),
                head_s=robot * float(estimate.robot[split] * choices.head_s[row]),
                encode_s=robot * float(choices.encode_s[row]),
                transmit_s=8 * float(choices.payload_bytes[row]) * bit_s,
                rtt_s=float(prediction.rtt_s[row]),
                queueing_s=estimate.queueing_s * bool(choices.sends[row]),
                decode_s=edge * float(choices.decode_s[row]),
                tail_s=edge * float(estimate.edge[split] * choices.tail_s[row]),
                answer_s=float(choices.answer_bits[row]) * bit_s,
                latency_s=float(prediction.latency_s[row]),
                frame_rate_hz=1 / max(float(stage_s[row]), 1e-9),
                allowed=bool(allowed[row]),
            )
            for row, split in enumerate(choices.split.tolist())
        )


def _mean_stage_s(choices: Choices, prediction: Prediction) -> Array:
    """Return the slowest stage of each choice where the link takes its mean time rather than the median."""
    return np.asarray(np.maximum(prediction.slowest_stage_s, choices.bits * prediction.bit_time.mean_s))
