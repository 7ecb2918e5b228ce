# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Camera, edge and monitor as processes: frames, faults, restarts, and their ends."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

from ament_index_python.packages import get_package_prefix
from conftest import (
    appear,
    DEADLINE_S,
    destroy,
    expected_digest,
    Observer,
    PATIENT,
    picture,
    ROBOT,
    set_parameter,
    System,
    to_edge,
    wait,
)
import cv2
import numpy as np
import pytest
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from dynsplit_ros import msg
from dynsplit_ros.codec import decode_answer, encode
from dynsplit_ros.errors import CONFIGURATION_EXIT_CODE
from dynsplit_ros.messages.fields import to_message
from dynsplit_ros.messages.images import from_rgb
from dynsplit_ros.messages.tensors import from_tensors, to_tensors
from dynsplit_ros.model import load_model
from dynsplit_ros.nodes import topics
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.profile.measure import measure
from dynsplit_ros.tasks import output_digest
from testing.setting import ask

pytestmark = pytest.mark.timeout(180)


def assert_right(split: SplitModel, observer: Observer) -> None:
    """Every frame once, in order, bit for bit the whole model's, under its own header."""
    first = observer.predictions[0].timing.sequence
    assert [prediction.timing.sequence for prediction in observer.predictions] == list(
        range(first, first + len(observer.predictions))
    )
    for prediction in observer.predictions:
        assert prediction.header.frame_id == 'test_camera'
        assert prediction.output_digest == expected_digest(split, prediction.header.stamp.sec)


