# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Several edges: which answers and reports count, and which decisions an edge learns of."""

from __future__ import annotations

from dataclasses import replace
import math

import pytest
from test_camera import Camera, one, SESSION
from worlds import system, Wire

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.link import HEARTBEAT_BYTES
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.policies.camera import Deliver, Encode, Finish, Prepare, RunHead, Send
from dynsplit_ros.policies.edge import EdgePolicy, ServedModel
from dynsplit_ros.policies.monitor import MonitorPolicy
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.pacing import SendScheduler
from dynsplit_ros.policies.records import EdgeTimes, FrameRecord, Outcome, SplitDecision, Status
from dynsplit_ros.protocol import MOST_EDGES

NEAR = SplitDecision(1, 'raw', 1.0, predicted_latency_s=0.2, edge='near')
FAR = replace(NEAR, edge='far')
PROFILE = system()
LOCAL_INDEX = PROFILE.local_index


# ---- the camera


def answered_by(camera: Camera, frame: FrameRecord, edge: str, status: Status = Status.OK) -> list:
    return camera.tell(
        camera.policy.on_answer, SESSION, frame.sequence, status, 'the reason', 'outputs', 10, EdgeTimes(edge=edge)
    )


def acknowledged_by(camera: Camera, frame: FrameRecord, edge: str) -> None:
    camera.tell(camera.policy.on_acknowledgement, SESSION, frame.sequence, edge=edge)


def test_only_the_edge_of_a_frame_can_acknowledge_it() -> None:
    camera = Camera(NEAR)
    frame = camera.send()
    acknowledged_by(camera, frame, 'far')
    assert camera.policy.link_is_full
    acknowledged_by(camera, frame, 'near')
    assert not camera.policy.link_is_full


@pytest.mark.parametrize('status', [Status.OK, Status.REFUSED])
def test_only_the_edge_of_a_frame_can_answer_or_refuse_it(status) -> None:
    camera = Camera(NEAR)
    frame = camera.send()
    actions = answered_by(camera, frame, 'far', status)
    assert not [action for action in actions if isinstance(action, Deliver | Finish)]
    assert one(answered_by(camera, frame, 'near'), Deliver).frame.edge == 'near'
    assert camera.policy.counters.late_answers == 1


def test_a_late_answer_of_another_edge_measures_nothing() -> None:
    camera = Camera(NEAR)
    frame = camera.send()
    camera.wake()
    camera.finish(frame)
    assert not any(frame.outcome is Outcome.LATE for frame in reports(answered_by(camera, frame, 'far')))
    assert [frame.outcome for frame in reports(answered_by(camera, frame, 'near'))] == [Outcome.LATE]


def reports(actions: list) -> list[FrameRecord]:
    return [action.frame for action in actions if type(action).__name__ == 'Report']


def test_frames_under_way_to_an_edge_that_became_silent_are_finished_at_once() -> None:
    camera = Camera(NEAR)
    frame = camera.send()
    assert one(camera.decide(replace(FAR, silent_edges=('near',))), Finish).frame is frame
    assert one(camera.finish(frame), Deliver).frame.outcome is Outcome.FELL_BACK


def test_frames_under_way_to_an_edge_that_answers_wait_after_a_change_of_edge() -> None:
    camera = Camera(NEAR)
    frame = camera.send()
    assert not [action for action in camera.decide(FAR) if isinstance(action, Finish)]
    assert one(answered_by(camera, frame, 'near'), Deliver).frame.outcome is Outcome.ANSWERED


def test_the_next_payload_goes_to_the_edge_of_the_latest_decision() -> None:
    """Edges of the same model take the same payloads, so an encoded payload need not be computed again."""
    camera = Camera(NEAR)
    actions = camera.image()
    assert one(actions, Prepare)
    assert one(camera.tell(camera.policy.on_prepared, 1), RunHead)
    assert one(camera.tell(camera.policy.on_head_done, 'activation', after_s=0.02), Encode)
    camera.decide(replace(FAR, answer_timeout_s=0.7, silent_edges=('near',)))
    frame = one(camera.tell(camera.policy.on_payload_ready, 1000, after_s=0.01), Send).frame
    assert (frame.edge, frame.answer_timeout_s) == ('far', 0.7)


