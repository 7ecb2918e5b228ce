# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Real nodes as processes over real DDS, on a domain id that nobody else on this machine uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import os
from pathlib import Path
import socket
import sys
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='the node tests need ROS 2')

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from domain_coordinator import domain_id  # noqa: E402
from rcl_interfaces.msg import SetParametersResult  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.publisher import Publisher  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from rclpy.timer import Timer  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
import torch  # noqa: E402

from dynsplit_ros import msg  # noqa: E402
from dynsplit_ros.messages.images import from_rgb  # noqa: E402
from dynsplit_ros.model import load_model  # noqa: E402
from dynsplit_ros.nodes import topics  # noqa: E402
from dynsplit_ros.nodes.link_emulator import REMAPPINGS  # noqa: E402
from dynsplit_ros.nodes.processes import Processes  # noqa: E402
from dynsplit_ros.nodes.spinning import Spinning  # noqa: E402
from dynsplit_ros.partition import SplitModel  # noqa: E402
from dynsplit_ros.profile.kept import kept_profile  # noqa: E402
from dynsplit_ros.tasks import output_digest  # noqa: E402

sys.path.append(str(Path(__file__).parents[2]))  # for testing/; last, so that the built package comes first
from testing.setting import ask  # noqa: E402

DEADLINE_S = 60.0
ROBOT = 'robot1'
#: Name of an edge in the namespace `edge`.
EDGE = f'edge/{socket.gethostname()}'
#: For a monitor, where it matters who answered: a busy machine may pause for longer than an answer takes.
PATIENT = {'answer_timeout_s': 20.0}


@pytest.fixture(scope='session', autouse=True)
def domain() -> Iterator[int]:
    """Own a domain id, and keep to this machine."""
    with domain_id() as number:
        os.environ['ROS_DOMAIN_ID'] = str(number)
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        torch.set_num_threads(1)
        yield number


@pytest.fixture(scope='session')
def split() -> SplitModel:
    """Return the model of these tests, split here as the nodes split it."""
    return SplitModel(load_model('mobilenet_v2', weights='none', input_size=(64, 64)))


@pytest.fixture(scope='session')
def model_parameters(split: SplitModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Return the parameters that give a node that model and a profile of it."""
    path = tmp_path_factory.mktemp('profile') / 'profile.yaml'
    kept_profile(split, progress=lambda text: None).save(path)
    return {
        'model': 'mobilenet_v2',
        'weights': 'none',
        'input_size': [64, 64],
        'threads': 1,
        'profile': str(path),
        'output_digest': True,
    }


class Observer(Node):
    """Plays the camera and the consumer of one robot; keeps all that it hears."""

    def __init__(self, namespace: str = ROBOT, image_type: type = Image) -> None:
        super().__init__('observer', namespace=f'/{namespace}')
        self.predictions: list[msg.Prediction] = []
        self.decisions: list[msg.SplitDecision] = []
        self.timings: list[msg.FrameTiming] = []
        self.loads: list[msg.EdgeLoad] = []
        self.links: list[msg.LinkState] = []
        self.images = self.create_publisher(image_type, 'image', QoSProfile(depth=10))
        for topic, kept in (
            (topics.PREDICTION, self.predictions),
            (topics.SPLIT, self.decisions),
            (topics.FRAME_TIMING, self.timings),
            (topics.EDGE_LOAD, self.loads),
            (topics.LINK_STATE, self.links),
        ):
            self.create_subscription(
                topic.type,
                topic.name,
                kept.append,
                QoSProfile(depth=1000, reliability=topic.qos.reliability, durability=topic.qos.durability),
            )
        self._diagnosed: dict[tuple[str, str], str] = {}
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 100)
        self.sent = 0

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._diagnosed.update({(status.name, item.key): item.value for item in status.values})

    def diagnosed(self, node: str, key: str) -> str | None:
        """Return what a node of this robot last said of itself under a key."""
        return self._diagnosed.get((f'{self.get_namespace()}/{node}', key))

    def send(self, message: Image | None = None) -> int:
        """Publish an image, by default the next of a seeded series; return its number, which its stamp carries."""
        self.sent += 1
        message = message or from_rgb(picture(self.sent))
        message.header.stamp.sec = self.sent
        message.header.frame_id = 'test_camera'
        self.images.publish(message)
        return self.sent

    def settle(self) -> None:
        """
        Send images until a prediction comes back.

        A publisher may know of a subscription before that knows of it, and sensor data that nobody hears are not sent
        again; from the first prediction on, both ways are known to be open.
        """
        deadline_s = time.monotonic() + DEADLINE_S
        while not self.predictions:
            assert time.monotonic() < deadline_s, 'the camera answers no image'
            self.send()
            pause_s = time.monotonic() + 0.5
            while not self.predictions and time.monotonic() < pause_s:
                time.sleep(0.01)

    def send_and_wait(self) -> msg.Prediction:
        """Publish an image and return its prediction."""
        return self.prediction(self.send())

    def prediction(self, number: int, within_s: float = DEADLINE_S) -> msg.Prediction:
        """Wait for the prediction of an image and return it."""
        wait(
            lambda: any(prediction.header.stamp.sec == number for prediction in list(self.predictions)),
            f'no prediction for image {number}',
            within_s,
        )
        return next(prediction for prediction in self.predictions if prediction.header.stamp.sec == number)


def to_edge(robot: Node, edge: str = EDGE) -> Publisher:
    """Return a publisher of a robot's activations to an edge; without it, no edge looks for them."""
    return topics.ACTIVATION.publisher(robot, topics.ACTIVATION.name_in(robot.get_namespace(), edge))


def appear(robot: Node) -> Publisher:
    """Have a node be a robot that edges find; return the publisher by which they do."""
    return topics.ROBOT_PROFILE.publisher(robot)


def picture(number: int) -> np.ndarray:
    """Return the picture of a number, uint8 [48, 80, 3]."""
    return np.random.default_rng(number).integers(0, 256, (48, 80, 3), np.uint8)


def expected_digest(split: SplitModel, number: int) -> int:
    """Return the digest of the whole model's outputs for a picture."""
    return output_digest(split.whole(split.model.resize(picture(number)).unsqueeze(0)))


def wait(happened: Callable[[], object], complaint: str, within_s: float = DEADLINE_S) -> None:
    """Wait for something to happen, fail after a deadline."""
    deadline_s = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline_s, f'{complaint} within {within_s:g} s'
        time.sleep(0.01)


def set_parameter(node: Node, target: str, name: str, value: object) -> SetParametersResult:
    """Set a parameter of the node with this full name."""
    client = node.create_client(SetParameters, f'{target}/set_parameters')
    return ask(
        client, SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()]), DEADLINE_S
    ).results[0]


