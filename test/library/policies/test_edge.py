# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Each rule of the edge, event by event, and random sequences of events in which every rule must hold."""

from __future__ import annotations

from collections.abc import Callable
import math

from hypothesis import given, settings, strategies as st
import pytest

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.policies.edge import (
    Acknowledge,
    Action,
    Answer,
    EdgePolicy,
    EdgeSettings,
    MAX_RUNS,
    PrepareTail,
    ReportLoad,
    RunTail,
    ServedModel,
)
from dynsplit_ros.policies.records import EdgeFrame, Status
from dynsplit_ros.policies.wake import WakeAt

LOCAL = 3
TAIL_S = {1: 0.010, 2: 0.012, 4: 0.016}
PERIOD_S = 1.0
#: A robot is active for this long after a message, in seconds; the edge remembers this many robots.
ACTIVE_S, MAX_ROBOTS = 5.0, 1024


class Edge:
    """A policy and the present instant; each event records its actions and returns them."""

    def __init__(
        self, tail_s: dict[int, float] | None = None, can_share: bool = True, engines=None, servers: int = 1, **options
    ) -> None:
        profiled = [tail_s] * (LOCAL + 1) if tail_s is not None else ()
        model = ServedModel('model', [1000] * LOCAL, ('raw', 'blosc2'), profiled, can_share, engines or {})
        self.policy = EdgePolicy(model, EdgeSettings(**options), session=5, servers=servers)
        self.now_s = 0.0
        self.actions: list[Action] = []
        self.happen(self.policy.on_start)

    def happen(self, event: Callable[..., list[Action]], *values) -> list[Action]:
        actions = event(*values, now_s=self.now_s)
        self.actions += actions
        return actions

    def send(self, robot: str, after_s: float = 0.0, **changes) -> EdgeFrame:
        """Pass an activation to the edge."""
        self.now_s += after_s
        frame = EdgeFrame(
            **{
                'robot': robot,
                'source': None,
                'fingerprint': 'model',
                'split_index': 0,
                'codec': 'raw',
                'answer_timeout_s': 60.0,
                **changes,
            }
        )
        self.happen(self.policy.on_activation, frame)
        return frame

    def decide(self, robot: str, split_index: int = 0, codec: str = 'raw', fingerprint: str = 'model') -> list[Action]:
        return self.happen(self.policy.on_decision, robot, fingerprint, split_index, codec)

    @property
    def run(self) -> RunTail:
        """The latest run."""
        return self.of(RunTail)[-1]

    @property
    def running(self) -> tuple[EdgeFrame, ...]:
        """The frames of the latest run."""
        return self.run.frames

    def end(self, tail_s: float = 0.010, decode_s: float = 0.0, run: RunTail | None = None) -> list[str]:
        """End a run, by default the latest; return the robots whose frames run next."""
        before = self.of(RunTail)
        run = run or self.run
        self.now_s += decode_s + tail_s
        outputs = [frame.robot for frame in run.frames if frame.status is None]
        self.happen(self.policy.on_tail_done, run, outputs, tail_s)
        return [frame.robot for run in self.of(RunTail)[len(before) :] for frame in run.frames]

    def of(self, kind: type) -> list:
        return [action for action in self.actions if isinstance(action, kind)]

    @property
    def wake_s(self) -> float:
        return self.of(WakeAt)[-1].at_s if self.of(WakeAt) else math.inf

    def wake(self) -> list[Action]:
        """Let time pass until the policy wants to be woken."""
        self.now_s = max(self.now_s, self.wake_s)
        return self.happen(self.policy.on_time)


def test_a_frame_is_acknowledged_then_run_then_answered_with_its_times() -> None:
    edge = Edge()
    frame = edge.send('a', payload=b'x')
    assert [type(action) for action in edge.actions] == [Acknowledge, RunTail] and edge.running == (frame,)
    waiting = edge.send('b', after_s=0.003)
    edge.end(decode_s=0.002, tail_s=0.010)
    edge.end(decode_s=0.001, tail_s=0.020)
    assert [action.frame for action in edge.of(Answer)] == [frame, waiting]
    assert frame.status is Status.OK and frame.outputs == 'a' and frame.reason == '' and frame.payload == ()
    for each, held_s, queueing_s, decode_s, tail_s in (
        (frame, 0.015, 0.0, 0.005, 0.010),
        (waiting, 0.033, 0.012, 0.001, 0.020),
    ):
        times = each.times
        assert (times.held_s, times.queueing_s, times.decode_s, times.tail_s) == pytest.approx(
            (held_s, queueing_s, decode_s, tail_s)
        )
        assert times.batch == 1


