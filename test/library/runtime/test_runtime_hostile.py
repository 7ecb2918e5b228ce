# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Whatever a peer's messages hold, robot, edge and monitor live on, and good frames get their one right answer."""

from __future__ import annotations

import copy
from dataclasses import fields
import math
from typing import Any

from hypothesis import given, HealthCheck, settings, strategies as st
import pytest
import torch
from worlds import outputs_of, wait_until

from dynsplit_ros.codec import CODECS, encode, EncodedTensor
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.model import load_model
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.policies.edge import EdgeSettings
from dynsplit_ros.policies.monitor import MonitorPolicy
from dynsplit_ros.policies.records import EdgeFrame, EdgeTimes, FrameRecord, SplitDecision, Status
from dynsplit_ros.profile.measure import measure
from dynsplit_ros.profile.profile import merge, Profile
from dynsplit_ros.runtime.edge import Edge
from dynsplit_ros.runtime.robot import Robot


def fuzz(cases: int) -> settings:
    """Return the settings of a test of that many cases, the same ones each time."""
    return settings(max_examples=cases, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


#: What a message's fields can hold; the extremes often.
numbers = st.one_of(st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1e-300, 1e300, 1.0]), st.floats())
counts = st.one_of(st.sampled_from([0, 1, 2, 3, 2**31, 2**32 - 1, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1))
small = st.one_of(st.integers(0, 20), st.integers(0, 2**16 - 1))
texts = st.one_of(
    st.sampled_from(['', 'raw', 'blosc2', 'webp90', 'quant8-zstd', 'pickle', '../../etc/passwd', 'x' * 300]),
    st.text(max_size=20),
)


@pytest.fixture(scope='module')
def split() -> SplitModel:
    return SplitModel(load_model('mobilenet_v2', weights='none', input_size=(32, 32)))


@pytest.fixture(scope='module')
def profile(split: SplitModel) -> Profile:
    return measure(split, repeats=1, warm_up=0)


def picture(number: int) -> torch.Tensor:
    """Return the picture of a number, uint8 [1, 3, 32, 32]."""
    return torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))


# ---- the robot ---------------------------------------------------------------------------------------------------


class Outside:
    """A link into nothing, which now and then refuses to take a payload."""

    def __init__(self) -> None:
        self.delivered: list[int] = []
        self.sends = 0

    def prepare(self, source: int) -> torch.Tensor:
        return picture(source)

    def send(self, frame: Any, payload: Any) -> None:
        self.sends += 1
        if self.sends % 3 == 0:
            raise RuntimeError('the middleware refuses')

    def deliver(self, frame: Any, outputs: dict[str, torch.Tensor]) -> None:
        self.delivered.append(frame.sequence)

    def report(self, timing: Any) -> None:
        pass

    refuse = fault = lambda self, *_: None


@pytest.fixture(scope='module')
def robot(split: SplitModel):
    outside = Outside()
    robot = Robot(split, outside)
    yield robot, outside
    robot.close()
    assert not robot.busy


decisions = st.builds(
    lambda *values: ('on_decision', SplitDecision(*values)),
    st.one_of(st.integers(0, 5), small),
    st.one_of(st.sampled_from(sorted(CODECS)), texts),
    st.one_of(st.floats(0, 0.01), numbers),
    counts,
    counts,
)
acknowledgements = st.tuples(st.just('on_acknowledgement'), st.booleans(), counts)
answers = st.tuples(
    st.just('on_answer'),
    st.booleans(),
    counts,
    st.sampled_from(Status),
    texts,
    st.integers(0, 2**32 - 1),
    st.builds(EdgeTimes, numbers, numbers, numbers, numbers, small),
)