@pytest.mark.parametrize('which', ['image', 'middle', 'last'])
def test_frames_are_split_and_exact(system, split, which) -> None:
    index = {'image': 0, 'middle': split.local_index // 2, 'last': split.local_index - 1}[which]
    running = system(monitor={'pinned_split': index, **PATIENT})
    running.wait_for_edge()
    for _ in range(10):
        running.observer.send_and_wait()
    assert_right(split, running.observer)
    prediction = running.observer.predictions[-1]
    timing = prediction.timing
    assert (timing.outcome, timing.split_index) == (msg.FrameTiming.ANSWERED, index)
    assert timing.split_name == split.cuts[index].name and timing.payload_bytes > 0
    assert timing.latency_s >= timing.head_s + timing.encode_s + timing.transfer_s + timing.tail_s > 0
    assert prediction.task == 'classification' and len(prediction.class_ids) == 5 == len(prediction.labels)
    assert list(prediction.scores) == sorted(prediction.scores, reverse=True)
    decision = running.observer.decisions[-1]
    assert decision.split_index == index and decision.reason
    assert {candidate.split_index for candidate in decision.candidates} == set(range(split.local_index + 1))
    assert all(np.isfinite(candidate.latency_s) for candidate in decision.candidates)


def test_a_segmentation_is_answered_with_a_compressed_label_map(processes, ros, tmp_path) -> None:
    split = SplitModel(load_model('lraspp_mobilenet_v3_large', input_size=(96, 96)))
    profile = tmp_path / 'profile.yaml'
    measure(split, codecs=['raw', 'blosc2'], repeats=1, warm_up=1).save(profile)
    running = System(
        processes,
        ros,
        {'model': split.model.name, 'weights': 'none', 'input_size': [96, 96], 'threads': 1, 'profile': str(profile)},
        monitor={'pinned_split': 1},
    )
    results: list[msg.TailResult] = []
    topics.TAIL_RESULT.subscription(running.observer, results.append)
    running.wait_for_edge()
    wait(lambda: running.observer.send_and_wait() and results, 'no answer was overheard')
    assert_right(split, running.observer)
    prediction = running.observer.predictions[-1]
    assert prediction.task == 'segmentation' and sum(prediction.scores) == pytest.approx(1)
    assert results[-1].codec == 'blosc2' and len(results[-1].outputs[0].data) < 96 * 96


def test_bad_images_are_refused_and_the_next_goes_through(system, split) -> None:
    running = system(monitor={'pinned_split': 0})
    observer = running.observer
    good = picture(1)
    broken = (
        Image(encoding='rgb8'),
        Image(width=4, height=4, encoding='rgb8', step=12),
        Image(width=4, height=4, encoding='no such thing', step=12, data=bytes(48)),
        Image(width=4, height=4, encoding='', step=12, data=bytes(48)),
    )
    for refused, message in enumerate(broken, 1):  # one at a time: of images that wait, only the newest is looked at
        observer.send(message)
        wait(lambda: observer.diagnosed('camera_node', 'refused_images') == str(refused), f'{message} was not refused')
    wide = from_rgb(good)  # rows with padding between them are no fault
    wide.step += 7
    rows = np.full((48, 3 * 80 + 7), 99, np.uint8)
    rows[:, :-7] = good.reshape(48, -1)
    wide.data = rows.tobytes()
    number = observer.send(wide)
    observer.prediction(number)
    assert observer.predictions[-1].output_digest == expected_digest(split, 1)
    log = running.processes.log('camera').read_text()
    assert len(re.findall('image refused', log)) < len(broken), 'a stream of bad images must not flood the log'
    assert 'has no pixels' in log


def test_images_are_taken_as_their_publisher_sends_them(processes, ros, model_parameters, split) -> None:
    """Also when it starts after the camera node, and when another one with another type takes its place."""
    processes.start('camera', 'camera_node', ROBOT, model_parameters)
    observer = ros(Observer())
    destroy(observer, observer.images)
    wait(lambda: observer.count_publishers('prediction'), 'no camera')
    encoded = cv2.imencode('.png', picture(2)[:, :, ::-1])[1].tobytes()
    for kind, image in (
        (CompressedImage, CompressedImage(format='png', data=encoded)),
        (Image, from_rgb(picture(2))),
        (CompressedImage, CompressedImage(format='png', data=encoded)),
    ):
        observer.images = observer.create_publisher(kind, 'image', QoSProfile(depth=10))
        del observer.predictions[:]
        wait(observer.images.get_subscription_count, f'the camera does not listen to {kind.__name__}')
        timer = observer.create_timer(0.1, lambda: observer.send(image))
        wait(lambda: observer.predictions, f'no prediction for {kind.__name__}')
        destroy(observer, timer)
        assert observer.predictions[0].output_digest == expected_digest(split, 2)
        destroy(observer, observer.images)


def test_a_topic_without_a_publisher_goes_by_its_name(processes, ros, model_parameters, split) -> None:
    names = ['front/image_raw', 'back/image_raw/compressed']
    processes.start(
        'camera',
        'camera_node',
        ROBOT,
        {**model_parameters, 'profile': '', 'image_topics': names, 'batch_timeout_s': 0.1},
    )
    observer = ros(Observer())

    def types() -> list[set[str]]:
        return [
            {one.topic_type for one in observer.get_subscriptions_info_by_topic(f'/{ROBOT}/{name}')} for name in names
        ]

    wait(lambda: all(types()), 'the camera does not listen')
    assert types() == [{'sensor_msgs/msg/Image'}, {'sensor_msgs/msg/CompressedImage'}]


def test_a_compressed_image_that_cannot_be_read_is_passed_over(processes, ros, model_parameters, split) -> None:
    processes.start('camera', 'camera_node', ROBOT, model_parameters)
    observer = ros(Observer(image_type=CompressedImage))
    wait(lambda: observer.images.get_subscription_count() and observer.count_publishers('prediction'), 'no camera')
    encoded = cv2.imencode('.png', picture(2)[:, :, ::-1])[1].tobytes()
    deadline_s = time.monotonic() + DEADLINE_S
    while not observer.predictions:  # until both ways are open
        assert time.monotonic() < deadline_s, 'no prediction for a compressed image'
        observer.send(CompressedImage(format='png', data=b'no image at all'))
        observer.send(CompressedImage(format='png', data=encoded))
        time.sleep(0.2)
    assert observer.predictions[0].output_digest == expected_digest(split, 2)
    assert observer.predictions[0].header.stamp.sec % 2 == 0, 'only every second image could be read'


def test_the_edge_refuses_what_it_cannot_use_and_serves_on(processes, ros, model_parameters, split) -> None:
    processes.start('edge', 'edge_node', 'edge', model_parameters)
    observer = ros(Observer())
    appear(observer)
    activations = to_edge(observer)
    results: dict[int, msg.TailResult] = {}
    topics.TAIL_RESULT.subscription(observer, lambda result: results.setdefault(result.sequence, result))
    wait(lambda: activations.get_subscription_count() and observer.count_publishers('tail_result'), 'no edge')
    payload = encode('raw', split.head(1)(split.model.resize(picture(1)).unsqueeze(0)))

    def activation(sequence: int, **changes) -> msg.Activation:
        values = {
            'session': 9,
            'sequence': sequence,
            'fingerprint': split.fingerprint,
            'split_index': 1,
            'codec': 'raw',
            'answer_timeout_s': 60.0,
            'tensors': to_tensors(payload),
        }
        return to_message(msg.Activation, **{**values, **changes})

    huge = to_tensors(payload)
    huge[0].shape = [1, 2**31, 2**31]
    truncated = to_tensors(payload)
    truncated[0].data = truncated[0].data[:-1]
    renamed = to_tensors(payload)
    renamed[0].name = '../../etc/passwd'
    retyped = to_tensors(payload)
    retyped[0].dtype = 'object'
    cases = [
        ({'fingerprint': 'f' * 64}, 'fingerprint'),
        ({'tensors': huge}, 'shape'),
        ({'tensors': truncated}, 'byte'),
        ({'tensors': renamed}, 'name'),
        ({'tensors': retyped}, 'dtype'),
        ({'tensors': []}, 'tensors'),
        ({'codec': 'pickle'}, 'pickle'),
        ({'split_index': 60000}, '60000'),
        ({'answer_timeout_s': float('nan')}, ''),
    ]

    def ask(number: int, **changes) -> msg.TailResult:
        deadline_s = time.monotonic() + 60
        while number not in results:  # the edge may not yet know of this subscription to its answers
            assert time.monotonic() < deadline_s, f'no answer to {changes}'
            activations.publish(activation(number, **changes))
            pause_s = time.monotonic() + 1.0
            while number not in results and time.monotonic() < pause_s:
                time.sleep(0.01)
        return results[number]

    for number, (changes, word) in enumerate(cases, 1):
        result = ask(number, **changes)
        assert result.status != msg.TailResult.OK and word in result.reason, (changes, result.reason)
    good = ask(100)
    assert good.status == msg.TailResult.OK and good.session == 9
    whole = split.whole(split.model.resize(picture(1)).unsqueeze(0))
    assert bytes(good.outputs[0].data) == whole[good.outputs[0].name].numpy().tobytes()
    processes.check()


def test_a_killed_edge_loses_no_frame_and_splitting_resumes(system, split) -> None:
    running = system(monitor={'pinned_split': 0})
    running.wait_for_edge()
    running.processes.stop('edge', number=signal.SIGKILL)
    states = [running.observer.send_and_wait().timing.outcome for _ in range(8)]
    assert msg.FrameTiming.ANSWERED not in states
    assert states[-1] == msg.FrameTiming.LOCAL
    running.start_edge()
    running.wait_for_edge()
    assert_right(split, running.observer)


def test_a_frozen_edge_loses_no_frame(system, split) -> None:
    running = system(monitor={'pinned_split': 1})
    running.wait_for_edge()
    running.processes.send('edge', signal.SIGSTOP)
    states = [running.observer.send_and_wait().timing.outcome for _ in range(8)]
    assert msg.FrameTiming.ANSWERED not in states and states[-1] == msg.FrameTiming.LOCAL
    running.processes.send('edge', signal.SIGCONT)
    running.wait_for_edge()
    assert_right(split, running.observer)


def test_an_edge_with_another_model_is_refused_and_the_robot_goes_on(system, split, tmp_path) -> None:
    running = system(monitor={'pinned_split': 0})
    running.wait_for_edge()
    running.processes.stop('edge')
    running.start_edge(seed=5, profile='')
    log = running.processes.log('monitor')
    wait(lambda: 'degraded to local inference: the robot runs' in log.read_text(), 'it was not refused')
    for _ in range(3):
        prediction = running.observer.send_and_wait()
    assert prediction.timing.outcome == msg.FrameTiming.LOCAL
    assert_right(split, running.observer)
    assert split.fingerprint[:12] in log.read_text()


def test_monitor_and_camera_restart(system, split) -> None:
    running = system(monitor={'pinned_split': 0, **PATIENT})
    running.wait_for_edge()
    running.processes.stop('monitor', number=signal.SIGKILL)
    states = {running.observer.send_and_wait().timing.outcome for _ in range(3)}
    assert states == {msg.FrameTiming.ANSWERED}, 'the last decision stays in force while answers come'
    running.start_monitor()
    running.wait_for_edge()
    assert_right(split, running.observer)
    first = running.observer.predictions[-1].timing.session
    running.processes.stop('camera', number=signal.SIGKILL)
    wait(lambda: not running.observer.images.get_subscription_count(), 'the camera is still there')
    running.start_camera()
    wait(running.observer.images.get_subscription_count, 'the camera did not come back')
    del running.observer.predictions[:]
    running.observer.settle()
    running.wait_for_edge()
    assert running.observer.predictions[-1].timing.session != first
    assert_right(split, running.observer)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_nodes_end_at_once_and_cleanly(system, number) -> None:
    running = system()
    running.observer.send_and_wait()
    for name in ('camera', 'monitor', 'edge'):
        started_s = time.monotonic()
        assert running.processes.stop(name, number=number) == 0
        assert time.monotonic() - started_s < 2.0
        assert 'Traceback' not in running.processes.log(name).read_text()


@pytest.mark.parametrize(
    'executable, parameters, sentence',
    [
        ('edge_node', {'model': 'mobilnet_v2'}, 'mobilenet_v2'),
        ('camera_node', {'weights': '/no/such/file.pt'}, '/no/such/file.pt'),
        ('camera_node', {'top_k': 0}, "parameter 'top_k'"),
        ('camera_node', {'top_k': 'five'}, "'top_k' is 'five', of type str, but must be of type int, from 1 to 1000"),
        (
            'camera_node',
            {'input_size': 224},
            "'input_size' is 224, of type int, but must be of type list of int, from 0",
        ),
        ('camera_node', {'image_topics': 'image'}, "'image', of type str, but must be of type list of str"),
        ('monitor_node', {'confidence': 11}, "'confidence' is 11.0, but must be from 0 to 10"),
        ('monitor_node', {'objective': 'beauty'}, "parameter 'objective' is 'beauty', but must be one of 'latency'"),
        ('camera_node', {'profile': '/no/such/profile.yaml'}, '/no/such/profile.yaml'),
        ('edge_node', {'model_arguments': '[1]'}, "parameter 'model_arguments'"),
        ('edge_node', {'precision': 'int3'}, "parameter 'precision' is 'int3'"),
        (
            'edge_node',
            {'engine': 'onnxruntime', 'precision': 'float16', 'engine_fallback': False},
            "precision 'float16' was given, but engine 'onnxruntime' offers float32",
        ),
        ('image_source', {'path': '/no/such/folder'}, '/no/such/folder'),
        ('edge_node', {'device': 'cuda:99'}, 'cuda:99'),
    ],
)
def test_a_configuration_that_cannot_be_used_ends_with_one_sentence(
    processes, model_parameters, executable, parameters, sentence
) -> None:
    model = model_parameters if executable in ('edge_node', 'camera_node') else {}
    processes.start('node', executable, ROBOT, {**model, **parameters})
    assert processes.wait('node', 60.0) == CONFIGURATION_EXIT_CODE
    log = processes.log('node').read_text()
    assert sentence in log and 'Traceback' not in log, log


def test_a_mistyped_parameter_is_named_and_another_node_s_is_not(processes, ros) -> None:
    processes.start('monitor', 'monitor_node', ROBOT, {'pined_split': 1, 'max_batch': 4, 'probe_share': 0})
    observer = ros(Observer())
    assert set_parameter(observer, f'/{ROBOT}/monitor_node', 'objective', 'frame_rate').successful
    log = processes.log('monitor').read_text()
    assert "there is no parameter 'pined_split'; did you mean 'pinned_split'? It is -1" in log
    assert log.count('there is no parameter') == 1


def test_parameters_explain_themselves_and_refuse_what_is_wrong(processes, ros, model_parameters) -> None:
    processes.start('monitor', 'monitor_node', ROBOT, {'pinned_split': -1})
    observer = ros(Observer())
    describe = observer.create_client(DescribeParameters, f'/{ROBOT}/monitor_node/describe_parameters')
    described = ask(describe, DescribeParameters.Request(names=['silence_s', 'objective']), DEADLINE_S).descriptors
    assert described[0].type == ParameterType.PARAMETER_DOUBLE and 'Unit: s' in described[0].description
    assert described[0].floating_point_range[0].from_value > 0
    assert "'frame_rate'" in described[1].description

    set_to = functools.partial(set_parameter, observer, f'/{ROBOT}/monitor_node')

    assert set_to('objective', 'frame_rate').successful
    refused = set_to('objective', 'beauty')
    assert not refused.successful and "'objective' is 'beauty'" in refused.reason
    assert not set_to('silence_s', -1.0).successful
    wrong_type = set_to('pinned_split', 'x')
    assert not wrong_type.successful
    assert "'pinned_split' is 'x', of type str, but must be of type int" in wrong_type.reason
    assert set_to('bandwidth_bps', 1_000_000).successful, 'a whole number is a number'


def test_a_codec_that_no_profile_has_is_refused(system) -> None:
    running = system(monitor={'pinned_split': 0})
    result = set_parameter(running.observer, f'/{ROBOT}/monitor_node', 'codecs', ['raw', 'zip'])
    assert not result.successful and "'zip'" in result.reason and 'blosc2' in result.reason
    running.wait_for_edge()


def test_a_parameter_that_is_read_once_says_so(processes, ros) -> None:
    processes.start('source', 'image_source', ROBOT, {'rate_hz': 5.0})
    result = set_parameter(ros(Observer()), f'/{ROBOT}/image_source', 'rate_hz', 7.0)
    assert not result.successful and 'start the node with it' in result.reason


@pytest.mark.parametrize('content', [None, 'a: [b\n', 'a:\n  ros__parameters:\n'])
def test_a_broken_params_file_is_named_in_one_sentence(processes, tmp_path, content) -> None:
    path = tmp_path / 'parameters.yaml'
    if content is not None:
        path.write_text(content)
    program = Path(get_package_prefix('dynsplit_ros')) / 'lib' / 'dynsplit_ros' / 'monitor_node'
    ended = subprocess.run([program, '--ros-args', '--params-file', path], capture_output=True, text=True, timeout=60)
    assert ended.returncode == CONFIGURATION_EXIT_CODE and str(path) in ended.stderr and 'Traceback' not in ended.stderr


def test_a_model_of_ones_own(processes, ros, tmp_path, monkeypatch) -> None:
    (tmp_path / 'my_robot_models.py').write_text(
        'import torch\n'
        'def small(width):\n'
        '    torch.manual_seed(3)\n'
        '    return torch.nn.Sequential(torch.nn.Conv2d(3, width, 3, stride=4), torch.nn.ReLU(),\n'
        '                               torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, 3))\n'
    )
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{os.environ["PYTHONPATH"]}')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    own = {
        'model': 'my_robot_models:small',
        'model_arguments': '{"width": 4}',
        'input_size': [32, 32],
        'threads': 1,
        'labels': ['left', 'right', 'straight on'],
        'weights': 'none',
    }
    running = System(processes, ros, own, monitor={'pinned_split': 1})
    running.wait_for_edge()
    prediction = running.observer.predictions[-1]
    assert prediction.timing.split_index == 1
    assert set(prediction.labels) == {'left', 'right', 'straight on'}
    sys.path.insert(0, str(tmp_path))
    try:
        split = SplitModel(load_model('my_robot_models:small', input_size=(32, 32), kwargs={'width': 4}))
    finally:
        sys.path.remove(str(tmp_path))
    assert_right(split, running.observer)


