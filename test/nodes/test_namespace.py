# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Two robots in one namespace are reported by both and by the edge; one that restarts is not."""

from __future__ import annotations

import signal

from conftest import Observer, ROBOT, wait
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import pytest

from dynsplit_ros import msg

pytestmark = pytest.mark.timeout(300)
WORDS = f'two robots use the namespace /{ROBOT}; start each robot in a namespace of its own'
#: A frame is answered though the machine is busy, for what is asked is who is heard.
PATIENT = {'pinned_split': 1, 'answer_timeout_s': 20.0}


class Operator(Observer):
    """Keeps the names of the nodes whose diagnostics report two robots."""

    def __init__(self) -> None:
        self.reporting: set[str] = set()
        super().__init__()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        super()._on_diagnostics(message)
        self.reporting |= {
            status.name for status in message.status if WORDS in status.message and status.level != DiagnosticStatus.OK
        }

    def answered(self) -> bool:
        """Whether an answer of the edge became a prediction."""
        return any(prediction.timing.outcome == msg.FrameTiming.ANSWERED for prediction in list(self.predictions))


def test_two_robots_at_once_are_reported_by_both_and_by_the_edge(processes, ros, model_parameters) -> None:
    operator = ros(Operator())
    processes.start('edge', 'edge_node', 'edge', model_parameters)
    for number in (1, 2):  # the second one comes when the first one works
        processes.start(f'camera{number}', 'camera_node', ROBOT, model_parameters)
        processes.start(f'monitor{number}', 'monitor_node', ROBOT, PATIENT)
        if number == 1:
            operator.settle()
            operator.create_timer(0.2, operator.send)
            wait(operator.answered, 'the edge answers nothing')
            assert not operator.reporting
    for name in ('edge', 'camera1', 'camera2', 'monitor1', 'monitor2'):
        wait(lambda: WORDS in processes.log(name).read_text(), f'{name} does not report the second robot', 120.0)
    expected = {'/edge/edge_node', f'/{ROBOT}/camera_node', f'/{ROBOT}/monitor_node'}
    wait(lambda: operator.reporting == expected, 'the diagnostics do not say so')


def test_a_robot_that_restarts_is_not_reported(processes, ros, model_parameters) -> None:
    operator = ros(Operator())
    processes.start('edge', 'edge_node', 'edge', model_parameters)
    for life in ('first', 'second', 'third'):
        del operator.predictions[:]
        processes.start(f'camera {life}', 'camera_node', ROBOT, model_parameters)
        processes.start(f'monitor {life}', 'monitor_node', ROBOT, PATIENT)
        operator.settle()
        if life == 'first':
            operator.create_timer(0.2, operator.send)
        wait(operator.answered, 'the edge answers nothing')
        count = len(operator.predictions)
        wait(lambda: len(operator.predictions) > count + 10, 'no further predictions come')
        for name in ('camera', 'monitor'):
            if life == 'first':
                processes.stop(f'{name} {life}')
            elif life == 'second':  # its topics stay on the graph until its lease has run out
                processes.send(f'{name} {life}', signal.SIGKILL)
    logs = [
        processes.log(name).read_text()
        for name in (
            'edge',
            *(f'{node} {life}' for node in ('camera', 'monitor') for life in ('first', 'second', 'third')),
        )
    ]
    assert not operator.reporting and not any('two robots' in log for log in logs)
