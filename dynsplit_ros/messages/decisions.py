# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Split decisions to and from messages; without torch, which the monitor does not need."""

from __future__ import annotations

from typing import Any

from std_msgs.msg import Header

from dynsplit_ros import msg
from dynsplit_ros.messages.fields import from_message, to_message
from dynsplit_ros.policies.records import SplitDecision


def to_decision(decision: SplitDecision, header: Header, fingerprint: str) -> msg.SplitDecision:
    """Return a decision for the model with this fingerprint as a message."""
    return to_message(msg.SplitDecision, decision, header=header, fingerprint=fingerprint, candidates=[
        _to_candidate(candidate, decision.edge) for candidate in decision.candidates])


def from_decision(message: msg.SplitDecision) -> SplitDecision:
    """Return a decision from a message, without the candidates; it can hold anything that the message can."""
    return from_message(SplitDecision, message)


def _to_candidate(candidate: Any, edge: str) -> msg.CandidatePrediction:
    return to_message(
        msg.CandidatePrediction,
        candidate,
        edge=edge,
        robot_s=candidate.head_s + candidate.encode_s,
        link_s=candidate.transmit_s + candidate.rtt_s + candidate.answer_s,
        edge_s=candidate.queueing_s + candidate.decode_s + candidate.tail_s,
    )
