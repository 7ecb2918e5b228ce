# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Set parameters of running nodes from a benchmark's own node."""

from __future__ import annotations

from typing import Any

from dynsplit_ros.errors import DynsplitError

DEADLINE_S = 90.0


class Setter:
    """Sets parameters of other nodes; the node given is spun elsewhere."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._clients: dict[str, Any] = {}

    def set(self, target: str, **values: object) -> None:
        """Set parameters of the node with this full name; raise DynsplitError where that is refused."""
        from rcl_interfaces.srv import SetParameters  # a benchmark chooses its DDS domain before ROS is loaded
        from rclpy.parameter import Parameter

        from dynsplit_ros.nodes.spinning import ask

        if target not in self._clients:
            self._clients[target] = self._node.create_client(SetParameters, f'{target}/set_parameters')
        client = self._clients[target]
        request = SetParameters.Request(
            parameters=[Parameter(key, value=value).to_parameter_msg() for key, value in values.items()])
        for result in ask(client, request, DEADLINE_S).results:
            if not result.successful:
                raise DynsplitError(f'{target} refused {values}: {result.reason}')
