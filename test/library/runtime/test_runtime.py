# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Robot and edge joined by a wire that loses, delays and repeats: every accepted frame gets its one right answer."""

from __future__ import annotations

from dataclasses import replace
import gc
import random
import threading
import time
import weakref

import pytest
import torch
from worlds import DEADLINE_S, outputs_of, wait_until

from dynsplit_ros.codec import CODECS, encode
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import Interrupted, SplitModel
from dynsplit_ros.policies.edge import EdgeSettings
from dynsplit_ros.policies.edge_queue import MAX_ROBOTS
from dynsplit_ros.policies.records import EdgeFrame, Outcome, SplitDecision, Status
from dynsplit_ros.profile.profile import CodecProfile, CutProfile, Profile
from dynsplit_ros.runtime import edge as edge_module, robot as robot_module, tails
from dynsplit_ros.runtime.edge import Edge
from dynsplit_ros.runtime.robot import Robot
from dynsplit_ros.tensors import of_image


@pytest.fixture(scope='module')
def split() -> SplitModel:
    return SplitModel(load_model('mobilenet_v2', weights='none', input_size=(32, 32)))


def picture(number: int) -> torch.Tensor:
    """Return the picture of a number, uint8 [1, 3, 32, 32]."""
    return torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))


class World:
    """Both outsides and the wire between them; ``fate`` says what becomes of a frame's payload and of its answer."""

    def __init__(
        self, split: SplitModel, fate=lambda sequence: 'pass', *, robot_split: object = None, **robot_options
    ) -> None:
        self.split, self.fate = split, fate
        self.changed = threading.Condition()
        self.delivered: list[tuple[int, int, Outcome, dict]] = []
        self.reports: list = []
        self.audits: list[tuple[int, float]] = []
        self.refusals: list[str] = []
        self.faults: list[str] = []
        self.held_back: list[tuple] = []
        self.sent: list = []
        self.edge = Edge(split, EdgeWorld(self))
        self.robot = Robot(robot_split or split, self, **robot_options)

    def prepare(self, source):
        if source == 'bad':
            raise DynsplitError('the image has no pixels')
        return picture(source)

    def send(self, frame, payload) -> None:
        with self.changed:
            self.sent.append((frame.sequence, frame.split_index))
            self.changed.notify_all()
        if self.fate(frame.sequence) == 'lose payload':
            return
        activation = EdgeFrame(
            'robot',
            (frame.session, frame.sequence),
            self.split.fingerprint,
            frame.split_index,
            frame.codec,
            10.0,
            payload,
            tail_engine=frame.tail_engine,
        )
        if self.fate(frame.sequence) == 'wrong model':
            activation.fingerprint = 'another'
        self.edge.submit(activation)

    def deliver(self, frame, outputs) -> None:
        with self.changed:
            self.delivered.append((frame.sequence, frame.image, frame.outcome, outputs))
            self.changed.notify_all()

    def report(self, frame) -> None:
        with self.changed:
            self.reports.append(frame)

    def report_audit(self, frame, agreement) -> None:
        with self.changed:
            self.audits.append((frame.sequence, agreement))
            self.changed.notify_all()

    def refuse(self, source, reason) -> None:
        with self.changed:
            self.refusals.append(reason)
            self.changed.notify_all()

    def fault(self, reason) -> None:
        self.faults.append(reason)

    def wait(self, happened) -> None:
        with self.changed:
            deadline_s = time.monotonic() + DEADLINE_S
            while not happened():  # some of what is waited for, such as a counter, comes without a word
                assert time.monotonic() < deadline_s, 'it did not happen in time'
                self.changed.wait(0.002)

    def close(self) -> None:
        self.robot.close()
        self.edge.close()


class SlowSplit:
    """A split model with another head or tail."""

    def __init__(self, split: SplitModel, **parts) -> None:
        self._split = split
        vars(self).update(parts)

    def __getattr__(self, name):
        return getattr(self._split, name)


class EdgeWorld:
    """What the edge does to the world: acknowledgements and answers go over the wire."""

    def __init__(self, world: World) -> None:
        self.world = world

    def acknowledge(self, frame) -> None:
        self.world.robot.on_acknowledgement(*frame.source)

    def answer(self, frame) -> None:
        session, sequence = frame.source
        answer = (session, sequence, frame.status, frame.reason, outputs_of(frame), 1, frame.times)
        fate = self.world.fate(sequence)
        if fate == 'lose answer':
            return
        if fate == 'hold answer back':
            with self.world.changed:
                self.world.held_back.append(answer)
                self.world.changed.notify_all()
            return
        self.world.robot.on_answer(*answer)
        if fate == 'repeat answer':
            self.world.robot.on_answer(*answer)

    def fault(self, reason) -> None:
        self.world.fault(reason)


def assert_right(world: World, count: int) -> None:
    """Every frame once, in order, and bit for bit the whole model's."""
    assert [sequence for sequence, *_ in world.delivered] == list(range(1, count + 1))
    for _, source, _, outputs in world.delivered:
        whole = world.split.whole(picture(source))
        assert outputs.keys() == whole.keys()
        assert all(torch.equal(outputs[name], whole[name]) for name in whole)
    assert not world.faults


def test_local_without_a_decision(split) -> None:
    world = World(split)
    world.robot.offer(1)
    world.wait(lambda: world.delivered)
    world.close()
    assert world.delivered[0][2] is Outcome.LOCAL
    assert_right(world, 1)


