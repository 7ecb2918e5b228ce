# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Ask services of running nodes, and set their parameters, from a node of a test or a benchmark."""

from __future__ import annotations

import time
from typing import Any

from dynsplit_ros.errors import DynsplitError

DEADLINE_S = 90.0
#: Seconds after which a request that was not answered is sent again.
_AGAIN_S = 2.0


def ask(client: Any, request: Any, within_s: float) -> Any:
    """
    Return a service's response to a request that may be carried out twice; another thread spins the client's node.

    A server sends no response while it has not found where its client receives them (rmw waits 0.1 s, and logs "client
    will not receive response"), and one that was killed seems to be there for a while. A client can see neither: what
    is not answered is asked again. Raises DynsplitError where no answer comes within ``within_s`` seconds.
    """
    asked_s = time.monotonic()
    futures: list[Any] = []
    while not any(future.done() for future in futures):
        waited_s = time.monotonic() - asked_s
        if waited_s > within_s:
            raise DynsplitError(f'{client.srv_name} did not answer within {within_s:g} s; read the log of its node')
        if waited_s >= _AGAIN_S * len(futures) and client.service_is_ready():
            futures.append(client.call_async(request))
        time.sleep(0.005)
    answer = next(future.result() for future in futures if future.done())
    for future in futures:
        client.remove_pending_request(future)
    return answer


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
            parameters=[Parameter(key, value=value).to_parameter_msg() for key, value in values.items()]
        )
        for result in ask(client, request, DEADLINE_S).results:
            if not result.successful:
                raise DynsplitError(f'{target} refused {values}: {result.reason}')
