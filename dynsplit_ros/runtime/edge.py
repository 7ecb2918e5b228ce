# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Threads and a clock around the edge's policy.

:class:`~dynsplit_ros.policies.edge.EdgePolicy` decides; this module carries out its actions. Tails run on *servers*:
this process (:class:`OwnProcess`) or the replicas of a pool. The *time thread* wakes the policy. Activations arrive on
the caller's threads. Each event is handled under one lock. The thread that brings the event then carries out its
actions without the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
import secrets
import threading
import time
from typing import Any, Protocol

from dynsplit_ros.codec import CODECS, declared_batch
from dynsplit_ros.engine_names import EAGER
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
)
from dynsplit_ros.policies.records import EdgeFrame
from dynsplit_ros.policies.wake import WakeAt
from dynsplit_ros.profile.profile import Profile
from dynsplit_ros.runtime.tails import EncodedAnswer, Payload, Result, TailRunner


class EdgeIO(Protocol):
    """The edge's interface to the outside, which the node implements with topics. Called from several threads."""

    def acknowledge(self, frame: EdgeFrame) -> None:
        """Acknowledge the arrival of the frame's activation to its robot."""

    def answer(self, frame: EdgeFrame) -> None:
        """Send the robot the frame's status, reason, times and outputs (None unless the status is OK)."""

    def report_load(self, report: LoadReport, queueing_s: Mapping[str, float]) -> None:
        """Send the load report to all robots, each with its own queueing delay (0 if missing)."""

    def keep_profile(self, profile: Profile) -> None:
        """Take the profile of the servers, which was measured after the start."""

    def fault(self, reason: str) -> None:
        """Report an error that did not end the edge."""


class Servers(Protocol):
    """The servers that run tails. No method blocks; the servers' threads bring events to the edge."""

    count: int

    def start(self, edge: Edge) -> None:
        """Start; call ``on_servers`` of the edge when the number of servers is not ``count`` or changes."""

    def run(self, run: RunTail) -> None:
        """Run tails on a free server; then call the edge's ``on_results``, ``on_run_failed`` or ``on_server_lost``."""

    def prepare(self, tail: PrepareTail) -> None:
        """Prepare a tail, then call ``on_prepared`` of the edge."""

    def on_load(self, report: LoadReport) -> None:
        """Take a load report, to which the number of servers may adapt."""

    @property
    def is_running(self) -> bool:
        """Whether all threads live."""

    def close(self, deadline_s: float) -> None:
        """End the servers, at the latest at ``deadline_s`` of the monotonic clock."""


