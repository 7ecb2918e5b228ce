# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The camera side of a split network: takes images, runs heads, keeps what it sent, and answers for every frame.

Two threads work here. The *head thread* takes the newest image, runs the head and hands the payload to the link; the
*finish thread* completes, from what was kept, the frames that the edge did not answer in time. Answers come in on the
caller's thread. Predictions leave in the order of the frames, each exactly once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
import math
import secrets
import threading
import time
from typing import Any, Protocol

from torch import Tensor

from dynsplit_ros.codec import CODECS, encode, EncodedTensor
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.partition import Interrupted, SplitModel
from dynsplit_ros.runtime.frame import EdgeTimes, FrameTiming, State, Status
from dynsplit_ros.runtime.freshness import Freshness
from dynsplit_ros.runtime.pace import Pace

Outputs = dict[str, Tensor]

#: No frame waits longer than this for its answer, whatever a decision says.
MAX_PATIENCE_S = 3600.0
#: Finished frames whose late answers are still known for what they are.
REMEMBERED = 16


@dataclass(frozen=True)
class Order:
    """
    What the monitor decided: which split and codec to use next.

    ``predicted_s`` is the latency that it expects of them. ``fallback_after_s`` bounds the wait for an answer; an image
    that would wait longer than ``local_if_wait_s`` for link and edge to be free is done here at once. ``last_frame`` is
    the latest frame (of ``last_frame_session``) that the decision takes into account. ``waiting_share`` (0..1) of the
    frame rate may be given up so that images are new. ``degraded`` says that the edge is silent: what is under way is
    finished here.
    """

    split_index: int
    codec: str
    fallback_after_s: float
    last_frame_session: int = 0
    last_frame: int = 0
    local_if_wait_s: float = math.inf
    predicted_s: float = math.inf
    waiting_share: float = 0.0
    degraded: bool = False
    turn_of: Order | None = None  # the decision whose turn this local inference takes

    def is_like(self, other: Order) -> bool:
        """Whether both choose the same, turns aside."""
        mine, its = self.turn_of or self, other.turn_of or other
        return (mine.split_index, mine.codec) == (its.split_index, its.codec)


@dataclass
class Frame:
    """One accepted frame on its way: its image's own data (``source``), what was kept of it, and its timing."""

    source: Any
    arrived_s: float
    timing: FrameTiming
    kept: Outputs = field(default_factory=dict)
    deadline_s: float = math.inf
    patience_s: float = 0.0


class Outside(Protocol):
    """What the robot needs of the world around it; the node implements it with topics. Called from several threads."""

    def prepare(self, source: Any) -> Tensor:
        """Return a frame's resized 8-bit images, [N, 3, H, W]; raise DynsplitError where none of them can be used."""

    def send(self, frame: Frame, payload: Sequence[EncodedTensor]) -> None:
        """Hand a frame's payload to the link."""

    def deliver(self, frame: Frame, outputs: Outputs) -> None:
        """Publish a frame's prediction; called once for each frame, in order."""

    def report(self, timing: FrameTiming) -> None:
        """Tell the monitor that a payload was sent or that a frame is done."""

    def refuse(self, source: Any, reason: str) -> None:
        """Tell people that an image was not accepted."""

    def fault(self, reason: str) -> None:
        """Tell people that something went wrong that a frame survived, or did not."""


@dataclass(frozen=True)
class Counters:
    """
    What has happened since the start; each is a number of frames, images or messages.

    ``late_answers`` are those to frames that are done, or were never sent.
    """

    accepted: int = 0
    delivered: int = 0
    passed_over: int = 0
    refused_images: int = 0
    fell_back: int = 0
    late_answers: int = 0
    failed: int = 0


