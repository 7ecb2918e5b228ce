# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A flood of malformed, oversized and wrongly typed messages at live nodes while a good robot works."""

from __future__ import annotations

import array
import math
import random
import time

from conftest import appear, destroy, EDGE, expected_digest, Observer, picture, to_edge, wait
import psutil
import pytest
from rclpy.qos import QoSProfile

from dynsplit_ros import msg
from dynsplit_ros.codec import CODECS, encode
from dynsplit_ros.messages.fields import to_message
from dynsplit_ros.messages.tensors import to_tensors
from dynsplit_ros.nodes import topics
from dynsplit_ros.partition import SplitModel

pytestmark = pytest.mark.timeout(240)

#: Activations of the flood.
FLOOD = 1500
#: What an edge that holds on to what it refuses would exceed at once: each tenth activation has 2 MB.
MOST_GROWTH_BYTES = 40_000_000

TEXTS = ('', 'raw', 'pickle', '../../etc/passwd', '__reduce__', 'x' * 20_000, '\0', '%s%n', '{0}')
NUMBERS = (math.nan, math.inf, -math.inf, -1.0, 1e308, 0.0)


def hostile_activation(split: SplitModel, chance: random.Random, good: list) -> msg.Activation:
    """Return an activation that is wrong in one way or several."""
    message = to_message(
        msg.Activation,
        session=chance.getrandbits(64),
        sequence=chance.getrandbits(64),
        fingerprint=split.fingerprint,
        split_index=1,
        codec=chance.choice(sorted(CODECS)),
        answer_timeout_s=60.0,
        tensors=to_tensors(good),
    )
    tensor = message.tensors[0]
    for kind in chance.sample(range(8), chance.choice((1, 1, 2, 4))):
        if kind == 0:
            message.fingerprint = chance.choice(TEXTS)
        elif kind == 1:
            message.split_index = chance.choice((0, 2, 3, 99, 65535))
        elif kind == 2:
            message.codec = chance.choice(TEXTS)
        elif kind == 3:
            tensor.shape = array.array(
                'I', [chance.choice((0, 1, 3, 2**31, 2**32 - 1)) for _ in range(chance.randrange(9))]
            )
        elif kind == 4:
            tensor.name, tensor.dtype = chance.choice(TEXTS), chance.choice((*TEXTS, 'object', 'float64', 'int8'))
        elif kind == 5:
            tensor.data = array.array('B', chance.randbytes(chance.choice((0, 1, 100, 10_000))))
        elif kind == 6:
            message.tensors = message.tensors * chance.choice((0, 2, 200))
        else:
            message.answer_timeout_s = chance.choice(NUMBERS)
    if chance.random() < 0.1:
        message.tensors = to_tensors(good)
        message.tensors[0].data = array.array('B', bytes(2_000_000))
    return message


def test_a_flood_of_hostile_activations_harms_neither_edge_nor_good_robot(system, ros, processes, split) -> None:
    running = system(monitor={'pinned_split': 1})
    running.wait_for_edge()
    attacker = ros(Observer('attacker'))
    appear(attacker)
    flood = attacker.create_publisher(
        msg.Activation, topics.ACTIVATION.name_in('/attacker', EDGE), QoSProfile(depth=50)
    )
    results: list[msg.TailResult] = []
    attacker.create_subscription(msg.TailResult, topics.TAIL_RESULT.name, results.append, QoSProfile(depth=1000))
    wait(lambda: flood.get_subscription_count() and attacker.count_publishers('tail_result'), 'the edge did not come')
    edge = psutil.Process(processes.pid('edge'))
    chance = random.Random(0)
    good = encode('raw', split.head(1)(split.model.resize(picture(1)).unsqueeze(0)))
    before_bytes = 0
    states = []
    for number in range(FLOOD):
        flood.publish(hostile_activation(split, chance, good))
        if number % 100 == 50:
            states.append(running.observer.send_and_wait().timing.outcome)
        if number == FLOOD // 3:
            before_bytes = edge.memory_full_info().uss
        time.sleep(0.001)  # a flood that the middleware drops at its source would test nothing
    for _ in range(10):
        states.append(running.observer.send_and_wait().timing.outcome)
    wait(lambda: len(results) > FLOOD / 10, 'the flood did not arrive')
    assert edge.memory_full_info().uss - before_bytes < MOST_GROWTH_BYTES
    running.wait_for_edge()
    assert states.count(msg.FrameTiming.ANSWERED) >= 0.8 * len(states), 'the good robot was left to itself'
    sequences = [prediction.timing.sequence for prediction in running.observer.predictions]
    assert sequences == list(range(1, len(sequences) + 1))
    for prediction in running.observer.predictions:
        assert prediction.output_digest == expected_digest(split, prediction.header.stamp.sec)
    assert all(result.outputs == [] for result in results if result.status != msg.TailResult.OK)
    log = processes.log('edge').read_text()
    assert 'Traceback' not in log and len(log) < 100_000, 'a flood of activations must not flood the log'
    processes.check()