@pytest.mark.parametrize('seed', range(4))
def test_each_frame_is_answered_once_whatever_the_wire_does(split, seed) -> None:
    random_numbers = random.Random(seed)
    fates = {
        number: random_numbers.choice(
            ['pass', 'pass', 'pass', 'lose payload', 'lose answer', 'hold answer back', 'repeat answer', 'wrong model']
        )
        for number in range(1, 101)
    }
    world = World(split, fates.__getitem__)
    for number in range(1, 101):
        # The decision takes all frames so far into account, so that the robot trusts the edge again at once.
        world.robot.on_decision(
            SplitDecision(random_numbers.randrange(split.local_index + 1), 'raw', 0.02, world.robot.session, number)
        )
        world.robot.offer(number)
        world.wait(lambda: world.robot.counters().accepted == number)
    world.wait(lambda: len(world.delivered) == 100)
    for answer in world.held_back:
        world.robot.on_answer(*answer)
    world.close()
    assert_right(world, 100)
    counters = world.robot.counters()
    assert counters.accepted == counters.delivered == 100 and counters.failed == 0
    outcomes = {outcome for _, _, outcome, _ in world.delivered}
    assert outcomes == {Outcome.ANSWERED, Outcome.LOCAL, Outcome.FELL_BACK}
    assert counters.late_answers >= len(world.held_back) > 0


def test_after_a_silence_frames_are_local_until_the_monitor_knows(split) -> None:
    world = World(split, lambda sequence: 'lose payload' if sequence == 1 else 'pass')
    world.robot.on_decision(SplitDecision(0, 'raw', 0.02))
    for number in (1, 2):
        world.robot.offer(number)
        world.wait(lambda: len(world.delivered) == number)
    assert [outcome for *_, outcome, _ in world.delivered] == [Outcome.FELL_BACK, Outcome.LOCAL]
    world.robot.on_decision(SplitDecision(0, 'raw', 5.0))  # made before frame 1 was known
    world.robot.offer(3)
    world.wait(lambda: len(world.delivered) == 3)
    world.robot.on_decision(SplitDecision(0, 'raw', 5.0, world.robot.session, 3))
    world.robot.offer(4)
    world.wait(lambda: len(world.delivered) == 4)
    world.close()
    assert [outcome for *_, outcome, _ in world.delivered][2:] == [Outcome.LOCAL, Outcome.ANSWERED]
    assert_right(world, 4)


def test_a_bad_image_is_refused_and_the_next_goes_through(split) -> None:
    world = World(split)
    world.robot.offer('bad')
    world.wait(lambda: world.refusals)
    world.robot.offer(7)
    world.wait(lambda: world.delivered)
    world.close()
    assert world.refusals == ['the image has no pixels']
    assert world.robot.counters().refused_images == 1
    assert_right(world, 1)


def test_the_newest_image_replaces_one_that_waits(split) -> None:
    gate = threading.Event()
    world = World(split)
    prepare = world.prepare
    started = threading.Event()

    def slow(source):
        started.set()
        assert gate.wait(DEADLINE_S)
        return prepare(source)

    world.prepare = slow
    world.robot.offer(1)
    assert started.wait(DEADLINE_S)
    for number in range(2, 11):
        world.robot.offer(number)
    gate.set()
    world.wait(lambda: len(world.delivered) == 2)
    world.close()
    assert [source for _, source, *_ in world.delivered] == [1, 10]
    assert world.robot.counters().dropped == 8


@pytest.mark.parametrize('share', [-0.1, 1.5, float('nan')])
def test_a_share_that_is_none_is_refused(split, share) -> None:
    world = World(split)
    with pytest.raises(DynsplitError, match='share'):
        world.robot.on_decision(SplitDecision(0, 'raw', 1.0, waiting_share=share))
    world.close()


def test_the_next_image_is_prepared_while_the_link_is_busy_and_used(split) -> None:
    world = World(split)
    acknowledge, world.robot.on_acknowledgement = world.robot.on_acknowledgement, lambda *_: None
    prepared = []
    prepare = world.prepare
    world.prepare = lambda source: (prepare(source), prepared.append(source))[0]
    world.robot.on_decision(SplitDecision(1, 'blosc2', 600.0))
    world.fate = lambda sequence: 'hold answer back' if sequence == 1 else 'pass'
    world.robot.offer(1)
    world.wait(lambda: world.held_back)
    for number in (2, 3):
        world.robot.offer(number)
        world.wait(lambda: prepared[-1] == number)
    assert world.robot.counters().accepted == 1 and len(world.sent) == 1
    world.robot.on_acknowledgement = acknowledge
    world.robot.on_answer(*world.held_back.pop())
    world.wait(lambda: len(world.delivered) == 2)
    world.close()
    assert prepared == [1, 2, 3], 'an image that is prepared is not prepared again'
    assert [source for _, source, *_ in world.delivered] == [1, 3] and world.robot.counters().dropped == 1
    assert_right(world, 2)


