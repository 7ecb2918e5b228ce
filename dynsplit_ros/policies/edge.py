# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The rules of the edge: a state machine without clock and threads.

The methods ``on_...`` of :class:`EdgePolicy` are the events. Each takes the instant at which it happens and returns
actions, which the caller carries out in their order. A frame goes through these events (and actions)::

    on_activation (Acknowledge; RunTail) -> on_tail_done (Answer; the next RunTail)

The edge has one server, its own process, or several, the replicas of a pool. Each server runs one tail at a time, for
one frame or a batch. The edge prepares one tail at a time in parallel.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
import math
from typing import Any

import numpy as np

from dynsplit_ros.engine_names import EAGER
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.policies.edge_load import LoadMeter
from dynsplit_ros.policies.edge_queue import FairQueue, MAX_ROBOTS, RobotQueue
from dynsplit_ros.policies.records import EdgeFrame, EdgeTimes, Status, Tail
from dynsplit_ros.policies.wake import WakeAt

#: Largest payload: the bytes of the cut's tensors times the ratio, plus the bytes for headers. No codec writes more.
#: The edge refuses larger payloads at once, so that they do not fill its memory while they wait.
PAYLOAD_RATIO, PAYLOAD_HEADER_BYTES = 2, 10_000
_CLOSED = 'the edge stopped before it ran the tail'
#: Largest number of runs of a frame whose server ends during the run. Without this bound, a payload that ends the
#: process which decodes it would end one replica after the other.
MAX_RUNS = 3


@dataclass(frozen=True)
class Acknowledge:
    """Acknowledge the arrival of the frame's activation to its robot."""

    frame: EdgeFrame


@dataclass(frozen=True, eq=False)
class RunTail:
    """
    On a free server, decode the frames' payloads and run the tail of their split once for all of them.

    Call ``on_unreadable`` for each payload that does not decode, and ``on_failed`` if the tail fails. At the end,
    always call ``on_tail_done`` with the outputs of the other frames. If the server ends before, call ``on_servers``
    and ``on_server_lost`` instead. ``number`` counts the runs of the same frames from 1.
    """

    frames: tuple[EdgeFrame, ...]
    started_s: float
    number: int = 1


@dataclass(frozen=True)
class Answer:
    """Send the robot the frame's status and, if that is OK, its outputs; call ``on_answer_failed`` if that fails."""

    frame: EdgeFrame


@dataclass(frozen=True)
class PrepareTail:
    """Build and warm up the tail of a split for frames of ``images`` images; then call ``on_prepared``."""

    split_index: int
    images: int
    engine: str = EAGER


@dataclass(frozen=True)
class ReportLoad:
    """Send the load report to all robots, each with its own queueing delay from ``queueing_s`` (0 if missing)."""

    report: LoadReport
    queueing_s: Mapping[str, float]


Action = Acknowledge | RunTail | Answer | PrepareTail | ReportLoad | WakeAt


@dataclass(frozen=True)
class ServedModel:
    """
    The policy's view of the model that the edge serves.

    ``cut_bytes`` holds the raw size of each cut that a robot can send, for one image; the split after the last one is
    local inference. ``tail_s`` holds the profiled seconds of these tails by batch size, or is empty. ``can_share``
    says whether frames of several robots may share a run. ``engines`` holds the tails that are ready on engines other
    than eager: by engine and split their profiled seconds by batch size, empty where they were not measured.
    """

    fingerprint: str
    cut_bytes: Sequence[int]
    codecs: Collection[str]
    tail_s: Sequence[Mapping[int, float]] = ()
    can_share: bool = False
    engines: Mapping[str, Mapping[int, Mapping[int, float]]] = field(default_factory=dict)

    @property
    def local_index(self) -> int:
        """The split of local inference, which needs no edge."""
        return len(self.cut_bytes)

    @property
    def tails(self) -> dict[Tail, Mapping[int, float]]:
        """The profiled seconds of each measured tail by batch size."""
        eager = {(index, EAGER): tail_s for index, tail_s in enumerate(self.tail_s)}
        return eager | {
            (index, engine): tail_s
            for engine, tails in self.engines.items()
            for index, tail_s in tails.items()
            if tail_s
        }

    def unloaded_s(self) -> dict[tuple[Tail, int], float]:
        """Return the profiled time of each tail by batch size, interpolated between measured sizes."""
        times_s: dict[tuple[Tail, int], float] = {}
        for tail, tail_s in self.tails.items():
            sizes = range(1, max(tail_s) + 1)
            interpolated_s = np.interp(sizes, sorted(tail_s), [tail_s[size] for size in sorted(tail_s)])
            times_s |= {(tail, size): float(time_s) for size, time_s in zip(sizes, interpolated_s)}
        return times_s


