# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What lets a process's DDS suit the network between robot and edge, and large messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import faulthandler
import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory

from dynsplit_ros.errors import DynsplitError

#: Each has a Fast DDS profile of its own in config/; 'default' leaves everything as the shell has it.
TRANSPORTS = ('default', 'one_machine', 'wired', 'wireless')
#: Whether a participant of Fast DDS sends in the publishing thread or in one of its own; read when it is made.
_PUBLICATION_MODE = 'RMW_FASTRTPS_PUBLICATION_MODE'
#: Longest time in which a process leaves DDS, in seconds; it takes less than one.
LEAVE_S = 10.0


def environment(transport: str, discovery_server: str = '') -> dict[str, str]:
    """
    Return the variables to set, before a process starts, for one of :data:`TRANSPORTS`.

    ``discovery_server`` is 'HOST:PORT' of a Fast DDS discovery server, several separated by semicolons; empty:
    discovery by multicast. Raises DynsplitError for a transport that there is not. Only Fast DDS 2 (ROS 2 Jazzy's)
    reads the profiles; another middleware passes them over.
    """
    if transport not in TRANSPORTS:
        raise DynsplitError(f'transport is {transport!r}, but must be one of {", ".join(TRANSPORTS)}')
    variables = {}
    if transport != 'default':
        profile = Path(get_package_share_directory('dynsplit_ros')) / 'config' / f'fastdds_{transport}.xml'
        variables['FASTRTPS_DEFAULT_PROFILES_FILE'] = str(profile)
    if transport in ('wired', 'wireless'):
        # rclpy publishes without letting other threads run: waiting for the link there would stop the whole node.
        variables[_PUBLICATION_MODE] = 'ASYNCHRONOUS'
    if discovery_server:
        # The edge finds robots by their topics, which only a super client is told of before it shares them.
        variables |= {'ROS_DISCOVERY_SERVER': discovery_server, 'ROS_SUPER_CLIENT': 'TRUE'}
    return variables


def defaults(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to set where a process's environment names no profile of its own."""
    if 'FASTRTPS_DEFAULT_PROFILES_FILE' in environment or 'FASTDDS_DEFAULT_PROFILES_FILE' in environment:
        return {}
    profile = Path(get_package_share_directory('dynsplit_ros')) / 'config' / 'fastdds_default.xml'
    return {'FASTRTPS_DEFAULT_PROFILES_FILE': str(profile)}


@contextmanager
def small_messages() -> Iterator[None]:
    """
    Have a participant that is made meanwhile send in the publishing thread, whatever is set for large messages.

    What is small waits for no link, but a sending thread has to wait for a core: beside a tail that keeps it busy,
    receipts left 3 to 5 ms late.
    """
    mode = os.environ.pop(_PUBLICATION_MODE, None)
    try:
        yield
    finally:
        if mode is not None:
            os.environ[_PUBLICATION_MODE] = mode


@contextmanager
def leaving() -> Iterator[None]:
    """
    Have the process end, with its stacks on stderr and exit code 1, should leaving DDS here take more than LEAVE_S.

    Fast DDS can wait for ever for a process that was killed while it received through shared memory (its issue 6485),
    and rclpy then waits without letting any other thread of Python's run, or a signal be handled.
    """
    faulthandler.dump_traceback_later(LEAVE_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