@pytest.mark.parametrize('head_engine, moves', [('', True), ('openvino', False)])
def test_a_payload_moves_to_another_edge_only_from_the_head_that_the_decision_names(head_engine, moves) -> None:
    camera = Camera(NEAR)
    camera.image()
    camera.tell(camera.policy.on_prepared, 1)
    camera.tell(camera.policy.on_head_done, 'activation', after_s=0.02)
    camera.decide(replace(FAR, head_engine=head_engine or NEAR.head_engine, tail_engine='onnxruntime'))
    frame = one(camera.tell(camera.policy.on_payload_ready, 1000, after_s=0.01), Send).frame
    assert (frame.edge, frame.tail_engine) == (('far', 'onnxruntime') if moves else ('near', NEAR.tail_engine))


def test_a_payload_of_another_choice_for_an_edge_that_became_silent_is_not_sent() -> None:
    camera = Camera(NEAR)
    camera.image()
    camera.tell(camera.policy.on_prepared, 1)
    camera.tell(camera.policy.on_head_done, 'activation', after_s=0.02)
    camera.decide(replace(FAR, split_index=2, silent_edges=('near',)))
    actions = camera.tell(camera.policy.on_payload_ready, 1000, after_s=0.01)
    assert not [action for action in actions if isinstance(action, Send)] and one(actions, Finish)


def test_each_edge_has_service_times_of_its_own() -> None:
    scheduler = SendScheduler()
    scheduler.on_ready((1, 'raw'), 0.005)
    for edge, held_s in (('near', 0.1), ('far', 0.5)):
        scheduler.on_acknowledged((1, 'raw'), 0.01, edge)
        scheduler.on_answered(
            FrameRecord(split_index=1, codec='raw', edge=edge, sent_s=1.0, acknowledged_s=1.01), 1.02 + held_s, held_s
        )
    under_way = FrameRecord(split_index=1, codec='raw', edge='far', sent_s=5.0, acknowledged_s=5.01)
    assert scheduler.send_s((1, 'raw'), [under_way], 'far') == pytest.approx(5.01 + 0.5 - 0.01)
    assert scheduler.send_s((1, 'raw'), [under_way], 'near') == -math.inf, 'another edge is busy'


def test_the_memory_for_edges_is_bounded() -> None:
    scheduler = SendScheduler()
    for number in range(1000):
        scheduler.on_acknowledged((1, 'raw'), 0.01, f'edge {number}')
    assert len(scheduler._edges) == MOST_EDGES


# ---- the monitor


def told(monitor: MonitorPolicy, edge: str, now_s: float, sequence: int = 1, session: int = 1) -> None:
    monitor.on_load(LoadReport(session, sequence, 0.2, 0, 0.0, 1.0, edge=edge), now_s)


def test_messages_of_unknown_edges_are_ignored() -> None:
    monitor = MonitorPolicy(PROFILE, edge='near')
    told(monitor, 'far', 1.0)
    monitor.on_sent(1, 1.0, 0, 'raw', 1000, edge='far')
    monitor.on_acknowledgement(1, 1.1, edge='far')
    monitor.on_probe_sent(1, 0.1, edge='far')
    monitor.on_probe_answer(1, 1.1, edge='far')
    monitor.on_frame(FrameRecord(sequence=1, edge='far', outcome=Outcome.FELL_BACK, given_up_s=1.2))
    assert not monitor.link.alive and set(monitor.edges) == {'near'}
    assert monitor.tick(2.0).degraded