class Edge:
    """
    Runs tails for the activations of several robots, as ``policy`` decides.

    ``profile`` is the profile of this machine, for batches and for the slowdown in load reports. Without one, no frames
    share a run, and the fastest run of each tail so far counts as unloaded. ``slowdown`` > 1 emulates a slower edge by
    sleeping. ``name`` distinguishes this edge from others. ``servers`` run the tails; without them, this process does.
    ``policy`` replaces the policy that the other arguments make.
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
        servers: Servers | None = None,
        policy: EdgePolicy | None = None,
    ) -> None:
        settings = settings or EdgeSettings()
        self._servers = servers or OwnProcess(
            TailRunner(split, (policy.settings if policy else settings).max_images, slowdown, clock)
        )
        self.policy = policy or EdgePolicy(
            served_model(split, profile), settings, secrets.randbits(63) | 1, name, self._servers.count
        )
        self._split = split
        self._io = io
        self._clock = clock
        self._changed = threading.Condition()  # guards the policy and the two below; notified when they change
        self._wake_s = float('inf')
        self._closing = False
        self._time_thread = threading.Thread(target=self._watch_time, name='time', daemon=True)
        self._handle(self.policy.on_start)
        self._servers.start(self)
        self._time_thread.start()

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
        """Take an activation, which is always acknowledged and answered, at once if it is refused."""
        try:
            frame.payload_bytes = sum(len(tensor.data) for tensor in frame.payload)
            if 0 <= frame.split_index < self._split.local_index:
                frame.images = declared_batch(frame.payload, self._split.cuts[frame.split_index].tensors)
            self._handle(self.policy.on_activation, frame)
        except Exception as error:  # The robot must get an answer for any activation.
            self._fail([frame], 'activation not queued', error)

    def on_split(self, robot: str, fingerprint: str, split_index: int, codec: str, tail_engine: str = EAGER) -> None:
        """Prepare the tail that a robot will need; raises DynsplitError for a decision that this edge cannot serve."""
        self._handle(self.policy.on_decision, robot, fingerprint, split_index, codec, tail_engine)

    def on_split_elsewhere(self, robot: str) -> None:
        """Note that a robot uses another edge, or none."""
        self._handle(self.policy.on_decision_elsewhere, robot)

    def forget(self, robot: str) -> None:
        """Forget a robot that has left, and answer its waiting frames."""
        self._handle(self.policy.on_robot_left, robot)

    def on_time(self) -> None:
        """Tell the policy the time; the time thread calls this at the instants that the policy asks for."""
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
        return self._time_thread.is_alive() and self._servers.is_running

    def close(self, within_s: float = 1.0) -> None:
        """Answer the waiting frames, and end the threads; a tail under way has ``within_s`` seconds to end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._handle(self.policy.on_close)
        deadline_s = time.monotonic() + within_s
        self._servers.close(deadline_s)
        _join([self._time_thread], deadline_s)

    # ---- events from the servers ---------------------------------------------------------------------------------

    def on_results(self, run: RunTail, results: Sequence[Result], tail_s: float) -> None:
        """Answer the frames of a run with their results; the tail took ``tail_s`` seconds."""
        answers = []
        for frame, result in zip(run.frames, results, strict=True):
            if isinstance(result, EncodedAnswer):
                answers.append(result)
            elif result.fault:
                self._io.fault(result.fault)
                self._handle(self.policy.on_failed, [frame], result.reason)
            else:
                self._handle(self.policy.on_unreadable, frame, result.reason)
        self._handle(self.policy.on_tail_done, run, answers, tail_s)

    def on_run_failed(self, run: RunTail, error: Exception) -> None:
        """Answer the frames of a run whose tail raised an error."""
        self._fail(run.frames, f'the tail of split {run.frames[0].split_index} failed', error)
        self._handle(self.policy.on_tail_done, run, [], 0.0)

    def on_server_lost(self, run: RunTail) -> None:
        """Run the frames of a lost server again; ``on_servers`` precedes this call."""
        self._handle(self.policy.on_server_lost, run)

    def on_servers(self, count: int, reason: str = '') -> None:
        """Take the number of servers from now on, and the reason if there is none."""
        self._handle(self.policy.on_servers, count, reason)

    def on_profile(self, profile: Profile) -> None:
        """Take the profile of the servers, measured after the start."""
        self._handle(self.policy.on_profile, served_model(self._split, profile))
        self._io.keep_profile(profile)

    def on_prepared(self, did: bool) -> None:
        """Prepare the next tail; ``did`` is False if the tail was ready before or cannot be prepared."""
        self._handle(self.policy.on_prepared, did)

    def on_fault(self, reason: str) -> None:
        """Report an error that did not end the servers."""
        self._io.fault(reason)

    # ---- events to actions ---------------------------------------------------------------------------------------

    def _handle(self, event: Callable[..., list[Action]], *values: Any) -> None:
        """Pass an event to the policy; carry out the actions that follow, or hand them to their thread."""
        outgoing = []
        with self._changed:
            for action in event(*values, now_s=self._clock()):
                match action:
                    case RunTail():
                        self._servers.run(action)
                    case PrepareTail():
                        self._servers.prepare(action)
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
                    self._servers.on_load(report)
                    self._io.report_load(report, queueing_s)
        except Exception as error:  # A robot that has left must not stop the actions for others.
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