def test_a_payload_is_sent_while_the_next_image_is_prepared(split) -> None:
    gate, started = threading.Event(), threading.Event()
    world = World(split)
    acknowledge, world.robot.on_acknowledgement = world.robot.on_acknowledgement, lambda *_: None
    prepare = world.prepare

    def slow(source):
        if source == 3:
            started.set()
            assert gate.wait(DEADLINE_S)
        return prepare(source)

    world.prepare = slow
    world.fate = lambda sequence: 'hold answer back' if sequence == 1 else 'pass'
    world.robot.on_decision(SplitDecision(1, 'raw', 600.0, local_if_wait_s=600.0))
    world.robot.offer(1)
    world.wait(lambda: world.held_back)
    # A head and a transfer are known to take as long as each other, so that the next head starts at once.
    world.robot.policy._scheduler.on_acknowledged((1, 'raw'), 600.0)
    world.robot.policy._scheduler.on_ready((1, 'raw'), 600.0)
    world.robot.offer(2)
    world.wait(lambda: world.robot.counters().accepted == 2)
    world.robot.offer(3)
    assert started.wait(DEADLINE_S), 'the payload of frame 2 waits for the link, so the robot is free'
    world.robot.on_acknowledgement = acknowledge
    world.robot.on_acknowledgement(world.robot.session, 1)
    world.wait(lambda: len(world.sent) == 2)
    gate.set()
    world.robot.on_answer(*world.held_back.pop())
    world.wait(lambda: len(world.delivered) == 3)
    world.close()
    assert_right(world, 3)


def test_one_payload_on_the_link_at_a_time(split) -> None:
    world = World(split)
    world.robot.on_acknowledgement = lambda *_: None  # the link stays full until the answer
    gate = threading.Event()
    answer = world.robot.on_answer
    world.robot.on_answer = lambda *values: gate.wait(DEADLINE_S) and answer(*values)
    world.robot.on_decision(SplitDecision(0, 'raw', 60.0))
    world.robot.offer(1)
    world.wait(lambda: world.sent)
    world.robot.offer(2)
    gate.set()
    world.wait(lambda: len(world.delivered) == 2)
    world.close()
    assert_right(world, 2)
    first, second = (report for report in world.reports if report.outcome is Outcome.ANSWERED)
    assert second.sent_s >= first.answered_s


def test_a_robot_that_stops_takes_the_answers_to_what_it_sent(split) -> None:
    world = World(split, lambda sequence: 'hold answer back')
    world.robot.on_decision(SplitDecision(0, 'raw', 60.0))
    world.robot.offer(1)
    world.wait(lambda: world.held_back)
    world.robot.stop()
    world.robot.offer(2)  # it is not accepted any more
    assert world.robot.busy
    world.robot.on_answer(*world.held_back[0])
    world.wait(lambda: not world.robot.busy)
    world.close()
    assert [(source, outcome) for _, source, outcome, _ in world.delivered] == [(1, Outcome.ANSWERED)]


def test_a_robot_that_is_closed_finishes_a_frame_at_once(split) -> None:
    world = World(split, lambda sequence: 'lose answer', clock=lambda: 0.0)  # no deadline comes
    world.robot.on_decision(SplitDecision(0, 'raw', 60.0))
    world.robot.offer(1)
    world.wait(lambda: world.sent)
    world.close()
    assert [outcome for *_, outcome, _ in world.delivered] == [Outcome.FELL_BACK]
    assert_right(world, 1)


def test_an_answer_may_still_be_faster_than_finishing_here(split) -> None:
    tail = split.tail
    finishing, answered, given_up = threading.Event(), threading.Event(), threading.Event()

    def slow_tail(index, engine='eager'):
        def run(tensors, stop):
            finishing.set()
            assert answered.wait(DEADLINE_S)
            try:
                return tail(index)(tensors, stop)
            except Interrupted:
                given_up.set()
                raise

        return run

    world = World(split, lambda sequence: 'hold answer back', robot_split=SlowSplit(split, tail=slow_tail))
    world.robot.on_decision(SplitDecision(0, 'raw', 0.01))
    world.robot.offer(1)
    assert finishing.wait(DEADLINE_S)
    world.wait(lambda: world.held_back)
    world.robot.on_answer(*world.held_back[0])
    world.wait(lambda: world.delivered)
    answered.set()
    assert given_up.wait(DEADLINE_S), 'what nobody needs any more is computed to its end'
    world.close()
    assert [outcome for *_, outcome, _ in world.delivered] == [Outcome.ANSWERED]
    assert world.robot.counters().fell_back == 0 == world.robot.counters().late_answers


def test_an_answer_just_before_finishing_here_is_no_fault(split) -> None:
    finishing, answered = threading.Event(), threading.Event()

    def late_tail(index, engine='eager'):
        def run(tensors, stop):
            finishing.set()
            assert answered.wait(DEADLINE_S)
            raise DynsplitError('no tensors are left of a frame that is answered')

        return run

    world = World(split, lambda sequence: 'hold answer back', robot_split=SlowSplit(split, tail=late_tail))
    world.robot.on_decision(SplitDecision(0, 'raw', 0.01))
    world.robot.offer(1)
    assert finishing.wait(DEADLINE_S)
    world.wait(lambda: world.held_back)
    world.robot.on_answer(*world.held_back[0])
    answered.set()
    world.close()
    assert [outcome for *_, outcome, _ in world.delivered] == [Outcome.ANSWERED] and not world.faults
    assert_right(world, 1)


