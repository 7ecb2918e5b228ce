# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The service infer runs the network once, for the newest image."""

from __future__ import annotations

from conftest import DEADLINE_S, Observer, ROBOT, set_parameter, wait
import pytest
from rclpy.node import Node
from std_srvs.srv import Trigger

from testing.setting import ask

pytestmark = pytest.mark.timeout(180)


def infer(node: Node) -> Trigger.Response:
    """Call the service; a call that was not answered is repeated."""
    return ask(node.create_client(Trigger, f'/{ROBOT}/camera_node/infer'), Trigger.Request(), DEADLINE_S)


def test_the_network_runs_when_it_is_asked_to(processes, ros, model_parameters) -> None:
    observer = ros(Observer())
    labels = [str(number) for number in range(1000)]
    processes.start('camera', 'camera_node', ROBOT, {**model_parameters, 'on_demand': True, 'labels': labels})
    wait(observer.images.get_subscription_count, 'the camera does not listen')
    answer = infer(observer)
    assert not answer.success and 'no image arrived' in answer.message
    while 'no image arrived' in answer.message:  # an image that nobody hears yet is not sent again
        newest = observer.send()
        answer = infer(observer)
    assert answer.success, answer.message
    wait(lambda: observer.predictions, 'no prediction')
    prediction = observer.predictions[-1]
    assert 0 < prediction.header.stamp.sec <= newest
    assert answer.message.startswith(f'{prediction.labels[0]} {prediction.scores[0]:.2f}')
    count = len(observer.predictions)
    observer.send()
    assert infer(observer).success
    wait(lambda: len(observer.predictions) > count, 'no second prediction')
    assert len(observer.predictions) <= observer.sent, 'an image was run without a call'
    # While the node runs, it takes each image again.
    assert set_parameter(observer, f'/{ROBOT}/camera_node', 'on_demand', False).successful
    count = len(observer.predictions)
    number = observer.send()
    wait(lambda: observer.predictions[-1].header.stamp.sec == number, 'an image has no prediction')
    assert set_parameter(observer, f'/{ROBOT}/camera_node', 'classes', ['nothing']).reason.startswith('parameter')


def test_an_inactive_node_says_so(processes, ros, model_parameters) -> None:
    observer = ros(Observer())
    processes.start('camera', 'camera_node', ROBOT, {**model_parameters, 'autostart': False})
    answer = infer(observer)
    assert not answer.success and 'activate' in answer.message
