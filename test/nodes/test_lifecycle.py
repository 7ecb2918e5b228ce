# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The managed nodes: driven from outside, emptied, filled again with other parameters, and never taken down by it."""

from __future__ import annotations

import signal
import time
import weakref

from conftest import DEADLINE_S, Observer, picture, ROBOT, set_parameter, wait
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
import pytest
import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Header
from test_system import assert_right

from dynsplit_ros import msg
from dynsplit_ros.codec import encode_answer
from dynsplit_ros.messages.decisions import to_decision
from dynsplit_ros.messages.fields import to_message
from dynsplit_ros.messages.images import from_rgb
from dynsplit_ros.messages.tensors import to_tensors
from dynsplit_ros.model import load_model
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.camera_node import CameraNode
from dynsplit_ros.nodes.edge_node import EdgeNode
from dynsplit_ros.nodes.monitor_node import MonitorNode
from dynsplit_ros.nodes.processes import write_parameters
from dynsplit_ros.nodes.spinning import Spinning
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.policies.records import SplitDecision
from dynsplit_ros.protocol import MOST_EDGES
from testing.setting import ask

pytestmark = pytest.mark.timeout(180)
BY_HAND = {'autostart': False}
NO_TRANSITION = ChangeState.Request(transition=Transition(id=255))


class Manager:
    """Drives one managed node by its services."""

    def __init__(self, observer: Observer, node: str) -> None:
        self.observer, self.node = observer, f'/{node}'
        self.change = observer.create_client(ChangeState, f'{self.node}/change_state')
        self.get = observer.create_client(GetState, f'{self.node}/get_state')
        # A transition must not be asked for twice: the way of its response is proven with one that does not exist.
        assert not ask(self.change, NO_TRANSITION, DEADLINE_S).success

    def set(self, *transitions: str) -> bool:
        """Go through transitions, as ``ros2 lifecycle set`` does; return whether the last succeeded."""
        for name in transitions:
            future = self.change.call_async(
                ChangeState.Request(transition=Transition(id=getattr(Transition, f'TRANSITION_{name.upper()}')))
            )
            wait(future.done, f'{self.node} does not answer to {name}')
        return future.result().success

    @property
    def state(self) -> str:
        """The node's state."""
        return ask(self.get, GetState.Request(), DEADLINE_S).current_state.label

    def parameter(self, name: str, value: object) -> str:
        """Set a parameter; return the reason why it was refused, empty where it was not."""
        return set_parameter(self.observer, self.node, name, value).reason


def test_a_system_driven_by_hand(processes, ros, model_parameters, split) -> None:
    observer = ros(Observer())
    processes.start('edge', 'edge_node', 'edge', {**model_parameters, **BY_HAND})
    processes.start('monitor', 'monitor_node', ROBOT, {'pinned_split': 1, **BY_HAND})
    processes.start('camera', 'camera_node', ROBOT, {**model_parameters, **BY_HAND})
    edge, monitor, camera = nodes = [
        Manager(observer, name) for name in ('edge/edge_node', f'{ROBOT}/monitor_node', f'{ROBOT}/camera_node')
    ]
    assert [node.state for node in nodes] == ['unconfigured'] * 3
    assert all(node.set('configure') for node in nodes)
    assert [node.state for node in nodes] == ['inactive'] * 3
    assert not observer.images.get_subscription_count(), 'an inactive camera listens to images'
    assert all(node.set('activate') for node in nodes)
    wait(observer.images.get_subscription_count, 'the camera does not listen')
    observer.settle()

    def answered() -> msg.Prediction:
        wait(lambda: observer.send_and_wait().timing.outcome == msg.FrameTiming.ANSWERED, 'the edge answers nothing')
        return observer.predictions[-1]

    def alone() -> msg.Prediction:
        wait(lambda: observer.send_and_wait().timing.outcome == msg.FrameTiming.LOCAL, 'the edge still answers')
        return observer.predictions[-1]

    session = answered().timing.session
    assert edge.set('deactivate')
    alone()
    assert edge.set('activate')
    answered()
    assert monitor.set('deactivate', 'activate')
    answered()
    assert_right(split, observer)

    assert camera.set('deactivate')
    wait(lambda: not observer.images.get_subscription_count(), 'the inactive camera still listens')
    observer.send()
    assert camera.set('activate')
    wait(observer.images.get_subscription_count, 'the camera did not come back')
    del observer.predictions[:]
    observer.settle()
    assert answered().timing.session != session
    assert_right(split, observer)


def test_a_cleaned_up_node_takes_other_parameters(processes, ros, model_parameters) -> None:
    observer = ros(Observer())
    processes.start('camera', 'camera_node', ROBOT, {**model_parameters, 'profile': ''})
    observer.settle()
    before = observer.predictions[-1].fingerprint
    camera = Manager(observer, f'{ROBOT}/camera_node')
    for _ in range(2):
        refused = camera.parameter('seed', 7)
        assert "'seed' stays 0" in refused and f'ros2 lifecycle set /{ROBOT}/camera_node' in refused
        camera.set('deactivate')
    assert camera.set('cleanup')
    assert camera.parameter('seed', 7) == ''
    assert camera.set('configure', 'activate')
    wait(observer.images.get_subscription_count, 'the camera did not come back')
    del observer.predictions[:]
    observer.settle()
    other = SplitModel(load_model('mobilenet_v2', weights='none', seed=7, input_size=(64, 64)))
    assert observer.predictions[-1].fingerprint == other.fingerprint != before
    assert_right(other, observer)