@pytest.mark.parametrize('promised_s, outcome', [(1.0, Outcome.ANSWERED), (100.0, Outcome.LOCAL)])
def test_a_slow_head_is_interrupted_for_a_decision_that_promises_more(split, promised_s, outcome) -> None:
    now, runs = [1000.0], []
    running, decided = threading.Event(), threading.Event()

    def slow_head(index, engine='eager'):
        def run(image, stop):
            runs.append(index)
            if len(runs) == 1:
                now[0] += 60.0  # so long does local inference take
            if len(runs) == 2:
                running.set()
                assert decided.wait(DEADLINE_S)
            return split.head(index)(image, stop)

        return run

    world = World(split, robot_split=SlowSplit(split, head=slow_head), clock=lambda: now[0])
    world.robot.offer(1)
    world.wait(lambda: world.delivered)
    world.robot.offer(2)
    assert running.wait(DEADLINE_S)
    world.robot.on_decision(SplitDecision(1, 'raw', 60.0, predicted_latency_s=promised_s))
    decided.set()
    world.wait(lambda: len(world.delivered) == 2)
    world.close()
    assert [outcome for *_, outcome, _ in world.delivered] == [Outcome.LOCAL, outcome]
    final = [report for report in world.reports if report.outcome is not Outcome.SENT]
    assert [report.split_index for report in final] == [
        split.local_index,
        1 if outcome is Outcome.ANSWERED else split.local_index,
    ]
    assert world.robot.counters().accepted == 2 == world.robot.counters().delivered
    assert_right(world, 2)


def assert_released(world: World, kept: list[weakref.ref]) -> None:
    def all_gone() -> bool:
        gc.collect()
        time.sleep(0.01)  # without it, the tails' thread hardly ever has its turn
        return not [reference for reference in kept if reference() is not None]

    world.wait(all_gone)


class Noting(World):
    """Also keeps weak references to the images, payloads and frames."""

    def __init__(self, split: SplitModel, monkeypatch, **options) -> None:
        self.kept: list[weakref.ref] = []
        self.encoding = False
        self.may_encode = threading.Event()
        self.may_encode.set()
        monkeypatch.setattr(robot_module, 'encode', self.encode)
        super().__init__(split, **options)

    def encode(self, codec, activation):
        self.encoding = True
        assert self.may_encode.wait(DEADLINE_S)
        payload = encode(codec, activation)
        self.kept += map(weakref.ref, payload)
        return payload

    def prepare(self, source):
        image = super().prepare(source)
        self.kept.append(weakref.ref(image))
        return image

    def deliver(self, frame, outputs) -> None:
        self.kept.append(weakref.ref(frame))
        super().deliver(frame, outputs)


def test_nothing_is_kept_of_a_frame_whose_payload_was_given_up(split, monkeypatch) -> None:
    world = Noting(split, monkeypatch)
    world.may_encode.clear()
    world.robot.on_decision(SplitDecision(1, 'raw', 600.0))
    world.robot.offer(1)
    world.wait(lambda: world.encoding)
    world.robot.stop()  # from now on, no payload is sent
    world.may_encode.set()
    world.wait(lambda: world.delivered)
    assert not world.sent and len(world.kept) >= 3
    assert_released(world, world.kept)
    world.close()
    assert_right(world, 1)


def test_nothing_is_kept_of_a_frame_whose_head_ended_before_it_was_interrupted(split, monkeypatch) -> None:
    now, runs = [1000.0], []
    running, decided = threading.Event(), threading.Event()

    def deaf_head(index, engine):
        def run(image, stop):
            runs.append(index)
            if len(runs) == 1:
                now[0] += 60.0  # so long does local inference take
            else:
                running.set()
                assert decided.wait(DEADLINE_S)
            return split.head(index)(image)

        return run

    world = Noting(split, monkeypatch, robot_split=SlowSplit(split, head=deaf_head), clock=lambda: now[0])
    world.robot.offer(1)
    world.wait(lambda: world.delivered)
    world.robot.offer(2)
    assert running.wait(DEADLINE_S)
    world.robot.on_decision(SplitDecision(1, 'raw', 60.0, predicted_latency_s=1.0))
    decided.set()
    world.wait(lambda: len(world.delivered) == 2)
    assert_released(world, world.kept)
    world.close()
    assert runs == [split.local_index] * 2
    assert_right(world, 2)


def test_a_head_says_for_how_long_another_frame_was_finished_beside_it(split) -> None:
    running, finished = threading.Event(), threading.Event()

    def slow_head(index, engine='eager'):
        def run(image, stop):
            if world.sent:
                running.set()
                assert finished.wait(DEADLINE_S)
            return split.head(index)(image, stop)

        return run

    def tail(index, engine='eager'):
        def run(tensors, stop):
            outputs = split.tail(index)(tensors, stop)
            finished.set()
            return outputs

        return run

    world = World(split, lambda sequence: 'lose payload', robot_split=SlowSplit(split, head=slow_head, tail=tail))
    world.robot.on_decision(SplitDecision(0, 'raw', 60.0))
    world.robot.offer(1)
    world.wait(lambda: world.sent)
    world.robot.on_acknowledgement(world.robot.session, 1)
    world.robot.offer(2)
    assert running.wait(DEADLINE_S)
    world.robot.on_decision(SplitDecision(split.local_index, '', 1.0, degraded=True))
    world.wait(lambda: len(world.delivered) == 2)
    world.robot.offer(3)
    world.wait(lambda: len(world.delivered) == 3)
    world.close()
    assert_right(world, 3)
    first, second, third = (report for report in world.reports if report.outcome is not Outcome.SENT)
    assert 0 < second.finishing_s <= second.head_s and first.finish_s >= second.finishing_s
    assert first.finishing_s == 0 == third.finishing_s


