# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Threads and a clock around the edge's policy.

:class:`~dynsplit_ros.policies.edge.EdgePolicy` decides; this module carries out its actions. The *tail thread* decodes
payloads, runs tails and answers, the *preparation thread* prepares tails, and the *time thread* wakes the policy.
Activations come on the caller's threads. Every event is handled under one lock, every action outside it, by the thread
that brings the event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
import secrets
import threading
import time
from typing import Any, Protocol

import torch
from torch import Tensor

from dynsplit_ros.codec import CODECS, declared_batch, decode
from dynsplit_ros.engine_names import EAGER
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.partition import Interrupted, SplitModel
from dynsplit_ros.policies.edge import (
    Acknowledge,
    Action,
    Answer,
    EdgePolicy,
    EdgeSettings,
    PrepareTail,
    ReportLoad,
    RunTail,
    ServedModel,
    WakeAt,
)
from dynsplit_ros.policies.records import EdgeFrame
from dynsplit_ros.profile.profile import Profile
from dynsplit_ros.tensors import of_image


class EdgeIO(Protocol):
    """What the edge needs of the world around it; the node implements it with topics. Called from several threads."""

    def acknowledge(self, frame: EdgeFrame) -> None:
        """Acknowledge the arrival of the frame's activation to its robot."""

    def answer(self, frame: EdgeFrame) -> None:
        """Send the robot the frame's status, reason, times and outputs (None unless the status is OK)."""

    def report_load(self, report: LoadReport, queueing_s: Mapping[str, float]) -> None:
        """Send the load report to all robots, each with its own queueing delay (0 if missing)."""

    def fault(self, reason: str) -> None:
        """Report an error that the edge survived."""


