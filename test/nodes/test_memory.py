# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A node that runs no network loads no torch, and the one that plays images stays small."""

from __future__ import annotations

from collections.abc import Iterator
import os

from conftest import Observer, ROBOT, wait
from diagnostic_msgs.msg import DiagnosticArray
import psutil
import pytest
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

#: Resident memory that image_source may have, in bytes.
MOST_BYTES = 200e6


def has_torch(pid: int) -> bool:
    """Tell whether a process has torch's library in its memory."""
    return any('libtorch' in region.path for region in psutil.Process(pid).memory_maps())


@pytest.fixture
def started(processes, ros) -> Iterator[object]:
    """Return a function that starts a node and returns its process id once the node is spun."""

    def start(executable: str) -> int:
        heard: set[str] = set()
        observer = ros(Observer())
        observer.create_subscription(
            DiagnosticArray, '/diagnostics', lambda message: heard.update(status.name for status in message.status), 10
        )
        images: list[Image] = []
        observer.create_subscription(Image, 'image_raw', images.append, qos_profile_sensor_data)
        processes.start(executable, executable, ROBOT, {})
        wait(lambda: f'/{ROBOT}/{executable}' in heard, f'{executable} publishes no diagnostics')
        wait(lambda: len(images) > 10 or executable != 'image_source', 'no images come')
        return processes.pid(executable)

    yield start


@pytest.mark.parametrize('executable', ['image_source', 'link_emulator', 'monitor_node'])
def test_a_node_without_a_network_loads_no_torch(executable, started) -> None:
    assert has_torch(os.getpid()), 'the test itself has torch, so it would be seen'
    assert not has_torch(started(executable))


def test_the_source_of_images_needs_little_memory(started) -> None:
    assert psutil.Process(started('image_source')).memory_info().rss <= MOST_BYTES