def test_a_tail_time_longer_than_its_run_leaves_zero_decoding_time() -> None:
    edge = Edge(TAIL_S)
    frame = edge.send('a')
    edge.end(decode_s=-0.001, tail_s=0.010)
    assert frame.times.decode_s == 0.0


# ---- fairness and superseding ------------------------------------------------------------------------------------


def test_the_robot_served_longest_ago_is_next() -> None:
    edge = Edge(max_waiting=3)
    for robot in 'aaabbc':
        edge.send(robot, after_s=0.001)
    order = [edge.end()[0] for _ in range(5)]
    assert order == ['b', 'c', 'a', 'b', 'a']


def test_a_robot_that_sends_too_much_supersedes_only_its_own_frames() -> None:
    edge = Edge(max_waiting=2)
    edge.send('busy')
    good = edge.send('good')
    flood = [edge.send('flood', after_s=0.001) for _ in range(10)]
    assert [frame.status for frame in flood] == [Status.SUPERSEDED] * 8 + [None] * 2
    assert all('newer frame' in frame.reason for frame in flood[:8])
    assert edge.end() == ['good'] and edge.end() == ['flood'] and edge.running == (flood[8],)
    edge.end()
    edge.end()
    assert good.status is Status.OK and flood[9].status is Status.OK


@pytest.mark.parametrize(
    'timeout_s, status',
    [
        (0.5, Status.OK),
        (0.4, Status.SUPERSEDED),
        (-1.0, Status.SUPERSEDED),
        (math.nan, Status.SUPERSEDED),
        (math.inf, Status.OK),
    ],
)
def test_a_frame_whose_answer_timeout_has_passed_is_not_run(timeout_s, status) -> None:
    edge = Edge()
    edge.send('busy')
    frame = edge.send('a', answer_timeout_s=timeout_s)
    assert edge.end(tail_s=0.5) == (['a'] if status is Status.OK else [])
    if status is Status.OK:
        edge.end()
    assert frame.status is status


def test_an_expired_frame_does_not_count_as_served() -> None:
    edge = Edge()
    edge.send('busy')
    edge.end()
    edge.send('b', after_s=0.1)
    edge.end()
    edge.send('busy', after_s=0.1)
    edge.send('a', answer_timeout_s=0.0)
    edge.end()
    edge.send('busy')
    edge.send('b')
    edge.send('a')
    assert [edge.end() for _ in range(2)] == [['a'], ['b']]


def test_waiting_frames_of_a_robot_that_leaves_are_answered() -> None:
    edge = Edge()
    edge.send('busy')
    frame = edge.send('leaves')
    edge.happen(edge.policy.on_robot_left, 'leaves')
    assert frame.status is Status.SUPERSEDED and 'left' in frame.reason
    assert edge.end() == [] and edge.policy.counts()['superseded'] == 1
    edge.happen(edge.policy.on_robot_left, 'unheard of')


def test_a_closed_edge_answers_waiting_and_new_frames_without_outputs() -> None:
    edge = Edge(load_period_s=PERIOD_S)
    running, waiting = edge.send('a'), edge.send('b')
    edge.happen(edge.policy.on_close)
    late = edge.send('c')
    assert waiting.status is late.status is Status.SUPERSEDED and 'stopped' in late.reason
    assert edge.end() == [] and running.status is Status.OK
    assert edge.wake_s == math.inf and edge.decide('c') == []


# ---- refusal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'changes, kind, words',
    [
        ({'fingerprint': 'x' * 1000}, 'another model', 'run the same model'),
        ({'split_index': -1}, 'no such split', 'split -1'),
        ({'split_index': LOCAL}, 'no such split', 'allowed are 0 to 2'),
        ({'images': 3}, 'too many images', 'has 3 images, but this edge takes 2'),
        ({'payload_bytes': 14_001}, 'too large', '14001 bytes, but no codec makes more than 14000'),
    ],
)
def test_a_frame_that_the_edge_cannot_use_is_refused_at_once(changes, kind, words) -> None:
    edge = Edge(max_images=2)
    frame = edge.send('a', **changes)
    assert [type(action) for action in edge.actions] == [Acknowledge, Answer]
    assert frame.status is Status.REFUSED and words in frame.reason and len(frame.reason) < 500
    assert edge.policy.counts() == {'prepared': 0, 'refused': 1, f'refused: {kind}': 1, 'refused from a': 1}
    allowed = edge.send('a', images=2, payload_bytes=14_000, split_index=LOCAL - 1)
    assert edge.running == (allowed,)