def test_a_configuration_that_cannot_be_used_fails_and_the_node_lives(processes, ros, model_parameters) -> None:
    observer = ros(Observer())
    processes.start(
        'camera',
        'camera_node',
        ROBOT,
        {
            **model_parameters,
            **BY_HAND,
            'model': 'mobilnet_v2',
            'top_k': 0,
            'allowed_models': ['{"model": "mobilenet_v2", "weights": "none"}'],
        },
    )
    camera = Manager(observer, f'{ROBOT}/camera_node')

    def fails_with(sentence: str) -> None:
        assert not camera.set('configure') and camera.state == 'unconfigured'
        log = processes.log('camera').read_text()
        assert sentence in log and 'Traceback' not in log, log

    fails_with("parameter 'top_k'")
    assert camera.parameter('top_k', 3) == ''
    fails_with('mobilenet_v2')
    assert camera.parameter('model', 'mobilenet_v2') == ''
    assert camera.set('configure', 'activate')
    observer.settle()
    assert len(observer.predictions[-1].class_ids) == 3


def test_transitions_that_are_none_take_no_node_down(processes, ros) -> None:
    observer = ros(Observer())
    processes.start('monitor', 'monitor_node', ROBOT, {'pinned_split': -1})
    monitor = Manager(observer, f'{ROBOT}/monitor_node')
    wait(lambda: monitor.state == 'active', 'it did not activate itself')
    for transition in (
        Transition(id=Transition.TRANSITION_CONFIGURE),
        NO_TRANSITION.transition,
        Transition(label='no such'),
        Transition(label='x' * 100_000),
        Transition(id=Transition.TRANSITION_ON_CONFIGURE_SUCCESS),
    ):
        assert not ask(monitor.change, ChangeState.Request(transition=transition), DEADLINE_S).success
        assert monitor.state == 'active'
    log = processes.log('monitor').read_text()
    assert 'not possible in state active' in log and len(log) < 20_000, 'a request must not flood the log'
    assert monitor.set('active_shutdown') and monitor.state == 'finalized'
    assert processes.stop('monitor') == 0


def test_deactivating_finishes_what_was_accepted(system, split) -> None:
    running = system(monitor={'pinned_split': 1, 'answer_timeout_s': 30.0})
    running.wait_for_edge()
    camera = Manager(running.observer, f'{ROBOT}/camera_node')
    running.processes.send('edge', signal.SIGSTOP)
    number = running.observer.send()
    last = running.observer.predictions[-1].timing.sequence
    wait(lambda: any(timing.sequence > last for timing in list(running.observer.timings)), 'no frame is under way')
    assert camera.set('deactivate')
    wait(lambda: running.observer.predictions[-1].header.stamp.sec == number, 'the frame under way was lost')
    assert running.observer.predictions[-1].timing.outcome == msg.FrameTiming.FELL_BACK
    running.processes.send('edge', signal.SIGCONT)
    assert_right(split, running.observer)


@pytest.mark.parametrize('end', ['trigger_deactivate', 'close'])
def test_an_answer_that_came_is_taken_though_nothing_spins_the_camera(tmp_path, model_parameters, split, end) -> None:
    path = write_parameters(tmp_path / 'parameters.yaml', model_parameters)
    rclpy.init(args=['--ros-args', '--params-file', str(path)])
    camera, spinning = CameraNode(), Spinning(SingleThreadedExecutor())
    try:
        peer = spinning.add(Node('edge'))
        activations: list[msg.Activation] = []
        timings: list[msg.FrameTiming] = []
        topics.ACTIVATION.subscription(peer, activations.append, topics.ACTIVATION.name_in('/', 'lab'))
        topics.FRAME_TIMING.subscription(peer, timings.append)
        answers = topics.TAIL_RESULT.publisher(peer)
        camera.start()
        wait(answers.get_subscription_count, 'the camera does not listen')
        camera._meet('lab')
        for publisher in (*camera.to_edges['lab'][:1], camera._frame_timing):
            wait(publisher.get_subscription_count, 'the camera does not find the edge')
        camera._robot.on_decision(SplitDecision(0, 'raw', 60.0, edge='lab'))
        camera._on_image(0, from_rgb(picture(1)))
        wait(lambda: activations, 'no frame is under way')
        codec, encoded = encode_answer(split.whole(split.model.resize(picture(1)).unsqueeze(0)))
        answers.publish(
            to_message(
                msg.TailResult,
                edge='lab',
                session=activations[0].session,
                sequence=activations[0].sequence,
                fingerprint=split.fingerprint,
                codec=codec,
                outputs=to_tensors(encoded),
            )
        )
        assert answers.wait_for_all_acked(Duration(seconds=DEADLINE_S))
        getattr(camera, end)()
        wait(lambda: timings and timings[-1].outcome != msg.FrameTiming.SENT, 'the frame was lost')
        assert timings[-1].outcome == msg.FrameTiming.ANSWERED
    finally:
        camera.close()
        camera.destroy_node()
        spinning.close()


