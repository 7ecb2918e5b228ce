# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Spin a benchmark's own node beside the benchmark."""

from __future__ import annotations

import threading
from typing import Any


class Spinning:
    """Runs a node's callbacks in a thread of its own, until :meth:`close` ends that and destroys the node."""

    def __init__(self, node: Any) -> None:
        from dynsplit_ros.nodes.shell import make_executor  # a benchmark chooses its DDS domain before ROS is loaded

        self._node = node
        self._executor = make_executor()
        self._executor.add_node(node)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._ending.is_set():
            self._executor.spin_once(timeout_sec=0.2)

    def close(self) -> None:
        """End, and leave ROS."""
        import rclpy

        self._ending.set()
        self._thread.join(5)
        self._node.destroy_node()
        rclpy.try_shutdown()