def test_an_edge_that_answers_replaces_one_that_never_answered() -> None:
    monitor = MonitorPolicy(PROFILE, edge='near')
    monitor.set_edge('far', PROFILE)
    assert monitor.tick(0.0).silent_edges == ('near', 'far')
    now_s, decisions = 0.0, []
    while now_s < 3.0:
        now_s += 0.02
        for probe in filter(None, [monitor.next_probe(now_s)]):
            if probe.edge == 'far':
                monitor.on_probe_answer(probe.id, now_s + 0.004 + probe.payload_bytes * 8 / 50e6, edge='far')
        decisions += filter(None, [monitor.tick(now_s)])
    assert (decisions[-1].edge, decisions[-1].degraded, decisions[-1].silent_edges) == ('far', False, ('near',))
    assert decisions[-1].split_index < LOCAL_INDEX and 'far' in next(
        decision.reason for decision in decisions if decision.edge == 'far'
    )


def test_a_decision_holds_predictions_for_every_edge() -> None:
    monitor = MonitorPolicy(PROFILE, edge='near')
    monitor.set_edge('far', PROFILE)
    monitor.tick(0.0)
    decision = monitor.tick(1.0) or monitor.decision
    assert set(decision.other_plans) == {'far'}
    assert len(decision.other_plans['far'].candidates) == len(decision.candidates)


@pytest.mark.parametrize('name', ['split_index', 'codec', 'head_engine', 'tail_engine', 'local_engine'])
def test_a_plan_that_differs_in_any_part_of_the_choice_is_announced(name) -> None:
    monitor = MonitorPolicy(PROFILE)
    monitor.tick(0.0)
    plan = monitor.used.plan
    assert not monitor._differs(plan)
    assert monitor._differs(replace(plan, **{name: 2 if name == 'split_index' else 'another'}))


def test_the_same_profile_again_keeps_the_estimates_and_another_one_does_not() -> None:
    wire = Wire(MonitorPolicy(PROFILE, edge=''), rate_bps=50e6)
    wire.idle(3.0)
    known = wire.monitor.used
    wire.monitor.set_edge('', system())
    assert wire.monitor.used is known and wire.monitor.link.alive
    wire.monitor.set_edge('', system(slower=4.0))
    assert wire.monitor.used is not known and not wire.monitor.link.alive


def test_another_profile_of_a_silent_edge_makes_a_new_decision_at_once() -> None:
    monitor = MonitorPolicy(PROFILE)
    before = monitor.tick(0.0)
    monitor.set_edge('', system(slower=4.0))
    assert monitor.tick(0.01).predicted_latency_s == pytest.approx(before.predicted_latency_s / 2, rel=0.1)


def test_the_edge_in_use_can_be_forgotten_and_the_only_one_cannot() -> None:
    monitor = MonitorPolicy(PROFILE, edge='near')
    with pytest.raises(ValueError, match='needs an edge'):
        monitor.forget_edge('near')
    monitor.set_edge('far', PROFILE)
    monitor.tick(0.0)
    monitor.forget_edge('near')
    assert monitor.used.name == 'far' and monitor.tick(0.1).edge == 'far'


def test_settings_that_leave_one_edge_no_choice_change_nothing() -> None:
    monitor = MonitorPolicy(PROFILE, MonitorSettings(pinned_split=3), edge='near')
    planner = monitor.used.planner
    with pytest.raises(DynsplitError):
        monitor.reconfigure(MonitorSettings(pinned_split=1000))
    assert monitor.used.planner is planner
    with pytest.raises(DynsplitError):
        monitor.set_edge('far', replace(PROFILE, cuts=PROFILE.cuts[:3]))
    assert set(monitor.edges) == {'near'}