def test_an_answer_that_comes_too_late_tells_the_monitor_when(split) -> None:
    world = World(split, lambda sequence: 'hold answer back')
    world.robot.on_decision(SplitDecision(0, 'raw', 0.01))
    world.robot.offer(1)
    world.wait(lambda: world.delivered and world.held_back)
    for _ in range(2):
        world.robot.on_answer(*world.held_back[0])
    world.close()
    late = [report for report in world.reports if report.outcome is Outcome.LATE]
    assert len(late) == 1 and late[0].answered_s > late[0].given_up_s > late[0].sent_s
    assert world.robot.counters().late_answers == 2
    assert_right(world, 1)


def test_what_is_on_the_link_to_a_silent_edge_is_finished_here(split) -> None:
    world = World(split, lambda sequence: 'lose payload')
    world.robot.on_decision(SplitDecision(0, 'raw', 1000.0))
    world.robot.offer(1)
    world.wait(lambda: world.sent)
    world.robot.on_decision(SplitDecision(split.local_index, '', 1.0, degraded=True))
    world.wait(lambda: world.delivered)
    world.robot.offer(2)
    world.wait(lambda: len(world.delivered) == 2)
    world.close()
    assert [outcome for *_, outcome, _ in world.delivered] == [Outcome.FELL_BACK, Outcome.LOCAL]
    assert len(world.sent) == 1
    assert_right(world, 2)


def test_closing_finishes_what_is_under_way(split) -> None:
    world = World(split, lambda sequence: 'lose payload')
    world.robot.on_decision(SplitDecision(1, 'raw', 60.0))
    world.robot.offer(1)
    world.wait(lambda: world.sent)
    world.close()
    assert_right(world, 1)
    assert not world.robot.busy


def test_an_image_that_waits_at_the_end_or_comes_after_it_is_counted(split) -> None:
    gate, started = threading.Event(), threading.Event()
    world = World(split)
    prepare = world.prepare
    world.prepare = lambda source: started.set() or gate.wait(DEADLINE_S) and prepare(source)
    world.robot.offer(1)
    assert started.wait(DEADLINE_S)
    world.robot.offer(2)
    closing = threading.Thread(target=world.robot.close, args=(DEADLINE_S,))
    closing.start()
    world.wait(lambda: world.robot.counters().dropped)
    gate.set()
    closing.join(DEADLINE_S)
    world.robot.offer(3)
    world.edge.close()
    assert [source for _, source, *_ in world.delivered] == [1]
    counters = world.robot.counters()
    assert (counters.accepted, counters.dropped) == (1, 2)


def test_a_split_that_there_is_not_is_refused(split) -> None:
    world = World(split)
    with pytest.raises(DynsplitError, match=f'split {split.local_index + 1}, but this model has 0 to'):
        world.robot.on_decision(SplitDecision(split.local_index + 1, 'raw', 1.0))
    world.close()


# ---- the edge alone ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('codec, expected', [('float16', 1.0), ('worse', 0.0)])
def test_an_audit_compares_the_answer_with_what_the_robot_computes_without_loss(split, codec, expected, monkeypatch):
    # Half precision keeps the class of this picture; a codec that sends the scores negated does not.
    worse = replace(CODECS['float16'], name='worse', encode=lambda tensor: CODECS['float16'].encode(-tensor))
    monkeypatch.setitem(CODECS, 'worse', worse)
    world = World(split, audit_share=1.0)
    try:
        world.robot.on_decision(SplitDecision(split.local_index - 1, codec, 30.0))
        world.robot.offer(1)
        world.wait(lambda: world.audits)
        assert world.audits == [(1, expected)] and world.robot.audits().audited == 1
        assert [outcome for _, _, outcome, _ in world.delivered] == [Outcome.ANSWERED]
    finally:
        world.close()


def test_an_audit_ends_when_the_next_image_comes_and_its_frame_does_not_wait(split) -> None:
    running, ended = threading.Event(), threading.Event()

    def tail(index, engine='eager'):
        def run(activation, stop):
            running.set()
            wait_until(stop, 'the audit was not told to end')
            ended.set()
            raise Interrupted

        return run

    world = World(split, robot_split=SlowSplit(split, tail=tail), audit_share=1.0)
    try:
        world.robot.on_decision(SplitDecision(2, 'float16', 30.0))
        world.robot.offer(1)
        assert running.wait(DEADLINE_S)
        world.robot.offer(2)
        assert ended.wait(DEADLINE_S)
        world.wait(lambda: len(world.delivered) == 2)
        assert not world.audits and not world.faults
    finally:
        world.close()


def test_an_audit_that_cannot_be_computed_is_skipped_and_said(split) -> None:
    def tail(index, engine='eager'):
        raise RuntimeError('out of memory')

    world = World(split, robot_split=SlowSplit(split, tail=tail), audit_share=1.0)
    try:
        world.robot.on_decision(SplitDecision(2, 'float16', 30.0))
        world.robot.offer(1)
        world.wait(lambda: any('could not be audited' in fault for fault in world.faults))
        assert world.robot.audits().skipped == 1
        assert [outcome for _, _, outcome, _ in world.delivered] == [Outcome.ANSWERED]
    finally:
        world.close()


