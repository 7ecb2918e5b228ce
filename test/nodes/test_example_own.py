# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The example of one's own model and camera, with the real nodes."""

from __future__ import annotations

from pathlib import Path
import signal
import subprocess
import sys

from conftest import DEADLINE_S, Observer, ROBOT, wait
import pytest
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
import yaml

from dynsplit_ros import load_model, msg, SplitModel

EXAMPLES = Path(__file__).resolve().parents[2] / 'examples'


@pytest.mark.timeout(240)
def test_own_model_and_camera(processes, ros, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv('PYTHONPATH', str(EXAMPLES), prepend=':')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    parameters = {**yaml.safe_load((EXAMPLES / 'own.yaml').read_text())['/**']['ros__parameters'], 'threads': 1}
    processes.start('edge', 'edge_node', 'edge', parameters)
    processes.start('monitor', 'monitor_node', ROBOT, {**parameters, 'pinned_split': 1})
    processes.start('camera', 'camera_node', ROBOT, parameters, [('image', 'image_raw')])
    observer = ros(Observer())
    own = subprocess.Popen([sys.executable, str(EXAMPLES / 'own_camera.py'), '--ros-args', '-r', f'__ns:=/{ROBOT}'])
    try:

        def answered() -> list[msg.Prediction]:
            processes.check()
            return [
                prediction
                for prediction in list(observer.predictions)
                if prediction.timing.outcome == msg.FrameTiming.ANSWERED
            ]

        wait(
            lambda: {prediction.header.frame_id for prediction in answered()} == {'red', 'green', 'blue'},
            'the edge answered no image of some colour',
        )
        own.send_signal(signal.SIGINT)
        assert own.wait(DEADLINE_S) == 0
    finally:
        own.kill()
        own.wait()
    for prediction in observer.predictions:
        assert prediction.labels[0] == prediction.header.frame_id
    assert {prediction.timing.split_index for prediction in answered()} == {1}


@pytest.mark.parametrize('stop', [signal.SIGINT, signal.SIGTERM])
def test_the_camera_ends_without_a_traceback(ros, stop) -> None:
    images: list[Image] = []
    listener = ros(Node('listener', namespace=f'/{ROBOT}'))
    listener.create_subscription(Image, 'image_raw', images.append, qos_profile_sensor_data)
    camera = subprocess.Popen([sys.executable, str(EXAMPLES / 'own_camera.py'), '--ros-args', '-r', f'__ns:=/{ROBOT}'])
    try:
        wait(lambda: images, 'the camera published no image')
        camera.send_signal(stop)
        assert camera.wait(DEADLINE_S) == 0
    finally:
        camera.kill()
        camera.wait()


def test_own_model_can_be_cut(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    split = SplitModel(load_model('own_model:build', kwargs={'sharpness': 12.0}, input_size=(96, 128)))
    assert split.local_index >= 2, 'there is no bottleneck to split at'
