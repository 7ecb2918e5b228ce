# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Start the robot: camera_node, monitor_node and, with source:=true, an image source that replaces the camera."""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch_ros.actions import Node

from dynsplit_ros.launching import arguments, CONFIG, node


def start(context: LaunchContext) -> list[Node]:
    """Return the nodes."""
    image_topic = context.launch_configurations['image_topic']
    nodes = [
        node(context, 'camera_node', model=True, remappings=(('image', image_topic),)),
        node(context, 'monitor_node'),
    ]
    if context.launch_configurations['source'] == 'true':
        nodes.append(node(context, 'image_source', remappings=(('image_raw', image_topic),)))
    return nodes


def generate_launch_description() -> LaunchDescription:
    """Return the launch description."""
    return LaunchDescription(
        [
            *arguments(
                model='',
                weights='',
                device='',
                namespace='robot1',
                params_file=str(CONFIG / 'robot.yaml'),
                image_topic='image_raw',
                source='false',
                transport='default',
                discovery_server='',
                autostart='',
                respawn='false',
                use_sim_time='false',
                log_level='info',
            ),
            OpaqueFunction(function=start),
        ]
    )