def test_a_payload_that_does_not_decode_is_refused_and_the_rest_of_its_run_goes_on() -> None:
    edge = Edge(TAIL_S, max_batch=2)
    edge.send('busy', split_index=1)
    bad, good = edge.send('bad'), edge.send('good')
    edge.end()
    assert edge.running == (bad, good)
    edge.happen(edge.policy.on_unreadable, bad, 'no such codec')
    edge.end()
    assert (bad.status, bad.reason, good.status, good.outputs) == (Status.REFUSED, 'no such codec', Status.OK, 'good')
    assert good.times.batch == 1


def test_an_error_of_the_edge_fails_the_frames_that_have_no_answer_yet() -> None:
    edge = Edge(TAIL_S, max_batch=2)
    edge.send('busy', split_index=1)
    answered, other = edge.send('a'), edge.send('b')
    edge.end()
    edge.happen(edge.policy.on_unreadable, answered, 'unreadable')
    edge.happen(edge.policy.on_failed, [answered, other], 'the tail failed')
    edge.happen(edge.policy.on_tail_done, edge.run, [], 0.0)
    assert (answered.status, other.status, other.reason) == (Status.REFUSED, Status.FAILED, 'the tail failed')
    after = edge.send('c')
    assert edge.running == (after,)


def test_outputs_that_cannot_be_sent_are_answered_as_failed_once() -> None:
    edge = Edge()
    frame = edge.send('a')
    edge.end()
    assert edge.happen(edge.policy.on_answer_failed, frame, 'too large') == [Answer(frame)]
    assert (frame.status, frame.reason, frame.outputs) == (Status.FAILED, 'too large', None)
    assert edge.happen(edge.policy.on_answer_failed, frame, 'too large') == []
    counts = edge.policy.counts()
    assert (counts['answered'], counts['failed']) == (0, 1)


def test_a_run_that_is_not_under_way_cannot_end() -> None:
    edge = Edge()
    edge.send('a')
    edge.end()
    with pytest.raises(ValueError, match='not under way'):
        edge.happen(edge.policy.on_tail_done, edge.run, [], 0.0)


# ---- batches -----------------------------------------------------------------------------------------------------


def batches(tail_s: dict[int, float], indices: list[int], can_share: bool = True, **options) -> list[int]:
    """Return the sizes of the runs when one robot for each split index waits behind another robot's run."""
    edge = Edge(tail_s, can_share, **options)
    edge.send('first')
    for number, index in enumerate(indices):
        edge.send(f'robot{number}', split_index=index)
    sizes = []
    while size := len(edge.end()):
        sizes.append(size)
    return sizes


def test_frames_of_the_same_cut_share_a_run_where_that_is_faster() -> None:
    assert batches(TAIL_S, [1, 0, 1, 1], max_batch=4) == [3, 1]
    assert batches(TAIL_S, [1, 1, 1], max_batch=2) == [2, 1]
    assert batches(TAIL_S, [1, 1, 1, 1, 1], max_batch=8) == [4, 1]
    assert batches(TAIL_S, [1, 1]) == [1, 1], 'exact by default'
    assert batches({1: 0.01, 2: 0.021, 4: 0.05}, [1] * 4, max_batch=4) == [1] * 4
    assert batches(TAIL_S, [1] * 4, max_batch=4, can_share=False) == [1] * 4
    # A batch of two is slower than two runs, a batch of four is faster than four.
    assert batches({1: 0.01, 2: 0.03, 3: 0.04, 4: 0.02}, [1] * 6, max_batch=4) == [4, 1, 1]


def test_a_robot_has_one_frame_in_a_batch() -> None:
    edge = Edge(TAIL_S, max_batch=4)
    edge.send('first')
    for robot in 'aab':
        edge.send(robot)
    assert edge.end() == ['a', 'b'] and edge.end() == ['a']


def test_a_frame_of_several_images_shares_no_run() -> None:
    edge = Edge(TAIL_S, max_batch=4, max_images=2)
    edge.send('first')
    for robot, images in (('a', 1), ('b', 2), ('c', 1)):
        edge.send(robot, images=images)
    assert edge.end() == ['a', 'c'] and edge.end() == ['b']


