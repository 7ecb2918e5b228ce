# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Where one frame stands and where its time went."""

from __future__ import annotations

from dataclasses import dataclass
import enum
import math


class State(enum.IntEnum):
    """What has become of a frame; the numbers are those of FrameTiming.msg."""

    SENT = 0
    ANSWERED = 1
    LOCAL = 2
    FELL_BACK = 3
    LATE = 4


class Status(enum.IntEnum):
    """What the edge says of a frame; the numbers are those of TailResult.msg."""

    OK = 0
    REFUSED = 1
    SUPERSEDED = 2
    FAILED = 3


@dataclass
class FrameTiming:
    """
    Timing of one frame, field by field what FrameTiming.msg holds and explains.

    Times ending in ``_s`` are seconds; ``sent_s``, ``received_s``, ``answered_s`` and ``given_up_s`` are instants on
    the robot's monotonic clock, NaN where the event did not happen.
    """

    session: int = 0
    sequence: int = 0
    state: State = State.LOCAL
    detail: str = ''
    split_index: int = 0
    split_name: str = ''
    codec: str = ''
    images: int = 1
    offered_hz: float = math.nan
    batch: int = 1
    payload_bytes: int = 0
    answer_bytes: int = 0
    sent_s: float = math.nan
    received_s: float = math.nan
    answered_s: float = math.nan
    given_up_s: float = math.nan
    wait_s: float = 0.0
    resize_s: float = 0.0
    head_s: float = 0.0
    finishing_s: float = 0.0
    encode_s: float = 0.0
    link_wait_s: float = 0.0
    send_s: float = 0.0
    transfer_s: float = 0.0
    held_s: float = 0.0
    queueing_s: float = 0.0
    decode_s: float = 0.0
    tail_s: float = 0.0
    finish_s: float = 0.0
    latency_s: float = 0.0


@dataclass(frozen=True)
class EdgeTimes:
    """The edge's account of one frame, in seconds on its own clock: how long it held it, and the parts of that."""

    held_s: float = 0.0
    queueing_s: float = 0.0
    decode_s: float = 0.0
    tail_s: float = 0.0
    batch: int = 1