def destroy(node: Node, entity: object) -> None:
    """Destroy a publisher or timer of a node that is spun: in its executor's thread, which may be waiting for it."""
    kind = 'timer' if isinstance(entity, Timer) else 'publisher'
    wait(node.executor.create_task(getattr(node, f'destroy_{kind}'), entity).done, f'the {kind} was not destroyed')


@pytest.fixture
def ros() -> Iterator[Callable[[Node], Node]]:
    """Return a function that has a node spun until the test ends."""
    rclpy.init()
    spinning = Spinning(SingleThreadedExecutor())
    yield spinning.add
    spinning.close()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Return what starts nodes; shows their logs when a test fails."""
    with Processes(tmp_path) as running:
        yield running
    for log in sorted(tmp_path.glob('*.log')):
        print(f'---- {log.name}\n{log.read_text()}')


class System:
    """
    Camera, edge and monitor of one robot, with an observer that has found them.

    With ``link_mbps``, an emulated link of that rate lies between robot and edge.
    """

    def __init__(
        self,
        processes: Processes,
        ros: Callable[[Node], Node],
        parameters: dict[str, object],
        monitor: dict[str, object] | None = None,
        camera: dict[str, object] | None = None,
        link_mbps: float | None = None,
    ) -> None:
        self.processes = processes
        self.parameters = parameters
        self.monitor_parameters = monitor or {'pinned_split': -1}
        self.camera_parameters = {'output_digest': True, **parameters, **(camera or {})}
        self.observer = ros(Observer())
        self._remappings = REMAPPINGS if link_mbps else ()
        if link_mbps:
            processes.start('link', 'link_emulator', ROBOT, {'rates_mbps': [link_mbps], 'durations_s': [3600.0]})
        self.start_edge()
        self.start_monitor()
        self.start_camera()
        wait(self.observer.images.get_subscription_count, 'the camera does not listen to the images')
        wait(lambda: self.observer.count_publishers('prediction'), 'the camera offers no predictions')
        wait(lambda: self.observer.decisions, 'the monitor did not decide')
        self.observer.settle()

    def start_edge(self, **changes: object) -> None:
        self.processes.start('edge', 'edge_node', 'edge', {**self.parameters, **changes})

    def start_monitor(self) -> None:
        self.processes.start('monitor', 'monitor_node', ROBOT, self.monitor_parameters, self._remappings)

    def start_camera(self) -> None:
        self.processes.start('camera', 'camera_node', ROBOT, self.camera_parameters, self._remappings)

    def wait_for_edge(self) -> None:
        """Send images until the edge answers one."""
        deadline_s = time.monotonic() + DEADLINE_S
        while self.observer.send_and_wait().timing.outcome != msg.FrameTiming.ANSWERED:
            assert time.monotonic() < deadline_s, 'the edge answered no frame'


@pytest.fixture
def system(
    processes: Processes, ros: Callable[[Node], Node], model_parameters: dict[str, object]
) -> Callable[..., System]:
    """Return a function that starts a system."""
    return lambda **options: System(processes, ros, model_parameters, **options)
