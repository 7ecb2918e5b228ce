# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Set parameters of running nodes from a benchmark's own node."""

from __future__ import annotations

import time
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

        if target not in self._clients:
            self._clients[target] = self._node.create_client(SetParameters, f'{target}/set_parameters')
        client = self._clients[target]
        request = SetParameters.Request(
            parameters=[Parameter(key, value=value).to_parameter_msg() for key, value in values.items()])
        deadline_s = time.monotonic() + DEADLINE_S
        while True:  # a node that was killed seems to offer its service for a while, and takes the request with it
            future = client.call_async(request)
            patience_s = time.monotonic() + 1.0
            while not future.done() and time.monotonic() < patience_s:
                time.sleep(0.005)
            if future.done():
                break
            client.remove_pending_request(future)
            if time.monotonic() > deadline_s:
                raise DynsplitError(f'{target} does not take its parameters; read its log')
        for result in future.result().results:
            if not result.successful:
                raise DynsplitError(f'{target} refused {values}: {result.reason}')
