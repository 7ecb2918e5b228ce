# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Spin nodes beside something else that their process does."""

from __future__ import annotations

import threading
from typing import TypeVar

import rclpy
from rclpy.executors import Executor
from rclpy.node import Node

from dynsplit_ros.transport import leaving

NodeT = TypeVar('NodeT', bound=Node)


class Spinning:
    """
    Runs the callbacks of nodes in a thread of its own, until :meth:`close`.

    That thread ends before the executor is shut down: rclpy's shutdown takes away what its spin is about to use.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._nodes: list[Node] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._spin, name='spinning', daemon=True)
        self._thread.start()

    def add(self, node: NodeT) -> NodeT:
        """Spin this node too."""
        self._nodes.append(node)
        self._executor.add_node(node)
        return node

    def _spin(self) -> None:
        while not self._ending.is_set():
            self._executor.spin_once(timeout_sec=0.2)

    def close(self) -> None:
        """End, destroy the nodes and leave ROS."""
        self._ending.set()
        self._thread.join(5.0)
        with leaving():
            self._executor.shutdown()
            for node in self._nodes:
                node.destroy_node()
            rclpy.try_shutdown()