class Answers:
    """Collects what the edge answers."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.all: list[tuple] = []
        self.reports: list[LoadReport] = []
        self.faults: list[str] = []

    def acknowledge(self, frame) -> None:
        pass

    def answer(self, frame) -> None:
        with self.changed:
            self.all.append((frame.source, frame.status, frame.reason, outputs_of(frame), frame.times))
            self.changed.notify_all()

    def report_load(self, report, queueing_s) -> None:
        self.reports.append(report)

    def fault(self, reason) -> None:
        self.faults.append(reason)

    def wait(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.all) >= count, DEADLINE_S)


class HeldTails:
    """Stands for a split model whose tails wait until they may run: the frames that are submitted meanwhile queue."""

    def __init__(self, split: SplitModel) -> None:
        self.may_run = threading.Event()
        self._split = split
        self.split = SlowSplit(split, tail=self.tail)

    def tail(self, index, engine='eager'):
        assert self.may_run.wait(DEADLINE_S)
        return self._split.tail(index, engine)


def activation(split: SplitModel, robot: str, number: int, **changes) -> EdgeFrame:
    values = {
        'robot': robot,
        'source': (robot, number),
        'fingerprint': split.fingerprint,
        'split_index': 0,
        'codec': 'raw',
        'answer_timeout_s': 60.0,
        'payload': encode('raw', split.head(0)(picture(number))),
    }
    return EdgeFrame(**{**values, **changes})


@pytest.mark.parametrize(
    'changes, reason',
    [
        ({'fingerprint': 'feed'}, 'serves the model with fingerprint'),
        ({'split_index': 99}, 'split 99 cannot be sent'),
        ({'codec': 'pickle'}, 'pickle'),
        ({'payload': []}, ''),
    ],
)
def test_the_edge_refuses_a_bad_activation_and_serves_the_next(split, changes, reason) -> None:
    answers = Answers()
    edge = Edge(split, answers)
    edge.submit(activation(split, 'a', 1, **changes))
    answers.wait(1)
    edge.submit(activation(split, 'a', 2))
    answers.wait(2)
    assert edge.counts()['refused'] == 1
    edge.close()
    (_, first, why, *_), (_, second, _, outputs, times) = answers.all
    assert first is Status.REFUSED and reason in why and why
    assert second is Status.OK and times.tail_s > 0 and times.held_s >= times.tail_s
    whole = split.whole(picture(2))
    assert all(torch.equal(outputs[name], whole[name]) for name in whole)
    assert not answers.faults


def test_load_reports_go_out_periodically_also_while_a_tail_runs(split, monkeypatch) -> None:
    answers, tail = Answers(), split.tail
    began, may_end = threading.Event(), threading.Event()

    def still_run(index, engine='eager'):
        began.set()
        assert may_end.wait(DEADLINE_S)
        return tail(index)

    monkeypatch.setattr(split, 'tail', still_run)
    edge = Edge(split, answers, settings=EdgeSettings(load_period_s=0.01))
    edge.submit(activation(split, 'a', 1))
    assert began.wait(DEADLINE_S)
    count = len(answers.reports)
    wait_until(lambda: len(answers.reports) >= count + 3)
    may_end.set()
    edge.close()
    assert answers.reports[-1].utilisation > 0.9
    assert [report.sequence for report in answers.reports] == list(range(1, len(answers.reports) + 1))


# ---- frames that share a run of the tail -------------------------------------------------------------------------


def profile_that_says(split: SplitModel, tail_s: dict[int, float]) -> Profile:
    """Return a profile whose tails take that long, by the number of frames."""
    codec = CodecProfile(dict.fromkeys(tail_s, 1), tail_s, tail_s)
    return Profile(
        split.model.name,
        split.fingerprint,
        'cpu',
        1,
        tuple(
            CutProfile(cut.index, cut.name, cut.natural, cut.nbytes, cut.macs_before, tail_s, tail_s, {'raw': codec})
            for cut in split.cuts
        ),
    )


def test_frames_of_equal_cuts_share_a_run_and_each_gets_its_own_outputs(split) -> None:
    held, answers = HeldTails(split), Answers()
    edge = Edge(
        held.split,
        answers,
        profile=profile_that_says(split, {1: 0.01, 2: 0.012, 4: 0.016}),
        settings=EdgeSettings(max_batch=4),
    )
    edge.submit(activation(split, 'first', 0))
    for robot, index in enumerate([1, 0, 1, 1], 1):
        payload = encode('raw', split.head(index)(picture(robot)))
        edge.submit(activation(split, f'robot{robot}', robot, split_index=index, payload=payload))
    held.may_run.set()
    answers.wait(5)
    edge.close()
    assert not answers.faults and {status for _, status, *_ in answers.all} == {Status.OK}
    for (_, number), _, _, outputs, _ in answers.all:
        whole = split.whole(picture(number))
        assert outputs.keys() == whole.keys()
        assert all(torch.allclose(outputs[name], whole[name], atol=1e-4) for name in whole)
        assert all(outputs[name].shape == whole[name].shape for name in whole)
    assert sorted(times.batch for *_, times in answers.all) == [1, 1, 3, 3, 3]


def test_a_bad_frame_does_not_harm_those_that_would_have_shared_its_run(split) -> None:
    held, answers = HeldTails(split), Answers()
    edge = Edge(
        held.split, answers, profile=profile_that_says(split, {1: 0.01, 3: 0.012}), settings=EdgeSettings(max_batch=3)
    )
    edge.submit(activation(split, 'first', 0, split_index=1, payload=encode('raw', split.head(1)(picture(0)))))
    edge.submit(activation(split, 'a', 1))
    edge.submit(activation(split, 'b', 2, payload=[]))
    edge.submit(activation(split, 'c', 3))
    held.may_run.set()
    answers.wait(4)
    edge.close()
    assert {source[0]: (status, times.batch) for source, status, *_, times in answers.all} == {
        'first': (Status.OK, 1),
        'a': (Status.OK, 2),
        'b': (Status.REFUSED, 1),
        'c': (Status.OK, 2),
    }


def test_a_frame_of_several_images_is_exact_and_shares_no_run(split) -> None:
    held, answers = HeldTails(split), Answers()
    edge = Edge(
        held.split,
        answers,
        profile=profile_that_says(split, {1: 0.01, 3: 0.012}),
        settings=EdgeSettings(max_batch=2, max_images=2),
    )
    two, three = (torch.cat([picture(number) for number in range(count)]) for count in (2, 3))
    edge.submit(activation(split, 'first', 0, split_index=1, payload=encode('raw', split.head(1)(picture(0)))))
    edge.submit(activation(split, 'a', 1))
    edge.submit(activation(split, 'b', 2, payload=encode('raw', split.head(0)(two))))
    edge.submit(activation(split, 'c', 3))
    edge.submit(activation(split, 'd', 4, payload=encode('raw', split.head(0)(three))))
    held.may_run.set()
    answers.wait(5)
    edge.close()
    got = {source[0]: (status, times.batch, why, outputs) for source, status, why, outputs, times in answers.all}
    assert [got[robot][:2] for robot in 'abcd'] == [(Status.OK, 2), (Status.OK, 1), (Status.OK, 2), (Status.REFUSED, 1)]
    assert 'the frame has 3 images, but this edge takes 2' in got['d'][2]
    whole = split.whole(two)
    assert all(torch.equal(got['b'][3][name], whole[name]) for name in whole)


def test_a_detectors_outputs_are_told_apart_by_their_numbers() -> None:
    outputs = {f'{name}.{number}': torch.tensor([number]) for name in ('boxes', 'scores') for number in range(12)}
    assert of_image(outputs, 11, 12, by_name=True) == {'boxes.0': torch.tensor([11]), 'scores.0': torch.tensor([11])}


@pytest.mark.parametrize('fails', ['acknowledge', 'answer'])
def test_a_robot_that_left_while_its_frame_waited_stops_nobody(split, fails) -> None:
    answers = Answers()
    send = getattr(answers, fails)

    def fail_for_the_one_that_left(frame) -> None:
        if frame.robot == 'left':
            raise RuntimeError('destroyed')
        send(frame)

    setattr(answers, fails, fail_for_the_one_that_left)
    edge = Edge(split, answers)
    edge.submit(activation(split, 'left', 1, answer_timeout_s=-1.0))
    edge.submit(activation(split, 'left', 2))
    edge.submit(activation(split, 'left', 3, fingerprint='another'))
    edge.submit(activation(split, 'stays', 4))
    wait_until(lambda: any(source == ('stays', 4) for source, *_ in answers.all))
    edge.close()
    assert [status for source, status, *_ in answers.all if source == ('stays', 4)] == [Status.OK]
    assert 'RuntimeError: destroyed' in answers.faults[0]


@pytest.mark.parametrize('where', ['declared_batch', 'decode', 'of_image'])
def test_each_frame_is_answered_whatever_goes_wrong_in_the_edge(split, monkeypatch, where) -> None:
    """A fault of the edge's own code, not of the frame, wherever it happens."""
    answers = Answers()
    edge = Edge(split, answers)

    def fail(*_) -> None:
        raise ZeroDivisionError('a fault of our own')

    monkeypatch.setattr(edge_module if where == 'declared_batch' else tails, where, fail)
    edge.submit(activation(split, 'a', 1))
    answers.wait(1)
    monkeypatch.undo()
    edge.submit(activation(split, 'a', 2))
    answers.wait(2)
    edge.close()
    assert [(status, bool(outputs)) for _, status, _, outputs, _ in answers.all] == [
        (Status.FAILED, False),
        (Status.OK, True),
    ]
    assert 'ZeroDivisionError' in answers.all[0][2] and len(answers.faults) == 1