def test_a_frame_waits_for_others_only_as_long_as_allowed_and_while_others_are_active() -> None:
    edge = Edge(TAIL_S, max_batch=2, max_batch_wait_s=0.3)
    edge.send('a')
    assert edge.running[0].robot == 'a' and edge.wake_s == math.inf, 'there is no other robot to wait for'
    edge.end()
    edge.send('b')
    assert len(edge.of(RunTail)) == 1 and edge.wake_s == pytest.approx(edge.now_s + 0.3)
    edge.wake()
    assert [frame.robot for frame in edge.running] == ['b'] and edge.wake_s == math.inf
    edge.end()
    edge.send('b')
    edge.send('a', after_s=0.1)
    assert [frame.robot for frame in edge.running] == ['a', 'b'], 'a full batch goes at once'
    edge.end()
    edge.send('a', after_s=ACTIVE_S)
    assert [frame.robot for frame in edge.running] == ['a'], 'a silent robot is not waited for'


def test_the_wait_for_a_batch_counts_from_the_frames_arrival() -> None:
    edge = Edge(TAIL_S, max_batch=2, max_batch_wait_s=0.3)
    edge.send('a')
    edge.send('b', after_s=0.1)
    assert edge.end(tail_s=0.1) == []
    edge.wake()
    assert edge.now_s == pytest.approx(0.4) and [frame.robot for frame in edge.running] == ['b']


# ---- preparation -------------------------------------------------------------------------------------------------


def test_an_announced_tail_is_prepared_for_as_many_images_as_the_robot_sends() -> None:
    edge = Edge(max_images=4)
    assert edge.decide('a', 1) == [PrepareTail(1, 4)], 'before its first frame: as many as the edge takes'
    edge.happen(edge.policy.on_prepared, True)
    edge.send('a', images=3)
    assert edge.decide('a', 2) == [PrepareTail(2, 3)]
    assert edge.policy.splits() == {'a': (2, 'raw')} and edge.policy.counts()['prepared'] == 1


def test_one_tail_is_prepared_at_a_time_and_only_the_newest_split_of_each_robot() -> None:
    edge = Edge()
    edge.decide('a', 0)
    for index in (1, 2):
        assert edge.decide('a', index) == []
    edge.decide('b', 1)
    edge.decide('leaves', 2)
    edge.happen(edge.policy.on_robot_left, 'leaves')
    edge.decide('local', 1)
    edge.decide('local', LOCAL, '')
    begun = [edge.happen(edge.policy.on_prepared, did) for did in (True, False, True)]
    assert begun == [[PrepareTail(2, 1)], [PrepareTail(1, 1)], []]
    assert edge.policy.counts()['prepared'] == 2
    assert edge.policy.splits() == {'a': (2, 'raw'), 'b': (1, 'raw'), 'local': (LOCAL, '')}


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'fingerprint': 'feed'}, "the model 'feed', but this edge serves"),
        ({'split_index': 65535}, 'names split 65535'),
        ({'split_index': -1}, 'names split -1'),
        ({'codec': 'pickle' * 100}, "codec 'picklepickle"),
    ],
)
def test_a_decision_that_the_edge_cannot_serve_is_refused_and_replaces_the_one_before(changes, words) -> None:
    edge = Edge()
    edge.decide('busy', 0)
    edge.decide('a', 1)
    with pytest.raises(DynsplitError, match=words) as refused:
        edge.decide('a', **changes)
    assert len(str(refused.value)) < 500 and edge.policy.splits() == {'busy': (0, 'raw')}
    assert edge.happen(edge.policy.on_prepared, True) == []


# ---- many robots -------------------------------------------------------------------------------------------------


def test_a_new_robot_replaces_the_one_that_was_silent_longest() -> None:
    edge = Edge()
    for number in range(MAX_ROBOTS):
        edge.send(f'robot{number}', after_s=0.001, fingerprint='another')
        edge.decide(f'robot{number}', LOCAL, '')
    edge.send('robot0', after_s=0.001)
    edge.send('new')
    assert edge.policy.splits().keys() == {f'robot{number}' for number in range(MAX_ROBOTS) if number != 1}


def test_a_robot_is_refused_while_the_frames_of_too_many_others_wait() -> None:
    edge = Edge()
    edge.send('busy')
    frames = [edge.send(f'robot{number}') for number in range(MAX_ROBOTS)]
    assert frames[-2].status is None
    edge.happen(edge.policy.on_robot_left, 'busy')
    edge.send('one more')
    refused = edge.send('two more')
    assert refused.status is Status.REFUSED and 'other robots are in the queue' in refused.reason
    assert edge.decide('two more') == []


# ---- load reports ------------------------------------------------------------------------------------------------


def report(edge: Edge) -> ReportLoad:
    """Let time pass until the next load report."""
    count = len(edge.of(ReportLoad))
    for _ in range(1000):
        if len(edge.of(ReportLoad)) > count:
            return edge.of(ReportLoad)[-1]
        edge.wake()
    raise AssertionError('the edge reports no load, however often it is woken')


