# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Attack what the nodes do with messages: seeded corruption of good ones, or coverage-guided.

The nodes' own callbacks are called with messages whose fields hold anything that their types can hold, one robot, edge
and monitor living through thousands of them. What must hold: no callback raises; each activation is answered once; each
frame gets one prediction, whatever the edge answers; a decision always names a split that there is and holds no NaN; a
profile or an image that is accepted can be used.

    python test/fuzz/fuzz_messages.py --cases 100000 --seed 0      # as the tests run it
    python test/fuzz/fuzz_messages.py --coverage CORPUS -max_total_time=3600 -rss_limit_mb=4096      # the long run

A failure names the command that runs it again. ``--coverage`` needs atheris and hands what follows to libFuzzer, which
writes an input that fails to the file ``crash-…``; ``--coverage crash-…`` runs it again.
"""

from __future__ import annotations

import argparse
import array
from collections.abc import Callable
import contextlib
import copy
import faulthandler
import json
import math
from pathlib import Path
import queue
import random
import struct
import sys
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
import torch
from torch import nn

from dynsplit_ros import msg
from dynsplit_ros.codec import CODECS, encode
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.messages.images import from_rgb, to_rgb
from dynsplit_ros.messages.predictions import to_prediction
from dynsplit_ros.messages.tensors import to_tensors
from dynsplit_ros.messages.timing import from_profile, to_profile
from dynsplit_ros.model import LoadedModel
from dynsplit_ros.model.preprocess import Normalise, Resize
from dynsplit_ros.nodes.camera_node import CameraNode
from dynsplit_ros.nodes.edge_node import EdgeNode, RobotLink
from dynsplit_ros.nodes.monitor_node import ListedEdge, MonitorNode, ToEdge
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.policies.monitor import MonitorPolicy
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import FrameRecord, SplitDecision
from dynsplit_ros.policies.senders import SenderSessions
from dynsplit_ros.profile.profile import merge, Profile
from dynsplit_ros.protocol import Side
from dynsplit_ros.runtime.edge import Edge
from dynsplit_ros.runtime.robot import Robot
from dynsplit_ros.tasks import interpret

PROFILE = Path(__file__).parents[1] / 'data' / 'mobilenet_v2.yaml'
#: After so many cases, robot, edge and monitor begin anew.
LIFETIME = 5000
#: Longest wait for a thread of robot or edge; only a hang takes it.
DEADLINE_S = 60.0

TEXTS = (
    '',
    'raw',
    'blosc2',
    'rgb8',
    'mono16',
    'bayer_rggb8',
    '8UC9999',
    'pickle',
    '../../etc/passwd',
    '__reduce__',
    '\0',
    '%s%n',
    '{0}',
    '\N{SNOWMAN}',
    'x' * 20_000,
)
REALS = (math.nan, math.inf, -math.inf, -1.0, 0.0, -0.0, 1e308, -1e308, 1e-308, 1e9)
INTEGER_BITS = {
    'boolean': 1,
    'octet': 8,
    'uint8': 8,
    'int8': 7,
    'uint16': 16,
    'int16': 15,
    'uint32': 32,
    'int32': 31,
    'uint64': 64,
    'int64': 63,
}


# ---- corruption; ``chance`` is the case's own source of random numbers -----------------------------------------------


def corrupt(message: Any, chance: random.Random) -> Any:
    """Replace one to four of a message's fields, at any depth, by something else that their types can hold."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        name, kind = chance.choice(list(type(message).get_fields_and_field_types().items()))
        setattr(message, name, other(kind, getattr(message, name), chance))
    return message