class Edge:
    """
    Runs tails for the activations of several robots, as ``policy`` decides.

    ``profile`` is that of this machine, for batches and for the slowdown in load reports. Without one, no frames share
    a run, and the fastest run of each tail so far counts as unloaded. ``slowdown`` > 1 emulates a slower edge by
    sleeping. ``name`` distinguishes this edge from others. ``policy`` replaces the one that is made from the other
    arguments.
    """

    def __init__(
        self,
        split: SplitModel,
        io: EdgeIO,
        *,
        profile: Profile | None = None,
        settings: EdgeSettings | None = None,
        slowdown: float = 1.0,
        name: str = '',
        clock: Callable[[], float] = time.monotonic,
        policy: EdgePolicy | None = None,
    ) -> None:
        self.policy = policy or EdgePolicy(
            served_model(split, profile), settings or EdgeSettings(), secrets.randbits(63) | 1, name)
        self._split = split
        self._io = io
        self._slowdown = slowdown
        self._clock = clock
        self._changed = threading.Condition()  # guards the policy and the two below; notified when they change
        self._wake_s = float('inf')
        self._closing = False
        self._runs: SimpleQueue[RunTail | None] = SimpleQueue()  # None ends the thread
        self._preparations: SimpleQueue[PrepareTail | None] = SimpleQueue()
        self._threads = [threading.Thread(target=target, name=name, daemon=True) for name, target in (
            ('tail', self._run_tails), ('preparation', self._prepare_tails), ('time', self._watch_time))]
        self._handle(self.policy.on_start)
        for thread in self._threads:
            thread.start()

    # ---- events from outside -------------------------------------------------------------------------------------

    @property
    def session(self) -> int:
        """Random number that identifies this run of the edge."""
        return self.policy.session

    @property
    def name(self) -> str:
        """Name by which robots know this edge."""
        return self.policy.name

    def submit(self, frame: EdgeFrame) -> None:
        """Take an activation; it is acknowledged and answered in any case, at once where it is refused."""
        try:
            frame.payload_bytes = sum(len(tensor.data) for tensor in frame.payload)
            if 0 <= frame.split_index < self._split.local_index:
                frame.images = declared_batch(frame.payload, self._split.cuts[frame.split_index].tensors)
            self._handle(self.policy.on_activation, frame)
        except Exception as error:  # The robot must have an answer, whatever its activation holds.
            self._fail([frame], 'activation not queued', error)

    def on_split(self, robot: str, fingerprint: str, split_index: int, codec: str, tail_engine: str = EAGER) -> None:
        """Prepare the tail that a robot is about to need; raises DynsplitError for a decision that cannot be served."""
        self._handle(self.policy.on_decision, robot, fingerprint, split_index, codec, tail_engine)

    def on_split_elsewhere(self, robot: str) -> None:
        """Note that a robot uses another edge, or none."""
        self._handle(self.policy.on_decision_elsewhere, robot)

    def forget(self, robot: str) -> None:
        """Forget a robot that has left, and answer its waiting frames."""
        self._handle(self.policy.on_robot_left, robot)

    def on_time(self) -> None:
        """Let time pass for the policy; the time thread calls this when the policy asked for it."""
        self._handle(self.policy.on_time)

    def counts(self) -> dict[str, int]:
        """Return the policy's counts so far."""
        with self._changed:
            return self.policy.counts()

    def splits(self) -> dict[str, tuple[int, str]]:
        """Return the split and the codec (empty for local inference) that each robot has announced."""
        with self._changed:
            return self.policy.splits()

    @property
    def is_running(self) -> bool:
        """Whether all threads live."""
        return all(thread.is_alive() for thread in self._threads)

    def close(self, within_s: float = 1.0) -> None:
        """Answer the waiting frames, and end the threads; a tail under way may take until ``within_s`` is over."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._handle(self.policy.on_close)
        self._runs.put(None)
        self._preparations.put(None)
        deadline_s = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(min(max(0.0, deadline_s - time.monotonic()), threading.TIMEOUT_MAX))

    # ---- events to actions ---------------------------------------------------------------------------------------

    def _handle(self, event: Callable[..., list[Action]], *values: Any) -> None:
        """Pass an event to the policy; carry out the actions that follow, or hand them to their thread."""
        outgoing = []
        with self._changed:
            for action in event(*values, now_s=self._clock()):
                match action:
                    case RunTail():
                        self._runs.put(action)
                    case PrepareTail():
                        self._preparations.put(action)
                    case WakeAt(at_s):
                        self._wake_s = at_s
                        self._changed.notify_all()
                    case _:
                        outgoing.append(action)
        for action in outgoing:
            self._carry_out(action)

    def _carry_out(self, action: Acknowledge | Answer | ReportLoad) -> None:
        try:
            match action:
                case Acknowledge(frame):
                    self._io.acknowledge(frame)
                case Answer(frame):
                    self._io.answer(frame)
                case ReportLoad(report, queueing_s):
                    self._io.report_load(report, queueing_s)
        except Exception as error:  # One robot that has left must not stop the others' actions.
            what = f'{type(action).__name__} failed ({type(error).__name__}'
            self._io.fault(f'{what}: {error})')
            if isinstance(action, Answer):
                self._handle(self.policy.on_answer_failed, action.frame, f'{what})')

    def _fail(self, frames: Sequence[EdgeFrame], what: str, error: Exception) -> None:
        """Report an error of the edge itself, and answer the frames that have no answer yet."""
        self._io.fault(f'{what} ({type(error).__name__}: {error})')
        self._handle(self.policy.on_failed, frames, f'{what} ({type(error).__name__})')

    def _watch_time(self) -> None:
        while True:
            with self._changed:
                while not self._closing and (wait_s := self._wake_s - self._clock()) > 0:
                    self._changed.wait(min(wait_s, threading.TIMEOUT_MAX))
                if self._closing:
                    return
            self.on_time()

    # ---- the tail thread; an exception must not end it: every robot would lose the edge ----------------------------

    def _run_tails(self) -> None:
        while (run := self._runs.get()) is not None:
            try:
                self._run_tail(run.frames)
            except Exception as error:
                self._fail(run.frames, f'the tail of split {run.frames[0].split_index} failed', error)
            self._handle(self.policy.on_answers_sent)
            del run  # a thread that waits keeps no frame

    def _run_tail(self, frames: Sequence[EdgeFrame]) -> None:
        index = frames[0].split_index
        decoded = [tensors for frame in frames if (tensors := self._decode(frame)) is not None]
        if not decoded:
            return
        self._handle(self.policy.on_decoded)
        started_s = self._clock()
        count = len(decoded)
        tensors = decoded[0] if count == 1 else {
            name: torch.cat([each[name] for each in decoded]) for name in decoded[0]}
        outputs = self._split.tail(index, frames[0].tail_engine)(tensors)
        if self._slowdown > 1:
            time.sleep((self._clock() - started_s) * (self._slowdown - 1))
        by_name = self._split.output_specs is None
        self._handle(self.policy.on_tail_done, [of_image(outputs, number, count, by_name) for number in range(count)])

    def _decode(self, frame: EdgeFrame) -> dict[str, Tensor] | None:
        """Return the tensors of a frame; None if they cannot be decoded, and the frame was answered so."""
        specs = self._split.cuts[frame.split_index].tensors
        try:
            return decode(frame.codec, frame.payload, specs, self.policy.settings.max_images)
        except DynsplitError as error:
            self._handle(self.policy.on_unreadable, frame, str(error))
        except Exception as error:  # Those that share the run must be served.
            self._fail([frame], 'activation not decoded', error)
        finally:
            frame.payload = ()
        return None

    # ---- the preparation thread ----------------------------------------------------------------------------------

    def _prepare_tails(self) -> None:
        while (tail := self._preparations.get()) is not None:
            prepared = False
            try:
                prepared = self._split.prepare_tail(tail.split_index, tail.images, lambda: self._closing, tail.engine)
            except Interrupted:
                pass
            except Exception as error:  # the activation will meet the same error, and is answered with it
                self._io.fault(f'tail of split {tail.split_index} not prepared ({type(error).__name__}: {error})')
            self._handle(self.policy.on_prepared, prepared)


def served_model(split: SplitModel, profile: Profile | None) -> ServedModel:
    """Return what the policy knows of a model on this machine."""
    cuts = [cut for cut in split.cuts if cut.index != split.local_index]
    # Frames are joined along the first dimension of each tensor, so each must have one.
    specs = [spec for cut in split.cuts for spec in cut.tensors] + list(split.output_specs or ())
    return ServedModel(
        split.fingerprint, [cut.nbytes for cut in cuts], tuple(CODECS),
        [cut.tail_s for cut in profile.cuts] if profile is not None else (),
        split.model.max_batch != 1 and all(spec.shape for spec in specs),
        {engine: {index: profile.cuts[index].engine_tail_s.get(engine, {}) if profile is not None else {}
                  for index in range(split.local_index) if split.has_tail(index, engine)}
         for engine in split.engines if engine != EAGER})
