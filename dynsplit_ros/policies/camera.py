# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
What the camera side does with each event: a state machine without clock and threads.

The methods ``on_...`` of :class:`CameraPolicy` are the events. Each takes the instant at which it happens and returns
actions, which the caller carries out in their order. The head takes one frame at a time through these events (and
actions)::

    on_image (Prepare) -> on_prepared (RunHead) -> on_head_done (Encode) -> on_payload_ready (Send) -> on_payload_sent

The robot prepares the next image before its head may start, while it only waits for the link. Local inference ends with
``on_head_done`` (Deliver). A sent frame ends with ``on_answer`` (Deliver). If the edge does not answer in time, it ends
with Finish and ``on_finished`` (Deliver). The robot finishes one frame at a time, in parallel with a head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
import enum
import math
from typing import Any

from dynsplit_ros.engine_names import EAGER
from dynsplit_ros.policies.audit import AuditScheduler
from dynsplit_ros.policies.pacing import DEFAULT_UNANSWERED, SendScheduler
from dynsplit_ros.policies.records import EdgeTimes, FrameRecord, Outcome, SplitDecision, Status
from dynsplit_ros.policies.staleness import StalenessControl
from dynsplit_ros.policies.wake import WakeAt

#: Upper bound on the answer timeout of every decision, in seconds.
MAX_ANSWER_TIMEOUT_S = 3600.0
#: Number of frames finished on the robot whose late answers the policy still recognises.
MAX_LATE_FRAMES = 16


@dataclass(frozen=True)
class Prepare:
    """
    Convert and resize the image of a frame; then call ``on_prepared`` or ``on_image_refused``.

    One image at a time is prepared. The call must come even if a newer image has replaced this one.
    """

    frame: FrameRecord


@dataclass(frozen=True)
class RunHead:
    """Run the head of the frame's split; then call ``on_head_done``, ``on_head_interrupted`` or ``on_head_failed``."""

    frame: FrameRecord


@dataclass(frozen=True)
class InterruptHead:
    """Interrupt the head that runs, unless it is already done."""

    frame: FrameRecord


@dataclass(frozen=True)
class Encode:
    """Encode the frame's activation; then call ``on_payload_ready`` or ``on_payload_failed``."""

    frame: FrameRecord


@dataclass(frozen=True)
class Send:
    """Send the frame's payload; then call ``on_payload_sent`` or ``on_payload_failed``."""

    frame: FrameRecord


@dataclass(frozen=True)
class Finish:
    """Run the tail on the robot from the frame's activation; then call ``on_finished`` or ``on_finish_failed``."""

    frame: FrameRecord


@dataclass(frozen=True)
class StopFinishing:
    """Stop the tail that the robot runs for this frame: its answer has arrived."""

    frame: FrameRecord


@dataclass(frozen=True)
class Deliver:
    """Publish the frame's outputs as its prediction; these actions come in the order of the frames."""

    frame: FrameRecord


@dataclass(frozen=True)
class Drop:
    """Publish nothing for this frame, which failed. The order of the other frames stays."""

    frame: FrameRecord


@dataclass(frozen=True)
class Audit:
    """
    Compute the frame's outputs without a lossy codec, and compare them with the edge's answer.

    Then call ``on_audited`` or ``on_audit_failed``. Call neither for an audit that was stopped.
    """

    frame: FrameRecord


@dataclass(frozen=True)
class StopAudit:
    """Stop the audit of this frame: the robot has something else to compute."""

    frame: FrameRecord


@dataclass(frozen=True)
class ReportAudit:
    """Report the agreement (0 to 1) of a frame's outputs with the unquantised model to the monitor."""

    frame: FrameRecord
    agreement: float


@dataclass(frozen=True)
class Report:
    """Report a frame's outcome to the monitor; the record is a snapshot."""

    frame: FrameRecord


Action = (
    Prepare
    | RunHead
    | InterruptHead
    | Encode
    | Send
    | Finish
    | StopFinishing
    | Deliver
    | Drop
    | Audit
    | StopAudit
    | ReportAudit
    | Report
    | WakeAt
)
#: Takes an image, its arrival and the present instant; returns the decision to follow and the instant to start.
Chooser = Callable[[Any, float, float], tuple[SplitDecision, float]]


