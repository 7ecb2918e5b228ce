# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Launch arguments that both launch files share, and the node action built from them."""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch.events.process import ProcessExited
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from dynsplit_ros.errors import CONFIGURATION_EXIT_CODE
from dynsplit_ros.transport import environment, TRANSPORTS

CONFIG = Path(get_package_share_directory('dynsplit_ros')) / 'config'

#: Delay before launch starts a dead node again, in seconds. Without it, a fault at start would fill log and processor.
RESPAWN_DELAY_S = 1.0

DESCRIPTIONS = {
    'model': 'The network; must be the same on robot and edge. Empty: the value in params_file.',
    'weights': "Weights: 'default', 'none' or a path; must be the same on robot and edge. Empty: the value in "
    'params_file.',
    'device': 'Device on which the nodes run their part of the network: cpu, cuda, cuda:1, ... Empty: the value in '
    'params_file.',
    'namespace': 'Namespace of the nodes. The edge discovers robots in every namespace.',
    'params_file': 'Path of a YAML file with the parameters of the nodes.',
    'image_topic': 'Camera topic of type sensor_msgs/Image or CompressedImage.',
    'source': 'true: image_source publishes photographs on the camera topic, for a robot without a camera.',
    'transport': 'Fast DDS profile for the network between robot and edge: one_machine, wired or wireless. default: '
    'no profile for the network.',
    'discovery_server': 'HOST:PORT of a Fast DDS discovery server, for a network without multicast. Empty: no server.',
    'autostart': "true: the nodes activate themselves. false: use 'ros2 lifecycle set'. Empty: the value in "
    'params_file.',
    'respawn': 'true: a node that ends is started again, unless its configuration cannot be used. false: the launch '
    'ends when a node fails.',
    'use_sim_time': 'true: the nodes take the time from the topic /clock.',
    'log_level': 'Log level of the nodes: debug, info, warn, error or fatal.',
}
CHOICES = {
    'source': ['true', 'false'],
    'autostart': ['', 'true', 'false'],
    'transport': list(TRANSPORTS),
    'respawn': ['true', 'false'],
    'use_sim_time': ['true', 'false'],
    'log_level': ['debug', 'info', 'warn', 'error', 'fatal'],
}


def arguments(**defaults: str) -> list[DeclareLaunchArgument]:
    """Declare the arguments named, with their defaults."""
    return [
        DeclareLaunchArgument(name, default_value=default, description=DESCRIPTIONS[name], choices=CHOICES.get(name))
        for name, default in defaults.items()
    ]


def _on_exit(event: ProcessExited, context: LaunchContext) -> None:
    """
    End ``ros2 launch`` with code 1 if a node failed (exit code other than 0) and launch does not start it again.

    An exception is the only way: the action Shutdown ends launch with code 0.
    """
    respawns = context.launch_configurations['respawn'] == 'true' and event.returncode != CONFIGURATION_EXIT_CODE
    if event.returncode != 0 and not respawns:
        raise RuntimeError(f'{event.process_name} ended with code {event.returncode}; its last log lines say why')


def node(
    context: LaunchContext, executable: str, *, model: bool = False, remappings: tuple[tuple[str, str], ...] = ()
) -> Node:
    """
    Return the action that starts a node with the launch arguments; ``model`` is true for a node that loads the model.

    Raises FileNotFoundError if params_file is not a file.
    """
    given = context.launch_configurations
    params_file = Path(given['params_file']).expanduser()
    if not params_file.is_file():
        raise FileNotFoundError(
            f'params_file is {str(params_file)!r}, which is not a file; give a YAML file such as those in {CONFIG}'
        )
    overrides: dict[str, object] = {'use_sim_time': given['use_sim_time'] == 'true'}
    if given['autostart']:
        overrides['autostart'] = given['autostart'] == 'true'
    if model:
        # As text: YAML would turn the device 0 into a number and the name null into nothing.
        overrides |= {
            name: ParameterValue(given[name], value_type=str) for name in ('model', 'weights', 'device') if given[name]
        }
    return Node(
        package='dynsplit_ros',
        executable=executable,
        name=executable,
        namespace=given['namespace'],
        parameters=[str(params_file), overrides],
        remappings=list(remappings),
        arguments=['--ros-args', '--log-level', given['log_level']],
        output='screen',
        respawn=given['respawn'] == 'true',
        respawn_delay=RESPAWN_DELAY_S,
        on_exit=_on_exit,
        additional_env=environment(given['transport'], given['discovery_server']),
    )