@fuzz(150)
@given(events=st.lists(st.one_of(decisions, acknowledgements, answers, st.just(('offer',))), min_size=1, max_size=12))
def test_the_robot_answers_each_frame_once_whatever_it_is_told(split, robot, events) -> None:
    robot, outside = robot
    before = robot.counters().accepted
    offered = 0

    def refuse_all() -> None:
        # A decision may let frames wait for ever, and the next image for the link: they are refused, as by an edge that
        # gives up; again and again, since one whose head is still running has not been sent yet.
        for sequence in range(before + 1, before + offered + 1):
            robot.on_answer(robot.session, sequence, Status.SUPERSEDED, '', {}, 0, EdgeTimes())

    for kind, *values in events:
        if kind == 'offer':
            offered += 1
            robot.offer(offered)
            wait_until(lambda: robot.counters().accepted == before + offered or refuse_all())
            continue
        if kind == 'on_decision':
            try:
                robot.on_decision(*values)
            except DynsplitError:
                pass
            continue
        ours, sequence, *rest = values
        session = robot.session if ours else sequence
        # Near the frames that there are, so that some of it hits.
        sequence = max(0, before + sequence % 16) if ours else sequence
        if kind == 'on_acknowledgement':
            robot.on_acknowledgement(session, sequence)
        else:
            status, reason, size, times = rest
            robot.on_answer(session, sequence, status, reason, {'output': torch.zeros(1)}, size, times)
    robot.on_decision(SplitDecision(split.local_index, '', 0.0))
    wait_until(lambda: len(outside.delivered) == before + offered or refuse_all())
    assert outside.delivered == list(range(1, before + offered + 1))
    assert all(thread.is_alive() for thread in robot._threads)
    assert robot.counters().failed == 0 and robot.policy.idle and not robot.policy.unanswered


@pytest.mark.parametrize(
    'decision, words',
    [
        (SplitDecision(0, 'raw', math.nan), 'no duration'),
        (SplitDecision(0, 'raw', -1.0), 'no duration'),
        (SplitDecision(0, 'pickle', 1.0), "codec 'pickle'"),
        (SplitDecision(60000, 'raw', 1.0), 'split 60000'),
    ],
)
def test_decisions_that_cannot_be_followed_are_refused(split, robot, decision, words) -> None:
    with pytest.raises(DynsplitError, match=words):
        robot[0].on_decision(decision)


def test_a_codec_that_cannot_carry_the_cut_costs_no_frame(split, robot) -> None:
    robot, outside = robot
    before = robot.counters()
    robot.on_decision(SplitDecision(1, 'blosc2-image', 10.0, robot.session, before.accepted))  # takes images alone
    robot.offer(1)
    wait_until(lambda: len(outside.delivered) == before.accepted + 1)
    after = robot.counters()
    assert (after.fell_back, after.failed) == (before.fell_back + 1, before.failed)


# ---- the edge ----------------------------------------------------------------------------------------------------


class Answers:
    """Collects answers by source; refuses to send some, as a publisher does whose robot has left."""

    def __init__(self) -> None:
        self.by_source: dict[object, list[tuple[Status, str, dict]]] = {}
        self.reports: list[LoadReport] = []

    def acknowledge(self, frame: EdgeFrame) -> None:
        if frame.robot.startswith('gone'):
            raise RuntimeError('destroyed')

    def answer(self, frame: EdgeFrame) -> None:
        self.acknowledge(frame)
        answer = frame.status, frame.reason, outputs_of(frame)
        # At once: the test looks from another thread.
        self.by_source[frame.source] = [*self.by_source.get(frame.source, ()), answer]

    def report_load(self, report: LoadReport, queueing_s: object) -> None:
        self.reports.append(report)

    def fault(self, reason: str) -> None:
        pass


@pytest.fixture(scope='module')
def edge(split: SplitModel):
    answers = Answers()
    edge = Edge(split, answers, settings=EdgeSettings(max_batch=4, max_batch_wait_s=0.001, load_period_s=0.01))
    yield edge, answers
    edge.close()
    assert not edge.is_running