@dataclass
class Counters:
    """
    Events since the start; each is a number of frames, images or messages.

    ``dropped`` are images that a newer one replaced. ``late_answers`` are answers to frames that are done or were never
    sent.
    """

    accepted: int = 0
    delivered: int = 0
    dropped: int = 0
    refused_images: int = 0
    fell_back: int = 0
    late_answers: int = 0
    failed: int = 0


class _Stage(enum.Enum):
    """Stage of the frame at the head."""

    PREPARING = enum.auto()
    RUNNING = enum.auto()
    INTERRUPTING = enum.auto()
    ENCODING = enum.auto()
    WAITING_FOR_LINK = enum.auto()
    SENDING = enum.auto()


@dataclass
class _Waiting:
    """The newest image: the frame that it becomes, the time until the next image, and whether it is prepared."""

    frame: FrameRecord
    period_s: float
    is_prepared: bool = False


class CameraPolicy:
    """
    Decides which image the camera starts, when, with which split, and how each frame gets its prediction.

    - Only the newest image waits. Its head starts so that its payload is ready when link and edge are free
      (:class:`~dynsplit_ros.policies.pacing.SendScheduler`). Sometimes the camera waits for a newer image
      (:class:`~dynsplit_ros.policies.staleness.StalenessControl`). The robot at once computes an image that would wait
      too long; local inference and offloading then alternate.
    - While the robot waits for the link and computes nothing, it prepares the waiting image, unless a newer image is
      expected before its head may start.
    - One payload at a time is on the link (sent, not acknowledged), and at most ``max_unanswered`` frames wait for
      their answers. A payload that is ready sooner waits.
    - The robot finishes a frame after its answer timeout, or if the edge is silent or refuses the frame. No new head
      starts meanwhile. An answer that arrives before the robot is done is still taken. If the timeout of a frame would
      pass during local inference of the next image, the robot finishes that frame first.
    - The robot finishes a frame whose payload waits for a lost link, but older frames first. If the edge answers
      before that, the payload is sent.
    - After the edge failed a frame, frames are local until a decision accounts for that frame.
    - A decision for another edge takes effect with the next payload, even if it already waits for the link: edges of
      the same model take the same payloads. Only the edge that a payload was sent to can acknowledge or answer it.
    - If a head would take longer than the whole latency that a new decision predicts, it is interrupted once and
      started again with that decision.
    - Each accepted frame is delivered or dropped exactly once, in the order of the frames.

    ``local_index`` is the split that sends nothing. ``choose`` replaces the decision and the earliest start of each
    image, and nothing else; the simulation's oracles use it. All instants come from one monotonic clock. ``audits``
    draws the frames to audit. A drawn frame is audited if its codec is in ``lossy``, while the robot has nothing else
    to compute.
    """

    def __init__(
        self,
        local_index: int,
        session: int = 0,
        *,
        max_unanswered: int = DEFAULT_UNANSWERED,
        choose: Chooser | None = None,
        audits: AuditScheduler | None = None,
        lossy: Container[str] = (),
    ) -> None:
        self.session = session
        self.counters = Counters()
        self.max_unanswered = max_unanswered
        self.audits = audits or AuditScheduler()
        self._lossy = lossy
        self._local_index = local_index
        self._choose = choose
        self._decision: SplitDecision | None = None
        self._last_failed = 0  # latest frame that the edge failed to answer
        self._heard: set[str] = set()  # edges that acknowledged or answered a frame since the latest decision
        self._stopped = False
        self._scheduler = SendScheduler()
        self._staleness = StalenessControl()
        self._waiting: _Waiting | None = None
        # The frame whose image is being prepared, the start of that, and the duration of the last preparation.
        self._preparing: FrameRecord | None = None
        self._preparing_since_s = math.nan
        self._prepare_s = 0.0
        # The frame at the head, the decision that it follows, and the instant at which its stage began.
        self._head: FrameRecord | None = None
        self._stage = _Stage.PREPARING
        self._stage_s = math.nan
        self._followed: SplitDecision | None = None
        self._interrupted = False  # this frame's head was interrupted before
        self._sequence = 0
        self._unanswered: OrderedDict[int, FrameRecord] = OrderedDict()
        self._overdue: dict[int, FrameRecord] = {}  # the robot finishes these unless the answer arrives first
        self._finishing: FrameRecord | None = None
        self._finishing_since_s = math.nan
        self._finishing_s = 0.0  # total time spent on finishing before that
        self._finishing_before_s = 0.0  # the total when the head started
        self._fell_back: OrderedDict[int, FrameRecord] = OrderedDict()  # their answers may still arrive
        self._done: dict[int, tuple[FrameRecord, bool]] = {}  # they wait for an older frame; whether failed
        self._next = 1
        self._wake_s = math.inf
        self._actions: list[Action] = []

    # ---- state ---------------------------------------------------------------------------------------------------

    @property
    def unanswered(self) -> Sequence[FrameRecord]:
        """Frames that were sent and are not done, the oldest first."""
        return list(self._unanswered.values())

    @property
    def link_is_full(self) -> bool:
        """Whether a payload must wait: one is on the link, or too many frames wait for their answers."""
        on_link = any(math.isnan(frame.acknowledged_s) for frame in self._unanswered.values())
        return on_link or len(self._unanswered) >= self.max_unanswered

    @property
    def idle(self) -> bool:
        """Whether no image waits and every accepted frame is delivered or dropped."""
        return self._waiting is None and self._head is None and self._next > self._sequence

    @property
    def ended(self) -> bool:
        """Whether the camera is stopped and has nothing left to do."""
        return self._stopped and self.idle

    def awaited(self, session: int, sequence: int, edge: str) -> FrameRecord | None:
        """Return the frame that was sent to this edge and is not done, if there is one."""
        if session != self.session:
            return None
        frame = self._unanswered.get(sequence) or self._overdue.get(sequence)
        return frame if frame is not None and frame.edge == edge and not math.isnan(frame.sent_s) else None

    # ---- images and decisions ------------------------------------------------------------------------------------

    def on_image(self, image: Any, now_s: float, period_s: float = math.nan) -> list[Action]:
        """Take a new image, the next one expected ``period_s`` later; it replaces one that still waits."""
        if self._stopped:
            self.counters.dropped += 1
            return []
        self.counters.dropped += self._waiting is not None
        self._waiting = _Waiting(FrameRecord(session=self.session, image=image, arrived_s=now_s), period_s)
        return self._act(now_s)

    def on_decision(self, decision: SplitDecision, now_s: float) -> list[Action]:
        """Follow a decision of the monitor from the next frame on."""
        self._decision = decision
        self._heard.clear()
        self._scheduler.on_servers(decision.servers, decision.edge)
        for frame in self._unanswered.values():
            if decision.degraded or frame.edge in decision.silent_edges:
                self._give_up(frame, 'the edge is silent', now_s)
        if self._stage is _Stage.RUNNING and self._is_head_outdated(now_s):
            self._stage = _Stage.INTERRUPTING
            self._actions.append(InterruptHead(self._at_head()))
        return self._act(now_s)

    def on_time(self, now_s: float) -> list[Action]:
        """Handle the passing of time; the caller calls this at the instant of the latest WakeAt."""
        return self._act(now_s)

    # ---- the head ------------------------------------------------------------------------------------------------

    def on_prepared(self, images: int, now_s: float) -> list[Action]:
        """Note that a frame's image is now a tensor of ``images`` images; run its head if that may start."""
        frame = self._end_preparing()
        frame.images, frame.resize_s = images, now_s - self._preparing_since_s
        self._prepare_s = frame.resize_s
        if self._head is frame:
            self._accept(now_s)
        elif self._waiting is not None and self._waiting.frame is frame:
            self._waiting.is_prepared = True
        return self._act(now_s)

    def on_image_refused(self, now_s: float) -> list[Action]:
        """Drop the image that could not be prepared. If a newer one replaced it, it was already counted."""
        frame = self._end_preparing()
        if self._head is frame:
            self.counters.refused_images += 1
            self._head = None
        elif self._waiting is not None and self._waiting.frame is frame:
            self.counters.refused_images += 1
            self._waiting = None
        return self._act(now_s)

    def on_head_interrupted(self, now_s: float) -> list[Action]:
        """Start the head again with the decision in force."""
        self._restart_head(now_s)
        return self._act(now_s)

    def on_head_failed(self, now_s: float) -> list[Action]:
        """Drop the frame at the head, so that later frames do not wait for it."""
        frame, self._head = self._at_head(), None
        self._complete(frame, now_s, failed=True)
        return self._act(now_s)

    def on_head_done(self, activation: Any, now_s: float) -> list[Action]:
        """Encode the activation; after local inference, deliver the outputs."""
        frame = self._at_head()
        frame.head_s = now_s - self._stage_s
        frame.finishing_s = self._finishing_total_s(now_s) - self._finishing_before_s
        if frame.split_index == self._local_index:
            self._scheduler.on_ready(frame.choice, now_s - frame.started_s)
            frame.outputs, self._head = activation, None
            self._complete(frame, now_s)
        else:
            frame.activation = activation
            self._stage, self._stage_s = _Stage.ENCODING, now_s
            self._actions.append(Encode(frame))
        return self._act(now_s)

    def on_payload_ready(self, payload_bytes: int, now_s: float) -> list[Action]:
        """Send the payload at the head as soon as the link is free."""
        frame = self._at_head()
        frame.encode_s, frame.payload_bytes = now_s - self._stage_s, payload_bytes
        self._scheduler.on_ready(frame.choice, now_s - frame.started_s)
        self._stage, self._stage_s = _Stage.WAITING_FOR_LINK, now_s
        return self._act(now_s)

    def on_payload_sent(self, now_s: float) -> list[Action]:
        """Note that the payload is handed to the link, and report that unless the frame is already done."""
        frame, self._head = self._at_head(), None
        frame.send_s = now_s - frame.sent_s
        if self.awaited(frame.session, frame.sequence, frame.edge) is frame:
            self._actions.append(Report(frame.snapshot()))
        return self._act(now_s)

    def on_payload_failed(self, reason: str, now_s: float) -> list[Action]:
        """Finish a frame on the robot if its payload cannot be encoded or sent and its answer has not arrived."""
        frame, self._head = self._at_head(), None
        if self._stage is _Stage.ENCODING or self._unanswered.pop(frame.sequence, None) is not None:
            self._note_failed(frame)
            self._give_up(frame, f'the payload could not be sent ({reason})', now_s)
        return self._act(now_s)

    # ---- the edge ------------------------------------------------------------------------------------------------

    def on_acknowledgement(self, session: int, sequence: int, now_s: float, edge: str = '') -> list[Action]:
        """Note that a payload has arrived at the edge, so that the link is free for the next."""
        frame = self.awaited(session, sequence, edge)
        if frame is not None and math.isnan(frame.acknowledged_s):
            frame.acknowledged_s = now_s
            self._heard.add(edge)
            self._scheduler.on_acknowledged(frame.choice, now_s - frame.sent_s, frame.edge)
        return self._act(now_s)

    def on_answer(
        self,
        session: int,
        sequence: int,
        status: Status,
        reason: str,
        outputs: Any,
        answer_bytes: int,
        times: EdgeTimes,
        now_s: float,
    ) -> list[Action]:
        """
        Take the edge's answer, even while the robot is finishing the frame.

        A later answer is counted and reported to the monitor. The robot finishes a frame that the edge refused. An
        answer of an edge that the frame was not sent to is only counted.
        """
        frame = self.awaited(session, sequence, times.edge)
        if frame is None:
            self._take_late_answer(session, sequence, status, answer_bytes, times, now_s)
        elif status is Status.OK:
            self._heard.add(frame.edge)
            _note_answer(frame, answer_bytes, times, now_s)
            frame.outcome, frame.outputs = Outcome.ANSWERED, outputs
            self._scheduler.on_answered(frame, now_s, times.held_s)
            self._unanswered.pop(sequence, None)
            self._overdue.pop(sequence, None)
            if self._finishing is frame:
                self._end_finishing(now_s)
                self._actions.append(StopFinishing(frame))
            self._complete(frame, now_s)
        elif self._unanswered.pop(sequence, None) is not None:
            self._note_failed(frame)
            self._give_up(frame, reason, now_s)
        return self._act(now_s)

    def on_audited(self, frame: FrameRecord, agreement: float, now_s: float) -> list[Action]:
        """Report the agreement of an audited frame, unless the audit was stopped before."""
        if self.audits.on_audited(frame):
            self._actions.append(ReportAudit(frame.snapshot(), agreement))
        return self._act(now_s)

    def on_audit_failed(self, frame: FrameRecord, now_s: float) -> list[Action]:
        """Count an audit that raised an error as skipped."""
        self.audits.on_failed(frame)
        return self._act(now_s)

    # ---- finishing and the end -----------------------------------------------------------------------------------

    def on_finished(self, sequence: int, outputs: Any, now_s: float) -> list[Action]:
        """Deliver a frame that the robot finished, unless its answer was faster."""
        return self._on_finish_ended(sequence, outputs, False, now_s)

    def on_finish_failed(self, sequence: int, now_s: float) -> list[Action]:
        """Drop a frame that the robot could not finish."""
        return self._on_finish_ended(sequence, None, True, now_s)

    def on_delivery_failed(self) -> None:
        """Count a frame whose prediction could not be published as failed."""
        self.counters.delivered -= 1
        self.counters.failed += 1

    def on_stop(self, now_s: float) -> list[Action]:
        """Stop accepting images and sending payloads; sent frames still wait for their answers."""
        self._stop()
        return self._act(now_s)

    def on_close(self, now_s: float) -> list[Action]:
        """Stop, and finish at once each frame whose answer has not arrived."""
        for frame in self._unanswered.values():
            self._give_up(frame, 'the camera ends', now_s)
        self._stop()
        return self._act(now_s)

    # ---- the rules -----------------------------------------------------------------------------------------------

    def _act(self, now_s: float) -> list[Action]:
        """Apply all rules that time and the new state allow, and return all actions of this event."""
        self._release_payload(now_s)
        self._finish_before_local(now_s)
        due_s = self._expire(now_s)
        self._finish_next(now_s)
        start_s = self._start_next(now_s)
        self._prepare_next(start_s, now_s)
        self._audit_next()
        wake_s = min(due_s, start_s)
        if wake_s != self._wake_s:
            self._wake_s = wake_s
            self._actions.append(WakeAt(wake_s))
        actions, self._actions = self._actions, []
        return actions

    def _audit_next(self) -> None:
        """Audit a frame while the robot has nothing else to compute; stop an audit when it has."""
        if self._stopped or self._head is not None or self._overdue:
            ended = self.audits.on_end() if self._stopped else self.audits.on_work()
            if ended is not None:
                self._actions.append(StopAudit(ended))
        elif (frame := self.audits.on_pause()) is not None:
            self._actions.append(Audit(frame))

    def _note_for_audit(self, frame: FrameRecord) -> None:
        """Keep a frame for its audit if it was sent with a lossy codec."""
        if frame.outcome is Outcome.ANSWERED and frame.codec in self._lossy:
            self.audits.on_answer(replace(frame, image=None, payload=()))
        else:
            self.audits.on_exact()

    def _at_head(self) -> FrameRecord:
        if self._head is None:
            raise ValueError('an event of the head came while no frame is at the head')
        return self._head

    def _stop(self) -> None:
        self._stopped = True
        self.counters.dropped += self._waiting is not None
        self._waiting = None

    def _start_next(self, now_s: float) -> float:
        """Start the waiting image if it may start now; return the instant at which to check again."""
        # A head would slow down the tail that the robot runs for a frame that is already late.
        if self._waiting is None or self._head is not None or self._overdue:
            return math.inf
        frame, period_s = self._waiting.frame, self._waiting.period_s
        decision, is_local, start_s = self._next_start(self._waiting, now_s)
        if start_s < math.inf:
            start_s = self._staleness.start_s(frame.arrived_s, start_s, period_s, now_s)
        if start_s > now_s:
            return start_s
        latest = self._decision if self._choose is None else decision
        self._staleness.on_start(period_s, latest.waiting_share if latest is not None else 0.0, now_s)
        frame.audited = self.audits.draw()
        self._head, self._interrupted = frame, False
        self._stage, self._stage_s = _Stage.PREPARING, now_s
        self._follow(decision, is_local)
        is_prepared, self._waiting = self._waiting.is_prepared, None
        if is_prepared:
            self._accept(now_s)
        return math.inf

    def _prepare_next(self, start_s: float, now_s: float) -> None:
        """Prepare the image at the head, or else the waiting image, whose start is ``start_s``."""
        if self._preparing is not None:
            return
        at_head = self._head is not None and self._stage is _Stage.PREPARING
        frame = self._head if at_head else self._next_to_prepare(start_s)
        if frame is not None:
            self._preparing, self._preparing_since_s = frame, now_s
            self._actions.append(Prepare(frame))

    def _next_to_prepare(self, start_s: float) -> FrameRecord | None:
        """
        Return the frame to prepare before its start at ``start_s`` (infinity: not known), None for none.

        The robot prepares an image only while it computes nothing but an audit: on a robot without a free core,
        preparing would slow down a head. It skips an image if a newer one is expected before its start. If the start is
        not known, it prepares each image.
        """
        waiting = self._waiting
        computes = (
            self._overdue or self._head is not None and self._stage not in (_Stage.WAITING_FOR_LINK, _Stage.SENDING)
        )
        if waiting is None or waiting.is_prepared or computes:
            return None
        is_replaced = waiting.frame.arrived_s + waiting.period_s < start_s < math.inf
        return None if is_replaced else waiting.frame

    def _end_preparing(self) -> FrameRecord:
        if self._preparing is None:
            raise ValueError('an image was prepared, but none was to be')
        frame, self._preparing = self._preparing, None
        return frame

    def _accept(self, now_s: float) -> None:
        """Give the frame at the head, whose image is prepared, its number, and run its head."""
        frame = self._at_head()
        self._sequence += 1
        self.counters.accepted += 1
        frame.sequence, frame.started_s = self._sequence, now_s
        if self._is_head_outdated(now_s):
            self._restart_head(now_s)
        else:
            self._run_head(now_s)

    def _next_start(self, waiting: _Waiting, now_s: float) -> tuple[SplitDecision | None, bool, float]:
        """
        Return the decision for the waiting image (None: none applies), whether the image is local, and its start.

        An image starts so that its payload is ready when link and edge are free. An image that would wait too long for
        this is local and starts at once. The start is infinite if it depends on another event.
        """
        if self._choose is not None:
            decision, start_s = self._choose(waiting.frame.image, waiting.frame.arrived_s, now_s)
            return decision, decision.split_index == self._local_index, start_s
        latest = self._decision
        if latest is None or self._failed_since(latest):
            return None, True, now_s
        if latest.split_index == self._local_index or not self._unanswered:
            return latest, latest.split_index == self._local_index, now_s
        send_s = self._scheduler.send_s(latest.choice, self._unanswered.values(), latest.edge)
        prepare_s = 0.0 if waiting.is_prepared else self._prepare_s
        start_s = self._scheduler.start_s(latest.choice, send_s) - prepare_s
        if start_s - now_s > latest.local_if_wait_s:
            return latest, True, now_s
        if self.link_is_full and send_s <= now_s:  # overdue: an acknowledgement or a decision must arrive first
            return latest, False, math.inf
        return latest, False, start_s

    def _follow(self, decision: SplitDecision | None, is_local: bool) -> None:
        """Make the frame at the head follow a decision from now on, or be local."""
        frame = self._at_head()
        self._followed = decision
        if decision is None or is_local:
            frame.edge, frame.split_index, frame.codec = '', self._local_index, ''
            frame.head_engine = decision.local_engine if decision is not None else EAGER
            frame.tail_engine = ''
            frame.answer_timeout_s = math.nan
        else:
            frame.edge = decision.edge
            frame.split_index, frame.codec = decision.choice
            frame.head_engine, frame.tail_engine = decision.head_engine, decision.tail_engine
            frame.answer_timeout_s = decision.answer_timeout_s

    def _run_head(self, now_s: float) -> None:
        frame = self._at_head()
        frame.started_s = now_s
        frame.wait_s = now_s - frame.arrived_s - frame.resize_s
        self._stage, self._stage_s = _Stage.RUNNING, now_s
        self._finishing_before_s = self._finishing_total_s(now_s)
        self._actions.append(RunHead(frame))

    def _restart_head(self, now_s: float) -> None:
        self._interrupted = True
        latest = self._decision
        if latest is not None and self._failed_since(latest):
            latest = None
        self._follow(latest, latest is None or latest.split_index == self._local_index)
        self._run_head(now_s)

    def _is_head_outdated(self, now_s: float) -> bool:
        """Whether a new decision predicts a latency below the time that the present head still takes."""
        newer, followed, frame = self._decision, self._followed, self._head
        if newer is None or frame is None or self._interrupted or newer.split_index == self._local_index:
            return False
        if followed is not None and followed.choice == newer.choice or self._failed_since(newer):
            return False
        remaining_s = self._scheduler.remaining_s(frame.choice, now_s - frame.started_s)
        return newer.predicted_latency_s < remaining_s

    def _release_payload(self, now_s: float) -> None:
        """Send the waiting payload if the link is free, or give it up if the link is lost."""
        frame = self._head
        if frame is None or self._stage is not _Stage.WAITING_FOR_LINK:
            return
        followed, latest = self._followed, self._decision
        # A payload may move to an edge with another tail engine, but not if the decision names another head engine.
        can_move = latest is not None and (latest.choice, latest.head_engine) == (frame.choice, frame.head_engine)
        is_silent = (
            latest is not None
            and frame.edge not in self._heard
            and (latest.degraded or frame.edge in latest.silent_edges and not can_move)
        )
        lost = followed is None or is_silent or self._failed_since(followed)
        if lost and self._overdue and not self._stopped:
            return  # the robot is busy with an older frame, and the edge may be heard of before that is done
        if lost or self._stopped:
            self._head = None
            frame.link_wait_s = now_s - self._stage_s
            self._note_failed(frame)
            reason = 'the camera ends' if self._stopped else 'the link was lost'
            self._give_up(frame, f'{reason} before the payload was sent', now_s)
        elif not self.link_is_full:
            if latest is not None and latest.choice == frame.choice:
                frame.answer_timeout_s = latest.answer_timeout_s
            if latest is not None and can_move:
                frame.edge, frame.tail_engine = latest.edge, latest.tail_engine
            frame.answer_timeout_s = min(frame.answer_timeout_s, MAX_ANSWER_TIMEOUT_S)
            frame.link_wait_s = now_s - self._stage_s
            frame.outcome, frame.sent_s = Outcome.SENT, now_s
            frame.deadline_s = now_s + frame.answer_timeout_s
            self._unanswered[frame.sequence] = frame
            self._stage = _Stage.SENDING
            self._actions.append(Send(frame))

    def _failed_since(self, decision: SplitDecision) -> bool:
        """Whether the edge has failed a frame that the decision does not account for."""
        knows = decision.last_frame_session == self.session and decision.last_frame >= self._last_failed
        return bool(self._last_failed) and not knows

    def _note_failed(self, frame: FrameRecord) -> None:
        self._last_failed = max(self._last_failed, frame.sequence)

    def _expire(self, now_s: float) -> float:
        """Give up frames whose answer timeout has passed; return the next instant at which one passes."""
        due_s = math.inf
        for frame in self._unanswered.values():
            if frame.sequence not in self._overdue:
                if frame.deadline_s <= now_s:
                    self._give_up(frame, f'no answer within {now_s - frame.sent_s:.3f} s', now_s)
                else:
                    due_s = min(due_s, frame.deadline_s)
        return due_s

    def _finish_before_local(self, now_s: float) -> None:
        """
        Give up frames that would time out during the local inference of the next image.

        Otherwise the robot would work on both at half speed, and the newer frame would have to wait for the older one.
        """
        latest = self._decision
        if self._waiting is None or self._head is not None or self._choose is not None or latest is None:
            return
        if latest.split_index == self._local_index:
            local_s = self._scheduler.remaining_s(latest.choice, 0.0)
            for frame in self._unanswered.values():
                if frame.deadline_s < now_s + local_s:
                    self._give_up(frame, 'local inference comes next, and it would not be answered before', now_s)

    def _give_up(self, frame: FrameRecord, reason: str, now_s: float) -> None:
        """Mark a frame for finishing on the robot, unless it is already marked."""
        if frame.sequence not in self._overdue:
            frame.given_up_s, frame.detail = now_s, reason
            self._overdue[frame.sequence] = frame

    def _finish_next(self, now_s: float) -> None:
        if self._finishing is None and self._overdue:
            self._finishing, self._finishing_since_s = self._overdue[min(self._overdue)], now_s
            self._actions.append(Finish(self._finishing))

    def _finishing_total_s(self, now_s: float) -> float:
        return self._finishing_s + (now_s - self._finishing_since_s if self._finishing is not None else 0.0)

    def _end_finishing(self, now_s: float) -> float:
        """Note that the robot has stopped finishing a frame, and return how long that took."""
        self._finishing_s, self._finishing = self._finishing_total_s(now_s), None
        return now_s - self._finishing_since_s

    def _on_finish_ended(self, sequence: int, outputs: Any, failed: bool, now_s: float) -> list[Action]:
        frame = self._overdue.get(sequence)
        if frame is not None and frame is self._finishing:
            frame.finish_s = self._end_finishing(now_s)
            frame.outcome, frame.outputs = Outcome.FELL_BACK, outputs
            del self._overdue[sequence]
            self._unanswered.pop(sequence, None)
            self.counters.fell_back += 1
            self._note_failed(frame)
            if not math.isnan(frame.sent_s):
                self._fell_back[sequence] = frame.snapshot()
                while len(self._fell_back) > MAX_LATE_FRAMES:
                    self._fell_back.popitem(last=False)
            self._complete(frame, now_s, failed)
        return self._act(now_s)

    def _take_late_answer(
        self, session: int, sequence: int, status: Status, answer_bytes: int, times: EdgeTimes, now_s: float
    ) -> None:
        self.counters.late_answers += 1
        frame = self._fell_back.get(sequence) if session == self.session else None
        if frame is not None and frame.edge == times.edge:
            del self._fell_back[sequence]
            if status is not Status.OK:
                return
            _note_answer(frame, answer_bytes, times, now_s)
            frame.outcome = Outcome.LATE
            self._actions.append(Report(frame))

    def _complete(self, frame: FrameRecord, now_s: float, failed: bool = False) -> None:
        """Deliver or drop a frame and then the frames that waited for it, in order."""
        if frame.audited and not failed:
            self._note_for_audit(frame)
        frame.activation, frame.payload = None, ()
        self._done[frame.sequence] = (frame, failed)
        while self._next in self._done:
            ready, failed = self._done.pop(self._next)
            self._next += 1
            ready.delivered_s, ready.latency_s = now_s, now_s - ready.arrived_s
            self._actions.append(Drop(ready) if failed else Deliver(ready))
            if failed:
                self.counters.failed += 1
            else:
                self.counters.delivered += 1
            if not failed or ready.outcome is Outcome.FELL_BACK:  # the monitor learns nothing from a head that failed
                self._actions.append(Report(ready.snapshot()))


def _note_answer(frame: FrameRecord, answer_bytes: int, times: EdgeTimes, now_s: float) -> None:
    frame.answered_s, frame.answer_bytes = now_s, answer_bytes
    frame.tail_engine = times.tail_engine
    frame.batch, frame.held_s, frame.queueing_s = times.batch, times.held_s, times.queueing_s
    frame.decode_s, frame.tail_s = times.decode_s, times.tail_s
    frame.transfer_s = max(0.0, now_s - frame.sent_s - times.held_s)