def test_the_edge_of_a_decision_has_a_topic_though_many_others_live(tmp_path, model_parameters, split) -> None:
    path = write_parameters(tmp_path / 'parameters.yaml', model_parameters)
    rclpy.init(args=['--ros-args', '--params-file', str(path)])
    camera, spinning = CameraNode(), Spinning(SingleThreadedExecutor())
    try:
        peer = spinning.add(Node('edges'))
        names = [f'edge{number}' for number in range(MOST_EDGES)]
        for name in names:
            topics.ACTIVATION.subscription(peer, print, topics.ACTIVATION.name_in('/', name))
        camera.start()
        for name in names:
            camera._on_edge_profile(msg.Profile(fingerprint=split.fingerprint, edge=name))
            wait(camera.to_edges[name][0].get_subscription_count, 'the camera does not find the edge')
        camera._on_edge_profile(msg.Profile(fingerprint=split.fingerprint, edge='lab'))
        assert set(camera.to_edges) == set(names), 'a further edge has no place'
        for name in ('edge0', 'lab'):
            camera._on_split(to_decision(SplitDecision(0, 'raw', 60.0, edge=name), Header(), split.fingerprint))
        assert {'edge0', 'lab'} < set(camera.to_edges) and len(camera.to_edges) == MOST_EDGES
    finally:
        camera.close()
        camera.destroy_node()
        spinning.close()


def test_a_signal_interrupts_configuring(processes, ros, model_parameters) -> None:
    observer = ros(Observer())
    large = {**model_parameters, **BY_HAND, 'model': 'resnet152', 'profile': ''}
    processes.start('camera', 'camera_node', ROBOT, large)
    camera = Manager(observer, f'{ROBOT}/camera_node')
    configure = Transition(id=Transition.TRANSITION_CONFIGURE)
    camera.change.call_async(ChangeState.Request(transition=configure))
    time.sleep(0.5)  # into the loading, which takes seconds; the end must be the same at any time
    processes.send('camera', signal.SIGINT)
    started_s = time.monotonic()
    assert processes.wait('camera', DEADLINE_S) == 0
    assert time.monotonic() - started_s < 2.0
    assert 'Traceback' not in processes.log('camera').read_text()


@pytest.mark.parametrize('make', [CameraNode, EdgeNode])
def test_cleanup_releases_the_model(tmp_path, model_parameters, make) -> None:
    path = write_parameters(tmp_path / 'parameters.yaml', model_parameters)
    rclpy.init(args=['--ros-args', '--params-file', str(path)])
    node = make()
    try:
        publishers, subscriptions = len(list(node.publishers)), len(list(node.subscriptions))
        for _ in range(2):
            node.trigger_configure()
            node.trigger_activate()
            assert node.state == 'active'
            held = [
                weakref.ref(part)
                for part in (node.split, node.split.model.module, next(node.split.model.module.parameters()))
            ]
            assert all(part() is not None for part in held)
            active = [*node.subscriptions, *node.timers]
            node.trigger_deactivate()
            for entity in set(active) - {*node.subscriptions, *node.timers}:  # an executor may have them in hand
                entity.callback(*([entity.msg_type()] if hasattr(entity, 'msg_type') else []))
            del active, entity
            node.trigger_cleanup()
            assert node.state == 'unconfigured'
            assert all(part() is None for part in held), 'something still refers to the model'
        assert (len(list(node.publishers)), len(list(node.subscriptions))) == (publishers, subscriptions)
    finally:
        node.close()
        node.destroy_node()
        rclpy.shutdown()


@pytest.mark.parametrize('make', [CameraNode, EdgeNode, MonitorNode])
def test_wherever_activating_fails_the_node_tells_the_cause_and_can_be_activated_later(
    make, model_parameters, tmp_path
) -> None:
    path = write_parameters(
        tmp_path / 'parameters.yaml', {**(model_parameters if make is not MonitorNode else {}), **BY_HAND}
    )
    rclpy.init(args=['--ros-args', '--params-file', str(path)])
    node = make()
    fails_at = done = 0

    def failing(create):
        def replacement(*arguments, **options):
            nonlocal done
            done += 1
            if done == fails_at:
                raise RuntimeError('no entity could be made')
            return create(*arguments, **options)

        return replacement

    try:
        node.trigger_configure()
        kept = node._entities()
        for name in ('create_publisher', 'create_subscription', 'create_timer'):
            setattr(node, name, failing(getattr(node, name)))
        while node.state != 'active':
            fails_at, done = fails_at + 1, 0
            node.trigger_activate()
            if node.state != 'active':
                assert str(node._failure) == 'no entity could be made' and node.state == 'inactive'
                assert node._entities() == kept
        assert fails_at > 1
    finally:
        node.close()
        node.destroy_node()
        rclpy.shutdown()
