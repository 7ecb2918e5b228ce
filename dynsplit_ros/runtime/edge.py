# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The edge side of a split network: runs tails for several robots, fairly, and tells how busy it is.

One thread runs the tails, another one prepares those that robots announce (``preparation.py``). Activations come in on
the caller's thread and wait in one short line for each robot; the robot that was served longest ago is next. A frame
that waited longer than its robot will is not worked on.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import math
import secrets
import threading
import time
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dynsplit_ros.codec import declared_batch, decode, EncodedTensor
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.policies.records import EdgeTimes, Status
from dynsplit_ros.profile.profile import Profile
from dynsplit_ros.runtime.preparation import Preparation
from dynsplit_ros.tensors import of_image

#: A robot that has sent nothing for this long no longer counts as served.
ROBOT_GONE_S = 5.0
#: A payload of more than this many times the cut's bytes (and a little) is refused at once, not kept until its turn.
LARGEST_PAYLOAD = 2
#: Most robots that something is kept of. Whoever calls forgets those that left; this bounds what is kept if not.
MOST_ROBOTS = 1024
_NO_TIMES = EdgeTimes()


@dataclass
class Job:
    """
    One activation as it came in.

    ``source`` is the caller's own, handed back with the answer. ``patience_s`` says how long its robot waits.
    """

    robot: str
    source: Any
    fingerprint: str
    split_index: int
    codec: str
    patience_s: float
    payload: Sequence[EncodedTensor]
    arrived_s: float = 0.0
    answered: bool = False

    def is_awaited(self, now_s: float) -> bool:
        """Whether its robot still waits for the answer."""
        return now_s - self.arrived_s <= self.patience_s


@dataclass(frozen=True)
class Load:
    """
    How busy the edge was in the last ``period_s`` seconds; fields as EdgeLoad.msg explains them.

    ``queueing_s`` is by robot: the wait that a frame of it would have met, on average over the period's instants.
    """

    session: int
    sequence: int
    period_s: float
    utilisation: float
    queue_length: int
    queueing_s: dict[str, float]
    slowdown: float
    robots: int
    frame_rate_hz: float
    refused_total: int


class Outside(Protocol):
    """What the edge needs of the world around it; the node implements it with topics."""

    def answer(self, job: Job, status: Status, reason: str, outputs: dict[str, Tensor], times: EdgeTimes) -> None:
        """Send an answer to a robot; ``outputs`` is empty unless the status is OK."""

    def fault(self, reason: str) -> None:
        """Tell people that something went wrong that the edge survived."""


@dataclass(eq=False)
class _Line:
    """
    The frames of one robot that wait, oldest first.

    ``served_s`` and ``heard_s`` are when one of them was last taken and last came in, with ``images`` images (0: none
    came in yet);
    ``first_s`` is since when the present first one is first. ``refused`` counts those that were refused. ``others_s2``
    (s²) sums, over the frames of other robots in this period, the tail's time by the time during which a frame of this
    robot would have had to wait for it.
    """

    jobs: deque[Job] = field(default_factory=deque)
    served_s: float = -math.inf
    heard_s: float = -math.inf
    first_s: float = 0.0
    others_s2: float = 0.0
    images: int = 0
    refused: int = 0


