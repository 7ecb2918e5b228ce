# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Whether the security that the environment asks for is the security that there is.

ROS 2 itself goes on in the open where ``ROS_SECURITY_ENABLE`` is not exactly ``true``, and, unless the strategy is
``Enforce``, where there are no keys. Someone who asked for security must not learn that from a packet capture.
"""

from __future__ import annotations

from collections.abc import Mapping
import mmap
from pathlib import Path

from rclpy.utilities import get_rmw_implementation_identifier

from dynsplit_ros.errors import DynsplitError

#: What the library of each middleware holds when it was built with the DDS security plugins, by a part of its name.
_SIGNS = {'libfastrtps.so': b'PKI-DH', 'libfastdds.so': b'PKI-DH', 'libddsc.so': b'dds.sec.auth'}


def check_security(environment: Mapping[str, str]) -> str:
    """Return a warning, or nothing; raise DynsplitError where security was asked for and there would be none."""
    asked = environment.get('ROS_SECURITY_ENABLE', '')
    if asked.lower() in ('', 'false', '0', 'off', 'no'):
        return ''
    if asked != 'true':
        raise DynsplitError(
            f"ROS_SECURITY_ENABLE is {asked!r}, which ROS 2 reads as no; set it to 'true', or unset it to run "
            'without security'
        )
    library, there = _plugins()
    if there is False:
        raise DynsplitError(
            f'ROS_SECURITY_ENABLE is true, but the middleware {library} has no security plugins; install one '
            'that has them (the ROS 2 apt packages do), or unset ROS_SECURITY_ENABLE to run without '
            'security'
        )
    strategy = environment.get('ROS_SECURITY_STRATEGY', '')
    if strategy != 'Enforce':
        return (
            f'ROS_SECURITY_STRATEGY is {strategy!r}: without keys this node runs without security; '
            'set it to Enforce, so that the node does not start without keys'
        )
    return (
        ''
        if there
        else (
            'cannot check whether this middleware has security plugins; if it has none, only ROS 2 '
            'itself can refuse to start'
        )
    )


def _plugins() -> tuple[str, bool | None]:
    """Return the middleware's library and whether it has security plugins; None where that is not known."""
    get_rmw_implementation_identifier()  # loads the middleware
    try:
        paths = {
            line.split(maxsplit=5)[5].strip()
            for line in Path('/proc/self/maps').read_text().splitlines()
            if len(line.split(maxsplit=5)) == 6
        }
    except OSError:
        return '', None
    for path in sorted(paths):
        for name, sign in _SIGNS.items():
            if name in Path(path).name:
                with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    return path, content.find(sign) >= 0
    return '', None
