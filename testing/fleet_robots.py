# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Robots that send payloads to an edge and count its answers, in one process without PyTorch.

Standard input takes a line ``send RATE SECONDS`` (each robot sends RATE frames per second), ``pump AHEAD SECONDS``
(each has AHEAD frames unanswered at any time) or ``end``. Standard output gets a line of JSON for each change of the
edge's servers (``{"servers": 2}``) and one for the end of each command (``{"frames": [...]}``).
"""

from __future__ import annotations

import argparse
import array
from dataclasses import asdict, dataclass, field
import json
import math
import sys
import threading
import time
from typing import Any

import rclpy
from rclpy.signals import SignalHandlerOptions

from dynsplit_ros import msg
from dynsplit_ros.messages.fields import to_message
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.base_node import make_executor
from dynsplit_ros.transport import defaults

#: Name of the edge that all robots send to.
EDGE = 'fleet'
#: Time after the last frame in which answers count, in seconds.
GRACE_S = 8.0


@dataclass
class Sent:
    """A frame: its robot and number, instants in seconds, and the status of each answer."""

    robot: int
    sequence: int
    sent_s: float
    answered_s: float = math.nan
    statuses: list[int] = field(default_factory=list)
    reason: str = ''


class Robot:
    """The topics of one robot, and the frames that it has sent."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.fleet, self.number = fleet, number
        self.frames: dict[int, Sent] = {}
        self.session = number + 1
        self.sequence = 0
        self.until_s = -math.inf
        self.ahead = 0
        node, namespace = fleet.node, f'/fleet{number}'
        self.activation = topics.ACTIVATION.publisher(node, topics.ACTIVATION.name_in(namespace, EDGE))
        # Edges look for this topic.
        self.profile = topics.ROBOT_PROFILE.publisher(node, topics.ROBOT_PROFILE.name_in(namespace))
        topics.TAIL_RESULT.subscription(node, self._on_result, topics.TAIL_RESULT.name_in(namespace))
        topics.ACKNOWLEDGEMENT.subscription(node, lambda message: None, topics.ACKNOWLEDGEMENT.name_in(namespace))
        topics.EDGE_LOAD.subscription(node, self._on_load, topics.EDGE_LOAD.name_in(namespace))

    def _on_load(self, message: msg.EdgeLoad) -> None:
        self.fleet.on_load(self.number, message)

    def send(self) -> None:
        """Send the next frame."""
        self.sequence += 1
        self.frames[self.sequence] = Sent(self.number, self.sequence, time.monotonic())
        self.activation.publish(
            to_message(
                msg.Activation,
                edge=EDGE,
                session=self.session,
                sequence=self.sequence,
                fingerprint=self.fleet.fingerprint,
                codec='raw',
                answer_timeout_s=self.fleet.timeout_s,
                min_score=-1.0,
                tensors=[self.fleet.tensor],
            )
        )

    def _on_result(self, message: msg.TailResult) -> None:
        frame = self.frames.get(message.sequence)
        if frame is None:
            return
        frame.answered_s, frame.reason = time.monotonic(), message.reason
        frame.statuses.append(message.status)
        if frame.answered_s < self.until_s and self.ahead:
            self.send()


class Fleet:
    """All robots, and what they know of the edge."""

    def __init__(self, robots: int, side: int, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.fingerprint = ''
        self.heard: dict[int, int] = {}
        self.servers = -1
        self.node = rclpy.create_node('fleet_robots', start_parameter_services=False, enable_rosout=False)
        self.tensor = msg.Tensor(name='image', dtype='uint8', shape=array.array('I', (1, 3, side, side)))
        self.tensor.data = array.array('B', bytes(3 * side * side))
        self.robots = [Robot(self, number) for number in range(robots)]

    def on_load(self, robot: int, message: msg.EdgeLoad) -> None:
        """Note a load report; tell of a change once all robots are served."""
        self.fingerprint = message.fingerprint
        self.heard[robot] = message.servers
        if len(self.heard) == len(self.robots) and message.servers != self.servers:
            self.servers = message.servers
            say({'servers': self.servers})

    def send(self, rate_hz: float, seconds: float) -> None:
        """Have each robot send at a rate, the robots evenly out of step."""
        begin_s, count = time.monotonic() + 0.1, len(self.robots)
        for number in range(round(rate_hz * seconds * count)):
            time.sleep(max(0.0, begin_s + number / (rate_hz * count) - time.monotonic()))
            self.robots[number % count].send()

    def pump(self, ahead: int, seconds: float) -> None:
        """Have each robot send a frame for each answer."""
        until_s = time.monotonic() + seconds
        for robot in self.robots:
            robot.until_s, robot.ahead = until_s, ahead
            for _ in range(ahead):
                robot.send()
        time.sleep(seconds)
        for robot in self.robots:
            robot.ahead = 0

    def settle(self) -> list[dict[str, Any]]:
        """Wait for the answers that are missing; return all frames, and forget them."""
        deadline_s = time.monotonic() + GRACE_S
        while time.monotonic() < deadline_s and not all(
            frame.statuses for robot in self.robots for frame in list(robot.frames.values())
        ):
            time.sleep(0.02)
        time.sleep(0.2)  # in which a second answer would come
        frames = [asdict(frame) for robot in self.robots for frame in robot.frames.values()]
        for robot in self.robots:
            robot.frames = {}
        return frames


def say(what: dict[str, Any]) -> None:
    """Tell the benchmark."""
    print(json.dumps(what), flush=True)


def main() -> None:
    """Follow the commands until the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--robots', type=int, default=12)
    parser.add_argument('--side', type=int, default=224)
    parser.add_argument('--timeout', type=float, default=5.0)
    given = parser.parse_args()
    with defaults(shared_memory=True):
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        fleet = Fleet(given.robots, given.side, given.timeout)
    executor = make_executor()
    executor.add_node(fleet.node)

    def spin() -> None:
        while True:
            executor.spin_once(timeout_sec=0.2)

    threading.Thread(target=spin, daemon=True).start()
    for line in sys.stdin:
        command, *values = line.split()
        if command == 'end':
            break
        if command == 'send':
            fleet.send(*map(float, values))
        else:
            fleet.pump(int(values[0]), float(values[1]))
        say({'frames': fleet.settle(), 'torch': 'torch' in sys.modules})


if __name__ == '__main__':
    main()
