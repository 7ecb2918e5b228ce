# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Each node does its work with each of its numbers at either end of what the parameter's declaration allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import gc
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from conftest import DEADLINE_S, picture, wait
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
import torch

from dynsplit_ros import msg
from dynsplit_ros.codec import encode
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.messages.fields import to_message
from dynsplit_ros.messages.images import from_rgb
from dynsplit_ros.messages.tensors import to_tensors
from dynsplit_ros.messages.timing import to_profile
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.base_node import BaseNode
from dynsplit_ros.nodes.camera_node import CameraNode
from dynsplit_ros.nodes.edge_node import EdgeNode
from dynsplit_ros.nodes.image_source import ImageSource
from dynsplit_ros.nodes.link_emulator import LinkEmulator
from dynsplit_ros.nodes.monitor_node import MonitorNode
from dynsplit_ros.nodes.processes import write_parameters
from dynsplit_ros.nodes.spinning import Spinning
from dynsplit_ros.parameters import CAMERA, EDGE, LINK_EMULATOR, MONITOR, Parameter, SOURCE
from dynsplit_ros.profile.profile import Profile

pytestmark = pytest.mark.timeout(180)
ROOT = Path(__file__).parents[2]
#: A model that takes a millisecond, so that a robot a thousand times slower is done in a second.
MODEL = {'model': 'own_model:build', 'weights': 'none', 'input_size': [32, 32], 'threads': 1}
#: What else must be set so that a parameter matters, or so that it can have that value at all.
ALSO: dict[str, dict[str, object]] = {'batch_timeout_s': {'batch': 2}, 'mean': {'std': [0.5, 0.5, 0.5]}}


def ends(declared: tuple[Parameter, ...]) -> list[Any]:
    """Return each number's name with each end of its range, as cases of a test."""
    cases = []
    for parameter in declared:
        for end in (parameter.minimum, parameter.maximum):
            if isinstance(parameter.default, bool) or end is None:
                continue
            default = parameter.default
            number = type(default[0] if isinstance(default, list) else default)(end)
            value = [number] * len(default) if isinstance(default, list) else number
            cases.append(pytest.param(parameter.name, value, id=f'{parameter.name}={end:g}'))
    return cases


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Any]]:
    """Return a function that makes and starts a node with parameters, and spins it with another node."""
    monkeypatch.syspath_prepend(str(ROOT / 'examples'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.getbasetemp() / 'cache'))
    threads = torch.get_num_threads()
    made: list[Any] = []

    def begin(kind: type[BaseNode], parameters: dict[str, object]) -> tuple[Any, Node]:
        path = write_parameters(tmp_path / 'parameters.yaml', parameters)
        rclpy.init(args=['--ros-args', '--params-file', str(path)])
        made.append(Spinning(SingleThreadedExecutor()))
        peer = made[0].add(Node('peer'))
        node = kind()
        made.append(node)
        node.start()
        made[0].add(node)
        return node, peer

    try:
        yield begin
        for node in made[1:]:
            executor = node.executor
            if executor is None:  # it could not be started
                node.close()
                node.destroy_node()
            else:  # in the executor's thread, which may be in one of its callbacks
                done = executor.create_task(lambda: (executor.remove_node(node), node.close())).done
                wait(done, 'the node did not end')
    finally:
        for spinning in made[:1]:
            spinning.close()
        torch.set_num_threads(threads)
        # A participant leaves when nothing holds its node; on one machine only the first 32 find each other.
        made.clear()
        node = executor = done = spinning = None
        gc.unfreeze()
        gc.collect()


@pytest.mark.parametrize('name, value', ends(CAMERA))
def test_camera(start, name, value) -> None:
    if name == 'input_size' and value[0]:
        value = [16, value[1]]  # a picture of 8192 x 8192 pixels would take more memory than a test should
    camera, _ = start(CameraNode, {**MODEL, **ALSO.get(name, {}), name: value})
    for number in range(camera._images):
        camera._on_image(0, from_rgb(picture(number)))
    wait(lambda: camera._robot.counters().delivered == 1, 'no prediction')
    assert camera._robot.counters().failed == 0
    assert torch.get_num_threads() <= (os.cpu_count() or 1)