def test_an_idle_edge_reports_no_load_at_its_period() -> None:
    edge = Edge(load_period_s=PERIOD_S)
    first, second = report(edge), report(edge)
    assert edge.now_s == 2.0 and second.queueing_s == {}
    assert (first.report.sequence, second.report.sequence, second.report.edge_session) == (1, 2, 5)
    loads = second.report
    assert (
        loads.period_s,
        loads.utilisation,
        loads.queue_length,
        loads.queueing_s,
        loads.slowdown,
        loads.robots,
        loads.frame_rate_hz,
        loads.refused_total,
    ) == (1.0, 0.0, 0, 0.0, 1.0, 0, 0.0, 0)


def test_missed_reports_are_not_sent_later() -> None:
    edge = Edge(load_period_s=PERIOD_S)
    edge.now_s = 3.4
    edge.happen(edge.policy.on_time)
    assert len(edge.of(ReportLoad)) == 1 and edge.wake_s == pytest.approx(4.4)


def test_a_report_counts_the_events_of_its_period() -> None:
    edge = Edge({1: 0.1}, load_period_s=PERIOD_S)
    edge.send('a')
    edge.end(tail_s=0.2)
    edge.send('b', fingerprint='another')
    edge.send('a')
    edge.end(tail_s=0.2, decode_s=0.1)
    loads = report(edge).report
    assert (loads.utilisation, loads.slowdown, loads.robots) == (pytest.approx(0.5), pytest.approx(2.0), 1)
    assert (loads.frame_rate_hz, loads.refused_total) == (pytest.approx(2.0), 1)
    after = report(edge).report
    assert (after.utilisation, after.slowdown, after.frame_rate_hz, after.refused_total) == (0.0, 1.0, 0.0, 1)
    edge.now_s += ACTIVE_S
    assert report(edge).report.robots == 0


def test_a_tail_that_still_runs_counts_as_busy_and_does_not_change_the_slowdown() -> None:
    edge = Edge({1: 0.1}, load_period_s=PERIOD_S)
    edge.send('a')
    edge.end(tail_s=0.3)
    edge.send('a', after_s=0.5)
    edge.send('b')
    during = report(edge).report
    assert (during.utilisation, during.slowdown, during.queue_length) == (pytest.approx(0.5), pytest.approx(3.0), 1)
    still = report(edge).report
    assert (still.utilisation, still.slowdown) == (pytest.approx(1.0), pytest.approx(3.0))
    edge.end(tail_s=0.0)
    assert edge.policy.counts()['answered'] == 2


def test_a_tail_that_spans_two_periods_counts_its_part_in_each() -> None:
    edge = Edge({1: 0.1}, load_period_s=PERIOD_S)
    edge.send('a', after_s=0.5)
    assert report(edge).report.utilisation == pytest.approx(0.5)
    edge.end(tail_s=0.25)
    assert report(edge).report.utilisation == pytest.approx(0.25)


def test_without_a_profile_the_fastest_run_of_each_tail_counts_as_unloaded() -> None:
    edge = Edge(load_period_s=PERIOD_S)
    for index, tail_s in ((0, 0.1), (0, 0.2), (1, 0.05)):
        edge.send('a', split_index=index)
        edge.end(tail_s=tail_s)
    assert report(edge).report.slowdown == pytest.approx(0.35 / 0.25)


def test_the_unloaded_time_of_a_batch_lies_between_the_measured_ones() -> None:
    edge = Edge({1: 0.010, 2: 0.012, 4: 0.016}, load_period_s=PERIOD_S, max_batch=4)
    edge.send('first')
    edge.end(tail_s=0.010)
    edge.send('first')
    for robot in 'abc':
        edge.send(robot)
    edge.end(tail_s=0.010)
    edge.end(tail_s=0.028)
    assert report(edge).report.slowdown == pytest.approx((0.010 + 0.010 + 0.028) / (0.010 + 0.010 + 0.014))