def other(kind: str, value: Any, chance: random.Random) -> Any:
    """Return another value for a field of that type."""
    if kind.startswith('sequence<'):
        return other_sequence(kind.removeprefix('sequence<').removesuffix('>'), value, chance)
    if kind == 'boolean':
        return not value
    if kind in INTEGER_BITS:
        most = 2 ** INTEGER_BITS[kind] - 1
        least = -most - 1 if kind.startswith('int') else 0
        wanted = chance.choice(
            (value + 1, value - 1, value * 2, 0, 1, 2, most, least, most // 2 + 1, chance.getrandbits(6))
        )
        return min(max(wanted, least), most)
    if kind in ('double', 'float'):
        wanted = chance.choice((*REALS, value * 2, -value, chance.uniform(0, 1)))
        return wanted if kind == 'double' else min(max(wanted, -3e38), 3e38)
    if kind == 'string':
        return chance.choice((*TEXTS, value[1:], value + 'x'))
    return corrupt(value, chance)


def other_sequence(kind: str, value: Any, chance: random.Random) -> Any:
    """Return another sequence of elements of that type."""
    if kind == 'uint8':
        data = array.array('B')
        data.frombytes(other_bytes(bytes(value), chance))
        return data
    values = list(value)
    how = chance.randrange(4)
    if how == 0 or not values:
        return [] if values or '/' in kind else [other(kind, '' if kind == 'string' else 0, chance)]
    if how == 1:
        return values * chance.choice((2, 200))
    if how == 2:
        return values[:-1]
    at = chance.randrange(len(values))
    values[at] = other(kind, values[at], chance)
    return values


def other_bytes(data: bytes, chance: random.Random) -> bytes:
    """Return bytes that differ from these: cut, grown, or some of them changed."""
    changed = bytearray(data)
    how = chance.randrange(5)
    if how == 0:
        return bytes(changed[: chance.randrange(len(changed) + 1)])
    if how == 1:
        return bytes(changed) + chance.randbytes(chance.choice((1, 4, 4096)))
    if how == 2:
        return b''
    for _ in range(chance.choice((1, 2, 8)) if changed else 0):
        at = chance.randrange(len(changed))
        if how == 3:
            changed[at] ^= 1 << chance.randrange(8)
        else:
            word = struct.pack(
                chance.choice('<>') + 'I', chance.choice((0, 1, 0x7FC00000, 0x7F800000, 2**31, 2**32 - 1))
            )
            changed[at : at + 4] = word[: len(changed) - at]
    return bytes(changed)


def other_document(document: Any, chance: random.Random) -> Any:
    """Return JSON values that differ from these in one place."""
    if chance.random() < 0.15 or not isinstance(document, (dict, list)) or not document:
        return chance.choice(
            (
                None,
                True,
                0,
                -1,
                1,
                1e308,
                math.nan,
                math.inf,
                10**400,
                '',
                'raw',
                [],
                {},
                [[]],
                {'1': 1},
                0.5,
                document,
                [document] * 2,
            )
        )
    changed = copy.copy(document)
    key = chance.choice(list(changed) if isinstance(changed, dict) else range(len(changed)))
    how = chance.randrange(6)
    if how == 0:
        del changed[key]
    elif how == 1 and isinstance(changed, dict):
        changed[chance.choice(('1', '2', 'x', '', key + '0'))] = changed[key]
    elif how == 1:
        changed.append(changed[key])
    else:
        changed[key] = other_document(changed[key], chance)
    return changed


# ---- what is attacked ------------------------------------------------------------------------------------------------


class Ears:
    """Stands for a publisher: keeps what is published, once DDS could send it."""

    topic_name = ''

    def __init__(self) -> None:
        self.heard: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def publish(self, message: Any) -> None:
        serialize_message(message)
        self.heard.put(message)

    def get_subscription_count(self) -> int:
        """Return that nobody listens."""
        return 0

    def next(self) -> Any:
        """Return the next message; fail where none comes."""
        return self.heard.get(timeout=DEADLINE_S)


def bare(node: type, **attributes: Any) -> Any:
    """Return a node without ROS: its callbacks work on these attributes."""
    made = node.__new__(node)
    logger = SimpleNamespace(**dict.fromkeys(('debug', 'info', 'warning', 'error'), lambda text: None))
    for name, value in {
        'log_throttled': lambda *_, **__: None,
        'get_logger': lambda: logger,
        'senders': SenderSessions(),
        **attributes,
    }.items():
        object.__setattr__(made, name, value)
    return made


def small_model() -> SplitModel:
    """Return a network with splits 0, 1 and 2 that runs in some 100 µs."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    module.eval().requires_grad_(False)
    return SplitModel(
        LoadedModel(
            'small', module, 'classification', ['a', 'b'], (16, 16), Resize((16, 16), (18, 18)), Normalise(None, None)
        )
    )


class World:
    """One robot, one edge and one monitor, and good messages between them to begin with."""

    def __init__(self, split: SplitModel) -> None:
        self.split = split
        self.picture = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16), np.uint8))
        # The edge.
        self.answers = Ears()
        edge_node = bare(EdgeNode, split=split)
        edge_node.edge = self.edge = Edge(split, edge_node)
        self.link = RobotLink.__new__(RobotLink)
        vars(self.link).update(
            namespace='/robot1',
            _node=edge_node,
            _lead=(0, 0, 0.0),
            senders=SenderSessions(),
            acknowledgement=Ears(),
            tail_result=self.answers,
        )
        # The robot; this object is its outside.
        self.sent: queue.SimpleQueue[msg.Activation] = queue.SimpleQueue()
        self.delivered: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.faults: list[str] = []
        self.robot = Robot(split, self)
        uplink = SimpleNamespace(publisher=lambda topic, name: Ears(), destroy_publisher=lambda publisher: None)
        self.camera = bare(
            CameraNode,
            split=split,
            _model=split.model,
            _robot=self.robot,
            to_edges={},
            _uplink=uplink,
            _decision=None,
            resolve_topic_name=lambda name: f'/robot1/{name}',
            forget=lambda name: None,
        )
        # A detector's answers have free shapes, so its robot is only asked whether it could deliver them.
        detector = SimpleNamespace(
            name='detector', task='detection', labels=['', 'cat'], keypoint_names=['nose'], resize=Resize((12, 16))
        )
        detecting = SimpleNamespace(fingerprint=split.fingerprint, output_specs=None, model=detector)
        self.detector = bare(
            CameraNode,
            split=detecting,
            _model=detector,
            _robot=bare(
                Robot,
                _split=detecting,
                on_answer=self.on_detections,
                policy=self.robot.policy,
                _changed=contextlib.nullcontext(),
            ),
        )
        # The monitor.
        self.profile = Profile.load(PROFILE)
        self.decisions, self.states = Ears(), Ears()
        self.monitor = bare(
            MonitorNode,
            _session=7,
            _robot=(self.profile, Side()),
            _edges={'': ListedEdge(self.profile, Side())},
            _to_edges={'': ToEdge(Ears(), Ears(), Ears())},
            _told=('', (0, '')),
            _settings=MonitorSettings(),
            _monitor=MonitorPolicy(merge(self.profile.scaled(8.0), self.profile)),
            _camera_session=5,
            _frame_offset=0,
            _last_frame=0,
            _fallbacks=0,
            _ignored=0,
            _decisions=0,
            _split=self.decisions,
            _link_state=self.states,
            _timer=SimpleNamespace(reset=lambda: None),
            _header=Header,
        )
        #: What is attacked, with how many in a hundred cases; what needs the robot's threads takes longest.
        self.cases: list[tuple[float, Callable[[random.Random], None]]] = [
            (20, self.activation),
            (25, self.stray_answer),
            (2, self.answer),
            (15, self.detections),
            (1, self.order),
            (22, self.news),
            (8, self.profile_message),
            (6.5, self.image),
            (0.5, self.compressed_image),
        ]

    def close(self) -> None:
        """End the threads."""
        self.robot.close()
        self.edge.close()

    def attack(self, chance: random.Random) -> None:
        """Run one case."""
        weights, cases = zip(*self.cases)
        chance.choices(cases, weights)[0](chance)

    # ---- the edge

    def activation(self, chance: random.Random) -> None:
        """See that an activation is answered, whatever it holds."""
        index = chance.randrange(2)
        codec = chance.choice(
            [name for name, info in CODECS.items() if (index == 0 or info.takes != 'image') and info.is_installed()]
        )
        payload = encode(codec, self.split.head(index)(self.picture))
        message = corrupt(
            msg.Activation(
                session=5,
                sequence=chance.getrandbits(8),
                fingerprint=self.split.fingerprint,
                split_index=index,
                codec=codec,
                answer_timeout_s=60.0,
                tensors=to_tensors(payload),
            ),
            chance,
        )
        if chance.random() < 0.5:  # others find out what a wrong fingerprint does
            message.fingerprint = self.split.fingerprint
        message.edge = ''  # else it is for another edge
        self.link._on_activation(message)
        probe = corrupt(msg.Probe(session=7, sequence=1, padding=bytes(9)), chance)
        self.link._on_probe(probe)
        answer = self.answers.next()
        assert answer.sequence == message.sequence and answer.session == message.session
        assert answer.status == msg.TailResult.OK or answer.reason and len(answer.reason) < 2000 and not answer.outputs
        assert self.answers.heard.empty(), 'an activation was answered twice'
        assert self.link.acknowledgement.next().sequence == message.sequence
        assert probe.is_lead or self.link.acknowledgement.next().sequence == probe.sequence

    # ---- the robot; first what it asks of the world

    def prepare(self, source: Any) -> torch.Tensor:
        """Take the picture as it is."""
        return self.picture

    def send(self, frame: Any, payload: Any) -> None:
        """Note a payload."""
        self.sent.put(frame)

    def deliver(self, frame: Any, outputs: Any) -> None:
        """Make of an answer what the camera publishes."""
        self.make_prediction(self.split.model, outputs, frame)
        self.delivered.put(frame.sequence)

    def report(self, timing: FrameRecord) -> None:
        """Leave it."""

    def refuse(self, source: Any, reason: str) -> None:
        """Leave it."""

    def fault(self, reason: str) -> None:
        """Note what went wrong."""
        self.faults.append(reason)

    def make_prediction(self, model: Any, outputs: Any, timing: FrameRecord) -> None:
        """Interpret outputs that were accepted, for a camera image of an odd size."""
        result = interpret(model.task, outputs, model.labels, placement=model.resize.placement(31, 45), top_k=5)
        serialize_message(to_prediction(Header(), (31, 45), model, self.split.fingerprint, result, outputs, timing))

    def good_answer(self, sequence: int) -> msg.TailResult:
        """Return the right answer."""
        return msg.TailResult(
            session=self.robot.session,
            sequence=sequence,
            fingerprint=self.split.fingerprint,
            outputs=to_tensors(encode('raw', self.split.whole(self.picture))),
            batch=1,
            held_s=0.01,
        )

    def stray_answer(self, chance: random.Random) -> None:
        """See that an answer that nobody waits for harms nothing."""
        self.camera._on_tail_result(corrupt(self.good_answer(2**40), chance))
        self.camera._on_acknowledgement(corrupt(msg.Acknowledgement(session=self.robot.session, sequence=1), chance))

    def answer(self, chance: random.Random) -> None:
        """See that a frame gets one prediction, whatever is answered before the right answer."""
        self.robot.on_decision(SplitDecision(chance.randrange(2), 'raw', 60.0, self.robot.session, 2**62))
        self.robot.offer('image')
        sequence = self.sent.get(timeout=DEADLINE_S).sequence
        self.camera._on_tail_result(corrupt(self.good_answer(sequence), chance))
        message = msg.Acknowledgement(session=self.robot.session, sequence=sequence)
        self.camera._on_acknowledgement(corrupt(message, chance))
        self.camera._on_tail_result(self.good_answer(sequence))
        assert self.delivered.get(timeout=DEADLINE_S) == sequence
        assert self.delivered.empty(), 'a frame got two predictions'
        assert not self.faults, self.faults

    def detections(self, chance: random.Random) -> None:
        """See that a detector's answer is refused or can be delivered."""
        count = chance.randrange(4)
        outputs = {
            'boxes.0': torch.rand(count, 4),
            'labels.0': torch.ones(count, dtype=torch.int64),
            'scores.0': torch.rand(count),
            'masks.0': torch.rand(count, 1, 12, 16),
            'keypoints.0': torch.rand(count, 2, 3),
            'keypoints_scores.0': torch.rand(count, 2),
        }
        message = msg.TailResult(
            session=1,
            sequence=1,
            fingerprint=self.split.fingerprint,
            outputs=to_tensors(encode('raw', outputs)),
            batch=1,
        )
        if chance.random() < 0.9:
            for _ in range(chance.choice((1, 1, 3))):
                corrupt(chance.choice(message.outputs), chance)
        else:
            corrupt(message, chance)
        self.detector._on_tail_result(message)

    def on_detections(self, session: int, sequence: int, status: int, reason: str, outputs: Any, *_: object) -> None:
        """Deliver what the camera took for good."""
        if status == msg.TailResult.OK:
            self.make_prediction(self.detector._model, outputs, FrameRecord())

    def order(self, chance: random.Random) -> None:
        """See that a decision is followed or refused, and that frames go on being delivered either way."""
        self.camera._on_split(
            corrupt(
                msg.SplitDecision(
                    fingerprint=self.split.fingerprint,
                    split_index=1,
                    codec='raw',
                    answer_timeout_s=1.0,
                    local_if_wait_s=1.0,
                    waiting_share=0.08,
                    last_frame_session=self.robot.session,
                    last_frame=1,
                    candidates=[msg.CandidatePrediction()],
                ),
                chance,
            )
        )
        self.robot.offer('image')
        while self.delivered.empty():
            try:  # sent, or done on the robot, or handed to the finish thread
                sequence = self.sent.get(timeout=0.002).sequence
                self.camera._on_tail_result(self.good_answer(sequence))
            except queue.Empty:
                pass
        assert self.delivered.get() > 0 and self.delivered.empty()
        while not self.sent.empty():
            self.sent.get()
        self.faults.clear()  # a decision may name a codec that cannot carry the cut

    # ---- the monitor

    def news(self, chance: random.Random) -> None:
        """Whatever robot and edge report, the monitor goes on to decide."""
        fingerprint, node = self.profile.fingerprint, self.monitor
        sequence = chance.getrandbits(5)
        good: list[tuple[Callable[[Any], None], Any]] = [
            (
                node._on_frame_timing,
                msg.FrameTiming(
                    session=5,
                    sequence=sequence,
                    outcome=chance.randrange(5),
                    split_index=chance.randrange(3),
                    codec='raw',
                    batch=1,
                    payload_bytes=100_000,
                    answer_bytes=4000,
                    sent_s=1.0,
                    acknowledged_s=1.1,
                    answered_s=1.2,
                    given_up_s=math.nan,
                    head_s=0.01,
                    held_s=0.05,
                    tail_s=0.04,
                    latency_s=0.3,
                ),
            ),
            (
                node._on_acknowledgement,
                msg.Acknowledgement(
                    kind=chance.randrange(2),
                    session=chance.choice((5, 7)),
                    sequence=sequence,
                    fingerprint=fingerprint,
                    held_s=1e-4,
                ),
            ),
            (
                node._on_edge_load,
                msg.EdgeLoad(
                    edge_session=9,
                    sequence=sequence,
                    fingerprint=fingerprint,
                    period_s=0.2,
                    utilisation=0.5,
                    slowdown=1.0,
                    robots=1,
                ),
            ),
        ]
        callback, message = chance.choice(good)
        callback(corrupt(message, chance))
        node._act()
        node._publish_link_state()
        state = self.states.next()
        assert not any(
            math.isnan(getattr(state, name))
            for name, kind in state.get_fields_and_field_types().items()
            if kind == 'double'
        ), state
        while not self.decisions.heard.empty():
            self.check_decision(self.decisions.next())

    def check_decision(self, decision: msg.SplitDecision) -> None:
        """Assert that a camera can follow a decision."""
        assert 0 <= decision.split_index <= self.profile.local_index, decision.split_index
        times_s = decision.predicted_latency_s, decision.answer_timeout_s, decision.local_if_wait_s
        assert all(time_s >= 0 for time_s in times_s) and 0 <= decision.waiting_share <= 1, decision

    def profile_message(self, chance: random.Random) -> None:
        """See that a profile is refused, or can be decided by."""
        message = to_profile(self.profile)
        document = json.loads(message.profile_json)
        if chance.random() < 0.8:
            for _ in range(chance.choice((1, 1, 2, 4))):
                document = other_document(document, chance)
            message.profile_json = json.dumps(document)
        else:
            message.profile_json = other_bytes(message.profile_json.encode(), chance).decode(errors='replace')
        try:
            profile = merge(from_profile(message, 'the profile')[0], self.profile)
        except DynsplitError as error:
            assert 0 < len(str(error)) < 5000, str(error)
            return
        decision = MonitorPolicy(profile).tick(1.0)
        assert decision is not None and 0 <= decision.split_index <= profile.local_index
        assert decision.predicted_latency_s >= 0 and decision.answer_timeout_s >= 0, decision

    # ---- images

    def image(self, chance: random.Random) -> None:
        """See that an image is refused, or becomes the network's input."""
        size = chance.choice(((1, 1), (8, 9), (9, 8), (1, 30_000), (30_000, 1)))
        message = from_rgb(np.zeros((*size, 3), np.uint8))
        message.encoding = chance.choice(('rgb8', 'bgra8', 'mono8', 'mono16', 'bayer_rggb8', '32FC1', 'yuv422'))
        self.take(corrupt(message, chance))

    def compressed_image(self, chance: random.Random) -> None:
        """See the same of a compressed one."""
        pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
        message = CompressedImage(format='rgb8')
        message.data = array.array('B', cv2.imencode(chance.choice(('.png', '.jpg')), pixels)[1].tobytes())
        self.take(corrupt(message, chance))

    def take(self, message: Image | CompressedImage) -> None:
        """Convert and resize."""
        try:
            resized = self.split.model.resize(to_rgb(message))
        except DynsplitError as error:
            assert 0 < len(str(error)) < 25_000 and '\n' not in str(error), str(error)
            return
        assert resized.shape == (3, 16, 16)


# ---- running ---------------------------------------------------------------------------------------------------------


def run_seeded(seed: int, first: int, count: int) -> None:
    """Run cases; each follows from the seed, its number, and those before it in the same lifetime."""
    split = small_model()
    world = World(split)
    for number in range(first, first + count):
        if number % LIFETIME == 0 and number > first:
            world.close()
            world = World(split)
        try:
            world.attack(random.Random(f'{seed}/{number}'))
        except BaseException:
            begun = number - number % LIFETIME
            print(
                f'case {number}; again: fuzz_messages.py --seed {seed} --first {begun} --cases {number - begun + 1}',
                file=sys.stderr,
            )
            raise
    world.close()
    print(f'{count} cases of seed {seed}')


class Bytes(random.Random):
    """Random numbers that are read from bytes, and 0 after their end, so that a fuzzer can steer by what it writes."""

    def __new__(cls, data: bytes) -> Bytes:
        return super().__new__(cls, 0)

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def getrandbits(self, bits: int) -> int:
        """Return an integer below 2**bits."""
        count = (bits + 7) // 8
        taken = self._data[self._at : self._at + count]
        self._at += count
        return int.from_bytes(taken, 'little') & (1 << bits) - 1

    def random(self) -> float:
        """Return a number from 0 to below 1."""
        return self.getrandbits(16) / 65536


def run_coverage(corpus: Path, options: list[str]) -> None:
    """Let libFuzzer search for inputs that take new branches in this package."""
    import atheris  # here, since nothing else needs it

    world = World(small_model())
    if not corpus.exists():
        corpus.mkdir(parents=True)
        for seed in range(200):
            (corpus / f'seed-{seed}').write_bytes(random.Random(seed).randbytes(200))
    for name, module in list(sys.modules.items()):
        for holder in (module, *vars(module).values()) if name.startswith('dynsplit_ros.') else ():
            if holder is module or isinstance(holder, type) and holder.__module__ == name:
                for function in list(vars(holder).values()):
                    if hasattr(function, '__code__') and function.__module__ == name:
                        atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], str(corpus), '-max_len=4096', *options], lambda data: world.attack(Bytes(data)))
    atheris.Fuzz()


def main() -> None:
    """Run as the module's docstring says."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--cases', type=int, default=100_000, help='how many corrupted messages')
    parser.add_argument('--seed', type=int, default=0, help='of the corruption')
    parser.add_argument('--first', type=int, default=0, help='number of the first case')
    parser.add_argument('--coverage', type=Path, metavar='CORPUS', help='coverage-guided search')
    arguments, options = parser.parse_known_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if arguments.coverage:
        run_coverage(arguments.coverage, options)
    elif options:
        parser.error(f'unknown: {" ".join(options)}')
    else:
        faulthandler.enable()
        run_seeded(arguments.seed, arguments.first, arguments.cases)


if __name__ == '__main__':
    main()