@pytest.mark.parametrize('name, value', ends(EDGE))
def test_edge(start, name, value) -> None:
    if name == 'input_size' and value[0]:
        value = [value[0], 16]
    edge, robot = start(EdgeNode, {**MODEL, **ALSO.get(name, {}), name: value})
    topics.ROBOT_PROFILE.publisher(robot)  # by which the edge finds the robot
    name = topics.ACTIVATION.name_in(robot.get_namespace(), edge.edge.name)
    activation, answers, loads, profiles = topics.ACTIVATION.publisher(robot, name), [], [], []
    topics.TAIL_RESULT.subscription(robot, answers.append)
    topics.EDGE_LOAD.subscription(robot, loads.append)
    topics.EDGE_PROFILE.subscription(robot, profiles.append)  # it comes when the edge can be heard
    image = torch.zeros((1, 3, *edge.split.model.input_size), dtype=torch.uint8)
    payload = to_tensors(encode('raw', edge.split.head(0)(image)))
    wait(lambda: profiles and activation.get_subscription_count(), 'the edge does not find the robot')
    activation.publish(
        to_message(
            msg.Activation,
            session=1,
            sequence=1,
            fingerprint=edge.split.fingerprint,
            split_index=0,
            codec='raw',
            answer_timeout_s=DEADLINE_S,
            tensors=payload,
        )
    )
    wait(lambda: answers, 'no answer')
    assert (answers[0].status, answers[0].reason) == (msg.TailResult.OK, '')
    wait(lambda: loads, 'no report of the load')


@pytest.mark.parametrize('name, value', ends(MONITOR))
def test_monitor(start, name, value) -> None:
    profile = Profile.load(ROOT / 'test' / 'data' / 'alexnet.yaml')
    value = min(value, profile.local_index) if name.endswith('_split') else value
    monitor, robot = start(MonitorNode, {name: value})
    decisions: list[msg.SplitDecision] = []
    topics.SPLIT.subscription(robot, decisions.append)
    for topic in (topics.ROBOT_PROFILE, topics.EDGE_PROFILE):
        topic.publisher(robot).publish(to_profile(profile))
    wait(lambda: decisions, 'no decision')


@pytest.mark.parametrize('name, value', ends(SOURCE))
def test_image_source(start, name, value) -> None:
    source, _ = start(ImageSource, {'width': 16, 'height': 16, name: value})
    source._publish()
    assert source._failure == ''


@pytest.mark.parametrize('name, value', ends(LINK_EMULATOR))
def test_link_emulator(start, name, value) -> None:
    link, _ = start(LinkEmulator, {name: value})
    arrived: list[bytes] = []
    link._up.put(SimpleNamespace(publish=arrived.append), b'payload')
    if (name, value) != ('rates_mbps', [0.0]):
        wait(lambda: arrived, 'the message did not arrive')
    link._up.put(SimpleNamespace(publish=arrived.append), b'payload')
    wait(lambda: not link._up._queued_bytes, 'the message did not leave')
    link.close()
    assert not any(thread.is_alive() for pipe in (link._up, link._down) for thread in pipe._threads)


@pytest.mark.parametrize(
    'kind, parameters',
    [
        (LinkEmulator, {'rates_mbps': [], 'durations_s': []}),
        (CameraNode, {**MODEL, 'image_topics': []}),
        (CameraNode, {**MODEL, 'input_size': [32]}),
        (EdgeNode, {**MODEL, 'input_size': [32, 32, 32]}),
        (CameraNode, {**MODEL, 'input_size': [0, 32]}),
        (CameraNode, {**MODEL, 'mean': [0.5], 'std': [0.5]}),
        (EdgeNode, {**MODEL, 'std': [0.5, 0.0, 0.5]}),
        (EdgeNode, {**MODEL, 'mean': [0.5, 0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5]}),
    ],
)
def test_a_list_of_a_length_that_cannot_be_used_is_refused_in_one_sentence(start, kind, parameters) -> None:
    with pytest.raises(DynsplitError) as told:
        start(kind, parameters)
    assert str(told.value).count('\n') == 0