def test_the_queueing_delay_is_the_mean_wait_of_a_frame_that_arrives_at_a_random_instant() -> None:
    edge = Edge(load_period_s=PERIOD_S)
    edge.send('a')
    edge.end(tail_s=0.0)
    edge.send('other', after_s=0.1)
    edge.send('a')
    edge.end(tail_s=0.4)
    edge.end(tail_s=0.2)
    queueing_s = report(edge).queueing_s
    # For 0.4 of the time, a frame of 'a' finds the run of 'other' and waits for half of it on average, 0.2 s.
    assert queueing_s['a'] == pytest.approx(0.4 * 0.2)
    # 'other' was served last, so its next frame waits for the run of 'a', which had waited as the first one for 0.4 s.
    assert queueing_s['other'] == pytest.approx(0.0 + 0.2 * (0.1 + 0.4))
    assert max(queueing_s.values()) == edge.of(ReportLoad)[-1].report.queueing_s
    assert report(edge).queueing_s == {'a': 0.0, 'other': 0.0}


def test_frames_that_share_a_run_do_not_wait_for_each_other() -> None:
    edge = Edge(TAIL_S, max_batch=2, load_period_s=PERIOD_S)
    edge.send('first', split_index=1)
    edge.send('a')
    edge.send('b')
    edge.end(tail_s=0.0)
    edge.end(tail_s=0.4)
    queueing_s = report(edge).queueing_s
    assert queueing_s['a'] == queueing_s['b'] == 0.0
    assert queueing_s['first'] > 0.0


# ---- several servers ---------------------------------------------------------------------------------------------


def test_each_server_runs_one_tail_and_robots_alternate() -> None:
    edge = Edge(servers=2, max_waiting=3)
    for robot in 'aaabbc':
        edge.send(robot, after_s=0.001)
    first, second = edge.of(RunTail)
    assert [run.frames[0].robot for run in (first, second)] == ['a', 'a']
    assert [edge.end(run=run) for run in (second, first)] == [['b'], ['c']]
    assert [edge.end(), edge.end()] == [['a'], ['b']]


def test_a_server_that_joins_takes_a_waiting_frame_at_once() -> None:
    edge = Edge()
    edge.send('a')
    waiting = edge.send('b')
    edge.happen(edge.policy.on_servers, 2, '')
    assert edge.running == (waiting,)


def test_the_frames_of_a_server_that_ends_run_before_all_others_on_another_one() -> None:
    edge = Edge(servers=2, max_waiting=1)
    lost, other = edge.send('a'), edge.send('b')
    edge.send('c')
    run, busy = edge.of(RunTail)
    edge.happen(edge.policy.on_servers, 1, '')
    edge.happen(edge.policy.on_server_lost, run)
    newer = edge.send('a', after_s=0.1)
    assert lost.status is None and edge.policy.waiting[0] is lost, 'a newer frame does not replace it'
    assert edge.end(run=busy) == ['a'] and edge.running == (lost,) and edge.run.number == 2
    edge.end()
    assert (lost.status, other.status, newer.status) == (Status.OK, Status.OK, None)
    assert lost.times.queueing_s == pytest.approx(0.11)


def test_a_frame_whose_timeout_has_passed_when_its_server_ends_is_answered_without_another_run() -> None:
    edge = Edge(servers=2)
    frame = edge.send('a', answer_timeout_s=0.1)
    edge.now_s = 0.2
    edge.happen(edge.policy.on_servers, 1, '')
    edge.happen(edge.policy.on_server_lost, edge.run)
    assert frame.status is Status.SUPERSEDED and len(edge.of(RunTail)) == 1


def test_a_frame_whose_servers_end_runs_at_most_three_times() -> None:
    edge = Edge(servers=9)
    frame = edge.send('a')
    for number in range(MAX_RUNS):
        assert frame.status is None and edge.run.number == number + 1
        edge.happen(edge.policy.on_servers, 8 - number, '')
        edge.happen(edge.policy.on_server_lost, edge.run)
    assert frame.status is Status.FAILED and '3 replicas ended' in frame.reason
    assert len(edge.of(RunTail)) == MAX_RUNS


def test_without_a_server_each_frame_is_answered_at_once_with_the_reason() -> None:
    edge = Edge(load_period_s=PERIOD_S)
    running, waiting = edge.send('a'), edge.send('b')
    edge.happen(edge.policy.on_servers, 0, 'no machine has a GPU')
    edge.happen(edge.policy.on_server_lost, edge.run)
    late = edge.send('c')
    for frame in (running, waiting, late):
        assert frame.status is Status.REFUSED and 'no capacity: no machine has a GPU' in frame.reason
    assert report(edge).report.servers == 0
    edge.happen(edge.policy.on_servers, 1, '')
    served = edge.send('c')
    assert edge.running == (served,)