class OwnProcess:
    """
    The only server of an edge without a pool: this process.

    The *tail thread* runs tails and sends the answers, the *preparation thread* prepares tails.
    """

    count = 1

    def __init__(self, runner: TailRunner) -> None:
        self._runner = runner
        self._closing = False
        self._runs: SimpleQueue[RunTail | None] = SimpleQueue()  # None ends the thread
        self._preparations: SimpleQueue[PrepareTail | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self, edge: Edge) -> None:
        """Start the threads; they bring their events to ``edge``."""
        self._threads = [
            threading.Thread(target=target, args=(edge,), name=name, daemon=True)
            for name, target in (('tail', self._run_tails), ('preparation', self._prepare_tails))
        ]
        for thread in self._threads:
            thread.start()

    def run(self, run: RunTail) -> None:
        """Pass a run to the tail thread."""
        self._runs.put(run)

    def prepare(self, tail: PrepareTail) -> None:
        """Pass a tail to the preparation thread."""
        self._preparations.put(tail)

    def on_load(self, report: LoadReport) -> None:
        """Do nothing: the number of servers is always one."""

    @property
    def is_running(self) -> bool:
        """Whether all threads live."""
        return all(thread.is_alive() for thread in self._threads)

    def close(self, deadline_s: float) -> None:
        """End the threads; a tail under way may run until ``deadline_s`` of the monotonic clock."""
        self._closing = True
        self._runs.put(None)
        self._preparations.put(None)
        _join(self._threads, deadline_s)

    # ---- the threads; an exception must not end them: every robot would lose the edge ------------------------------

    def _run_tails(self, edge: Edge) -> None:
        while (run := self._runs.get()) is not None:
            try:
                results, tail_s = self._runner.run(run.frames[0].tail, payloads_of(run))
            except Exception as error:
                edge.on_run_failed(run, error)
            else:
                edge.on_results(run, results, tail_s)
            del run  # a thread that waits keeps no frame

    def _prepare_tails(self, edge: Edge) -> None:
        while (tail := self._preparations.get()) is not None:
            prepared = False
            try:
                prepared = self._runner.prepare((tail.split_index, tail.engine), tail.images, lambda: self._closing)
            except Interrupted:
                pass
            except Exception as error:  # the activation will cause the same error, and is answered with it
                edge.on_fault(f'tail of split {tail.split_index} not prepared ({type(error).__name__}: {error})')
            edge.on_prepared(prepared)


def payloads_of(run: RunTail) -> list[Payload]:
    """Return the payloads of the frames of a run."""
    return [Payload(frame.codec, frame.payload, frame.min_score) for frame in run.frames]


def _join(threads: Sequence[threading.Thread], deadline_s: float) -> None:
    for thread in threads:
        thread.join(min(max(0.0, deadline_s - time.monotonic()), threading.TIMEOUT_MAX))


def served_model(split: SplitModel, profile: Profile | None) -> ServedModel:
    """Return the policy's view of a model on this machine."""
    cuts = [cut for cut in split.cuts if cut.index != split.local_index]
    # A batch joins frames along the first dimension of each tensor, so each tensor needs one.
    specs = [spec for cut in split.cuts for spec in cut.tensors] + list(split.output_specs or ())
    return ServedModel(
        split.fingerprint,
        [cut.nbytes for cut in cuts],
        tuple(CODECS),
        [cut.tail_s for cut in profile.cuts] if profile is not None else (),
        split.model.max_batch != 1 and all(spec.shape for spec in specs),
        {
            engine: {
                index: profile.cuts[index].engine_tail_s.get(engine, {}) if profile is not None else {}
                for index in range(split.local_index)
                if split.has_tail(index, engine)
            }
            for engine in split.engines
            if engine != EAGER
        },
    )