encoded = st.builds(
    EncodedTensor,
    texts,
    st.one_of(st.sampled_from(['uint8', 'float32', 'object']), texts),
    st.lists(st.one_of(st.sampled_from([0, 1, 3, 32, 2**31]), st.integers(0, 2**32 - 1)), max_size=6).map(tuple),
    st.binary(max_size=4000),
)


@fuzz(150)
@given(
    jobs=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                'fingerprint': texts,
                'split_index': small,
                'codec': texts,
                'answer_timeout_s': numbers,
                'payload': st.lists(encoded, max_size=3),
                'robot': st.sampled_from(['gone', 'gone too', 'b']),
            },
        ),
        max_size=8,
    )
)
def test_the_edge_answers_what_is_good_among_what_is_not(split, edge, jobs) -> None:
    edge, answers = edge
    answers.by_source.clear()
    good = encode('raw', split.head(1)(picture(1)))
    for number, changes in enumerate(jobs):
        values = {
            'robot': 'b',
            'source': number,
            'fingerprint': split.fingerprint,
            'split_index': 1,
            'codec': 'raw',
            'answer_timeout_s': 60.0,
            'payload': good,
        }
        edge.submit(EdgeFrame(**{**values, **changes}))
    edge.submit(EdgeFrame('good', 'good', split.fingerprint, 1, 'raw', 60.0, good))
    expected = {number for number, changes in enumerate(jobs) if changes.get('robot', 'b') == 'b'} | {'good'}
    wait_until(lambda: answers.by_source.keys() == expected)
    assert all(len(given) == 1 for given in answers.by_source.values())
    ((status, _, outputs),) = answers.by_source['good']
    whole = split.whole(picture(1))
    assert status is Status.OK and all(torch.allclose(outputs[name], whole[name], atol=1e-4) for name in whole)
    for ((status, reason, outputs),) in answers.by_source.values():
        assert (status is Status.OK) == bool(outputs) == (not reason)
        assert len(reason) < 1000
    assert edge.is_running
    assert all(0 <= load.utilisation <= 1 and math.isfinite(load.slowdown) for load in answers.reports)


def test_an_oversized_payload_is_refused_before_its_turn(split, edge) -> None:
    edge, answers = edge
    answers.by_source.clear()
    specs = split.cuts[0].tensors
    huge = [EncodedTensor(specs[0].name, specs[0].dtype, specs[0].shape, bytes(20_000_000))]
    edge.submit(EdgeFrame('b', 'huge', split.fingerprint, 0, 'raw', 60.0, huge))
    ((status, reason, _),) = answers.by_source['huge']  # at once, on this thread
    assert status is Status.REFUSED and '20000000 bytes' in reason


# ---- the monitor and the profiles --------------------------------------------------------------------------------

observations = st.builds(
    FrameRecord,
    sequence=counts,
    outcome=st.sampled_from(['answered', 'local', 'fell_back', 'late']),
    split_index=small,
    codec=texts,
    images=small,
    payload_bytes=st.integers(0, 2**32 - 1),
    answer_bytes=st.integers(0, 2**32 - 1),
    **{field.name: numbers for field in fields(FrameRecord) if field.name.endswith('_s')},
)
reports = st.builds(LoadReport, counts, counts, numbers, st.integers(0, 2**32 - 1), numbers, numbers, counts)
happenings = st.one_of(
    st.tuples(st.just('on_sent'), counts, numbers, small, texts, st.integers(0, 2**32 - 1)),
    st.tuples(st.just('on_acknowledgement'), counts, numbers),
    st.tuples(st.just('on_frame'), observations),
    st.tuples(st.just('on_probe_answer'), counts, numbers, numbers),
    st.tuples(st.just('on_load'), reports, st.floats(0, 1e6)),
)