def test_a_fault_in_one_frame_leaves_those_that_share_its_run_served(split, monkeypatch) -> None:
    decode = tails.decode

    def fail_one(codec, payload, *rest):
        if payload is bad_payload:
            raise ZeroDivisionError
        return decode(codec, payload, *rest)

    bad = activation(split, 'bad', 1)
    bad_payload = bad.payload
    monkeypatch.setattr(tails, 'decode', fail_one)
    held, answers = HeldTails(split), Answers()
    edge = Edge(
        held.split, answers, profile=profile_that_says(split, {1: 0.01, 2: 0.012}), settings=EdgeSettings(max_batch=2)
    )
    edge.submit(activation(split, 'first', 0))
    edge.submit(bad)
    edge.submit(activation(split, 'good', 2))
    held.may_run.set()
    answers.wait(3)
    edge.close()
    assert {source: status for source, status, *_ in answers.all} == {
        ('first', 0): Status.OK,
        ('bad', 1): Status.FAILED,
        ('good', 2): Status.OK,
    }


def test_outputs_that_cannot_be_sent_are_answered_as_a_failure(split) -> None:
    answers = Answers()
    answer = answers.answer

    def refuse_outputs(frame) -> None:
        if frame.outputs:
            raise MemoryError
        answer(frame)

    answers.answer = refuse_outputs
    edge = Edge(split, answers)
    edge.submit(activation(split, 'a', 1))
    answers.wait(1)
    edge.close()
    assert answers.all[0][1] is Status.FAILED and 'MemoryError' in answers.all[0][2]
    assert (edge.counts()['failed'], edge.counts()['answered']) == (1, 0)


