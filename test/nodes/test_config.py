# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The installed configuration files name what the nodes declare, and rcl gives it to them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from ament_index_python.packages import get_package_share_directory
import pytest
from rclpy.context import Context
from rclpy.node import Node
import yaml

from dynsplit_ros.parameters import CAMERA, EDGE, MONITOR, SOURCE

CONFIG = Path(get_package_share_directory('dynsplit_ros')) / 'config'
DECLARED = {'camera_node': CAMERA, 'monitor_node': MONITOR, 'image_source': SOURCE, 'edge_node': EDGE}
NODES = {'robot.yaml': {'camera_node', 'monitor_node', 'image_source'}, 'edge.yaml': {'edge_node'}}


def test_every_file_is_checked() -> None:
    assert {path.name for path in CONFIG.glob('*.yaml')} == set(NODES)


@pytest.mark.parametrize('file', NODES)
@pytest.mark.parametrize('namespace', ['/', '/robot1', '/fleet/robot1'])
def test_nodes_get_what_the_file_says(file: str, namespace: str) -> None:
    content = yaml.safe_load((CONFIG / file).read_text())
    assert set(content) == {f'/**/{node}' for node in NODES[file]}
    context = Context()
    context.init(args=['--ros-args', '--params-file', str(CONFIG / file)])
    try:
        for name in NODES[file]:
            wanted = content[f'/**/{name}']['ros__parameters']
            declared = {parameter.name: parameter for parameter in DECLARED[name]}
            assert wanted, 'a section without parameters'
            for parameter, value in wanted.items():
                declared[parameter].check(value)
            node = Node(
                name,
                namespace=namespace,
                context=context,
                allow_undeclared_parameters=True,
                automatically_declare_parameters_from_overrides=True,
                start_parameter_services=False,
            )
            assert {parameter: node.get_parameter(parameter).value for parameter in wanted} == wanted
            node.destroy_node()
    finally:
        context.try_shutdown()


def test_the_two_sides_agree() -> None:
    robot = yaml.safe_load((CONFIG / 'robot.yaml').read_text())['/**/camera_node']['ros__parameters']
    edge = yaml.safe_load((CONFIG / 'edge.yaml').read_text())['/**/edge_node']['ros__parameters']
    for name in ('model', 'weights', 'input_size', 'seed'):
        assert robot.get(name) == edge.get(name)


@pytest.mark.parametrize('path', sorted(CONFIG.glob('fastdds*_*.xml')), ids=lambda path: path.stem)
def test_shared_memory_and_its_queue_hold_an_image(path: Path) -> None:
    tags = {
        'size': '{*}maxMessageSize',
        'segment': '{*}segment_size',
        'capacity': '{*}port_queue_capacity',
        'type': '{*}type',
    }
    transports = [
        {key: found.text for key, tag in tags.items() if (found := element.find(tag)) is not None}
        for element in ElementTree.parse(path).iter(
            '{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}transport_descriptor'
        )
    ]
    fragment_bytes = min(int(transport.get('size', 65500)) for transport in transports)
    for transport in transports:
        if transport['type'] == 'SHM':
            assert int(transport.get('capacity', 512)) * fragment_bytes >= 1920 * 1080 * 3
            assert int(transport.get('segment', 524288)) >= 1920 * 1080 * 3
