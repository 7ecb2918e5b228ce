# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the nodes say of themselves on /diagnostics, and in the log where nobody can be heard."""

from __future__ import annotations

from pathlib import Path
import re
import signal

from conftest import destroy, Observer, ROBOT, to_edge, wait
import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import Image

from dynsplit_ros import msg
from dynsplit_ros.messages.fields import to_message
from dynsplit_ros.messages.timing import to_profile
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.base_node import BaseNode
from dynsplit_ros.parameters import REMOTE_CONTROL
from dynsplit_ros.profile.profile import Profile
from dynsplit_ros.protocol import PROTOCOL_VERSION, Side

PROFILE = Profile.load(Path(__file__).parents[1] / 'data' / 'alexnet.yaml')
pytestmark = pytest.mark.timeout(180)


class Operator(Observer):
    """Also reads the diagnostics."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: dict[str, list[DiagnosticStatus]] = {}
        self.create_subscription(DiagnosticArray, '/diagnostics', self._keep, 50)

    def _keep(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.heard.setdefault(status.name, []).append(status)

    def says(self, node: str, level: bytes, words: str, *counted: str) -> dict[str, str]:
        """Wait until a node says that, and has counted some of these; return the values beside it."""

        def matching() -> list[dict[str, str]]:
            told = [
                {value.key: value.value for value in status.values}
                for status in list(self.heard.get(node, ()))
                if status.level == level and words in status.message
            ]
            return [values for values in told if all(float(values[key]) > 0 for key in counted)]

        del self.heard.get(node, [])[:]
        wait(matching, f'{node} does not say {words!r} with level {level!r}')
        return matching()[-1]


def test_a_camera_that_cannot_be_heard_is_named_with_the_fix(processes, ros, model_parameters) -> None:
    topic = f'/{ROBOT}/image'
    processes.start(
        'camera',
        'camera_node',
        ROBOT,
        {**model_parameters, f'qos_overrides.{topic}.subscription.reliability': 'reliable'},
    )
    operator = ros(Operator())
    destroy(operator, operator.images)
    operator.images = operator.create_publisher(
        Image, 'image', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    sentence = (
        f'no messages on {topic} from /{ROBOT}/observer, which offers reliability best_effort where reliable '
        f'is requested; start this node with the parameter qos_overrides.{topic}.subscription.reliability: '
        'best_effort'
    )
    assert operator.says(f'/{ROBOT}/camera_node', DiagnosticStatus.ERROR, sentence)['publishers_not_heard'] == '1'
    destroy(operator, operator.images)
    operator.images = operator.create_publisher(Image, 'image', QoSProfile(depth=1))
    operator.settle()
    operator.says(f'/{ROBOT}/camera_node', DiagnosticStatus.WARN, 'no frame in the last second')
    assert processes.log('camera').read_text().count(sentence) == 1


def test_a_publisher_is_told_of_when_its_node_is_known(ros, monkeypatch) -> None:
    listener = ros(BaseNode('listener', (REMOTE_CONTROL,)))
    infos, told = listener.get_publishers_info_by_topic, []

    def unnamed(topic: str) -> list[TopicEndpointInfo]:
        found = infos(topic)
        for info in found:
            info.node_namespace, info.node_name = '_NODE_NAMESPACE_UNKNOWN_', '_NODE_NAME_UNKNOWN_'
        asked.append(len(found))
        return found

    asked: list[int] = []
    monkeypatch.setattr(listener, 'log_throttled', lambda kind, text: told.append(text))
    monkeypatch.setattr(listener, 'get_publishers_info_by_topic', unnamed)
    operator = ros(Operator())
    listener.create_subscription(Image, operator.images.topic_name, print, QoSProfile(depth=1))
    destroy(operator, operator.images)
    operator.images = operator.create_publisher(
        Image, 'image', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    wait(lambda: asked.count(1) > 1, 'the publisher is not looked at again')
    assert not told
    operator.says('/listener', DiagnosticStatus.OK, 'running')
    monkeypatch.setattr(listener, 'get_publishers_info_by_topic', infos)
    wait(lambda: told, 'nothing was told')
    assert len(told) == 1 and f'from /{ROBOT}/observer,' in told[0]


def test_each_level_has_its_cause(processes, ros, model_parameters) -> None:
    camera, monitor, edge = f'/{ROBOT}/camera_node', f'/{ROBOT}/monitor_node', '/edge/edge_node'
    operator = ros(Operator())
    processes.start('camera', 'camera_node', ROBOT, model_parameters)
    operator.settle()
    timer = operator.create_timer(0.1, operator.send)
    operator.says(camera, DiagnosticStatus.WARN, 'degraded to local inference: no decision from the monitor')
    processes.start('monitor', 'monitor_node', ROBOT, {'pinned_split': 1})
    operator.says(monitor, DiagnosticStatus.WARN, 'no profile of edge')
    processes.start('edge', 'edge_node', 'edge', model_parameters)
    operator.says(camera, DiagnosticStatus.OK, 'split 1', 'answered')
    values = operator.says(
        monitor, DiagnosticStatus.OK, 'split 1', 'throughput_bps', 'payload_bytes', 'heartbeat_bytes'
    )
    assert {
        'rtt_s',
        'jitter_s',
        'probe_bytes',
        'relative_uncertainty',
        'edge_queueing_s',
        'edge_slowdown',
        'fell_back',
        'predicted_latency_s',
        'reason',
    } <= set(values)
    values = operator.says(edge, DiagnosticStatus.OK, 'serving 1 robot', 'answered')
    assert values['robots'] == f'/{ROBOT}' and values['refused'] == '0'

    processes.send('edge', signal.SIGSTOP)
    operator.says(monitor, DiagnosticStatus.WARN, 'degraded to local inference: the edge is silent')
    operator.says(camera, DiagnosticStatus.WARN, 'the edge does not answer', 'fell_back', 'local', 'answered')
    assert not any('still best' in status.message for status in operator.heard[camera])
    processes.send('edge', signal.SIGCONT)
    operator.says(camera, DiagnosticStatus.OK, 'split 1')

    destroy(operator, timer)
    operator.says(camera, DiagnosticStatus.WARN, 'no frame in the last second')
    timer = operator.create_timer(0.1, lambda: operator.send(Image(encoding='rgb8')))
    operator.says(camera, DiagnosticStatus.ERROR, 'images are refused')
    destroy(operator, timer)
    activations = to_edge(operator)
    activation = to_message(msg.Activation, fingerprint='f' * 64)
    timer = operator.create_timer(0.1, lambda: activations.publish(activation))
    values = operator.says(edge, DiagnosticStatus.WARN, f'refusing activations from /{ROBOT}: another model')
    assert values['refused: another model'] == values[f'refused from /{ROBOT}'] == values['refused'] != '0'
    destroy(operator, timer)

    explained = (Path(__file__).parents[2] / 'docs' / 'troubleshooting.md').read_text()
    heard = [status for node in (camera, monitor, edge) for status in operator.heard[node]]
    names = {value.key for status in heard for value in status.values}
    assert len(names) > 30
    shown = {re.sub('(: | from | of ).*', lambda found: found[1] + '…', name) for name in names}
    assert sorted(name for name in shown if f'`{name}`' not in explained) == []


def test_a_topic_that_carries_no_images_is_named(processes, ros, model_parameters) -> None:
    operator = ros(Operator())
    destroy(operator, operator.images)
    operator.images = operator.create_publisher(DiagnosticArray, 'image', QoSProfile(depth=1))
    processes.start('camera', 'camera_node', ROBOT, model_parameters)
    operator.says(
        f'/{ROBOT}/camera_node',
        DiagnosticStatus.ERROR,
        f'/{ROBOT}/image carries diagnostic_msgs/msg/DiagnosticArray, but must carry sensor_msgs/msg/Image '
        'or sensor_msgs/msg/CompressedImage',
    )


@pytest.mark.parametrize('executable', ['camera_node', 'edge_node', 'monitor_node'])
def test_a_node_that_is_not_active_says_so_with_a_warning(processes, ros, executable) -> None:
    processes.start('node', executable, ROBOT, {'autostart': False})
    ros(Operator()).says(f'/{ROBOT}/{executable}', DiagnosticStatus.WARN, 'the node is unconfigured')


def test_a_source_that_cannot_be_played_is_an_error(processes, ros, tmp_path) -> None:
    picture_file = tmp_path / 'picture.png'
    picture_file.write_bytes(b'no picture')
    processes.start('source', 'image_source', ROBOT, {'path': str(picture_file)})
    operator = ros(Operator())
    operator.says(f'/{ROBOT}/image_source', DiagnosticStatus.ERROR, f'{picture_file} cannot be read')
    cv2.imwrite(str(picture_file), np.zeros((8, 8, 3), np.uint8))
    operator.says(f'/{ROBOT}/image_source', DiagnosticStatus.OK, f'playing {picture_file}')


def test_versions_that_differ_are_found_when_robot_and_edge_meet(processes, ros) -> None:
    """The monitor does not use an edge of another protocol version; it warns of another version of torch."""
    operator = ros(Operator())
    processes.start('monitor', 'monitor_node', ROBOT, {'pinned_split': -1})
    wait(lambda: operator.count_subscribers('edge_profile'), 'the monitor does not start')
    robot, edge = (
        to_profile(PROFILE, Side(name, torch_version=version))
        for name, version in (('', '2.11.0+cpu'), ('lab', '2.14.1+cpu'))
    )
    topics.ROBOT_PROFILE.publisher(operator).publish(robot)
    edges = topics.EDGE_PROFILE.publisher(operator)

    edge.protocol_version += 1
    edges.publish(edge)
    monitor = f'/{ROBOT}/monitor_node'
    sentence = (
        f'the latest message on /{ROBOT}/edge_profile has protocol version {edge.protocol_version}, but this '
        f'program has {PROTOCOL_VERSION}'
    )
    operator.says(
        monitor, DiagnosticStatus.WARN, f'no profile of edge; {sentence}', 'topics_of_another_protocol_version'
    )
    assert processes.log('monitor').read_text().count(sentence) == 1 and not operator.decisions

    edge.protocol_version = PROTOCOL_VERSION
    edges.publish(edge)
    loads = topics.EDGE_LOAD.publisher(operator)
    sentence = "of edge 'lab' may differ from the whole model in the last bits: torch 2.11.0 on the robot and 2.14.1 on"
    load = to_message(msg.EdgeLoad, edge='lab', fingerprint=PROFILE.fingerprint, period_s=0.1, slowdown=1.0)

    def alive() -> bool:
        load.sequence += 1
        loads.publish(load)
        return bool(operator.links) and operator.links[-1].alive

    wait(alive, 'the monitor does not follow the edge')
    operator.create_timer(0.1, alive)
    operator.says(monitor, DiagnosticStatus.WARN, sentence)
    assert processes.log('monitor').read_text().count(sentence) == 1
    assert operator.decisions[-1].edge == operator.links[-1].edge == 'lab'