def test_hostile_words_to_the_robot_cost_no_frame(system, ros, processes, split) -> None:
    """Answers, acknowledgements, decisions, timings, profiles and load reports that are lies."""
    running = system(monitor={'pinned_split': 1})
    observer = running.observer
    running.wait_for_edge()
    chance = random.Random(1)
    session = observer.predictions[-1].timing.session
    robot_topics = (
        topics.TAIL_RESULT,
        topics.ACKNOWLEDGEMENT,
        topics.SPLIT,
        topics.FRAME_TIMING,
        topics.EDGE_LOAD,
        topics.EDGE_PROFILE,
    )
    out = {topic.name: topic.publisher(observer) for topic in robot_topics}
    wait(lambda: all(publisher.get_subscription_count() for publisher in out.values()), 'the nodes do not listen')

    def number() -> float:
        return chance.choice(NUMBERS)

    def whole(bits: int) -> int:
        return chance.choice((0, 1, 2**bits - 1, chance.getrandbits(bits)))

    for _ in range(150):
        latest = max(prediction.timing.sequence for prediction in observer.predictions)
        near = {'session': chance.choice((session, whole(64))), 'sequence': latest + chance.randrange(4)}
        text = chance.choice(TEXTS[:6])
        fingerprint = chance.choice((split.fingerprint, text))
        edge = chance.choice((EDGE, text, f'edge {whole(16)}'))
        out['tail_result'].publish(
            to_message(
                msg.TailResult,
                **near,
                edge=edge,
                status=whole(8),
                reason=text,
                batch=whole(16),
                held_s=number(),
                tail_s=number(),
                fingerprint=fingerprint,
                outputs=[msg.Tensor(name=text, dtype='float32', shape=[whole(32)] * 3)],
            )
        )
        out['acknowledgement'].publish(
            to_message(msg.Acknowledgement, kind=whole(8), **near, edge=edge, fingerprint=fingerprint, held_s=number())
        )
        out['split'].publish(
            to_message(
                msg.SplitDecision,
                edge=edge,
                silent_edges=[text, EDGE],
                fingerprint=fingerprint,
                split_index=whole(16),
                codec=text,
                answer_timeout_s=chance.choice((-1.0, math.nan)),
                last_frame_session=session,
                last_frame=whole(64),
            )
        )
        out['frame_timing'].publish(
            to_message(
                msg.FrameTiming,
                **{**near, 'session': session},
                edge=edge,
                outcome=whole(8),
                split_index=whole(16),
                payload_bytes=whole(32),
                sent_s=number(),
                acknowledged_s=number(),
                answered_s=number(),
                held_s=number(),
                head_s=number(),
                tail_s=number(),
            )
        )
        out['edge_load'].publish(
            to_message(
                msg.EdgeLoad,
                edge=edge,
                edge_session=whole(64),
                sequence=whole(64),
                fingerprint=fingerprint,
                utilisation=number(),
                queueing_s=number(),
                slowdown=number(),
                robots=whole(32),
            )
        )
        out['edge_profile'].publish(
            to_message(
                msg.Profile,
                edge=edge,
                fingerprint=fingerprint,
                torch_version=text,
                profile_json=chance.choice(
                    ('[' * 100_000, '{"dynsplit_profile": 1, "cuts": [{"index": Infinity}]}', 'null', text)
                ),
            )
        )
        observer.send_and_wait()
    # An edge's own word at last, and all is as before.
    running.processes.stop('edge')
    running.start_edge()
    running.processes.stop('monitor')
    running.start_monitor()
    del observer.predictions[:]
    running.wait_for_edge()
    log = ''.join(processes.log(name).read_text() for name in ('camera', 'monitor'))
    assert 'Traceback' not in log
    processes.check()
    for prediction in observer.predictions:
        assert prediction.output_digest == expected_digest(split, prediction.header.stamp.sec)


def test_the_robots_that_an_edge_serves_are_bounded(processes, ros, model_parameters) -> None:
    processes.start('edge', 'edge_node', 'edge', {**model_parameters, 'max_robots': 2})
    robots = [ros(Observer(f'robot{number}')) for number in range(3)]
    appearances = [appear(robot) for robot in robots]
    publishers = [to_edge(robot) for robot in robots]
    wait(lambda: sum(bool(publisher.get_subscription_count()) for publisher in publishers) == 2, 'no edge')
    wait(lambda: 'raise max_robots' in processes.log('edge').read_text(), 'the edge does not say so')
    left = next(robot for robot, publisher in zip(robots, publishers) if publisher.get_subscription_count())
    destroy(left, appearances[robots.index(left)])
    del publishers[robots.index(left)]
    wait(
        lambda: all(publisher.get_subscription_count() for publisher in publishers),
        'its place was not given to the next',
    )
    processes.check()


def test_a_namespace_in_which_a_topic_name_is_too_long_does_not_end_the_edge(processes, ros, model_parameters) -> None:
    processes.start('edge', 'edge_node', 'edge', model_parameters)
    stranger, robot = ros(Observer('stranger')), ros(Observer('robot'))
    longest = 247 - len('/robot_profile')  # with it, this name is valid, and those of the topics per edge are not
    stranger.create_publisher(msg.Profile, f'/{"a" * (longest - 1)}/robot_profile', QoSProfile(depth=1))
    wait(lambda: 'in a shorter namespace' in processes.log('edge').read_text(), 'the edge does not say so')
    appear(robot)
    publisher = to_edge(robot)
    wait(publisher.get_subscription_count, 'the edge serves nobody any more')
    processes.check()
    assert 'Traceback' not in processes.log('edge').read_text()
