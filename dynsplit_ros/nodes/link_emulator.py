# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
For demonstrations without root: stands between a robot and the edge as a link whose rate follows a script.

The robot's nodes are remapped to topics whose names begin with ``emulated_``. Messages pass one after the other at the
script's rate and a fixed delay later, in each direction, and those of all edges share the link. What finds the queue
full, or waits in it for more than two seconds, is lost, as in a modem. For measurements use the shaped network of the
benchmarks instead.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import accumulate
import math
import sys
import threading
import time
from types import SimpleNamespace

from rclpy.publisher import Publisher
from rclpy.serialization import deserialize_message
from std_msgs.msg import Float64

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.base_node import BaseNode, run
from dynsplit_ros.parameters import LINK_EMULATOR
from dynsplit_ros.protocol import edge_token, MOST_EDGES
from dynsplit_ros.text import printable

UP = (topics.ACTIVATION, topics.PROBE)
DOWN = (topics.TAIL_RESULT, topics.ACKNOWLEDGEMENT, topics.EDGE_LOAD, topics.EDGE_PROFILE)


def near(topic: topics.Topic) -> str:
    """Return the topic's name on the robot's side of the emulated link."""
    return f'emulated_{topic.name}'


#: What the robot's nodes are started with. Edges find a robot by its profile, which they do not read.
REMAPPINGS = tuple((topic.name, near(topic)) for topic in (*UP, *DOWN, topics.ROBOT_PROFILE))
#: Longest wait in the queue, in seconds.
MAX_WAIT_S = 2.0


class Pipe:
    """One direction: a first-in first-out queue that drains at the rate of the moment."""

    def __init__(self, rate_at: Callable[[float], tuple[float, float]], delay_s: float, queue_bytes: int) -> None:
        self._rate_at = rate_at
        self._delay_s = delay_s
        self._queue_bytes = queue_bytes
        self._changed = threading.Condition()
        self._queue: deque[tuple[float, bytes, Publisher]] = deque()
        self._under_way: deque[tuple[float, bytes, Publisher]] = deque()
        self._queued_bytes = 0
        self._closing = False
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._transmit, self._arrive)]
        for thread in self._threads:
            thread.start()

    def put(self, publisher: Publisher, data: bytes) -> None:
        """Queue a message for a publisher; drop it when the queue is full."""
        with self._changed:
            if self._queued_bytes + len(data) <= self._queue_bytes:
                self._queued_bytes += len(data)
                self._queue.append((time.monotonic(), data, publisher))
                self._changed.notify_all()

    def _transmit(self) -> None:
        now_s = -math.inf
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                queued_s, data, publisher = self._queue.popleft()
            bits = 8.0 * len(data)
            # Planned instants, not those of waking up late, say what was carried, so that the rate is the script's.
            now_s = max(queued_s, now_s)
            while bits > 0 and now_s - queued_s <= MAX_WAIT_S and not self._closing:
                rate_bps, until_s = self._rate_at(now_s)
                step_s = min(
                    bits / rate_bps if rate_bps > 0 else math.inf,
                    until_s - now_s,
                    queued_s + MAX_WAIT_S + 0.001 - now_s,
                )
                bits -= rate_bps * step_s
                now_s += step_s
                time.sleep(max(0.0, now_s - time.monotonic()))
            with self._changed:
                self._queued_bytes -= len(data)
                if bits <= 1e-6:
                    self._under_way.append((now_s + self._delay_s, data, publisher))
                    self._changed.notify_all()

    def _arrive(self) -> None:
        while True:
            with self._changed:
                while not self._closing and (not self._under_way or self._under_way[0][0] > time.monotonic()):
                    self._changed.wait(self._under_way[0][0] - time.monotonic() if self._under_way else None)
                if self._closing:
                    return
                _, data, publisher = self._under_way.popleft()
            publisher.publish(data)

    def close(self) -> None:
        """Drop what is queued and end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(MAX_WAIT_S + 1)


class LinkEmulator(BaseNode):
    """Forwards the package's topics of one robot, at the script's rate; publishes that rate for plots."""

    def __init__(self) -> None:
        super().__init__('link_emulator', LINK_EMULATOR)
        values = self.values
        self.on_change(values)
        self._ends_s = list(accumulate(values.durations_s))
        self._started_s = math.inf  # the script begins with the first activation, when all nodes have found each other
        self._up, self._down = (Pipe(self._rate_at, values.delay_s, values.queue_bytes) for _ in range(2))
        self._edges: set[str] = set()
        for topic in DOWN:
            publisher = topic.publisher(self, near(topic))
            forward = self._forward_profile if topic is topics.EDGE_PROFILE else self._down.put
            topic.subscription(self, partial(forward, publisher), topic.name, raw=True)
        topics.ROBOT_PROFILE.publisher(self)  # by which edges find the robot
        self._rate = self.create_publisher(Float64, 'emulated_rate_bps', 10)
        self.every(0.05, lambda: self._rate.publish(Float64(data=self._rate_at(time.monotonic())[0])))

    def on_change(self, values: SimpleNamespace) -> None:
        """Take other rates for the script's steps; they hold at once."""
        if len(values.rates_mbps) != len(values.durations_s) or not values.rates_mbps:
            raise DynsplitError(
                f'rates_mbps has {len(values.rates_mbps)} entries and durations_s '
                f'{len(values.durations_s)}; give each step a rate and a duration, and at least one '
                'step'
            )

    def _forward_profile(self, publisher: Publisher, data: bytes) -> None:
        """Forward the profile of an edge, after the topics to this edge are there."""
        edge = printable(deserialize_message(data, topics.EDGE_PROFILE.type).edge)
        if edge not in self._edges and len(self._edges) < MOST_EDGES:
            self._edges.add(edge)
            for topic in UP:
                token = edge_token(edge)
                to_edge = topic.publisher(self, f'{topic.name}/{token}')
                topic.subscription(self, partial(self._forward_up, to_edge), f'{near(topic)}/{token}', raw=True)
        self._down.put(publisher, data)

    def _forward_up(self, publisher: Publisher, data: bytes) -> None:
        if publisher.msg_type is topics.ACTIVATION.type and self._started_s == math.inf:
            self._started_s = time.monotonic()
        self._up.put(publisher, data)

    def _rate_at(self, now_s: float) -> tuple[float, float]:
        """Return the rate in bit/s at an instant and until when it holds, as far as is known."""
        soon_s = now_s + 0.02  # the rates are a parameter that may change
        # By the same sums as below: a difference, rounded otherwise, could say that a step ends now for ever.
        step = bisect.bisect_right(self._ends_s, now_s, key=lambda end_s: self._started_s + end_s)
        rates = self.values.rates_mbps
        if self._started_s == math.inf:
            return rates[0] * 1e6, soon_s
        if step >= len(rates):
            return rates[-1] * 1e6, soon_s
        return rates[step] * 1e6, min(soon_s, self._started_s + self._ends_s[step])

    def close(self) -> None:
        """End the pipes' threads."""
        self._up.close()
        self._down.close()


def main(args: list[str] | None = None) -> int:
    """Run the node."""
    return run(LinkEmulator, args)


if __name__ == '__main__':
    sys.exit(main())