@dataclass(frozen=True)
class EdgeSettings:
    """
    Limits of the edge.

    At most ``max_waiting`` frames of one robot wait. Up to ``max_batch`` frames of different robots share a run; a
    frame waits for others at most ``max_batch_wait_s`` seconds. A frame has at most ``max_images`` images. Load reports
    are ``load_period_s`` seconds apart (infinity: none).
    """

    max_waiting: int = 2
    max_batch: int = 1
    max_batch_wait_s: float = 0.0
    max_images: int = 1
    load_period_s: float = math.inf


class EdgePolicy:
    """
    Decides for the edge which tail to run next, for which frames, and how each frame is answered.

    - Each activation is acknowledged on arrival and answered exactly once.
    - The edge at once refuses activations that it cannot use: of another model or an unknown split, with too many
      images, or too large.
    - Each server runs one tail at a time. If a server ends, its frames run first on another one. Without a server, the
      edge answers frames at once, so that their robots finish them.
    - Each robot has a short queue. If the queue is full, a new frame supersedes the oldest one.
    - The robot that was served longest ago is next (:class:`~dynsplit_ros.policies.edge_queue.FairQueue`).
    - Frames of the same cut and of different robots share a run if the profile shows that this is faster.
    - If the robot no longer waits for a frame, the edge answers SUPERSEDED without a run.
    - If a robot announces a split, the edge prepares its tail, unless a newer announcement replaces it first.
    - The edge sends load reports periodically (:class:`~dynsplit_ros.policies.edge_load.LoadMeter`).

    ``name`` and ``session`` are the edge's name and run, in every answer and load report. ``servers`` is the number of
    servers at the start. Call ``on_start`` first. All instants come from one monotonic clock.
    """

    def __init__(
        self,
        model: ServedModel,
        settings: EdgeSettings = EdgeSettings(),
        session: int = 0,
        name: str = '',
        servers: int = 1,
    ) -> None:
        self.model = model
        self.settings = settings
        self.session = session
        self.name = name
        unloaded_s = model.unloaded_s()
        self._robots = FairQueue(_batch_sizes(model, settings, unloaded_s), settings.max_batch_wait_s)
        self._meter = LoadMeter(unloaded_s, name, session, servers)
        self._servers = servers
        self._no_server = 'no replica is ready'
        self._runs: list[RunTail] = []
        self._lost_runs: deque[RunTail] = deque()  # the runs of servers that ended
        self._to_prepare: dict[str, int] = {}  # images by robot that waits for a tail, in order
        self._is_preparing = False
        self._closed = False
        self._counts: Counter[str] = Counter()
        self._report_s = self._wake_s = math.inf
        self._actions: list[Action] = []

    # ---- state ---------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """
        Return how many frames were answered with each status since the start, and how many tails were prepared.

        Refused frames are also counted by reason and by known robot.
        """
        by_robot = {f'refused from {robot}': queue.refused for robot, queue in self._robots if queue.refused}
        return dict(sorted({'prepared': 0, **self._counts, **by_robot}.items()))

    def splits(self) -> dict[str, tuple[int, str]]:
        """Return the split and the codec (empty for local inference) that each robot has announced."""
        return {robot: queue.split for robot, queue in self._robots if queue.split is not None}

    @property
    def waiting(self) -> list[EdgeFrame]:
        """The frames that wait for their tail, oldest first."""
        again = [frame for run in self._lost_runs for frame in run.frames]
        return sorted(
            (*again, *(frame for _, queue in self._robots for frame in queue.frames)), key=lambda frame: frame.arrived_s
        )

    # ---- robots --------------------------------------------------------------------------------------------------

    def on_activation(self, frame: EdgeFrame, now_s: float) -> list[Action]:
        """Acknowledge an activation, and queue it or answer it at once."""
        frame.arrived_s = now_s
        frame.tail_engine = self._ready_engine(frame.split_index, frame.tail_engine)
        frame.times = EdgeTimes(edge=self.name, edge_session=self.session, tail_engine=frame.tail_engine)
        self._actions.append(Acknowledge(frame))
        queue = self._robots.of(frame.robot)
        if (refusal := self._refusal(frame)) is not None:
            self._refuse(frame, *refusal)
        elif self._closed:
            self._supersede(frame, _CLOSED)
        elif not self._servers:
            self._refuse(frame, 'no capacity', f'the edge has no capacity: {self._no_server}')
        elif queue is None:
            self._refuse(frame, 'too many robots', f'frames of {MAX_ROBOTS} other robots are in the queue')
        elif (superseded := queue.add(frame, self.settings.max_waiting)) is not None:
            self._supersede(superseded, 'a newer frame of its robot replaced it in the queue')
        return self._act(now_s)

    def on_decision(
        self, robot: str, fingerprint: str, split_index: int, codec: str, tail_engine: str = EAGER, *, now_s: float
    ) -> list[Action]:
        """
        Note the split that a robot announces, and prepare its tail.

        The number of images is that of the robot's last frame, or ``max_images`` before its first frame. Raises
        DynsplitError for a decision that this edge cannot serve; the robot's previous announcement is then forgotten.
        """
        queue = self._robots.of(robot)
        if queue is None:
            return []
        try:
            self._check(fingerprint, split_index, codec)
        except DynsplitError:
            queue.split = None
            self._to_prepare.pop(robot, None)
            raise
        if split_index < self.model.local_index:
            queue.split, queue.engine = (split_index, codec), self._ready_engine(split_index, tail_engine)
            self._to_prepare[robot] = queue.images or self.settings.max_images
        else:
            queue.split = split_index, ''
            self._to_prepare.pop(robot, None)
        return self._act(now_s)

    def on_decision_elsewhere(self, robot: str, now_s: float) -> list[Action]:
        """Note that a robot announces a decision for another edge or for none; its tail is not prepared."""
        self._to_prepare.pop(robot, None)
        if (queue := self._robots.get(robot)) is not None:
            queue.split = None
        return self._act(now_s)

    def on_robot_left(self, robot: str, now_s: float) -> list[Action]:
        """Forget a robot that has left, and answer its waiting frames."""
        self._to_prepare.pop(robot, None)
        for frame in self._robots.remove(robot):
            self._supersede(frame, 'its robot has left')
        return self._act(now_s)

    # ---- servers and tails ---------------------------------------------------------------------------------------

    def on_servers(self, count: int, reason: str, now_s: float) -> list[Action]:
        """Note the number of servers from now on; ``reason`` says why there is none."""
        self._servers, self._no_server = count, reason or self._no_server
        self._meter.set_servers(count, now_s)
        if not count:
            for frame in self.waiting:
                self._refuse(frame, 'no capacity', f'the edge has no capacity: {self._no_server}')
            self._lost_runs.clear()
            for _, queue in self._robots:
                queue.frames.clear()
        return self._act(now_s)

    def on_profile(self, model: ServedModel, now_s: float) -> list[Action]:
        """Use the times of a profile that was measured after the start; ``model`` holds these times."""
        self.model = model
        unloaded_s = model.unloaded_s()
        self._robots.batch_sizes = _batch_sizes(model, self.settings, unloaded_s)
        self._meter.set_unloaded(unloaded_s)
        return self._act(now_s)

    def on_unreadable(self, frame: EdgeFrame, reason: str, now_s: float) -> list[Action]:
        """Refuse a frame whose payload does not decode; the other frames of its run continue."""
        self._refuse(frame, 'unreadable', reason)
        return self._act(now_s)

    def on_tail_done(self, run: RunTail, outputs: Sequence[Any], tail_s: float, now_s: float) -> list[Action]:
        """
        End a run: answer its frames without an answer with ``outputs``, in their order, and start the next run.

        The tail took ``tail_s`` seconds; the rest of the run counts as decoding.
        """
        self._end_run(run, now_s)
        frames = [frame for frame in run.frames if frame.status is None]
        if frames:
            self._meter.on_tail(run.frames[0].tail, sum(frame.images for frame in frames), len(frames), tail_s)
        for frame, output in zip(frames, outputs, strict=True):
            frame.outputs = output
            frame.times = replace(
                frame.times,
                held_s=now_s - frame.arrived_s,
                queueing_s=run.started_s - frame.arrived_s,
                decode_s=max(0.0, now_s - run.started_s - tail_s),
                tail_s=tail_s,
                batch=len(frames),
            )
            self._answer(frame, Status.OK, '')
        return self._act(now_s)

    def on_server_lost(self, run: RunTail, now_s: float) -> list[Action]:
        """
        Run the frames of a lost server again on another server, before all waiting frames.

        Frames whose answer timeout has passed, and frames after ``MAX_RUNS`` runs, are answered without outputs.
        """
        self._end_run(run, now_s)
        frames = tuple(frame for frame in run.frames if frame.status is None)
        if not self._servers:
            for frame in frames:
                self._refuse(frame, 'no capacity', f'the edge has no capacity: {self._no_server}')
        elif self._closed:
            for frame in frames:
                self._supersede(frame, _CLOSED)
        elif run.number >= MAX_RUNS:
            for frame in frames:
                self._answer(frame, Status.FAILED, f'{run.number} replicas ended while they ran the tail of this frame')
        elif frames:
            self._lost_runs.append(RunTail(frames, math.nan, run.number + 1))
        return self._act(now_s)

    def on_failed(self, frames: Sequence[EdgeFrame], reason: str, now_s: float) -> list[Action]:
        """Answer frames after an error of the edge, unless they already have an answer."""
        for frame in frames:
            if frame.status is None:
                self._answer(frame, Status.FAILED, reason)
        return self._act(now_s)

    def on_answer_failed(self, frame: EdgeFrame, reason: str, now_s: float) -> list[Action]:
        """Answer FAILED for a frame whose outputs cannot be sent; other answers are not repeated."""
        if frame.status is Status.OK:
            self._counts['answered'] -= 1
            frame.outputs = None
            self._answer(frame, Status.FAILED, reason)
        return self._act(now_s)

    # ---- preparation and time ------------------------------------------------------------------------------------

    def on_prepared(self, did: bool, now_s: float) -> list[Action]:
        """Prepare the next tail; ``did`` is False if the last one was already ready or cannot be prepared."""
        self._counts['prepared'] += did
        self._is_preparing = False
        return self._act(now_s)

    def on_start(self, now_s: float) -> list[Action]:
        """Begin the first period of the load reports."""
        self._meter.start(now_s)
        self._report_s = now_s + self.settings.load_period_s
        return self._act(now_s)

    def on_time(self, now_s: float) -> list[Action]:
        """Handle the passing of time; the caller calls this at the instant of the latest WakeAt."""
        return self._act(now_s)

    def on_close(self, now_s: float) -> list[Action]:
        """Answer the waiting frames, and start no more runs."""
        self._closed = True
        while self._lost_runs:
            for frame in self._lost_runs.popleft().frames:
                self._supersede(frame, _CLOSED)
        for _, queue in self._robots:
            while queue.frames:
                self._supersede(queue.take(now_s), _CLOSED)
        return self._act(now_s)

    # ---- the rules -----------------------------------------------------------------------------------------------

    def _act(self, now_s: float) -> list[Action]:
        """Apply all rules that time and the new state allow, and return all actions of this event."""
        wake_s = math.inf
        if not self._closed:
            self._prepare_next()
            wake_s = min(self._start_runs(now_s), self._report_load(now_s))
        if wake_s != self._wake_s:
            self._wake_s = wake_s
            self._actions.append(WakeAt(wake_s))
        actions, self._actions = self._actions, []
        return actions

    def _start_runs(self, now_s: float) -> float:
        """Start runs while a server is free; return when to check again."""
        while len(self._runs) < self._servers:
            queues: list[RobotQueue] = []
            number = 1
            if self._lost_runs:
                lost = self._lost_runs.popleft()
                frames, number = lost.frames, lost.number
            else:
                queues, look_s = self._robots.next_run(now_s)
                if not queues:
                    return look_s
                frames = tuple(queue.frames[0] for queue in queues)
            for frame in frames:
                if frame.is_expired(now_s):
                    self._supersede(frame, 'its answer timeout passed while it waited')
            run = RunTail(tuple(frame for frame in frames if frame.status is None), now_s, number)
            if run.frames:
                self._runs.append(run)
                under_way = {frame.robot for each in self._runs for frame in each.frames}
                self._meter.begin_run(queues[0] if queues else None, under_way, self._robots, now_s)
                self._actions.append(run)
            for queue in queues:
                queue.take(now_s)
                if run.frames:
                    queue.served_s = now_s
        return math.inf

    def _end_run(self, run: RunTail, now_s: float) -> None:
        if run not in self._runs:
            raise ValueError('a run ended that is not under way')
        self._runs.remove(run)
        self._meter.end_run(now_s)

    def _prepare_next(self) -> None:
        while self._to_prepare and not self._is_preparing:
            robot = next(iter(self._to_prepare))
            images, queue = self._to_prepare.pop(robot), self._robots.get(robot)
            if queue is not None and queue.split is not None:
                self._is_preparing = True
                self._actions.append(PrepareTail(queue.split[0], images, queue.engine))

    def _report_load(self, now_s: float) -> float:
        """Send a load report if it is due; return the instant of the next one."""
        if now_s >= self._report_s:
            self._report_s += self.settings.load_period_s
            if now_s >= self._report_s:  # missed reports are not sent later
                self._report_s = now_s + self.settings.load_period_s
            self._actions.append(ReportLoad(*self._meter.report(self._robots, self._counts['refused'], now_s)))
        return self._report_s

    def _ready_engine(self, split_index: int, engine: str) -> str:
        """Return the engine of a tail: the one that its robot asks for if it is ready, else eager."""
        is_ready = engine == EAGER or split_index in self.model.engines.get(engine, ())
        if not is_ready:
            self._counts['engine not ready'] += 1
        return engine if is_ready else EAGER

    def _refusal(self, frame: EdgeFrame) -> tuple[str, str] | None:
        """Return the kind and the reason if the edge cannot use an activation."""
        model, max_images = self.model, self.settings.max_images
        if frame.fingerprint != model.fingerprint:
            return 'another model', (
                f'this edge serves the model with fingerprint {model.fingerprint}, the activation is of '
                f'{frame.fingerprint[:64]!r}; run the same model, weights and input size on both'
            )
        if not 0 <= frame.split_index < model.local_index:
            return 'no such split', (
                f'split {frame.split_index} cannot be sent; allowed are 0 to {model.local_index - 1}'
            )
        if frame.images > max_images:
            return 'too many images', (
                f'the frame has {frame.images} images, but this edge takes {max_images}; start the edge with the '
                'parameter batch as on the robot'
            )
        max_bytes = PAYLOAD_RATIO * max_images * model.cut_bytes[frame.split_index] + PAYLOAD_HEADER_BYTES
        if frame.payload_bytes > max_bytes:
            return 'too large', (
                f'the payload has {frame.payload_bytes} bytes, but no codec makes more than {max_bytes} of split '
                f'{frame.split_index}'
            )
        return None

    def _check(self, fingerprint: str, split_index: int, codec: str) -> None:
        """Raise DynsplitError for a decision that this edge cannot serve."""
        local = self.model.local_index
        if fingerprint != self.model.fingerprint:
            raise DynsplitError(
                f'the decision is for the model {fingerprint[:12]!r}, but this edge serves '
                f'{self.model.fingerprint[:12]}; run the same model, weights and input size on both'
            )
        if not 0 <= split_index <= local:
            raise DynsplitError(
                f'the decision names split {split_index}, but this model has 0 to {local}; run the '
                'same version of this package on all sides'
            )
        if split_index < local and codec not in self.model.codecs:
            raise DynsplitError(
                f'the decision names the codec {codec[:40]!r}, which is none of the '
                f'{len(self.model.codecs)} that this version knows; run the same version of this '
                'package on all sides'
            )

    def _refuse(self, frame: EdgeFrame, kind: str, reason: str) -> None:
        self._counts[f'refused: {kind}'] += 1
        if (queue := self._robots.get(frame.robot)) is not None:
            queue.refused += 1
        self._answer(frame, Status.REFUSED, reason)

    def _supersede(self, frame: EdgeFrame, reason: str) -> None:
        self._answer(frame, Status.SUPERSEDED, reason)

    def _answer(self, frame: EdgeFrame, status: Status, reason: str) -> None:
        frame.status, frame.reason, frame.payload = status, reason, ()
        self._counts['answered' if status is Status.OK else status.name.lower()] += 1
        self._actions.append(Answer(frame))


def _batch_sizes(
    model: ServedModel, settings: EdgeSettings, unloaded_s: Mapping[tuple[Tail, int], float]
) -> dict[Tail, list[int]]:
    """Return, by tail, the numbers of frames for which one shared run is faster than separate runs."""
    sizes: dict[Tail, list[int]] = {}
    for (tail, size), time_s in unloaded_s.items():
        if model.can_share and 1 < size <= settings.max_batch and time_s < size * unloaded_s[tail, 1]:
            sizes.setdefault(tail, []).append(size)
    return sizes