def test_the_utilisation_is_the_busy_share_of_all_servers() -> None:
    edge = Edge(servers=2, load_period_s=PERIOD_S)
    edge.send('a')
    edge.end(tail_s=0.4)
    loads = report(edge).report
    assert (loads.servers, loads.utilisation) == (2, pytest.approx(0.2))
    edge.happen(edge.policy.on_servers, 4, '')
    edge.send('a')
    edge.end(tail_s=0.4)
    assert report(edge).report.utilisation == pytest.approx(0.1)


def test_the_utilisation_is_at_most_one_when_a_server_leaves_before_its_run_ends() -> None:
    edge = Edge(servers=2, load_period_s=PERIOD_S)
    edge.send('a')
    edge.send('b')
    edge.happen(edge.policy.on_servers, 1, '')
    assert report(edge).report.utilisation == 1.0, 'two runs at one server'


def test_a_frame_waits_for_other_robots_only_while_no_server_is_free() -> None:
    edge = Edge(servers=2, load_period_s=PERIOD_S)
    edge.send('other')
    edge.end(tail_s=0.0)
    edge.send('a')
    first = edge.run
    edge.send('b', after_s=0.1)
    # From 0.1 to 0.4 s both servers are busy: a frame of another robot would wait for half of that on average.
    edge.end(tail_s=0.3, run=first)
    edge.end(tail_s=0.2)
    queueing_s = report(edge).queueing_s
    assert queueing_s == {'other': pytest.approx(0.3 * 0.15), 'a': 0.0, 'b': 0.0}


def test_a_profile_that_is_measured_later_counts_from_then_on() -> None:
    edge = Edge(load_period_s=PERIOD_S, max_batch=2)
    model = edge.policy.model
    edge.happen(
        edge.policy.on_profile,
        ServedModel(model.fingerprint, model.cut_bytes, model.codecs, [TAIL_S] * LOCAL, can_share=True),
    )
    edge.send('first', split_index=1)
    edge.send('a')
    edge.send('b')
    assert edge.end(tail_s=0.02) == ['a', 'b']
    edge.end(tail_s=0.012)
    assert report(edge).report.slowdown == pytest.approx(0.032 / 0.022)


def test_an_engine_that_becomes_ready_later_runs_tails_from_then_on() -> None:
    edge = Edge(TAIL_S)
    assert edge.send('a', tail_engine='fast').tail_engine == 'eager'
    model = edge.policy.model
    edge.happen(
        edge.policy.on_profile,
        ServedModel(
            model.fingerprint, model.cut_bytes, model.codecs, model.tail_s, can_share=True, engines={'fast': {0: {}}}
        ),
    )
    assert edge.send('a', tail_engine='fast').tail_engine == 'fast'


# ---- random events -----------------------------------------------------------------------------------------------

events = st.lists(
    st.one_of(
        st.tuples(
            st.just('send'),
            st.sampled_from('abcd'),
            st.integers(-1, LOCAL),
            st.sampled_from([0.01, 0.3, math.inf]),
            st.integers(1, 3),
        ),
        st.tuples(st.just('decide'), st.sampled_from('abcd'), st.integers(0, LOCAL)),
        st.tuples(
            st.just('end'),
            st.floats(0.0, 0.5),
            st.sampled_from(['', 'unreadable', 'failed', 'lost']),
            st.integers(0, 3),
        ),
        st.tuples(st.just('servers'), st.integers(0, 3)),
        st.tuples(st.just('prepared'), st.booleans()),
        st.tuples(st.just('left'), st.sampled_from('abcd')),
        st.tuples(st.just('wake')),
    ),
    max_size=40,
)


