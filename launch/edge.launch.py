# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Start the edge: one node that serves every robot that it discovers."""

from launch import LaunchDescription
from launch.actions import OpaqueFunction

from dynsplit_ros.launching import arguments, CONFIG, node


def generate_launch_description() -> LaunchDescription:
    """Return the launch description."""
    return LaunchDescription(
        [
            *arguments(
                model='',
                weights='',
                device='',
                namespace='edge',
                params_file=str(CONFIG / 'edge.yaml'),
                transport='default',
                discovery_server='',
                autostart='',
                respawn='false',
                use_sim_time='false',
                log_level='info',
            ),
            OpaqueFunction(function=lambda context: [node(context, 'edge_node', model=True)]),
        ]
    )
