# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The records of a frame and of a decision, for all sides; :class:`EdgeFrame` is a frame while the edge has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
import enum
import math
from typing import Any

from dynsplit_ros.engine_names import EAGER

#: Split index and codec.
Choice = tuple[int, str]
#: A tail on an engine: split index and engine.
Tail = tuple[int, str]
#: Parts of a frame's latency in their order, as FrameRecord names them.
LATENCY_PARTS = (
    'wait_s',
    'resize_s',
    'head_s',
    'encode_s',
    'link_wait_s',
    'transfer_s',
    'queueing_s',
    'decode_s',
    'tail_s',
    'finish_s',
)


class Outcome(str, enum.Enum):
    """Outcome of a frame; the names are those of FrameTiming.msg."""

    SENT = 'sent'
    ANSWERED = 'answered'
    LOCAL = 'local'
    FELL_BACK = 'fell_back'
    LATE = 'late'

    __str__ = str.__str__


class Status(enum.IntEnum):
    """Status of a frame in the edge's answer; the numbers are those of TailResult.msg."""

    OK = 0
    REFUSED = 1
    SUPERSEDED = 2
    FAILED = 3


@dataclass(frozen=True)
class EdgeTimes:
    """
    The edge's times for one frame, in seconds on its own clock: how long it held the frame, and the parts of that.

    ``edge`` is the edge's name and ``edge_session`` its run, a random number that changes with a restart.
    ``tail_engine`` is the engine that ran the tail.
    """

    held_s: float = 0.0
    queueing_s: float = 0.0
    decode_s: float = 0.0
    tail_s: float = 0.0
    batch: int = 1
    edge: str = ''
    edge_session: int = 0
    tail_engine: str = EAGER


@dataclass(eq=False)
class EdgeFrame:
    """
    One frame on the edge, from the arrival of its activation to its answer.

    ``payload_bytes`` and ``images`` (the number of images) are what the payload declares. ``tail_engine`` is the engine
    that the robot asks for. The policy replaces it by the one that runs the tail. More than ``answer_timeout_s``
    seconds after ``arrived_s``, the edge answers without outputs. ``status`` is None until the frame is answered. The
    answer leaves out the objects with a score below ``min_score``; a negative or NaN one keeps all. The policy keeps
    ``source``, ``payload`` and ``outputs`` for its caller and does not look into them.
    """

    robot: str
    source: Any
    fingerprint: str
    split_index: int
    codec: str
    answer_timeout_s: float
    payload: Any = field(default=(), repr=False)
    payload_bytes: int = 0
    images: int = 1
    tail_engine: str = EAGER
    min_score: float = -1.0
    arrived_s: float = math.nan
    status: Status | None = None
    reason: str = ''
    times: EdgeTimes = EdgeTimes()
    outputs: Any = field(default=None, repr=False)

    @property
    def tail(self) -> Tail:
        """The tail that runs for this frame."""
        return self.split_index, self.tail_engine

    def is_expired(self, now_s: float) -> bool:
        """Whether the robot no longer waits for the answer."""
        return not now_s - self.arrived_s <= self.answer_timeout_s


@dataclass(frozen=True)
class SplitDecision:
    """
    Which edge, split and codec the next frames use, and why. The fields are those of SplitDecision.msg.

    ``edge`` is the name of the edge, empty while none is known. ``silent_edges`` do not answer: the robot finishes
    frames that are on their way to them.
    ``head_engine`` and ``tail_engine`` run the two parts. ``local_engine`` runs the whole network for images that the
    robot does not send. ``answer_timeout_s`` is the time after which the robot finishes a sent frame itself. The robot
    at once computes an image that would wait longer than ``local_if_wait_s`` for link and edge. The camera may give up
    ``waiting_share`` (0 to 1) of the frame rate to wait for newer images. ``last_frame`` is the latest frame (of
    ``last_frame_session``) that the decision takes into account. ``degraded`` says that no edge answers. ``changed``
    says that edge, split or codec differ from those of the decision before it. ``plan`` holds the predictions for the
    edge, ``other_plans`` those for other edges by their names. ``servers`` is the number of frames of this robot that
    the edge can run at the same time.
    """

    split_index: int
    codec: str
    answer_timeout_s: float
    last_frame_session: int = 0
    last_frame: int = 0
    local_if_wait_s: float = math.inf
    predicted_latency_s: float = math.inf
    waiting_share: float = 0.0
    degraded: bool = False
    servers: int = 1
    sequence: int = 0
    split_name: str = ''
    edge: str = ''
    silent_edges: tuple[str, ...] = ()
    reason: str = ''
    changed: bool = False
    head_engine: str = EAGER
    tail_engine: str = EAGER
    local_engine: str = EAGER
    plan: Any = field(default=None, repr=False, compare=False)
    other_plans: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def choice(self) -> Choice:
        """Split index and codec."""
        return self.split_index, self.codec

    @property
    def candidates(self) -> tuple[Any, ...]:
        """The prediction for every choice with the edge, computed at each access; empty outside of the monitor."""
        return self.plan.candidates if self.plan is not None else ()


@dataclass
class FrameRecord:
    """
    One accepted frame from its image's arrival to its prediction. FrameTiming.msg holds and explains most fields.

    Times ending in ``_s`` are seconds; ``arrived_s``, ``started_s``, ``sent_s``, ``acknowledged_s``, ``answered_s``,
    ``given_up_s``, ``deadline_s`` and ``delivered_s`` are instants on the robot's monotonic clock, NaN where the event
    did not happen. ``audited`` says that the frame was drawn for an audit. The policy keeps ``image``, ``activation``,
    ``payload`` and ``outputs`` for its caller and does not look into them. Until the head is done, ``activation`` is
    the prepared image.
    """

    session: int = 0
    sequence: int = 0
    outcome: Outcome = Outcome.LOCAL
    detail: str = ''
    edge: str = ''
    split_index: int = 0
    split_name: str = ''
    codec: str = ''
    head_engine: str = EAGER
    tail_engine: str = ''
    images: int = 1
    audited: bool = False
    offered_hz: float = math.nan
    batch: int = 1
    payload_bytes: int = 0
    answer_bytes: int = 0
    sent_s: float = math.nan
    acknowledged_s: float = math.nan
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
    arrived_s: float = math.nan
    started_s: float = math.nan
    answer_timeout_s: float = math.nan
    deadline_s: float = math.inf
    delivered_s: float = math.nan
    image: Any = field(default=None, repr=False, compare=False)
    activation: Any = field(default=None, repr=False, compare=False)
    payload: Any = field(default=(), repr=False, compare=False)
    outputs: Any = field(default=None, repr=False, compare=False)

    @property
    def choice(self) -> Choice:
        """Split index and codec."""
        return self.split_index, self.codec

    @property
    def waited_s(self) -> float:
        """Time from sending until the answer came or the robot gave up waiting for it; 0 for a frame never sent."""
        waited_s = (self.answered_s if math.isnan(self.given_up_s) else self.given_up_s) - self.sent_s
        return 0.0 if math.isnan(waited_s) else waited_s

    def snapshot(self) -> FrameRecord:
        """Return a copy without image, activation, payload and outputs, which later events do not change."""
        return replace(self, image=None, activation=None, payload=(), outputs=None)