class Checked(Edge):
    """Checks the rules after each event, and tracks the runs and preparations."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.frames: list[EdgeFrame] = []
        self.runs: list[RunTail] = []
        self.servers = 1
        self.is_preparing = False

    def happen(self, event: Callable[..., list[Action]], *values) -> list[Action]:
        actions = super().happen(event, *values)
        for action in actions:
            if isinstance(action, RunTail):
                self.runs.append(action)
                assert len(self.runs) <= self.servers, 'more tails run than there are servers'
                assert len({frame.robot for frame in action.frames}) == len(action.frames) <= 4
                assert len({frame.split_index for frame in action.frames}) == 1
                assert not any(frame.is_expired(self.now_s) for frame in action.frames)
            elif isinstance(action, PrepareTail):
                assert not self.is_preparing and action.split_index < LOCAL
                self.is_preparing = True
        return actions

    def play(self, name: str, *values) -> None:
        if name == 'send':
            robot, index, timeout_s, images = values
            self.frames.append(self.send(robot, split_index=index, answer_timeout_s=timeout_s, images=images))
        elif name == 'decide':
            self.decide(*values)
        elif name == 'end' and self.runs:
            tail_s, fate, which = values
            run = self.runs.pop(which % len(self.runs))
            self.now_s += tail_s
            if fate == 'lost':
                self.servers = max(0, self.servers - 1)
                self.happen(self.policy.on_servers, self.servers, 'all replicas ended')
                self.happen(self.policy.on_server_lost, run)
                return
            if fate == 'unreadable':
                self.happen(self.policy.on_unreadable, run.frames[0], 'unreadable')
            elif fate == 'failed':
                self.happen(self.policy.on_failed, run.frames, 'failed')
            self.end(tail_s=0.0, run=run)
        elif name == 'servers':
            (self.servers,) = values
            self.happen(self.policy.on_servers, self.servers, 'there is no machine')
        elif name == 'prepared' and self.is_preparing:
            self.is_preparing = False
            self.happen(self.policy.on_prepared, *values)
        elif name == 'left':
            self.happen(self.policy.on_robot_left, *values)
        elif name == 'wake' and self.wake_s < math.inf:
            self.wake()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(events)
def test_random_events_acknowledge_and_answer_each_frame_once(history) -> None:
    edge = Checked(tail_s=TAIL_S, max_batch=4, max_batch_wait_s=0.1, max_images=2, load_period_s=PERIOD_S)
    for event in history:
        edge.play(*event)
    while edge.runs or edge.policy.waiting:
        edge.play('end', 0.01, '', 0) if edge.runs else edge.play('wake')
    assert [action.frame for action in edge.of(Acknowledge)] == edge.frames
    answers = [action.frame for action in edge.of(Answer)]
    assert sorted(map(id, answers)) == sorted(map(id, edge.frames))
    counts = edge.policy.counts()
    assert sum(counts.get(name, 0) for name in ('answered', 'refused', 'superseded', 'failed')) == len(edge.frames)
    for action in edge.of(ReportLoad):
        assert 0 <= action.report.utilisation <= 1 and action.report.slowdown > 0
        assert all(math.isfinite(value) and value >= 0 for value in action.queueing_s.values())


# ---- engines -------------------------------------------------------------------------------------------------------

FAST_TAILS = {'openvino': {1: {1: 0.004, 2: 0.006, 4: 0.008}}}


def test_the_tail_runs_on_the_engine_that_the_robot_names_if_it_is_ready_and_else_on_eager() -> None:
    edge = Edge(TAIL_S, engines=FAST_TAILS)
    for number, (asked, split, runs_on) in enumerate(
        [
            ('openvino', 1, 'openvino'),
            ('openvino', 2, 'eager'),
            ('tensorrt', 1, 'eager'),
            ('', 1, 'eager'),
            ('eager', 1, 'eager'),
        ]
    ):
        frame = edge.send(f'robot{number}', split_index=split, tail_engine=asked)
        assert frame.tail_engine == runs_on
        edge.end()
        assert frame.status is Status.OK and frame.times.tail_engine == runs_on, 'the answer says what ran'
    assert edge.policy.counts()['engine not ready'] == 3


def test_frames_for_different_engines_do_not_share_a_run() -> None:
    edge = Edge(TAIL_S, engines=FAST_TAILS, max_batch=4)
    edge.send('first', split_index=1)
    for robot, engine in (('a', 'openvino'), ('b', 'eager'), ('c', 'openvino')):
        edge.send(robot, split_index=1, tail_engine=engine)
    edge.end()
    runs = [[frame.robot for frame in action.frames] for action in edge.actions if isinstance(action, RunTail)]
    assert runs[:2] == [['first'], ['a', 'c']]


def test_the_slowdown_is_that_of_the_engine_that_ran() -> None:
    edge = Edge(TAIL_S, engines=FAST_TAILS, load_period_s=PERIOD_S)
    edge.send('a', split_index=1, tail_engine='openvino')
    edge.end(0.008)
    edge.now_s = PERIOD_S
    (report,) = [action for action in edge.happen(edge.policy.on_time) if isinstance(action, ReportLoad)]
    assert report.report.slowdown == pytest.approx(2.0)


def test_a_tail_is_prepared_on_the_engine_that_the_decision_names() -> None:
    edge = Edge(TAIL_S, engines=FAST_TAILS)
    for split, prepared in ((1, 'openvino'), (2, 'eager')):
        actions = edge.happen(edge.policy.on_decision, 'a', 'model', split, 'raw', 'openvino')
        assert actions == [PrepareTail(split, 1, prepared)]
        edge.happen(edge.policy.on_prepared, True)
