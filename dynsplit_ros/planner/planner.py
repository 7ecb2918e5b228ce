# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Chooses split and codec by the predicted latency of every choice."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from dynsplit_ros.planner.alternation import local_if_wait_s, with_alternation_s
from dynsplit_ros.planner.choices import Array, Choices, Flags
from dynsplit_ros.planner.constraints import PlannerConstraints
from dynsplit_ros.planner.deadline import late_share
from dynsplit_ros.planner.hysteresis import conditions, EdgeScore, Hysteresis
from dynsplit_ros.planner.latency import LatencyModel, Prediction, SystemEstimate
from dynsplit_ros.planner.timeout import answer_timeout_s
from dynsplit_ros.profile.profile import SystemProfile

#: Weight of the latency in the scores of the other objectives. It decides between equal stages or equal shares of late
#: frames; a larger one would outweigh real differences.
_TIE_BREAK = 1e-3


@dataclass(frozen=True)
class Candidate:
    """
    The prediction for one choice, and whether it may be chosen.

    ``image_age_s`` is the mean age of the image when its head starts. The other parts follow in their order, at the
    mean rate of the link. ``latency_s`` is the expected latency, which includes the answer timeout and the residual.
    ``late_share`` is the share of frames that miss the deadline; None unless that is the objective.
    """

    split_index: int
    split_name: str
    codec: str
    head_engine: str
    tail_engine: str
    payload_bytes: int
    image_age_s: float
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
    late_share: float | None
    allowed: bool


#: The names of the terms that both Candidate and Prediction have.
_TERMS = (
    'image_age_s',
    'head_s',
    'encode_s',
    'transmit_s',
    'rtt_s',
    'queueing_s',
    'decode_s',
    'tail_s',
    'answer_s',
    'latency_s',
)


@dataclass
class Plan:
    """
    A choice, the reason, and the prediction for every choice.

    ``local_engine`` runs the whole network for images that are not sent. ``predicted_s`` is the expected latency of a
    frame from its image's arrival, ``answer_timeout_s`` the answer timeout after sending. The robot at once computes an
    image that would wait longer than ``local_if_wait_s`` for link and edge. ``settled`` says that no other choice has a
    better prediction. ``description`` and ``conditions`` are texts about the choice and the estimates behind it.
    ``edge_score`` is for a comparison with other edges.
    """

    split_index: int
    split_name: str
    codec: str
    head_engine: str
    tail_engine: str
    local_engine: str
    reason: str
    predicted_s: float
    answer_timeout_s: float
    local_if_wait_s: float
    changed: bool
    settled: bool
    description: str
    conditions: str
    edge_score: EdgeScore
    _late_share: Array | None = field(repr=False)
    _choices: Choices = field(repr=False)
    _prediction: Prediction = field(repr=False)
    _allowed: Flags = field(repr=False)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The prediction for every choice, computed at each access."""
        choices, prediction = self._choices, self._prediction
        terms = zip(*(getattr(prediction, name).tolist() for name in _TERMS))
        rates_hz = 1 / np.maximum(prediction.mean_stage_s, 1e-9)
        return tuple(
            Candidate(
                split_index=int(choices.split[row]),
                split_name=choices.names[row],
                codec=choices.codecs[row],
                head_engine=choices.engines[row][0],
                tail_engine=choices.engines[row][1],
                payload_bytes=int(choices.payload_bytes[row]),
                frame_rate_hz=float(rates_hz[row]),
                late_share=float(self._late_share[row]) if self._late_share is not None else None,
                allowed=bool(self._allowed[row]),
                **dict(zip(_TERMS, values)),
            )
            for row, values in enumerate(terms)
        )


class Planner:
    """
    Chooses among the cuts of ``profile`` for frames of ``batch`` images under ``constraints``.

    Raises DynsplitError if the constraints allow no choice.
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

    def plan(self, estimate: SystemEstimate) -> Plan:
        """Predict the latency of every choice under the estimate, and choose."""
        choices, constraints = self._choices, self.constraints
        prediction = self._model.predict(estimate)
        allowed = self._allowed(prediction, estimate)
        latency_s = with_alternation_s(choices, constraints, prediction, estimate, allowed)
        late = None
        if constraints.objective == 'deadline':
            late = late_share(choices, constraints.deadline_s, prediction, estimate)
        score = np.where(allowed, self._score(prediction, latency_s, late), np.inf)
        best = int(score.argmin()) if np.isfinite(score).any() else choices.local
        chosen, changed, reason = self.hysteresis.choose(best, score, prediction, estimate)
        alternates = bool(latency_s[chosen] < prediction.latency_s[chosen])
        return Plan(
            split_index=int(choices.split[chosen]),
            split_name=choices.names[chosen],
            codec=choices.codecs[chosen],
            head_engine=choices.engines[chosen][0],
            tail_engine=choices.engines[chosen][1],
            local_engine=choices.engines[choices.local][0],
            reason=reason,
            predicted_s=float(prediction.latency_s[chosen]),
            answer_timeout_s=answer_timeout_s(choices, constraints, prediction, chosen),
            local_if_wait_s=local_if_wait_s(choices, constraints, prediction, estimate, allowed, chosen, alternates),
            changed=changed,
            settled=chosen == best,
            description=choices.describe(chosen),
            conditions=conditions(estimate),
            edge_score=self.hysteresis.edge_score(float(score[chosen]), prediction, estimate),
            _late_share=late,
            _choices=choices,
            _prediction=prediction,
            _allowed=allowed,
        )

    def _allowed(self, prediction: Prediction, estimate: SystemEstimate) -> Flags:
        """Return the choices that are allowed now: without an edge local inference, else those within the limits."""
        choices = self._choices
        if not estimate.alive:
            return choices.is_local
        if self.constraints.bandwidth_bps == 0:
            return choices.allowed
        between_frames_s = np.maximum(prediction.mean_stage_s, self._period_s)
        fits = 8 * choices.payload_bytes / between_frames_s <= self.constraints.bandwidth_bps
        return np.asarray(choices.allowed & fits)

    def _score(self, prediction: Prediction, latency_s: Array, late: Array | None) -> Array:
        """Return the quantity to minimise, in seconds."""
        if self.constraints.objective == 'latency':
            return latency_s
        if late is not None:
            return self.constraints.deadline_s * late + _TIE_BREAK * latency_s
        return prediction.mean_stage_s + _TIE_BREAK * prediction.latency_s
