# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Several cameras, or several images of one, as a batch: one prediction for each image, equal to the whole model's."""

from __future__ import annotations

from itertools import groupby
import time
from types import SimpleNamespace

from conftest import Observer, PATIENT, picture, ROBOT, wait
import numpy as np
import pytest
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
import torch

from dynsplit_ros import msg
from dynsplit_ros.errors import CONFIGURATION_EXIT_CODE, DynsplitError
from dynsplit_ros.messages.images import from_rgb
from dynsplit_ros.model import load_model
from dynsplit_ros.nodes.camera_node import CameraImage, CameraNode
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.measure import measure
from dynsplit_ros.tasks import output_digest
from dynsplit_ros.tensors import of_image

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope='module')
def parameters(split, model_parameters, tmp_path_factory) -> dict[str, object]:
    """Return the model's parameters, with a profile of it for batches too."""
    path = tmp_path_factory.mktemp('profile') / 'profile.yaml'
    measure(split, (1, 2, 3), repeats=2, warm_up=1).save(path)
    return {**model_parameters, 'profile': str(path)}


class Rig(Observer):
    """Also plays cameras whose topics have other names than the first's."""

    def __init__(self, others: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.cameras = [self.images, *(self.create_publisher(Image, name, QoSProfile(depth=10)) for name in others)]

    def shoot(self, *cameras: int) -> list[int]:
        """Publish an image of each of these cameras; return their numbers."""
        numbers = []
        for camera in cameras:
            self.sent += 1
            message = from_rgb(picture(self.sent))
            message.header.stamp.sec, message.header.frame_id = self.sent, f'camera{camera}'
            self.cameras[camera].publish(message)
            numbers.append(self.sent)
        return numbers

    def batches(self, since: int = 0) -> list[list[msg.Prediction]]:
        """Return the predictions, without the first ``since``, by frame."""
        return [list(batch) for _, batch in groupby(list(self.predictions)[since:], lambda one: one.timing.sequence)]

    def seen(self, numbers: list[int]) -> list[msg.Prediction]:
        """Wait for the predictions of these images; return them."""

        def found() -> list[msg.Prediction]:
            return [one for one in list(self.predictions) if one.header.stamp.sec in numbers]

        wait(lambda: len(found()) >= len(numbers), f'no predictions for the images {numbers}')
        return found()

    def open(self, *cameras: int, answered: bool = True) -> None:
        """Send images until full batches come back, from the edge if that is wanted, and none is under way."""
        since, latest = len(self.predictions), list[int]()
        states = {msg.FrameTiming.ANSWERED} if answered else {msg.FrameTiming.LOCAL, msg.FrameTiming.ANSWERED}
        deadline_s = time.monotonic() + 60
        while not any(
            batch[0].timing.images == len(cameras) and batch[0].timing.outcome in states
            for batch in self.batches(since)
        ):
            assert time.monotonic() < deadline_s, 'no full batch came back'
            latest = self.shoot(*cameras)
            time.sleep(0.2)
        self.seen(latest)


def assert_each_right(split: SplitModel, rig: Rig) -> None:
    """Every image once, under its own header, bit for bit what the whole model says of its batch."""
    assert len({one.header.stamp.sec for one in rig.predictions}) == len(rig.predictions)
    for batch in rig.batches():
        count = len(batch)
        assert [one.timing.images for one in batch] == [count] * count
        outputs = split.whole(torch.stack([split.model.resize(picture(one.header.stamp.sec)) for one in batch]))
        assert [one.output_digest for one in batch] == [
            output_digest(of_image(outputs, number, count, split.output_specs is None)) for number in range(count)
        ]


def start(processes, ros, parameters, rig: Rig, camera: dict[str, object], edge: dict[str, object]) -> Rig:
    """Start a robot with batches and an edge."""
    ros(rig)
    processes.start('edge', 'edge_node', 'edge', {**parameters, **edge})
    processes.start('monitor', 'monitor_node', ROBOT, {'pinned_split': 1, **PATIENT})
    processes.start('camera', 'camera_node', ROBOT, {**parameters, 'output_digest': True, **camera})
    wait(lambda: all(publisher.get_subscription_count() for publisher in rig.cameras), 'the camera hears not all')
    wait(lambda: rig.decisions and rig.count_publishers('prediction'), 'no decision')
    return rig


def test_the_newest_image_of_each_camera(processes, ros, parameters, split) -> None:
    rig = start(
        processes,
        ros,
        parameters,
        Rig(('left/image_raw', '/mast')),
        {'image_topics': ['image', 'left/image_raw', '/mast'], 'batch_timeout_s': 2.0},
        {'batch': 3},
    )
    rig.open(0, 1, 2)
    for cameras in (0, 1, 2), (2, 0, 1):
        batch = rig.seen(rig.shoot(*cameras))
        assert [one.header.frame_id for one in batch] == ['camera0', 'camera1', 'camera2']
        assert len({one.timing.sequence for one in batch}) == 1
        assert batch[0].timing.outcome == msg.FrameTiming.ANSWERED and batch[0].timing.split_index == 1
    # One that is silent holds the others up once for as long as the bound says.
    alone = rig.seen(rig.shoot(0, 2))
    assert [one.header.frame_id for one in alone] == ['camera0', 'camera2'] and alone[0].timing.images == 2
    # One whose image cannot be used does not take the others with it.
    rig.open(0, 1, 2)
    rig.cameras[1].publish(Image(encoding='rgb8'))
    assert [one.timing.images for one in rig.seen(rig.shoot(0, 2))] == [2, 2]
    assert_each_right(split, rig)
    assert 'image refused: ' in processes.log('camera').read_text()


@pytest.mark.parametrize('error', [DynsplitError('it has no pixels'), MemoryError('no memory')])
def test_whatever_one_image_meets_the_others_of_its_batch_are_used(split, error) -> None:
    refused = []

    def resize(image):
        if not image.any():
            raise error
        return split.model.resize(image)

    camera = SimpleNamespace(
        values=SimpleNamespace(image_bits=16),
        _model=SimpleNamespace(resize=resize),
        _left_out=0,
        refuse=lambda source, reason: refused.append(reason),
    )
    black = CameraImage(from_rgb(np.zeros((48, 80, 3), np.uint8)), 0.0, 0.0)
    source = [CameraImage(from_rgb(picture(1)), 0.0, 0.0), black, CameraImage(from_rgb(picture(2)), 0.0, 0.0)]
    images = CameraNode.prepare(camera, source)
    assert len(images) == len(source) == 2 and black not in source
    assert camera._left_out == 1 and len(refused) == 1 and str(error) in refused[0]
    with pytest.raises(type(error), match=str(error)):
        CameraNode.prepare(camera, [black])


def test_images_of_one_camera_in_turn(processes, ros, parameters, split) -> None:
    rig = start(processes, ros, parameters, Rig(), {'batch': 3, 'batch_timeout_s': 3.0}, {'batch': 3})
    rig.open(0, 0, 0)
    assert {one.timing.images for one in rig.seen(rig.shoot(0, 0, 0))} == {3}
    left_over = rig.seen(rig.shoot(0, 0))
    assert {one.timing.images for one in left_over} == {2}
    assert left_over[0].timing.latency_s >= 2.9, 'they waited for a third'
    assert_each_right(split, rig)


def test_an_edge_that_takes_no_batches_is_named_and_the_robot_goes_on(processes, ros, parameters, split) -> None:
    rig = start(processes, ros, parameters, Rig(), {'batch': 2}, {})
    rig.open(0, 0, answered=False)
    assert {one.timing.outcome for one in rig.seen(rig.shoot(0, 0))} == {msg.FrameTiming.LOCAL}
    assert_each_right(split, rig)
    assert (
        'degraded to local inference: the frames have 2 images, but the edge takes 1; start the edge with the '
        'parameter batch: 2' in processes.log('monitor').read_text()
    )


def test_a_detector_sees_each_image_of_a_batch(processes, ros, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    arguments = {'score_thresh': 0.0, 'detections_per_img': 5}
    detector = {
        'model': 'ssdlite320_mobilenet_v3_large',
        'weights': 'none',
        'threads': 1,
        'batch': 2,
        'model_arguments': '{"score_thresh": 0.0, "detections_per_img": 5}',
    }
    rig = start(processes, ros, detector, Rig(), {'batch_timeout_s': 5.0}, {})
    rig.open(0, 0)
    assert {len(one.class_ids) for one in rig.seen(rig.shoot(0, 0))} == {5}
    assert_each_right(SplitModel(load_model('ssdlite320_mobilenet_v3_large', weights='none', kwargs=arguments)), rig)


@pytest.mark.parametrize(
    'changes, sentence',
    [
        ({'image_topics': ['a', 'b'], 'batch': 3}, "parameter 'image_topics' names 2 topics, and 'batch' is 3"),
        ({'image_topics': ['a', 'no name']}, "'no name', which is not a topic name"),
        ({'image_topics': ['a', '/robot1/a']}, 'names the same topic twice'),
        ({'batch': 4}, 'is for batches of 1, 2, 3, but a frame has 4 images'),
    ],
)
def test_a_batch_that_cannot_be_is_refused_in_one_sentence(processes, parameters, changes, sentence) -> None:
    processes.start('camera', 'camera_node', ROBOT, {**parameters, **changes})
    assert processes.wait('camera', 60.0) == CONFIGURATION_EXIT_CODE
    log = processes.log('camera').read_text()
    assert sentence in log and 'Traceback' not in log, log