def check_decisions(monitor: MonitorPolicy, steps: list[tuple]) -> None:
    """Let the monitor hear all that, and check that what it says can be sent and followed."""
    now_s = 1.0
    for kind, *values in steps:
        getattr(monitor, kind)(*values)
        now_s += 0.05
        probe = monitor.next_probe(now_s)
        assert probe is None or 0 <= probe.payload_bytes < 10_000_000
        decision = monitor.tick(now_s)
        if decision is not None:
            assert 0 <= decision.split_index < 65536
            assert math.isfinite(decision.predicted_latency_s) and decision.answer_timeout_s >= 0
            assert all(0 <= candidate.payload_bytes < 2**32 for candidate in decision.candidates)
        assert math.isfinite(monitor.link.throughput_bps) and monitor.link.throughput_bps > 0
        assert math.isfinite(monitor.load.slowdown)
    assert monitor.tick(now_s + 1.0) is not None or monitor.decision is not None


@fuzz(400)
@given(steps=st.lists(happenings, max_size=15))
def test_the_monitor_decides_whatever_it_hears(profile, steps) -> None:
    check_decisions(MonitorPolicy(merge(profile, profile)), steps)


def places(document: object, path: tuple = ()) -> list[tuple]:
    """Return the paths of all values inside a document."""
    children = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path] * bool(path) + [found for key, child in children for found in places(child, (*path, key))]


hostile = st.one_of(
    numbers,
    counts,
    texts,
    st.none(),
    st.booleans(),
    st.just([]),
    st.just({}),
    st.just({'1': 1}),
    st.sampled_from([10**400, -1, {'1': math.inf}, {'1': 1e308}, {'9' * 5000: 1}, [[]]]),
)


@fuzz(400)
@given(data=st.data())
def test_a_profile_is_refused_or_can_be_used(profile, data) -> None:
    """Also one with several values that a stranger wrote."""
    document = copy.deepcopy(profile.to_document())
    for path in data.draw(st.lists(st.sampled_from(places(document)), min_size=1, max_size=3), 'where'):
        parent = document
        try:
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = data.draw(hostile, 'what')
        except (KeyError, IndexError, TypeError):
            continue  # inside of what was replaced before
    try:
        read = Profile.from_document(document, 'the profile')
        merged = [merge(profile, read), merge(read, profile), merge(read, read)]
    except DynsplitError as error:
        assert str(error) and len(str(error)) < 20_000
        return
    for system in merged:
        check_decisions(MonitorPolicy(system), [('on_acknowledgement', 1, 1.0)])


@pytest.mark.parametrize(
    'change',
    [
        lambda document: document.update(model='x' * 100_000),
        lambda document: document.update(fingerprint='x' * 100_000),
        lambda document: document.update(device='x' * 100_000),
        lambda document: document['measured'].update({'x' * 100_000: 'cpu'}),
        lambda document: document['measured'].update(host='x' * 100_000),
        lambda document: document['measured'].update({str(number): 'x' for number in range(5000)}),
        lambda document: document['cuts'][0].update(name='x' * 100_000),
        lambda document: document['cuts'][0]['codecs'].update({'x' * 100_000: document['cuts'][0]['codecs']['raw']}),
        lambda document: document['cuts'][0]['codecs'].update(
            {str(number): document['cuts'][0]['codecs']['raw'] for number in range(5000)}
        ),
        lambda document: document.update(cuts=document['cuts'] * 5000),
    ],
)
def test_a_profile_with_names_without_end_is_refused(profile, change) -> None:
    document = copy.deepcopy(profile.to_document())
    change(document)
    with pytest.raises(DynsplitError, match='at most') as refused:
        Profile.from_document(document, 'the profile')
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    'key, value',
    [
        ('payload_bytes', 2**63),
        ('payload_bytes', math.inf),
        ('encode_s', 1e300),
        ('decode_s', math.nan),
        ('decode_s', -1),
    ],
)
def test_sizes_and_times_that_cannot_be_are_refused(profile, key, value) -> None:
    document = copy.deepcopy(profile.to_document())
    document['cuts'][0]['codecs']['raw'][key][1] = value
    with pytest.raises(DynsplitError, match=key if math.isfinite(value) or math.isnan(value) else 'wrong type'):
        Profile.from_document(document, 'the profile')
