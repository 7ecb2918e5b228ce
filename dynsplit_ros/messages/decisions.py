# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Converts split decisions to and from messages, without torch, which the monitor does not need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from std_msgs.msg import Header

from dynsplit_ros import msg
from dynsplit_ros.messages.fields import from_message, to_message
from dynsplit_ros.policies.records import SplitDecision
from dynsplit_ros.protocol import MOST_EDGES
from dynsplit_ros.text import printable


def to_decision(decision: SplitDecision, header: Header, fingerprint: str) -> msg.SplitDecision:
    """Return a decision for the model with this fingerprint as a message; local inference is one candidate."""
    candidates = [_to_candidate(candidate, decision.edge) for candidate in decision.candidates]
    for edge, plan in decision.other_plans.items():
        candidates += [_to_candidate(candidate, edge) for candidate in plan.candidates if candidate.codec]
    return to_message(
        msg.SplitDecision,
        decision,
        header=header,
        fingerprint=fingerprint,
        silent_edges=list(decision.silent_edges),
        candidates=candidates,
    )


def to_edge_decision(decision: SplitDecision, header: Header, fingerprint: str) -> msg.SplitDecision:
    """Return a message with the part of a decision that an edge needs, without texts and candidates."""
    return to_decision(replace(decision, reason='', silent_edges=(), plan=None, other_plans={}), header, fingerprint)


def from_decision(message: msg.SplitDecision) -> SplitDecision:
    """Return a decision from a message, without the candidates; its values are not checked."""
    return from_message(SplitDecision, message, silent_edges=tuple(map(printable, message.silent_edges[:MOST_EDGES])))


def _to_candidate(candidate: Any, edge: str) -> msg.CandidatePrediction:
    return to_message(
        msg.CandidatePrediction,
        candidate,
        edge=edge,
        robot_s=candidate.head_s + candidate.encode_s,
        link_s=candidate.transmit_s + candidate.rtt_s + candidate.answer_s,
        edge_s=candidate.queueing_s + candidate.decode_s + candidate.tail_s,
    )