def test_detection_in_pixels_of_the_camera(processes, ros, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    detector = {
        'model': 'ssdlite320_mobilenet_v3_large',
        'weights': 'none',
        'threads': 1,
        'model_arguments': '{"score_thresh": 0.0, "detections_per_img": 5}',
    }
    running = System(processes, ros, detector, monitor={'pinned_split': 0})
    running.wait_for_edge()
    prediction = running.observer.predictions[-1]
    assert prediction.task == 'detection'
    split = SplitModel(
        load_model(
            'ssdlite320_mobilenet_v3_large', weights='none', kwargs={'score_thresh': 0.0, 'detections_per_img': 5}
        )
    )
    assert_right(split, running.observer)
    height, width = split.model.input_size
    outputs = split.whole(split.model.resize(picture(prediction.header.stamp.sec)).unsqueeze(0))
    boxes = outputs['boxes.0'].numpy() * [80 / width, 48 / height, 80 / width, 48 / height]
    assert np.allclose(np.reshape(prediction.boxes_px, (-1, 4)), boxes, rtol=1e-6)
    assert len(prediction.class_ids) == len(prediction.scores) == len(boxes) > 0


def test_the_edge_leaves_out_objects_that_the_robot_would_not_show(processes, ros, tmp_path) -> None:
    split = SplitModel(
        load_model(
            'ssdlite320_mobilenet_v3_large', weights='none', kwargs={'score_thresh': 0.0, 'detections_per_img': 5}
        )
    )
    measure(split, codecs=['raw'], repeats=1, warm_up=0).save(tmp_path / 'profile.yaml')
    processes.start(
        'edge',
        'edge_node',
        'edge',
        {
            'model': 'ssdlite320_mobilenet_v3_large',
            'weights': 'none',
            'threads': 1,
            'model_arguments': '{"score_thresh": 0.0, "detections_per_img": 5}',
            'profile': str(tmp_path / 'profile.yaml'),
        },
    )
    observer = ros(Observer())
    appear(observer)
    activations = to_edge(observer)
    results: dict[int, msg.TailResult] = {}
    topics.TAIL_RESULT.subscription(observer, lambda result: results.setdefault(result.sequence, result))
    wait(lambda: activations.get_subscription_count() and observer.count_publishers('tail_result'), 'no edge')
    image = split.model.resize(picture(1)).unsqueeze(0)
    whole = split.whole(image)
    payload = to_tensors(encode('raw', split.head(0)(image)))
    third = float(whole['scores.0'][2])
    for sequence, (min_score, kept) in enumerate(((-1.0, 5), (math.nan, 5), (0.0, 5), (third, 3), (1.0, 0)), 1):
        deadline_s = time.monotonic() + 60
        while sequence not in results:  # the edge may not yet know of this subscription to its answers
            assert time.monotonic() < deadline_s, f'no answer for min_score {min_score}'
            activations.publish(
                to_message(
                    msg.Activation,
                    session=9,
                    sequence=sequence,
                    fingerprint=split.fingerprint,
                    split_index=0,
                    codec='raw',
                    answer_timeout_s=60.0,
                    tensors=payload,
                    min_score=min_score,
                )
            )
            pause_s = time.monotonic() + 1.0
            while sequence not in results and time.monotonic() < pause_s:
                time.sleep(0.01)
        outputs = decode_answer(results[sequence].codec, from_tensors(results[sequence].outputs), None)
        assert {name: len(tensor) for name, tensor in outputs.items()} == dict.fromkeys(whole, kept)
        assert output_digest(outputs) == output_digest({name: tensor[:kept] for name, tensor in whole.items()})


def test_two_robots_share_the_edge(system, ros, processes, model_parameters, split) -> None:
    running = system(monitor={'pinned_split': 0, **PATIENT})
    processes.start('monitor2', 'monitor_node', 'robot2', {'pinned_split': 1, **PATIENT})
    processes.start('camera2', 'camera_node', 'robot2', model_parameters)
    second = ros(Observer('robot2'))
    wait(
        lambda: second.decisions and second.images.get_subscription_count() and second.count_publishers('prediction'),
        'the second robot did not find the edge',
    )
    second.settle()
    other = System.__new__(System)
    other.observer = second
    running.wait_for_edge()
    other.wait_for_edge()
    for _ in range(5):
        numbers = running.observer.send(), second.send()
        for observer, number in zip((running.observer, second), numbers):
            observer.prediction(number)
    for observer, index in ((running.observer, 0), (second, 1)):
        assert_right(split, observer)
        assert observer.predictions[-1].timing.split_index == index
    wait(lambda: second.loads and second.loads[-1].robots == 2, 'the edge does not report both robots')
