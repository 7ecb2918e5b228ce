# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Which frames the edge runs next: a short queue for each robot, fairness between robots, and batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
import math

from dynsplit_ros.engine_names import EAGER
from dynsplit_ros.policies.records import EdgeFrame, Tail

#: A robot is active for this time after its last activation, in seconds; a batch waits only for active robots. A longer
#: time lets batches wait for robots that have stopped.
ACTIVE_S = 5.0
#: Largest number of robots that the edge remembers. It bounds the memory if robots leave without notice.
MAX_ROBOTS = 1024


@dataclass(eq=False)
class RobotQueue:
    """
    The waiting frames of one robot, the oldest first, and what the edge knows of the robot.

    Instants are in seconds: ``heard_s`` when its last activation came, ``served_s`` when its last frame was taken,
    ``first_s`` when the present first frame became the first. ``images`` is the number in its last frame (0: none yet),
    ``refused`` counts its refused frames. ``split`` is the split and codec that it announced, ``engine`` runs the tail.
    ``queueing_s2`` (s²) belongs to :class:`~dynsplit_ros.policies.edge_load.LoadMeter`.
    """

    frames: deque[EdgeFrame] = field(default_factory=deque)
    heard_s: float = -math.inf
    served_s: float = -math.inf
    first_s: float = math.nan
    images: int = 0
    refused: int = 0
    split: tuple[int, str] | None = None
    engine: str = EAGER
    queueing_s2: float = 0.0

    def add(self, frame: EdgeFrame, max_waiting: int) -> EdgeFrame | None:
        """Append a frame; return the oldest frame if the queue is full."""
        self.heard_s, self.images = frame.arrived_s, frame.images
        if not self.frames:
            self.first_s = frame.arrived_s
        self.frames.append(frame)
        return self.frames.popleft() if len(self.frames) > max_waiting else None

    def take(self, now_s: float) -> EdgeFrame:
        """Remove and return the first frame."""
        self.first_s = now_s
        return self.frames.popleft()


class FairQueue:
    """
    The queues of all robots: the robot that was served longest ago is next.

    ``batch_sizes`` holds, by tail, the numbers of frames (ascending, from 2) for which a shared run is faster. A frame
    waits for others at most ``max_batch_wait_s`` seconds, and only while other robots are active.
    """

    def __init__(self, batch_sizes: Mapping[Tail, Sequence[int]], max_batch_wait_s: float) -> None:
        self.batch_sizes = batch_sizes
        self._max_batch_wait_s = max_batch_wait_s
        self._robots: dict[str, RobotQueue] = {}

    def __iter__(self) -> Iterator[tuple[str, RobotQueue]]:
        """Yield the robots and their queues."""
        return iter(self._robots.items())

    def __len__(self) -> int:
        """Return the number of waiting frames."""
        return sum(len(queue.frames) for queue in self._robots.values())

    def get(self, robot: str) -> RobotQueue | None:
        """Return the queue of a known robot."""
        return self._robots.get(robot)

    def of(self, robot: str) -> RobotQueue | None:
        """
        Return the queue of a robot, a new one if necessary.

        If MAX_ROBOTS are known, a new robot replaces the one without frames that was silent for the longest time. The
        result is None if all of them have frames.
        """
        if robot not in self._robots and len(self._robots) >= MAX_ROBOTS:
            unused = [name for name, queue in self._robots.items() if not queue.frames]
            if not unused:
                return None
            del self._robots[min(unused, key=lambda name: self._robots[name].heard_s)]
        return self._robots.setdefault(robot, RobotQueue())

    def remove(self, robot: str) -> Sequence[EdgeFrame]:
        """Forget a robot and return its waiting frames."""
        queue = self._robots.pop(robot, None)
        return queue.frames if queue is not None else ()

    def active(self, now_s: float) -> int:
        """Return the number of active robots."""
        return sum(now_s - queue.heard_s < ACTIVE_S for queue in self._robots.values())

    def next_run(self, now_s: float) -> tuple[list[RobotQueue], float]:
        """
        Return the queues whose first frames share the next run, and an infinite time.

        If no run may start, return an empty list and the instant to ask again (infinity: after the next frame).
        """
        waiting = [queue for queue in self._robots.values() if queue.frames]
        if not waiting:
            return [], math.inf
        waiting.sort(key=lambda queue: queue.served_s)
        first = waiting[0].frames[0]
        sizes = self.batch_sizes.get(first.tail, ())
        if not sizes or first.images > 1:
            return waiting[:1], math.inf
        ready = [queue for queue in waiting if queue.frames[0].tail == first.tail and queue.frames[0].images == 1]
        others = self.active(now_s) - (now_s - waiting[0].heard_s < ACTIVE_S)
        until_s = first.arrived_s + self._max_batch_wait_s
        if now_s < until_s and len(ready) < min(sizes[-1], 1 + others):
            return [], until_s
        return ready[: max((size for size in sizes if size <= len(ready)), default=1)], math.inf
