# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the launch files share: the arguments, each described once, and how a node is started from them."""

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

#: Seconds until a node that ended is started again: a fault that comes back at once must not fill log and processor.
RESPAWN_DELAY_S = 1.0

DESCRIPTIONS = {
    'model': 'The network, the same on robot and edge. Empty: as in params_file.',
    'weights': "Weights, the same on robot and edge: 'default', 'none', a path. Empty: as in params_file.",
    'device': "Where this side's part runs: cpu, cuda, cuda:1, ... Empty: as in params_file.",
    'namespace': "The nodes' namespace; the edge finds robots by their topics, whatever their namespace.",
    'params_file': "A YAML file with the nodes' parameters.",
    'image_topic': 'The camera topic, of sensor_msgs/Image or CompressedImage.',
    'source': 'Whether to play a photograph as the camera topic, for those without a camera.',
    'transport': 'The network between robot and edge, for Fast DDS: one_machine, wired, wireless; default: as it is.',
    'discovery_server': 'HOST:PORT of a Fast DDS discovery server, for networks without multicast. Empty: none.',
    'autostart': "Whether the nodes activate themselves, or 'ros2 lifecycle set' does it. Empty: as in params_file.",
    'respawn': 'Whether a node that ends is started again, unless its configuration cannot be used; if not, a fault of '
               'a node ends the launch.',
    'use_sim_time': 'Whether the nodes take their time from /clock.',
    'log_level': "The nodes' log level: debug, info, warn, error or fatal.",
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
    return [DeclareLaunchArgument(name, default_value=default, description=DESCRIPTIONS[name],
                                  choices=CHOICES.get(name)) for name, default in defaults.items()]


def _on_exit(event: ProcessExited, context: LaunchContext) -> None:
    """
    End ``ros2 launch`` with code 1 because of a node that ended with another code than 0 and is not started again.

    Launch has no other way than an exception: the action Shutdown makes it end with 0.
    """
    respawns = context.launch_configurations['respawn'] == 'true' and event.returncode != CONFIGURATION_EXIT_CODE
    if event.returncode != 0 and not respawns:
        raise RuntimeError(f'{event.process_name} ended with code {event.returncode}; its last lines above say why')


def node(context: LaunchContext, executable: str, *, model: bool = False,
         remappings: tuple[tuple[str, str], ...] = ()) -> Node:
    """
    Return one of the package's nodes, started as the launch arguments say; ``model`` for one that loads it.

    Raises FileNotFoundError for a params_file that is none.
    """
    given = context.launch_configurations
    params_file = Path(given['params_file']).expanduser()
    if not params_file.is_file():
        raise FileNotFoundError(
            f'params_file is {str(params_file)!r}, which is not a file; give a YAML file as in {CONFIG}')
    overrides: dict[str, object] = {'use_sim_time': given['use_sim_time'] == 'true'}
    if given['autostart']:
        overrides['autostart'] = given['autostart'] == 'true'
    if model:
        # As text, whatever it looks like: YAML would make a number of device 0 and nothing of a name null.
        overrides |= {name: ParameterValue(given[name], value_type=str)
                      for name in ('model', 'weights', 'device') if given[name]}
    return Node(
        package='dynsplit_ros', executable=executable, name=executable, namespace=given['namespace'],
        parameters=[str(params_file), overrides], remappings=list(remappings),
        arguments=['--ros-args', '--log-level', given['log_level']], output='screen',
        respawn=given['respawn'] == 'true', respawn_delay=RESPAWN_DELAY_S, on_exit=_on_exit,
        additional_env=environment(given['transport'], given['discovery_server']))
