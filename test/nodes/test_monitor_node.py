# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the monitor node keeps when profiles come again, and how it numbers its decisions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import rclpy

from dynsplit_ros import msg
from dynsplit_ros.messages.timing import to_profile
from dynsplit_ros.nodes.monitor_node import MonitorNode
from dynsplit_ros.profile.profile import Profile

PROFILE = Profile.load(Path(__file__).parents[1] / 'data' / 'alexnet.yaml')


@pytest.fixture
def node() -> Iterator[MonitorNode]:
    """Return an active monitor node; what it decides is in its list ``decided``."""
    rclpy.init()
    node = MonitorNode()
    try:
        node.start()
        node.decided = []
        node._split = SimpleNamespace(publish=node.decided.append)
        yield node
    finally:
        node.close()
        node.destroy_node()
        rclpy.shutdown()


def test_a_profile_that_comes_again_throws_nothing_away(node) -> None:
    """An edge comes back after its DDS lease, and the middleware hands its latched profile over once more."""
    for hear in (node._on_robot_profile, node._on_edge_profile):
        hear(to_profile(PROFILE))
    monitor, known = node._monitor, node._monitor.used
    for hear in (node._on_robot_profile, node._on_edge_profile):
        hear(to_profile(PROFILE))
    assert node._monitor.used is known
    assert node._monitor is monitor is not None


def test_decisions_are_numbered_on_when_another_profile_comes(node) -> None:
    node._on_robot_profile(to_profile(PROFILE))
    for slower in (1.0, 2.0, 3.0):
        node._on_edge_profile(to_profile(PROFILE.scaled(slower)))
        node._act()
    node._on_edge_profile(msg.Profile(fingerprint='0' * 64, model='another'))
    assert len(node.decided) >= 3
    assert [decision.sequence for decision in node.decided] == list(range(1, len(node.decided) + 1))
