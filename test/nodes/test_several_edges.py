# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Several edges as processes: which one a robot uses, what happens when it dies, and what a person is told."""

from __future__ import annotations

import math
import signal
import socket

from conftest import EDGE, expected_digest, PATIENT, wait
import pytest

from dynsplit_ros import msg
from dynsplit_ros.nodes import topics

pytestmark = pytest.mark.timeout(300)
SECOND = f'second/{socket.gethostname()}'
FRAMES = 500


def answered(running, known: set[str]) -> None:
    """Send frames until an edge answers and the monitor knows these edges."""
    running.wait_for_edge()
    wait(
        lambda: running.observer.links and {state.edge for state in running.observer.links[-1].edges} >= known,
        'the monitor does not list every edge',
    )


def assert_right(split, observer) -> None:
    """Every frame once, in order, bit for bit the whole model's."""
    sequences = [prediction.timing.sequence for prediction in observer.predictions]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    for prediction in observer.predictions:
        assert prediction.output_digest == expected_digest(split, prediction.header.stamp.sec)


def test_a_second_edge_and_one_with_another_model_cost_no_frame(system, processes, model_parameters, split) -> None:
    processes.start('second', 'edge_node', 'second', model_parameters)
    processes.start('other', 'edge_node', 'other', {**model_parameters, 'seed': 5, 'profile': '', 'edge_name': 'other'})
    running = system(monitor={'pinned_split': 1, **PATIENT})
    observer = running.observer
    answered(running, {EDGE, SECOND, 'other'})
    states = {state.edge: state for state in observer.links[-1].edges}
    assert 'the robot runs' in states['other'].reason and not states['other'].usable
    assert states[EDGE].usable and states[SECOND].usable
    wait(lambda: all(state.alive for state in observer.links[-1].edges if state.usable), 'an edge is not measured')
    del observer.predictions[:]
    for _ in range(FRAMES):
        observer.send_and_wait()
    assert_right(split, observer)
    outcomes = {prediction.timing.outcome for prediction in observer.predictions}
    assert outcomes == {msg.FrameTiming.ANSWERED}
    assert {prediction.timing.edge for prediction in observer.predictions} <= {EDGE, SECOND}
    assert observer.diagnosed('monitor_node', 'state of edge other').startswith('the robot runs')
    for edge in (EDGE, SECOND, 'other'):  # what an edge is not meant to get does not travel to it
        count = observer.count_publishers(topics.ACTIVATION.name_in('/robot1', edge))
        assert count == (edge != 'other')


def test_when_the_edge_in_use_dies_the_other_one_answers(system, processes, model_parameters, split) -> None:
    processes.start('second', 'edge_node', 'second', model_parameters)
    running = system(monitor={'pinned_split': 1})
    observer = running.observer
    answered(running, {EDGE, SECOND})
    names = {EDGE: 'edge', SECOND: 'second'}
    for _ in range(4):
        running.wait_for_edge()
        wait(lambda: all(state.alive for state in observer.links[-1].edges), 'an edge does not come back')
        running.wait_for_edge()
        name = observer.predictions[-1].timing.edge
        processes.stop(names[name], number=signal.SIGKILL)
        wait(lambda: observer.send_and_wait().timing.edge not in ('', name), 'the other edge does not answer')
        running.wait_for_edge()
        assert observer.predictions[-1].timing.edge != name
        processes.start(names[name], 'edge_node', name.split('/')[0], model_parameters)
    assert_right(split, observer)
    assert all(math.isfinite(state.latency_s) for state in observer.links[-1].edges)
    assert {decision.edge for decision in observer.decisions} == {EDGE, SECOND}
    assert {candidate.edge for candidate in observer.decisions[-1].candidates} == {EDGE, SECOND}


def test_two_edges_of_one_name_are_told_and_not_used(system, processes, model_parameters) -> None:
    processes.start('second', 'edge_node', 'second', {**model_parameters, 'edge_name': EDGE})
    running = system(monitor={'pinned_split': 1})
    words = f"two edges have the name '{EDGE}'; start each with a name of its own (parameter edge_name)"
    wait(lambda: words in processes.log('monitor').read_text(), 'the monitor does not say so')
    wait(lambda: running.observer.send_and_wait().timing.outcome == msg.FrameTiming.LOCAL, 'the edges are used')
    assert words in running.observer.decisions[-1].reason
