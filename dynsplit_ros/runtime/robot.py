# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Threads and a clock around the camera's policy.

:class:`~dynsplit_ros.policies.camera.CameraPolicy` decides; this module carries out its actions. The *head thread*
prepares images, runs heads and encodes. The *send thread* sends payloads, so that they never wait for the preparation
of an image. The *finish thread* runs the tails of frames that the edge failed to answer. Each event is handled under
one lock. The thread that brings an event also publishes the predictions and reports that follow from it, without the
lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
import secrets
import threading
import time
from typing import Any, Protocol

from torch import Tensor

from dynsplit_ros.codec import CODECS, declared_batch, decode_answer, encode, EncodedTensor
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.partition import Interrupted, SplitModel
from dynsplit_ros.policies.audit import AuditCounters, AuditScheduler
from dynsplit_ros.policies.camera import (
    Action,
    Audit,
    CameraPolicy,
    Counters,
    Deliver,
    Drop,
    Encode,
    Finish,
    InterruptHead,
    Prepare,
    Report,
    ReportAudit,
    RunHead,
    Send,
    StopAudit,
    StopFinishing,
)
from dynsplit_ros.policies.pacing import DEFAULT_UNANSWERED
from dynsplit_ros.policies.records import EdgeTimes, FrameRecord, SplitDecision, Status
from dynsplit_ros.policies.wake import WakeAt
from dynsplit_ros.tasks import check_outputs
from dynsplit_ros.tasks.agreement import agreement_of_image
from dynsplit_ros.tensors import of_image

Outputs = dict[str, Tensor]


class CameraIO(Protocol):
    """The robot's interface to the outside, which the node implements with topics. Called from several threads."""

    def prepare(self, image: Any) -> Tensor:
        """Return a frame's resized 8-bit images, [N, 3, H, W]; raise DynsplitError if none of them can be used."""

    def send(self, frame: FrameRecord, payload: Sequence[EncodedTensor]) -> None:
        """Send a frame's payload."""

    def deliver(self, frame: FrameRecord, outputs: Outputs) -> None:
        """Publish a frame's prediction; called once for each frame, in order."""

    def report(self, frame: FrameRecord) -> None:
        """Report to the monitor that a payload was sent or that a frame is done."""

    def report_audit(self, frame: FrameRecord, agreement: float) -> None:
        """Report the agreement (0 to 1) of a frame's outputs with the unquantised model to the monitor."""

    def refuse(self, image: Any, reason: str) -> None:
        """Report that an image was not accepted."""

    def fault(self, reason: str) -> None:
        """Report an error that did not end the robot; the frame may be lost."""


