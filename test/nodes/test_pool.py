# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""An edge node in front of replicas on a local Ray cluster: its robot sees no difference."""

from __future__ import annotations

from conftest import expected_digest, ROBOT, wait
import psutil
import pytest

from dynsplit_ros import msg

pytest.importorskip('ray', reason='Ray is not installed')
pytestmark = pytest.mark.timeout(300)


def replicas(edge: int) -> list[psutil.Process]:
    """Return the processes that run the tails of an edge."""
    return [
        process
        for process in psutil.Process(edge).children(recursive=True)
        if process.name().startswith('ray::Replica')
    ]


def test_a_robot_is_served_by_replicas_and_goes_on_without_them(system, split) -> None:
    running = system(monitor={'pinned_split': 1})
    running.processes.stop('edge')
    running.start_edge(engine_pool='ray')
    observer = running.observer
    running.wait_for_edge()
    wait(lambda: replicas(running.processes.pid('edge')), 'no replica runs')
    number = observer.send()
    assert observer.prediction(number).output_digest == expected_digest(split, number)
    assert observer.loads[-1].servers == 1

    before = len(observer.predictions)
    for process in replicas(running.processes.pid('edge')):
        process.kill()
    for _ in range(3):  # whoever answers: the robot, or the replica that Ray starts in place of the first one
        number = observer.send()
        assert observer.prediction(number).output_digest == expected_digest(split, number)
    running.wait_for_edge()
    stamps = [prediction.header.stamp.sec for prediction in observer.predictions[before:]]
    assert stamps == sorted(set(stamps)) and observer.predictions[-1].timing.outcome == msg.FrameTiming.ANSWERED
    assert running.processes.stop('edge', within_s=20.0) == 0, running.processes.log('edge').read_text()
    assert observer.prediction(observer.send()).timing.outcome != msg.FrameTiming.ANSWERED, f'{ROBOT} goes on alone'