class Edge:
    """
    Runs the tail for each activation and answers it.

    ``max_waiting`` frames of one robot may wait; a newer one takes the oldest one's place, which is answered
    SUPERSEDED. ``profile`` is this machine's own (for the slowdown that the load reports name); without one the
    fastest run of each tail so far stands for it. ``slowdown`` > 1 emulates a slower edge by sleeping.

    Up to ``max_batch`` frames of the same cut, each of another robot, share a run of the tail where the profile says
    that this is faster than one after the other; none is held for ``max_batch_wait_s`` or longer for others to come.
    A frame may itself have up to ``max_images`` images; one that has several shares no run.
    """

    def __init__(
        self,
        split: SplitModel,
        outside: Outside,
        *,
        profile: Profile | None = None,
        max_waiting: int = 2,
        max_batch: int = 1,
        max_batch_wait_s: float = 0.0,
        max_images: int = 1,
        slowdown: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session = secrets.randbits(63) | 1
        self._split = split
        self._outside = outside
        self._max_waiting = max_waiting
        self._slowdown = slowdown
        self._clock = clock
        self._max_batch_wait_s = max_batch_wait_s
        self._max_images = max_images
        self._learn_unloaded = profile is None
        # By (split, images in the run): the tail's time on this machine when nothing else runs.
        self._unloaded_s: dict[tuple[int, int], float] = {}
        self._batches: dict[int, list[int]] = {}  # by split: the numbers of frames worth a run, ascending
        if profile is not None:
            sizes = range(1, profile.batches[-1] + 1)
            for cut in profile.cuts:
                times_s = np.interp(sizes, profile.batches, [cut.tail_s[batch] for batch in profile.batches])
                self._unloaded_s |= {(cut.index, size): float(time_s) for size, time_s in zip(sizes, times_s)}
                if max_batch > 1 and _can_share(split):
                    self._batches[cut.index] = [size for size, time_s in zip(sizes, times_s)
                                                if 1 < size <= max_batch and time_s < size * cut.tail_s[1]]

        self._changed = threading.Condition()  # guards all below
        self._lines: dict[str, _Line] = {}
        self._closing = False
        self._counts: Counter[str] = Counter()
        self._reports = 0
        self._ended_slowdown = 1.0  # of the tails that ended last
        self._reported_s = clock()
        self._busy_since: float | None = None  # since when busy time is not yet booked
        self._taken_s = 0.0  # when the frame now being served was taken …
        self._ahead_s: dict[str, float] = {}  # … and how long it went before frames of each other robot
        self._clear_period()

        self._preparation = Preparation(split, outside.fault)
        self._thread = threading.Thread(target=self._run, name='tail', daemon=True)
        self._thread.start()

    def _clear_period(self) -> None:
        self._busy_s = self._tail_s = self._expected_s = 0.0
        self._answered = 0
        for line in self._lines.values():
            line.others_s2 = 0.0

    def submit(self, job: Job) -> None:
        """Queue an activation; it is answered in any case, at once where it is refused."""
        job.arrived_s = self._clock()
        try:
            self._accept(job)
        except Exception as error:  # Whatever an activation holds, its robot must hear of it and the next one be taken.
            self._fail([job], 'activation not queued', error)

    def _accept(self, job: Job) -> None:
        with self._changed:
            self._line(job.robot)
        if job.fingerprint != self._split.fingerprint:
            self._refuse(
                job,
                'another model',
                f'this edge serves the model with fingerprint {self._split.fingerprint}, '
                f'the activation is of {job.fingerprint[:64]!r}; run the same model, weights and input size on both',
            )
            return
        if not 0 <= job.split_index < self._split.local_index:
            self._refuse(job, 'no such split', f'split {job.split_index} cannot be sent; allowed are 0 to '
                         f'{self._split.local_index - 1}')
            return
        images = self._images(job)
        if images > self._max_images:
            self._refuse(
                job,
                'too many images',
                f'the frame has {images} images, but this edge takes {self._max_images}; '
                'start the edge with the parameter batch as on the robot',
            )
            return
        sent_bytes = sum(len(tensor.data) for tensor in job.payload)
        most_bytes = LARGEST_PAYLOAD * self._max_images * self._split.cuts[job.split_index].nbytes + 10_000
        if sent_bytes > most_bytes:
            self._refuse(
                job,
                'too large',
                f'the payload has {sent_bytes} bytes, but no codec makes more than {most_bytes} '
                f'of split {job.split_index}',
            )
            return
        displaced = None
        with self._changed:
            line = None if self._closing else self._line(job.robot)
            if line is not None:
                line.heard_s, line.images = job.arrived_s, images
                if not line.jobs:
                    line.first_s = job.arrived_s
                line.jobs.append(job)
                if len(line.jobs) > self._max_waiting:
                    displaced = line.jobs.popleft()
                self._changed.notify()
        if self._closing and line is None:
            self._answer(job, Status.SUPERSEDED, 'the edge stopped before it ran the tail')
        elif line is None:
            self._refuse(job, 'too many robots', f'frames of {MOST_ROBOTS} other robots are in the queue')
        if displaced is not None:
            self._supersede(displaced)

    def _line(self, robot: str) -> _Line | None:
        """
        Return a robot's line; holds the lock.

        A new line takes the place of the one that is unused for longest where there are too many; None where all are
        in use.
        """
        line = self._lines.get(robot)
        if line is None:
            if len(self._lines) >= MOST_ROBOTS:
                unused = [name for name, line in self._lines.items() if not line.jobs]
                if not unused:
                    return None
                self._drop(min(unused, key=lambda name: self._lines[name].heard_s))
            line = self._lines[robot] = _Line()
        return line

    def _drop(self, robot: str) -> Sequence[Job]:
        """Drop what is kept of a robot and return its frames that waited; holds the lock."""
        self._preparation.forget(robot)
        line = self._lines.pop(robot, None)
        return line.jobs if line is not None else ()

    def on_split(self, robot: str, fingerprint: str, split_index: int, codec: str) -> None:
        """
        Prepare the tail that a robot is about to need, on a thread of its own.

        It is prepared for as many images as the robot's last frame had; before the first one, for ``max_images``.
        Raises DynsplitError for a decision that this edge cannot serve, which then costs no work.
        """
        with self._changed:
            line = self._line(robot)
        if line is not None:
            self._preparation.announce(robot, fingerprint, split_index, codec, line.images or self._max_images)

    def splits(self) -> dict[str, tuple[int, str]]:
        """Return the split and the codec (empty for local inference) that each robot has announced."""
        return self._preparation.announced()

    def forget(self, robot: str) -> None:
        """Drop all that is held for a robot that has left, and send back its frames that wait."""
        with self._changed:
            waiting = self._drop(robot)
        for job in waiting:
            self._supersede(job)

    def load(self) -> Load:
        """Return how busy the edge was since the last call."""
        with self._changed:
            now_s = self._clock()
            period_s = max(now_s - self._reported_s, 1e-6)
            if self._busy_since is not None:  # the part so far of a tail that is still running
                self._busy_s += now_s - self._busy_since
                self._busy_since = now_s
            if self._expected_s > 0:
                self._ended_slowdown = self._tail_s / self._expected_s
            self._reports += 1
            load = Load(
                session=self.session,
                sequence=self._reports,
                period_s=period_s,
                utilisation=min(1.0, self._busy_s / period_s),
                queue_length=sum(len(line.jobs) for line in self._lines.values()),
                queueing_s={robot: line.others_s2 / period_s for robot, line in self._lines.items()},
                slowdown=self._ended_slowdown if self._busy_s > 0 else 1.0,
                robots=sum(now_s - line.heard_s < ROBOT_GONE_S for line in self._lines.values()),
                frame_rate_hz=self._answered / period_s,
                refused_total=self._counts['refused'],
            )
            self._reported_s = now_s
            self._clear_period()
            return load

    def counts(self) -> dict[str, int]:
        """
        Return how many activations had which end since the start, and how many tails were prepared.

        Those refused are also counted by reason and, as long as it is not forgotten, by robot.
        """
        with self._changed:
            by_robot = {f'refused from {robot}': line.refused for robot, line in self._lines.items() if line.refused}
            return dict(sorted({**self._counts, **by_robot, 'prepared': self._preparation.prepared}.items()))

    def close(self, within_s: float = 1.0) -> None:
        """Take nothing more, end the thread, and send back what waits, so that its robots need not wait."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._preparation.close(within_s)
        self._thread.join(min(within_s, threading.TIMEOUT_MAX))
        with self._changed:
            waiting = [job for line in self._lines.values() for job in line.jobs]
            self._lines.clear()
        for job in waiting:
            self._answer(job, Status.SUPERSEDED, 'the edge stopped before it ran the tail')

    # ---- the tail thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (jobs := self._take()) is not None:
            try:
                self._serve(jobs)
            except Exception as error:  # A thread that dies would leave every robot without an edge.
                self._fail(jobs, 'frame not served', error)
            with self._changed:
                self._account(self._clock())

    def _account(self, now_s: float) -> None:
        """
        Book the time of the frame just served; holds the lock.

        A frame that arrives at a random instant finds, with the probability of the tail's share of the time, half of a
        run still to go (the mean residual life: S²/2 for each run of S seconds), and before it each frame whose turn
        comes first.
        """
        spent_s = now_s - self._taken_s
        assert self._busy_since is not None
        self._busy_s += now_s - self._busy_since
        self._busy_since = None
        for robot, ahead_s in self._ahead_s.items():
            if robot in self._lines:
                self._lines[robot].others_s2 += spent_s * (spent_s / 2 + ahead_s)

    def _take(self) -> list[Job] | None:
        """
        Wait for a frame; return the oldest of the robot that was served longest ago, and what shares its run.

        None to end.
        """
        while True:
            with self._changed:
                while not self._closing and not any(line.jobs for line in self._lines.values()):
                    self._changed.wait()
                if self._closing:
                    return None
                line = min((line for line in self._lines.values() if line.jobs), key=lambda line: line.served_s)
                sharing = self._sharing(line)
                if sharing is None:
                    continue  # one more may come; what waits may have changed meanwhile
                now_s = self._clock()
                served_before_s, waited_as_first_s = line.served_s, now_s - line.first_s
                jobs = [taken.jobs.popleft() for taken in (line, *sharing)]
                for taken in (line, *sharing):
                    taken.first_s = now_s
                expired = [job for job in jobs if not job.is_awaited(now_s)]
                jobs = [job for job in jobs if job.is_awaited(now_s)]
                if jobs:
                    self._ahead_s = {robot: waited_as_first_s if served_before_s < other.served_s else 0.0
                                     for robot, other in self._lines.items() if other not in (line, *sharing)}
                    for taken in (line, *sharing):
                        taken.served_s = now_s
                    self._busy_since = self._taken_s = now_s
            for job in expired:
                self._supersede(job)
            if jobs:
                return jobs

    def _sharing(self, line: _Line) -> list[_Line] | None:
        """
        Return the other robots' lines whose first frames are to share a run with this one's; holds the lock.

        Where more may still come in time for that, wait for a change and return None.
        """
        first = line.jobs[0]
        sizes = self._batches.get(first.split_index, ())
        if not sizes or self._images(first) > 1:
            return []
        ready = sorted((other for other in self._lines.values() if other is not line and other.jobs
                        and other.jobs[0].split_index == first.split_index and self._images(other.jobs[0]) == 1),
                       key=lambda other: other.served_s)
        now_s = self._clock()
        left_s = first.arrived_s + self._max_batch_wait_s - now_s
        others = sum(now_s - other.heard_s < ROBOT_GONE_S for other in self._lines.values() if other is not line)
        if left_s > 0 and len(ready) < min(sizes[-1] - 1, others):
            self._changed.wait(left_s)
            return None
        return ready[:max((size for size in sizes if size <= len(ready) + 1), default=1) - 1]

    def _images(self, job: Job) -> int:
        return declared_batch(job.payload, self._split.cuts[job.split_index].tensors)

    def _serve(self, jobs: list[Job]) -> None:
        """Run the tail for frames of one cut, together, and answer them."""
        started_s = self._clock()
        index = jobs[0].split_index
        images = 0
        decoded: list[tuple[Job, dict[str, Tensor]]] = []
        for job in jobs:
            try:
                decoded.append((job, decode(job.codec, job.payload, self._split.cuts[index].tensors, self._max_images)))
                images += self._images(job)
            except DynsplitError as error:
                self._refuse(job, 'unreadable', str(error))
            except Exception as error:  # Those that share the run must be served.
                self._fail([job], 'activation not decoded', error)
            job.payload = ()
        if not decoded:
            return
        decoded_s = self._clock()
        count = len(decoded)
        try:
            tensors = decoded[0][1] if count == 1 else {
                name: torch.cat([frame[name] for _, frame in decoded]) for name in decoded[0][1]}
            outputs = self._split.tail(index)(tensors)
        except Exception as error:  # Whatever the tail meets, the robots must hear of it and the next frame be served.
            self._fail([job for job, _ in decoded], f'the tail of split {index} failed', error)
            return
        if self._slowdown > 1:
            time.sleep((self._clock() - decoded_s) * (self._slowdown - 1))
        done_s = self._clock()
        tail_s = done_s - decoded_s
        with self._changed:
            if self._learn_unloaded:
                self._unloaded_s[index, images] = min(tail_s, self._unloaded_s.get((index, images), tail_s))
            self._tail_s += tail_s
            self._expected_s += self._unloaded_s.get((index, images), tail_s)
            self._answered += count
        for number, (job, _) in enumerate(decoded):
            own = of_image(outputs, number, count, self._split.output_specs is None)
            self._answer(job, Status.OK, '', own, EdgeTimes(
                held_s=done_s - job.arrived_s, queueing_s=started_s - job.arrived_s,
                decode_s=decoded_s - started_s, tail_s=tail_s, batch=count))

    def _refuse(self, job: Job, kind: str, reason: str) -> None:
        with self._changed:
            self._counts[f'refused: {kind}'] += 1
            if (line := self._lines.get(job.robot)) is not None:
                line.refused += 1
        self._answer(job, Status.REFUSED, reason)

    def _fail(self, jobs: Sequence[Job], what: str, error: Exception) -> None:
        """Report an error that is none of the jobs' own, and answer those that have no answer yet."""
        self._outside.fault(f'{what} ({type(error).__name__}: {error})')
        for job in jobs:
            if not job.answered:
                self._answer(job, Status.FAILED, f'{what} ({type(error).__name__})')

    def _supersede(self, job: Job) -> None:
        self._answer(job, Status.SUPERSEDED, 'a newer frame replaced it in the queue')

    def _answer(self, job: Job, status: Status, reason: str, outputs: dict[str, Tensor] | None = None,
                times: EdgeTimes = _NO_TIMES) -> None:
        """Answer a job, with FAILED where its outputs cannot be sent; that its robot has left stops nobody else's."""
        job.answered = True
        with self._changed:
            self._counts[status.name.lower() if status is not Status.OK else 'answered'] += 1
        try:
            self._outside.answer(job, status, reason, outputs or {}, times)
        except Exception as error:
            self._outside.fault(f'answer not sent ({type(error).__name__}: {error})')
            if outputs:
                self._answer(job, Status.FAILED, f'outputs not sent ({type(error).__name__})')


def _can_share(split: SplitModel) -> bool:
    """Whether the model takes several frames at once, and every tensor has a dimension to join them along."""
    specs = [spec for cut in split.cuts for spec in cut.tensors] + list(split.output_specs or ())
    return split.model.max_batch != 1 and all(spec.shape for spec in specs)