class Robot:
    """
    Runs heads for the newest images and delivers each accepted frame, as ``policy`` decides.

    ``slowdown`` > 1 emulates a slower robot by sleeping after each computation; it is for demonstrations only.
    ``audit_share`` (0 to 1) of the frames are audited in pauses of the robot. ``policy`` replaces the policy that
    ``max_unanswered`` and ``audit_share`` make.
    """

    def __init__(
        self,
        split: SplitModel,
        io: CameraIO,
        *,
        max_unanswered: int = DEFAULT_UNANSWERED,
        slowdown: float = 1.0,
        audit_share: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        policy: CameraPolicy | None = None,
    ) -> None:
        session = secrets.randbits(63) | 1
        self.policy = policy or CameraPolicy(
            split.local_index,
            session,
            max_unanswered=max_unanswered,
            audits=AuditScheduler(audit_share, session),
            lossy={info.name for info in CODECS.values() if not info.lossless},
        )
        self._split = split
        self._io = io
        self._slowdown = slowdown
        self._clock = clock

        self._changed = threading.Condition()  # guards the policy and all below
        self._for_head: deque[Prepare | RunHead | Encode] = deque()
        self._for_send: deque[Send] = deque()
        self._for_finish: deque[Finish | Audit] = deque()
        self._ended_audits: set[int] = set()  # frames whose audit must end
        self._interrupted = 0  # the frame whose head must end; 0 for none
        self._answered: set[int] = set()  # frames whose tails must end
        self._wake_s = float('inf')
        self._outgoing: deque[Deliver | Drop | Report | ReportAudit] = deque()
        self._publishing = threading.RLock()  # taken before _changed, never while holding it

        self._threads = [
            threading.Thread(target=self._run, args=(actions,), name=name, daemon=True)
            for name, actions in (('head', self._for_head), ('send', self._for_send), ('finish', self._for_finish))
        ]
        for thread in self._threads:
            thread.start()

    # ---- events from outside -------------------------------------------------------------------------------------

    @property
    def session(self) -> int:
        """Random number that identifies this run of the robot in its frames."""
        return self.policy.session

    def offer(self, image: Any, period_s: float = float('nan')) -> None:
        """Offer an image, the next one being expected ``period_s`` later; the newest replaces one that still waits."""
        self._handle(self.policy.on_image, image, period_s=period_s)

    def on_decision(self, decision: SplitDecision) -> None:
        """Follow a decision of the monitor from the next frame on; raises DynsplitError for an impossible one."""
        local = self._split.local_index
        if not 0 <= decision.split_index <= local:
            raise DynsplitError(
                f'the decision names split {decision.split_index}, but this model has 0 to {local}; '
                'start the monitor with a profile of this model'
            )
        if decision.split_index < local and decision.codec not in CODECS:
            raise DynsplitError(
                f'the decision names the codec {decision.codec[:40]!r}, which is none of the {len(CODECS)} that this '
                'version knows; run the same version of this package on all sides'
            )
        for split_index, engine in ((decision.split_index, decision.head_engine), (local, decision.local_engine)):
            if not self._split.has_head(split_index, engine):
                raise DynsplitError(
                    f'the decision names the engine {engine[:40]!r}, but the head of split {split_index} is not ready '
                    f'on it; ready engines are {", ".join(self._split.engines)}'
                )
        for name in ('answer_timeout_s', 'local_if_wait_s', 'predicted_latency_s'):
            if not getattr(decision, name) >= 0:
                raise DynsplitError(
                    f'the decision has {name} {getattr(decision, name)}, which is no duration; run the '
                    'same version of this package on all sides'
                )
        if not 0 <= decision.waiting_share <= 1:
            raise DynsplitError(f'the decision has waiting_share {decision.waiting_share}, but a share is 0 to 1')
        self._handle(self.policy.on_decision, decision)

    def on_acknowledgement(self, session: int, sequence: int, edge: str = '') -> None:
        """Note that a payload has arrived at the edge, so that the link is free for the next."""
        self._handle(self.policy.on_acknowledgement, session, sequence, edge=edge)

    def on_answer(
        self,
        session: int,
        sequence: int,
        status: Status,
        reason: str,
        outputs: Outputs,
        answer_bytes: int,
        times: EdgeTimes,
    ) -> None:
        """Take the edge's answer; an answer to no waiting frame is counted and dropped."""
        self._handle(self.policy.on_answer, session, sequence, status, reason, outputs, answer_bytes, times)

    def on_tail_result(
        self,
        session: int,
        sequence: int,
        fingerprint: str,
        status: int,
        reason: str,
        codec: str,
        tensors: Sequence[EncodedTensor],
        times: EdgeTimes,
    ) -> str:
        """
        Decode the edge's answer and take it; return why the edge did not compute the frame, empty if it did.

        Every part of the answer is checked. If the answer cannot be used, the robot finishes the frame.
        """
        outputs: Outputs = {}
        try:
            status = Status(status)
            if status is Status.OK:
                if fingerprint != self._split.fingerprint:
                    raise DynsplitError('the model differs')
                with self._changed:
                    frame = self.policy.awaited(session, sequence, times.edge)
                outputs = decode_outputs(self._split, codec, tensors, frame.images if frame is not None else 1)
        except Exception as error:
            status, reason = Status.FAILED, f'answer refused: {error}'
        self.on_answer(session, sequence, status, reason, outputs, sum(len(tensor.data) for tensor in tensors), times)
        return reason if status in (Status.REFUSED, Status.FAILED) else ''

    def on_time(self) -> None:
        """Tell the policy the time; the robot's threads call this at the instants that the policy asks for."""
        self._handle(self.policy.on_time)

    def counters(self) -> Counters:
        """Return the counts so far."""
        with self._changed:
            return replace(self.policy.counters)

    def stop(self) -> None:
        """Stop accepting images and sending payloads; sent frames still wait for their answers."""
        self._handle(self.policy.on_stop)

    def audit(self, share: float) -> None:
        """Audit this share (0 to 1) of the frames from now on."""
        with self._changed:
            self.policy.audits.share = share

    def audits(self) -> AuditCounters:
        """Return the counts of audits so far."""
        with self._changed:
            return replace(self.policy.audits.counters)

    @property
    def busy(self) -> bool:
        """Whether an accepted frame may still be unfinished; becomes false some time after :meth:`stop`."""
        return any(thread.is_alive() for thread in self._threads)

    def close(self, within_s: float = 1.0) -> None:
        """Stop, finish each frame without an answer within about ``within_s``, and end the threads."""
        self._handle(self.policy.on_close)
        end_s = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(min(max(0.0, end_s - time.monotonic()), threading.TIMEOUT_MAX))

    # ---- events to actions ---------------------------------------------------------------------------------------

    def _handle(self, event: Callable[..., list[Action]], *values: Any, **options: Any) -> None:
        """Pass an event to the policy, and pass on the actions that follow."""
        with self._changed:
            for action in event(*values, now_s=self._clock(), **options):
                self._assign(action)
            self._changed.notify_all()
        self._publish()

    def _assign(self, action: Action) -> None:
        """Pass an action to the thread that carries it out; the caller holds the lock."""
        match action:
            case Prepare() | RunHead() | Encode():
                self._for_head.append(action)
            case Send():
                self._for_send.append(action)
            case Finish() | Audit():
                self._for_finish.append(action)
            case StopAudit(frame):
                self._ended_audits.add(frame.sequence)
            case InterruptHead(frame):
                self._interrupted = frame.sequence
            case StopFinishing(frame):
                self._answered.add(frame.sequence)
            case WakeAt(at_s):
                self._wake_s = at_s
            case Deliver() | Drop() | Report() | ReportAudit():
                self._outgoing.append(action)

    def _run(self, actions: deque[Any]) -> None:
        """Carry out the actions of one thread, and tell the policy the time when it asks for that."""
        while True:
            with self._changed:
                while not actions and (wait_s := self._wake_s - self._clock()) > 0:
                    if self.policy.ended:
                        return
                    self._changed.wait(min(wait_s, threading.TIMEOUT_MAX))
                action = actions.popleft() if actions else None
            self._carry_out(action)
            del action  # a thread that waits keeps no frame

    def _carry_out(self, action: Any) -> None:
        match action:
            case None:
                self.on_time()
            case Prepare(frame):
                self._prepare(frame)
            case RunHead(frame):
                self._run_head(frame)
            case Encode(frame):
                self._encode(frame)
            case Send(frame):
                self._send(frame)
            case Finish(frame):
                self._finish(frame)
            case Audit(frame):
                self._audit(frame)

    # ---- the head thread; an exception must not end it: the robot would make no more predictions -------------------

    def _prepare(self, frame: FrameRecord) -> None:
        started_s = self._clock()
        try:
            frame.activation = image = self._io.prepare(frame.image)
            self._slow_down(started_s)
        except DynsplitError as error:
            self._handle(self.policy.on_image_refused)
            self._io.refuse(frame.image, str(error))
        except Exception as error:
            self._handle(self.policy.on_image_refused)
            self._io.fault(f'the image could not be processed ({type(error).__name__}: {error})')
        else:
            self._handle(self.policy.on_prepared, len(image))

    def _run_head(self, frame: FrameRecord) -> None:
        def interrupted() -> bool:
            return self._interrupted == frame.sequence

        started_s = self._clock()
        try:
            frame.split_name = self._split.cuts[frame.split_index].name
            activation = self._split.head(frame.split_index, frame.head_engine)(frame.activation, interrupted)
            self._slow_down(started_s, interrupted)
        except Interrupted:
            self._interrupted = 0
            self._handle(self.policy.on_head_interrupted)
        except Exception as error:
            self._handle(self.policy.on_head_failed)
            self._io.fault(f'the frame could not be processed ({type(error).__name__}: {error})')
        else:
            self._handle(self.policy.on_head_done, activation)

    def _encode(self, frame: FrameRecord) -> None:
        started_s = self._clock()
        try:
            frame.payload = encode(frame.codec, frame.activation)
            size_bytes = sum(len(memoryview(tensor.data).cast('B')) for tensor in frame.payload)
            self._slow_down(started_s)
        except Exception as error:
            self._on_payload_failed(error)
        else:
            self._handle(self.policy.on_payload_ready, size_bytes)

    def _send(self, frame: FrameRecord) -> None:
        payload, frame.payload = frame.payload, ()
        try:
            self._io.send(frame, payload)
        except Exception as error:
            self._on_payload_failed(error)
        else:
            self._handle(self.policy.on_payload_sent)

    def _on_payload_failed(self, error: Exception) -> None:
        reason = f'{type(error).__name__}: {error}'
        self._handle(self.policy.on_payload_failed, reason)
        self._io.fault(f'a payload could not be sent ({reason})')

    # ---- the finish thread ---------------------------------------------------------------------------------------

    def _finish(self, frame: FrameRecord) -> None:
        def answered() -> bool:
            return frame.sequence in self._answered

        started_s = self._clock()
        try:
            outputs = self._split.tail(frame.split_index)(frame.activation, answered)
            self._slow_down(started_s, answered)
        except Interrupted:
            pass
        except Exception as error:
            if not answered():  # after the answer, the activation is gone
                self._handle(self.policy.on_finish_failed, frame.sequence)
                self._io.fault(f'a frame could not be finished ({type(error).__name__}: {error})')
        else:
            self._handle(self.policy.on_finished, frame.sequence, outputs)
        with self._changed:
            self._answered.discard(frame.sequence)

    def _audit(self, frame: FrameRecord) -> None:
        """Compute a frame's tail from the exact activation and compare; an error affects no frame."""

        def ended() -> bool:
            return frame.sequence in self._ended_audits

        started_s = self._clock()
        try:
            exact = self._split.tail(frame.split_index)(frame.activation, ended)
            self._slow_down(started_s, ended)
            by_name, task = self._split.output_specs is None, self._split.model.task
            scores = [
                agreement_of_image(
                    task,
                    of_image(exact, number, frame.images, by_name),
                    of_image(frame.outputs, number, frame.images, by_name),
                )
                for number in range(frame.images)
            ]
        except Interrupted:
            pass
        except Exception as error:
            self._handle(self.policy.on_audit_failed, frame)
            self._io.fault(f'a frame could not be audited ({type(error).__name__}: {error})')
        else:
            self._handle(self.policy.on_audited, frame, sum(scores) / len(scores))
        with self._changed:
            self._ended_audits.discard(frame.sequence)

    def _slow_down(self, since_s: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Sleep until ``slowdown`` times the time since an instant is over; raise Interrupted once ``stop`` is true."""
        if self._slowdown > 1:
            with self._changed:
                if self._changed.wait_for(stop, (self._clock() - since_s) * (self._slowdown - 1)):
                    raise Interrupted

    # ---- predictions and reports ---------------------------------------------------------------------------------

    def _publish(self) -> None:
        """Publish predictions and reports of all threads in their order."""
        with self._publishing:
            while self._outgoing:
                match self._outgoing.popleft():
                    case Deliver(frame):
                        try:
                            self._io.deliver(frame, frame.outputs)
                        except Exception as error:  # The next frames must still be delivered.
                            self._io.fault(f'a prediction could not be published ({type(error).__name__}: {error})')
                            with self._changed:
                                self.policy.on_delivery_failed()
                    case ReportAudit(frame, agreement):
                        try:
                            self._io.report_audit(frame, agreement)
                        except Exception as error:
                            self._io.fault(f'an audit could not be published ({type(error).__name__}: {error})')
                    case Report(frame):
                        try:
                            self._io.report(frame)
                        except Exception as error:
                            self._io.fault(f'a report could not be published ({type(error).__name__}: {error})')


def decode_outputs(split: SplitModel, codec: str, tensors: Sequence[EncodedTensor], images: int) -> Outputs:
    """Return the outputs for a frame of ``images`` images; raise DynsplitError for tensors of another model."""
    specs = split.output_specs
    outputs = decode_answer(codec, tensors, specs, images)
    if specs is None:  # a detector has no fixed shapes
        for number in range(images):
            check_outputs(split.model.task, of_image(outputs, number, images, True))
    elif declared_batch(tensors, specs) != images:
        raise DynsplitError(f'the answer does not have the {images} images of the frame')
    return outputs
