# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What is kept by a name from the network stays small, however many names there are and however long they are."""

from __future__ import annotations

from types import SimpleNamespace

from conftest import wait
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import pytest
from rclpy.node import Node

from dynsplit_ros import msg
from dynsplit_ros.nodes import watch
from dynsplit_ros.nodes.base_node import BaseNode, MOST_KINDS, MOST_VALUES
from dynsplit_ros.nodes.camera_node import CameraNode
from dynsplit_ros.parameters import REMOTE_CONTROL
from dynsplit_ros.text import MOST_CHARACTERS
from dynsplit_ros.tools import top

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def base_node(ros, monkeypatch) -> tuple[BaseNode, list[str]]:
    """Return a node, and the list of all that it logs."""
    node, lines = BaseNode('base_node', (REMOTE_CONTROL,)), []
    logger = SimpleNamespace(error=lines.append, warning=lines.append)
    monkeypatch.setattr(node, 'get_logger', lambda: logger)
    return ros(node), lines


def test_kinds_of_fault_without_end_flood_neither_memory_nor_log(base_node) -> None:
    node, lines = base_node
    for number in range(10 * MOST_KINDS):
        node.log_throttled(f'refused /robot{number}', f'refused an activation of /robot{number}')
    assert len(node._logged) <= MOST_KINDS + 1
    assert len(lines) <= MOST_KINDS + 1


def test_a_kind_is_told_of_again_after_the_flood(base_node, monkeypatch) -> None:
    node, lines = base_node
    now_s = [1000.0]
    monkeypatch.setattr('dynsplit_ros.nodes.base_node.time', SimpleNamespace(monotonic=lambda: now_s[0]))
    for number in range(2 * MOST_KINDS):
        node.log_throttled(str(number), 'flood')
    now_s[0] += 10.0
    del lines[:]
    for number in range(5):
        node.log_throttled(f'new {number}', 'another fault')
    assert lines == ['another fault'] * 5


def test_a_long_text_is_cut_and_stays_on_its_line(base_node) -> None:
    node, lines = base_node
    node.log_throttled('fault', 'x' * 10**6)
    node.log_throttled('forged', 'a reason\n[INFO] [edge_node]: all is well\x1b[2J')
    assert len(lines[0]) == MOST_CHARACTERS
    assert '\n' not in lines[1] and '\x1b' not in lines[1]


def test_diagnostics_are_bounded(base_node, ros, monkeypatch) -> None:
    node, _ = base_node
    values = {f'split of /robot{number}': 'x' * 10_000 for number in range(10 * MOST_VALUES)}
    monkeypatch.setattr(node, 'diagnose', lambda: (DiagnosticStatus.OK, 'y' * 10**6, values))
    heard: list[DiagnosticStatus] = []
    listener = ros(Node('listener'))
    listener.create_subscription(DiagnosticArray, '/diagnostics', lambda message: heard.extend(message.status), 10)
    wait(lambda: any(status.message.startswith('y') for status in heard), 'no diagnostics came')
    status = next(status for status in heard if status.message.startswith('y'))
    assert len(status.message) == MOST_CHARACTERS and len(status.values) == MOST_VALUES
    assert all(len(pair.value) == MOST_CHARACTERS for pair in status.values)


def test_top_watches_a_bounded_number_of_robots(monkeypatch) -> None:
    found = [(f'/robot{number}/split', ['dynsplit_ros/msg/SplitDecision']) for number in range(10 * top.MOST_ROBOTS)]
    node = SimpleNamespace(get_topic_names_and_types=lambda: found, count_publishers=lambda name: 1)
    monkeypatch.setattr(watch, 'Watch', lambda node, namespace: SimpleNamespace(heard_s=float('inf')))
    robots = top.Robots(node, None)
    robots.look()
    assert len(robots.seen) == top.MOST_ROBOTS


def test_top_passes_over_a_robot_whose_topics_cannot_all_be_named(monkeypatch) -> None:
    names = [f'/{"a" * 241}/split', '/1bad/split', '/split']
    found = [(name, ['dynsplit_ros/msg/SplitDecision']) for name in names]
    node = SimpleNamespace(get_topic_names_and_types=lambda: found, count_publishers=lambda name: 1)
    monkeypatch.setattr(watch, 'Watch', lambda node, namespace: SimpleNamespace(heard_s=float('inf')))
    robots = top.Robots(node, None)
    robots.look()
    assert list(robots.seen) == ['']


def test_top_keeps_a_bounded_number_of_counters() -> None:
    robot = watch.Watch.__new__(watch.Watch)
    vars(robot).update(_names={'/robot1/camera_node': 'camera_node'}, counters={}, quiet=0)
    robot._on_diagnostics(
        DiagnosticArray(
            status=[
                DiagnosticStatus(
                    name='/robot1/camera_node',
                    values=[KeyValue(key=f'{number}' + 'x' * 10_000, value='9' * 4000) for number in range(5000)],
                )
            ]
        )
    )
    assert 0 < len(robot.counters) <= watch.MOST_COUNTERS
    assert all(len(key) <= watch.MOST_NAME and count < 10**20 for key, count in robot.counters.items())


def test_a_camera_keeps_little_of_a_decision() -> None:
    camera = CameraNode.__new__(CameraNode)
    for name, value in {
        'split': SimpleNamespace(fingerprint='f', local_index=0),
        '_robot': SimpleNamespace(on_decision=lambda decision: None),
    }.items():
        object.__setattr__(camera, name, value)
    camera._on_split(
        msg.SplitDecision(
            fingerprint='f', reason='r' * 10**6, split_name='n' * 10**6, candidates=[msg.CandidatePrediction()] * 1000
        )
    )
    kept = camera._decision
    assert len(kept.reason) == len(kept.split_name) == MOST_CHARACTERS and not kept.candidates