def test_an_edge_that_is_closed_answers_what_waits_and_what_comes_later(split) -> None:
    held, answers = HeldTails(split), Answers()
    edge = Edge(held.split, answers)
    edge.submit(activation(split, 'a', 1))
    edge.submit(activation(split, 'a', 2))
    closing = threading.Thread(target=edge.close, args=(DEADLINE_S,))
    closing.start()
    answers.wait(1)  # the frame that waits is answered while the tail of the other one runs
    held.may_run.set()
    closing.join(DEADLINE_S)
    edge.submit(activation(split, 'a', 3))
    assert {source[1]: status for source, status, *_ in answers.all} == {
        1: Status.OK,
        2: Status.SUPERSEDED,
        3: Status.SUPERSEDED,
    }
    assert not edge.is_running


def test_nothing_is_kept_of_a_frame_that_is_answered(split) -> None:
    answers = Answers()
    answers.answer = lambda frame: kept.append(weakref.ref(frame))
    kept: list[weakref.ref] = []
    edge = Edge(split, answers)
    for number in range(2):
        edge.submit(activation(split, 'a', number))
    deadline_s = time.monotonic() + DEADLINE_S
    while len(kept) < 2 or any(reference() is not None for reference in kept):
        gc.collect()
        time.sleep(0.01)  # without it, the tails' thread hardly ever has its turn
        assert time.monotonic() < deadline_s
    edge.close()


def test_robots_without_end_leave_a_bounded_trace(split) -> None:
    answers = Answers()
    edge = Edge(split, answers)
    for number in range(2 * MAX_ROBOTS):
        edge.submit(activation(split, f'robot{number}', number, fingerprint='another', payload=()))
        edge.on_split(f'robot{number}', split.fingerprint, split.local_index, '')
    counts, robots = edge.counts(), edge.splits()
    edge.close()
    assert counts['refused'] == 2 * MAX_ROBOTS
    assert len(counts) < MAX_ROBOTS + 10 and len(robots) <= MAX_ROBOTS
    assert f'robot{2 * MAX_ROBOTS - 1}' in robots


# ---- engines -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def split_with_engine() -> SplitModel:
    split = SplitModel(load_model('squeezenet1_1', weights='none', input_size=(32, 32)))
    split.add_engine('eager', 'bfloat16')
    return split


def test_head_and_tail_run_on_the_engines_of_the_decision_and_the_frame_names_them(split_with_engine) -> None:
    split, name = split_with_engine, 'eager-bfloat16'
    calls = []

    def noting(part):
        def get(index, engine='eager'):
            calls.append((part, index, engine))
            return getattr(split, part)(index, engine)

        return get

    world = World(SlowSplit(split, head=noting('head'), tail=noting('tail')))
    try:
        world.robot.on_decision(SplitDecision(1, 'raw', 60.0, head_engine=name, tail_engine=name, local_engine=name))
        world.robot.offer(1)
        world.wait(lambda: world.delivered and world.reports)
        assert calls == [('head', 1, name), ('tail', 1, name)]
        world.robot.on_decision(SplitDecision(split.local_index, '', 60.0, head_engine=name, local_engine=name))
        world.robot.offer(2)
        world.wait(lambda: len(world.delivered) == 2)
        assert calls[2:] == [('head', split.local_index, name)]
        engines = [(frame.head_engine, frame.tail_engine) for frame in world.reports if frame.outcome != Outcome.SENT]
        assert engines == [(name, name), (name, '')]
    finally:
        world.close()


@pytest.mark.parametrize('engines', [{'head_engine': 'openvino'}, {'local_engine': 'openvino'}])
def test_a_decision_for_an_engine_that_is_not_ready_on_the_robot_is_refused_in_one_sentence(
    split_with_engine, engines
) -> None:
    world = World(split_with_engine)
    try:
        with pytest.raises(
            DynsplitError,
            match="'openvino', but the head of split .* is not ready on it; ready engines are eager, eager-bfloat16",
        ):
            world.robot.on_decision(SplitDecision(1, 'raw', 60.0, **engines))
    finally:
        world.close()


def test_the_edge_runs_eager_where_the_engine_is_not_ready_and_says_so(split) -> None:
    answers = Answers()
    edge = Edge(split, answers)
    edge.submit(activation(split, 'a', 1, tail_engine='openvino'))
    answers.wait(1)
    edge.close()
    ((_, status, _, outputs, times),) = answers.all
    assert status is Status.OK and times.tail_engine == 'eager' and edge.counts()['engine not ready'] == 1
    whole = split.whole(picture(1))
    assert all(torch.equal(outputs[name], whole[name]) for name in whole)
