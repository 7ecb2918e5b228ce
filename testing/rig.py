# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The real nodes as processes, and a node here that plays camera and consumer; for benchmarks that are hard on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from dataclasses import dataclass
import os
from pathlib import Path
import re
import time
from typing import Any

from domain_coordinator import domain_id
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
import torch

from dynsplit_ros import msg
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.memory import keep_freed
from dynsplit_ros.messages.images import from_rgb
from dynsplit_ros.model import load_model
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.processes import Processes
from dynsplit_ros.nodes.spinning import Spinning
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.kept import kept_profile
from dynsplit_ros.tasks import output_digest
from dynsplit_ros.transport import environment
from testing.setting import DEADLINE_S, Setter
from testing.testbed import Testbed

ROBOT = 'robot1'
#: Pictures that are shown in turn; the stamp's nanoseconds carry the picture's number.
PICTURES = 32


@dataclass(frozen=True)
class Seen:
    """One prediction as it came: when (this machine's monotonic clock), and what it said."""

    at_s: float
    timing: Any
    right: bool


class Player(Node):
    """Publishes images and keeps what comes of them; all callbacks run on one thread of the rig's."""

    def __init__(self, split: SplitModel) -> None:
        super().__init__('player', namespace=f'/{ROBOT}')
        pictures = [np.random.default_rng(number).integers(0, 256, (48, 80, 3), np.uint8) for number in range(PICTURES)]
        self._digests = [output_digest(split.whole(split.model.resize(picture).unsqueeze(0))) for picture in pictures]
        self._images = [from_rgb(picture) for picture in pictures]
        self.seen: list[Seen] = []
        self.accepted: set[tuple[int, int]] = set()  # (session, sequence) that the camera has told of
        self.decisions: list[tuple[float, Any]] = []
        self.link: Any = None  # the latest LinkState
        self.offered = 0
        self.on_seen: Callable[[], None] = lambda: None
        self._publisher = self.create_publisher(Image, 'image', QoSProfile(depth=5))
        deep = QoSProfile(depth=2000)
        self.create_subscription(msg.Prediction, topics.PREDICTION.name, self._on_prediction, deep)
        self.create_subscription(msg.FrameTiming, topics.FRAME_TIMING.name, self._on_timing, deep)
        topics.SPLIT.subscription(self, lambda message: self.decisions.append((time.monotonic(), message)))
        topics.LINK_STATE.subscription(self, lambda message: setattr(self, 'link', message))
        self._setter = Setter(self)
        self._timer: Any = None

    def play(self, rate_hz: float) -> None:
        """Offer images at this rate from now on; 0 for none."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
        self._timer = self.create_timer(1 / rate_hz, self.offer) if rate_hz else None

    def offer(self) -> None:
        """Offer the next image."""
        number = self.offered % PICTURES
        image = self._images[number]
        image.header.stamp.sec, image.header.stamp.nanosec = self.offered // PICTURES, number
        self.offered += 1
        self._publisher.publish(image)

    def _on_prediction(self, message: msg.Prediction) -> None:
        right = message.output_digest == self._digests[message.header.stamp.nanosec]
        self.accepted.add((message.timing.session, message.timing.sequence))
        self.seen.append(Seen(time.monotonic(), message.timing, right))
        self.on_seen()

    def _on_timing(self, message: msg.FrameTiming) -> None:
        self.accepted.add((message.session, message.sequence))

    def set(self, node: str, **values: object) -> None:
        """Set parameters of one of the robot's nodes; raise DynsplitError where that is refused."""
        self._setter.set(f'/{ROBOT}/{node}', **values)


def wait(happened: Callable[[], object], complaint: str, within_s: float = DEADLINE_S) -> None:
    """Wait for something to happen; raise DynsplitError after a deadline."""
    deadline_s = time.monotonic() + within_s
    while not happened():
        if time.monotonic() > deadline_s:
            raise DynsplitError(f'{complaint} within {within_s:g} s; read the logs')
        time.sleep(0.005)


class Rig:
    """Model, processes and player; ``parameters`` are the model's, for camera and edge, on a ``testbed`` or here."""

    def __init__(self, folder: Path, input_size: int, testbed: Testbed | None = None) -> None:
        torch.set_num_threads(1)
        keep_freed()
        self.split = SplitModel(load_model('mobilenet_v2', weights='none', input_size=(input_size, input_size)))
        folder.mkdir(parents=True, exist_ok=True)
        profile = folder / 'profile.yaml'
        kept_profile(self.split, progress=lambda text: None).save(profile)
        self.parameters = {
            'model': 'mobilenet_v2',
            'weights': 'none',
            'input_size': [input_size] * 2,
            'threads': 1,
            'profile': str(profile),
            'output_digest': True,
        }
        self.processes = Processes(folder)
        self.testbed = testbed
        self.player = Player(self.split)

    def serving_since(self) -> float:
        """Return when (monotonic clock) the edge last said that it serves; NaN while it has not."""
        lines = re.findall(
            r'\[(\d+\.\d+)\] \[edge\.edge_node\]: serving mobilenet', self.processes.log('edge').read_text()
        )
        return float(lines[-1]) - time.time() + time.monotonic() if lines else float('nan')

    def counters(self) -> list[dict[str, int]]:
        """Return what each camera that ended in order said of its frames at its end."""
        lines = re.findall(r'accepted \d+, .*', self.processes.log('camera').read_text())
        return [
            {name: int(value) for name, value in (pair.rsplit(' ', 1) for pair in line.split(', '))} for line in lines
        ]

    def last_counters(self) -> dict[str, int]:
        """Return what the camera that ended last said of its frames."""
        return self.counters()[-1]


@contextlib.contextmanager
def _environment(**changes: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def rig(folder: Path, input_size: int, testbed: Testbed | None = None) -> Iterator[Rig]:
    """Give a rig on a domain of its own, its player being spun; end all processes afterwards."""
    network = (
        {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
        if testbed is None
        else {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET', **environment('wired')}
    )
    with domain_id() as domain, _environment(ROS_DOMAIN_ID=str(domain), **network):
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        spinning = Spinning(SingleThreadedExecutor())
        try:
            made = Rig(folder, input_size, testbed)
            spinning.add(made.player)
            with made.processes:
                yield made
        finally:
            spinning.close()
