# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Spin nodes beside something else that their process does."""

from __future__ import annotations

from collections.abc import Callable
import threading
import time
from typing import TypeVar

import rclpy
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.subscription import Subscription

from dynsplit_ros.transport import leaving

NodeT = TypeVar('NodeT', bound=Node)
#: Seconds between two looks for a message; it delays the message by as much.
_LOOK_S = 0.002


def receive(subscription: Subscription, wanted: Callable[[], bool], within_s: float) -> None:
    """
    Hand a subscription's messages to its callback while ``wanted()``, for at most ``within_s`` seconds.

    For a callback, which keeps the executor from doing it, and for the end of a node, after which nothing spins.
    """
    deadline_s = time.monotonic() + within_s
    while wanted() and time.monotonic() < deadline_s:
        with subscription.handle:
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        if taken is None:
            time.sleep(_LOOK_S)
        else:
            subscription.callback(taken[0])


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