def test_one_probe_at_a_time_is_under_way_for_any_number_of_edges() -> None:
    """A probe to one edge would delay what is on its way to another one over the same radio."""
    monitor = MonitorPolicy(PROFILE, edge='near')
    for name in ('far', 'third'):
        monitor.set_edge(name, PROFILE)
    now_s, under_way = 0.0, None
    while now_s < 5.0:
        now_s += 0.02
        if under_way is not None and now_s >= under_way[0]:
            monitor.on_probe_answer(under_way[1].id, under_way[0], edge=under_way[1].edge)
            under_way = None
        probe = monitor.next_probe(now_s)
        if probe is not None and probe.payload_bytes > 32:
            assert under_way is None or under_way[1].payload_bytes <= 32, 'two probes are under way'
        if probe is not None:
            under_way = now_s + 0.004 + probe.payload_bytes * 8 / 1e6, probe
        monitor.tick(now_s)


def with_two_edges(seconds: float = 3.0) -> tuple[MonitorPolicy, float]:
    """Return a monitor that has measured two equal edges, and the instant."""
    monitor, now_s = MonitorPolicy(PROFILE, edge='near'), 0.0
    monitor.set_edge('far', PROFILE)
    while now_s < seconds:
        now_s += 0.02
        probe = monitor.next_probe(now_s)
        if probe is not None:
            monitor.on_probe_answer(probe.id, now_s + 0.004 + probe.payload_bytes * 8 / 50e6, edge=probe.edge)
        monitor.tick(now_s)
    return monitor, now_s


def test_probes_to_another_edge_take_one_200th_of_the_bytes_sent() -> None:
    monitor, now_s = with_two_edges()
    used, payload_bytes = monitor.decision.edge, 100_000
    (other,) = {'near', 'far'} - {used}
    spent = 0
    for number in range(1, 401):  # frames to the edge in use, which is by far the better one
        monitor.on_sent(number, now_s, 0, 'raw', payload_bytes, edge=used)
        monitor.on_acknowledgement(number, now_s + 0.02, edge=used)
        now_s += 0.1
        if (probe := monitor.next_probe(now_s)) is not None:
            monitor.on_probe_answer(probe.id, now_s + 0.004 + probe.payload_bytes * 8 / 50e6, edge=probe.edge)
            spent += probe.payload_bytes if probe.edge == other else 0
        monitor.tick(now_s)
    assert monitor.decision.edge == used
    assert spent / (400 * payload_bytes) == pytest.approx(0.005, rel=0.2)


def test_heartbeats_to_an_edge_that_is_not_in_use_are_eight_times_as_rare() -> None:
    monitor, now_s = with_two_edges(10.0)
    heartbeats = {'near': 0, 'far': 0}
    for _ in range(1000):
        now_s += 0.02
        if (probe := monitor.next_probe(now_s)) is not None:
            monitor.on_probe_answer(probe.id, now_s + 0.004 + probe.payload_bytes * 8 / 50e6, edge=probe.edge)
            heartbeats[probe.edge] += probe.payload_bytes == HEARTBEAT_BYTES
        monitor.tick(now_s)
    used = heartbeats.pop(monitor.decision.edge)
    (other,) = heartbeats.values()
    assert used / other == pytest.approx(8.0, rel=0.1)


def refused(monitor: MonitorPolicy, number: int, now_s: float) -> SplitDecision:
    """Let the edge in use refuse a payload; return the decision that follows."""
    edge = monitor.decision.edge
    monitor.on_sent(number, now_s, 0, 'raw', 150_528, edge=edge)
    monitor.on_acknowledgement(number, now_s + 0.03, edge=edge)
    monitor.on_frame(
        FrameRecord(
            sequence=number,
            outcome=Outcome.FELL_BACK,
            split_index=0,
            codec='raw',
            edge=edge,
            sent_s=now_s,
            acknowledged_s=now_s + 0.03,
            given_up_s=now_s + 0.031,
        )
    )
    return monitor.tick(now_s + 0.04)


def test_an_edge_that_refuses_several_frames_is_replaced_and_tried_again_later() -> None:
    monitor, now_s = with_two_edges()
    first = monitor.decision.edge
    edges = []
    for number in range(1, 5):
        now_s += 0.1
        edges.append(refused(monitor, number, now_s).edge)
    (other,) = {'near', 'far'} - {first}
    assert edges[:3] == [first, first, other]
    assert 'fails frames' in monitor.decision.reason or edges[3] == other
    assert monitor.edges[first].is_failing(now_s) and not monitor.edges[first].is_failing(now_s + 11.0)