class Robot:
    """
    Runs heads for the newest images and answers for every accepted frame.

    One payload at a time may be between robot and edge (sent, no receipt yet), because the ``activation`` topic keeps
    only the newest. At most ``max_unanswered`` frames may be without their answer. A frame that is ready sooner waits.
    The next head starts just early enough to be ready when the link is free, so that it sees the newest image, and now
    and then waits for a newer one (:class:`Freshness`). A head that would still take longer than all of what a new
    decision promises is given up for that. ``slowdown`` > 1 emulates a slower robot by sleeping after each computation;
    it is for demonstrations only.
    """

    def __init__(
        self,
        split: SplitModel,
        outside: Outside,
        *,
        max_unanswered: int = 3,
        slowdown: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session = secrets.randbits(63) | 1
        self._split = split
        self._outside = outside
        self._max_unanswered = max_unanswered
        self._slowdown = slowdown
        self._clock = clock

        self._changed = threading.Condition()  # guards all below
        self._waiting: tuple[Any, float, float] | None = None
        self._freshness = Freshness()
        self._order: Order | None = None
        self._distrusted = 0  # latest frame that the edge failed to answer
        self._sequence = 0
        self._in_flight: OrderedDict[int, Frame] = OrderedDict()
        self._overdue: dict[int, Frame] = {}  # to be finished here, though an answer may still be faster
        self._finished: OrderedDict[int, FrameTiming] = OrderedDict()  # the latest that were, for late answers
        self._counts = dict.fromkeys(Counters.__dataclass_fields__, 0)
        self._closing = False
        self._pace = Pace()
        self._finished_s = 0.0  # how long the finish thread has computed in all, up to what it began …
        self._finishing_since_s: float | None = None  # … at this instant, if it is at something

        self._delivering = threading.RLock()  # guards the two below; taken before _changed, never while holding it
        self._done: dict[int, tuple[Frame, Outputs | None]] = {}
        self._next = 1

        self._threads = [
            threading.Thread(target=self._run_heads, name='head', daemon=True),
            threading.Thread(target=self._run_finishes, name='finish', daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    # ---- what comes in -------------------------------------------------------------------------------------------

    def offer(self, source: Any, period_s: float = math.nan) -> None:
        """Offer an image, the next one being expected ``period_s`` later; the newest replaces one that still waits."""
        with self._changed:
            if self._waiting is not None or self._closing:
                self._counts['passed_over'] += 1
            if not self._closing:
                self._waiting = (source, self._clock(), period_s)
            self._changed.notify_all()

    def on_order(self, order: Order) -> None:
        """Follow a decision of the monitor from the next frame on; raises DynsplitError for one that cannot be."""
        if not 0 <= order.split_index <= self._split.local_index:
            raise DynsplitError(
                f'the decision names split {order.split_index}, but this model has 0 to {self._split.local_index}; '
                'start the monitor with a profile of this model')
        if order.split_index < self._split.local_index and order.codec not in CODECS:
            raise DynsplitError(
                f'the decision names the codec {order.codec[:40]!r}, but known are {", ".join(CODECS)}; '
                'run the same version of this package on all sides'
            )
        if not order.fallback_after_s >= 0:
            raise DynsplitError(f'the decision lets a frame wait for {order.fallback_after_s} s, which is no duration')
        if not 0 <= order.waiting_share <= 1:
            raise DynsplitError(f'the decision gives up {order.waiting_share} of the frame rate, but a share is 0 to 1')
        with self._changed:
            self._order = order
            if order.degraded:
                for sequence, frame in self._in_flight.items():
                    if sequence not in self._overdue:
                        self._give_up(frame, 'the edge is silent')
            self._changed.notify_all()

    def on_receipt(self, session: int, sequence: int) -> None:
        """Note that a payload has arrived at the edge, so that the link is free for the next."""
        with self._changed:
            frame = self._known(session, sequence)
            if frame is not None and math.isnan(frame.timing.received_s):
                timing = frame.timing
                timing.received_s = self._clock()
                self._pace.on_received((timing.split_index, timing.codec), timing.received_s - timing.sent_s)
                self._changed.notify_all()

    def on_answer(self, session: int, sequence: int, status: Status, reason: str, outputs: Outputs,
                  answer_bytes: int, times: EdgeTimes) -> None:
        """
        Take the edge's answer, also while the frame is already being finished here.

        One that comes later still is counted and dropped; the monitor learns when it came.
        """
        now_s = self._clock()
        late = None
        with self._changed:
            frame = self._known(session, sequence)
            timing = frame.timing if frame is not None else None
            if timing is None:
                self._counts['late_answers'] += 1
                late = self._finished.pop(sequence, None) if session == self.session else None
                if late is None:
                    return
                late.state = State.LATE
                timing = late
            if status is Status.OK:
                timing.answered_s = now_s
                timing.answer_bytes = answer_bytes
                timing.batch = times.batch
                timing.held_s, timing.queueing_s = times.held_s, times.queueing_s
                timing.decode_s, timing.tail_s = times.decode_s, times.tail_s
                timing.transfer_s = max(0.0, now_s - timing.sent_s - times.held_s)
            if frame is not None and status is Status.OK:
                timing.state = State.ANSWERED
                self._pace.on_answered(timing, now_s, times.held_s)
                self._in_flight.pop(sequence, None)
                self._overdue.pop(sequence, None)
            elif frame is not None and sequence in self._in_flight:
                del self._in_flight[sequence]
                self._distrusted = max(self._distrusted, sequence)
                self._give_up(frame, reason)
            self._changed.notify_all()
        if late is not None:
            if status is Status.OK:
                self._outside.report(late)
        elif status is Status.OK and frame is not None:
            self._complete(frame, outputs)

    def _known(self, session: int, sequence: int) -> Frame | None:
        """Return the frame that was sent and is not done, if there is one."""
        if session != self.session:
            return None
        return self._in_flight.get(sequence) or self._overdue.get(sequence)

    def images(self, session: int, sequence: int) -> int:
        """Return how many images an answer must be of: those of the frame that waits for it; 1 where none does."""
        with self._changed:
            frame = self._known(session, sequence)
            return frame.timing.images if frame is not None else 1

    def counters(self) -> Counters:
        """Return the counts so far."""
        with self._changed:
            return Counters(**self._counts)

    def stop(self) -> None:
        """Accept no image and send no payload any more; frames that were sent go on waiting for their answers."""
        with self._changed:
            self._closing = True
            self._counts['passed_over'] += self._waiting is not None
            self._waiting = None
            self._changed.notify_all()

    @property
    def busy(self) -> bool:
        """Whether an accepted frame may still be unfinished; becomes false some time after :meth:`stop`."""
        return any(thread.is_alive() for thread in self._threads)

    def close(self, within_s: float = 1.0) -> None:
        """Stop, finish at once each frame whose answer has not come, within about ``within_s``, and end the threads."""
        self.stop()
        with self._changed:
            for sequence, frame in self._in_flight.items():
                if sequence not in self._overdue:
                    self._give_up(frame, 'the camera ends')
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(min(within_s, threading.TIMEOUT_MAX))

    # ---- the head thread -----------------------------------------------------------------------------------------

    def _run_heads(self) -> None:
        while (taken := self._take()) is not None:
            source, arrived_s, order = taken
            try:
                self._accept(source, arrived_s, order)
            except DynsplitError as error:
                with self._changed:
                    self._counts['refused_images'] += 1
                self._outside.refuse(source, str(error))
            except Exception as error:  # A thread that dies would stop perception for good.
                self._outside.fault(f'the frame could not be processed ({type(error).__name__}: {error})')

    def _take(self) -> tuple[Any, float, Order] | None:
        """Wait for an image and for the instant to start on it; return it with the order to follow, None to end."""
        with self._changed:
            while not self._closing:
                wait_s: float | None = None
                # While a frame is finished here, a head beside it would slow down what is already late.
                if self._waiting is not None and not self._overdue:
                    source, arrived_s, period_s = self._waiting
                    order, start_s = self._next_order(arrived_s + period_s)
                    now_s = self._clock()
                    if start_s < math.inf:
                        start_s = self._freshness.start_s(arrived_s, start_s, period_s, now_s)
                    if start_s <= now_s:
                        self._waiting = None
                        self._freshness.took(period_s, self._order.waiting_share if self._order else 0.0, now_s)
                        return source, arrived_s, order
                    wait_s = start_s - now_s if start_s < math.inf else None
                self._changed.wait(wait_s)
        return None

    def _next_order(self, newer_s: float) -> tuple[Order, float]:
        """
        Return the order to follow for the next image and the instant to start on it.

        Local inference without an order, and after a frame that the edge did not answer until the monitor has taken
        that frame into account: the next frames do not wait for it to notice. The start is so that the payload is ready
        when link and edge are free, or just before unless a newer image, due at ``newer_s``, comes first; an image that
        would wait too long for that is done here at once.
        """
        local = Order(self._split.local_index, '', 0.0)
        order = self._order
        if order is None or self._lost_since(order) or order.split_index == self._split.local_index:
            return local, -math.inf
        key = (order.split_index, order.codec)
        if not self._in_flight:
            return order, -math.inf
        now_s, free_s = self._clock(), self._pace.free_s(key, [frame.timing for frame in self._in_flight.values()])
        start_s = self._pace.start_s(key, free_s, newer_s, order.waiting_share)
        if start_s - now_s > order.local_if_wait_s:
            return replace(local, turn_of=order), -math.inf
        if self._link_is_full() and free_s <= now_s:
            return order, math.inf  # it should be free and is not: wait for it, or for another order
        return order, start_s

    def _accept(self, source: Any, arrived_s: float, order: Order) -> None:
        """Run the head of one image and see its payload off, or finish it here."""
        started_s = self._clock()
        timing = FrameTiming(session=self.session, split_index=order.split_index, codec=order.codec,
                             split_name=self._split.cuts[order.split_index].name, wait_s=started_s - arrived_s)
        image = self._outside.prepare(source)
        timing.resize_s = self._stretch(started_s)
        timing.images = len(image)
        with self._changed:
            self._sequence += 1
            timing.sequence = self._sequence
            self._counts['accepted'] += 1
        frame = Frame(source, arrived_s, timing)
        head_started_s, finishing_s = self._clock(), self._finishing()
        try:
            try:
                frame.kept = self._run_head(image, order, head_started_s, lambda: self._overtakes(order, started_s))
            except Interrupted:
                order = self._order or order
                started_s, finishing_s = self._clock(), self._finishing()
                head_started_s = started_s
                timing.split_index, timing.codec = order.split_index, order.codec
                timing.split_name = self._split.cuts[order.split_index].name
                timing.wait_s = started_s - arrived_s - timing.resize_s
                frame.kept = self._run_head(image, order, head_started_s)
        except Exception:
            self._complete(frame, None)  # the frames behind it must not wait for this one
            raise
        timing.head_s = self._clock() - head_started_s
        timing.finishing_s = self._finishing() - finishing_s
        if order.split_index == self._split.local_index:
            with self._changed:
                self._pace.on_ready((order.split_index, order.codec), self._clock() - started_s)
            self._complete(frame, frame.kept)
            return
        try:
            encode_started_s = self._clock()
            payload = encode(order.codec, frame.kept)
            timing.encode_s = self._stretch(encode_started_s)
            timing.payload_bytes = sum(len(memoryview(tensor.data).cast('B')) for tensor in payload)
            self._see_off(frame, payload, order, started_s)
        except Exception as error:  # What cannot be sent is finished here, unless that, or an answer, came first.
            with self._changed:
                if timing.state is State.LOCAL or self._in_flight.pop(timing.sequence, None) is not None:
                    self._distrusted = max(self._distrusted, timing.sequence)
                    self._give_up(frame, f'the payload could not be sent ({type(error).__name__}: {error})')
                    self._changed.notify_all()
            self._outside.fault(f'a payload could not be sent ({type(error).__name__}: {error})')

    def _run_head(
        self, image: Tensor, order: Order, started_s: float, stop: Callable[[], bool] | None = None
    ) -> Outputs:
        kept = self._split.head(order.split_index)(image, stop)
        self._stretch(started_s, stop)
        return kept

    def _overtakes(self, order: Order, started_s: float) -> bool:
        """Whether a newer order promises a whole latency below what the head begun under ``order`` still takes."""
        newer = self._order
        if newer is None or newer.is_like(order) or newer.split_index == self._split.local_index:
            return False
        if self._lost_since(newer):
            return False
        left_s = self._pace.left_s((order.split_index, order.codec), self._clock() - started_s)
        return newer.predicted_s < left_s

    def _see_off(self, frame: Frame, payload: Sequence[EncodedTensor], order: Order, started_s: float) -> None:
        """Send a payload as soon as the link is free, unless the link is lost meanwhile."""
        timing = frame.timing
        ready_s = self._clock()
        with self._changed:
            self._pace.on_ready((timing.split_index, timing.codec), ready_s - started_s)
            while self._link_is_full() and not self._closing and not self._lost_since(order):
                self._changed.wait()
            timing.link_wait_s = self._clock() - ready_s
            if self._closing or self._lost_since(order):
                self._distrusted = max(self._distrusted, timing.sequence)
                self._give_up(frame, 'the link was lost before the payload was sent')
                self._changed.notify_all()
                return
            timing.state = State.SENT
            timing.sent_s = self._clock()
            # By then there may be a newer decision of how long to wait for this.
            newest = self._order
            if newest is None or not newest.is_like(order):
                newest = order
            frame.patience_s = min(newest.fallback_after_s, MAX_PATIENCE_S)
            frame.deadline_s = timing.sent_s + frame.patience_s
            self._in_flight[timing.sequence] = frame
            self._changed.notify_all()
            sent = FrameTiming(**vars(timing))  # the frame itself may be answered while this is published
        # First of all the payload: the report wakes the monitor, which takes the processor from what is being sent.
        self._outside.send(frame, payload)
        timing.send_s = sent.send_s = self._clock() - sent.sent_s
        self._outside.report(sent)

    def _link_is_full(self) -> bool:
        on_link = any(math.isnan(frame.timing.received_s) for frame in self._in_flight.values())
        return on_link or len(self._in_flight) >= self._max_unanswered

    def _lost_since(self, order: Order) -> bool:
        """Whether the edge has failed a frame that the order did not know of, or is silent by now."""
        if self._order is not None and self._order.degraded and not order.degraded:
            return True
        return bool(self._distrusted) and (
            order.last_frame_session != self.session or order.last_frame < self._distrusted)

    def _stretch(self, since_s: float, stop: Callable[[], bool] | None = None) -> float:
        """Return the time since an instant, made ``slowdown`` times as long by sleeping, unless ``stop`` says so."""
        spent_s = self._clock() - since_s
        if self._slowdown > 1:
            with self._changed:
                if self._changed.wait_for(stop or (lambda: False), spent_s * (self._slowdown - 1)):
                    raise Interrupted
            spent_s = self._clock() - since_s
        return spent_s

    # ---- the finish thread ---------------------------------------------------------------------------------------

    def _give_up(self, frame: Frame, why: str) -> None:
        """Hand a frame to the finish thread; holds the lock."""
        frame.timing.given_up_s = self._clock()
        frame.timing.detail = why
        self._overdue[frame.timing.sequence] = frame

    def _run_finishes(self) -> None:
        while (frame := self._next_to_finish()) is not None:
            timing = frame.timing
            outputs = None
            with self._changed:
                started_s = self._finishing_since_s = self._clock()

            def answered(sequence: int = timing.sequence) -> bool:
                return sequence not in self._overdue

            try:
                outputs = self._split.tail(timing.split_index)(frame.kept, answered)
                self._stretch(started_s, answered)
            except Interrupted:
                continue
            except Exception as error:  # A thread that dies would stop perception for good.
                if not answered():  # by then there is nothing left to finish it from
                    self._outside.fault(f'a frame could not be finished ({type(error).__name__}: {error})')
            finally:
                with self._changed:
                    self._finished_s, self._finishing_since_s = self._finishing(), None
            finish_s = self._clock() - started_s
            with self._changed:
                if self._overdue.pop(timing.sequence, None) is None:
                    continue  # the answer was faster
                self._in_flight.pop(timing.sequence, None)
                timing.state = State.FELL_BACK
                timing.finish_s = finish_s
                self._counts['fell_back'] += 1
                self._distrusted = max(self._distrusted, timing.sequence)
                if not math.isnan(timing.sent_s):
                    self._finished[timing.sequence] = FrameTiming(**vars(timing))
                    while len(self._finished) > REMEMBERED:
                        self._finished.popitem(last=False)
                self._changed.notify_all()
            self._complete(frame, outputs)

    def _finishing(self) -> float:
        """Return how long the finish thread has computed so far, in seconds."""
        with self._changed:
            since_s = self._finishing_since_s
            return self._finished_s + (self._clock() - since_s if since_s is not None else 0.0)

    def _next_to_finish(self) -> Frame | None:
        """Wait for a frame that is to be finished here, the oldest first; None to end."""
        with self._changed:
            while True:
                now_s = self._clock()
                due_s = math.inf
                for sequence, frame in self._in_flight.items():
                    if sequence not in self._overdue:
                        if frame.deadline_s <= now_s:
                            self._give_up(frame, f'no answer within {now_s - frame.timing.sent_s:.3f} s')
                        else:
                            due_s = min(due_s, frame.deadline_s)
                if self._overdue:
                    return self._overdue[min(self._overdue)]
                if self._closing and not self._in_flight and not self._threads[0].is_alive():
                    return None
                if self._closing:  # the head thread ends without a word
                    due_s = min(due_s, now_s + 0.05)
                self._changed.wait(due_s - now_s if due_s < math.inf else None)

    # ---- what goes out -------------------------------------------------------------------------------------------

    def _complete(self, frame: Frame, outputs: Outputs | None) -> None:
        """Deliver a finished frame and those that waited for it, in order; None where there is nothing to deliver."""
        frame.kept = {}
        with self._delivering:
            self._done[frame.timing.sequence] = (frame, outputs)
            while self._next in self._done:
                ready, values = self._done.pop(self._next)
                self._next += 1
                ready.timing.latency_s = self._clock() - ready.arrived_s
                try:
                    if values is not None:
                        self._outside.deliver(ready, values)
                    self._outside.report(ready.timing)
                except Exception as error:  # The frames behind this one must still be delivered.
                    values = None
                    self._outside.fault(f'a prediction could not be published ({type(error).__name__}: {error})')
                with self._changed:
                    self._counts['failed' if values is None else 'delivered'] += 1
