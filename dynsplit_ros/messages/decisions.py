# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Split decisions to and from messages; without torch, which the monitor does not need."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from std_msgs.msg import Header

from dynsplit_ros import msg
from dynsplit_ros.policies.records import SplitDecision
from dynsplit_ros.text import printable

#: The fields that record and message share, by their one name; the message has the candidates beside them.
_NAMES = tuple(field.name for field in fields(SplitDecision)
               if field.name in msg.SplitDecision.get_fields_and_field_types())


def to_decision(decision: SplitDecision, header: Header, fingerprint: str) -> msg.SplitDecision:
    """Return a decision for the model with this fingerprint as a message."""
    return msg.SplitDecision(header=header, fingerprint=fingerprint,
                             candidates=[_to_candidate(candidate) for candidate in decision.candidates],
                             **{name: getattr(decision, name) for name in _NAMES})


def from_decision(message: msg.SplitDecision) -> SplitDecision:
    """Return a decision from a message, without the candidates; it can hold anything that the message can."""
    values = {name: getattr(message, name) for name in _NAMES}
    # The camera keeps the decision and shows its texts: they are cut to a length.
    return SplitDecision(**{name: printable(value) if isinstance(value, str) else value
                            for name, value in values.items()})


def _to_candidate(candidate: Any) -> msg.CandidatePrediction:
    return msg.CandidatePrediction(
        split_index=candidate.split_index,
        split_name=candidate.split_name,
        codec=candidate.codec,
        payload_bytes=candidate.payload_bytes,
        latency_s=candidate.latency_s,
        robot_s=candidate.head_s + candidate.encode_s,
        link_s=candidate.transmit_s + candidate.rtt_s + candidate.answer_s,
        edge_s=candidate.queueing_s + candidate.decode_s + candidate.tail_s,
        allowed=candidate.allowed,
    )