def test_an_edge_that_answers_late_is_slow_and_does_not_fail() -> None:
    monitor, now_s = with_two_edges()
    first = monitor.decision.edge
    for number in range(1, 4):
        now_s += 0.1
        refused(monitor, number, now_s)
    assert monitor.edges[first].is_failing(now_s)
    monitor.on_frame(
        FrameRecord(
            sequence=3,
            outcome=Outcome.LATE,
            split_index=0,
            codec='raw',
            edge=first,
            sent_s=now_s,
            acknowledged_s=now_s + 0.03,
            answered_s=now_s + 0.2,
            given_up_s=now_s + 0.031,
            held_s=0.15,
            queueing_s=0.0,
            tail_s=0.15,
            decode_s=0.0,
            answer_bytes=4000,
        )
    )
    assert not monitor.edges[first].is_failing(now_s + 0.2)


def test_an_edge_that_failed_frames_because_its_link_was_cut_is_used_again_as_soon_as_it_answers() -> None:
    monitor, now_s = with_two_edges()
    first, silent_s = monitor.decision.edge, None
    for number in range(1, 4):
        now_s += 0.1
        refused(monitor, number, now_s)
    (other,) = {'near', 'far'} - {first}
    assert monitor.edges[first].is_failing(now_s) and monitor.decision.edge == other
    cut = {first}
    while now_s < 8.0:  # first one link is cut, then the other one
        now_s += 0.02
        if silent_s is None and not monitor.edges[first].is_usable:
            silent_s, cut = now_s, set()
        if silent_s is not None and now_s > silent_s + 1.0:
            cut = {other}
        probe = monitor.next_probe(now_s)
        if probe is not None and probe.edge not in cut:
            monitor.on_probe_answer(probe.id, now_s + 0.004 + probe.payload_bytes * 8 / 50e6, edge=probe.edge)
        monitor.tick(now_s)
    assert monitor.decision.edge == first and not monitor.decision.degraded


# ---- the edge


def test_an_edge_shows_no_split_of_a_robot_that_uses_another_edge() -> None:
    edge = EdgePolicy(ServedModel('f', [10] * 3, ('raw',)), name='near')
    edge.on_start(0.0)
    edge.on_decision('/robot', 'f', 1, 'raw', now_s=1.0)
    assert edge.splits() == {'/robot': (1, 'raw')}
    edge.on_decision_elsewhere('/robot', 2.0)
    edge.on_decision_elsewhere('/unknown', 2.0)
    assert edge.splits() == {}


def test_frames_that_were_never_sent_do_not_count_as_failures_of_the_edge() -> None:
    monitor, now_s = with_two_edges()
    used = monitor.decision.edge
    for number in range(1, 10):
        monitor.on_frame(
            FrameRecord(
                sequence=number, outcome=Outcome.FELL_BACK, split_index=0, codec='raw', edge=used, given_up_s=now_s
            )
        )
    assert not monitor.edges[used].is_failing(now_s)


def test_a_frame_with_a_number_of_images_that_only_the_robot_measured_is_accepted() -> None:
    few = replace(PROFILE, batches=(1,), cuts=tuple(replace(cut, tail_s={1: cut.tail_s[1]}) for cut in PROFILE.cuts))
    images = next(batch for batch in PROFILE.cuts[0].head_s if batch > 1)
    monitor = MonitorPolicy(few, edge='near')
    monitor.on_frame(
        FrameRecord(
            sequence=1,
            outcome=Outcome.ANSWERED,
            split_index=1,
            codec='raw',
            edge='near',
            images=images,
            sent_s=1.0,
            answered_s=1.1,
        )
    )
    assert monitor.tick(2.0) is not None
