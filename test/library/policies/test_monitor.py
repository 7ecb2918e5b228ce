# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Each rule of the monitor: when it probes, when it decides, what it announces, and what it learns from frames."""

from __future__ import annotations

import math

import pytest
from worlds import system, Wire

from dynsplit_ros.policies.monitor import Announce, MonitorPolicy, SendProbe, TICK_S
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import FrameRecord
from dynsplit_ros.policies.wake import WakeAt

PROFILE = system()
LOCAL = PROFILE.local_index


def kinds(actions: list) -> list[type]:
    return [type(action) for action in actions]


def steady(settings: MonitorSettings | None = None, rate_bps: float = 100e6) -> Wire:
    """Return a monitor that has measured a steady link for a while."""
    wire = Wire(MonitorPolicy(PROFILE, settings), rate_bps=rate_bps)
    wire.idle(3.0)
    for _ in range(10):
        wire.frame()
        wire.idle(0.1)
    return wire


def test_the_first_call_sends_a_probe_announces_a_decision_and_asks_for_the_next_call() -> None:
    monitor = MonitorPolicy(PROFILE)
    probe, announce, wake = monitor.on_time(5.0)
    assert isinstance(probe, SendProbe) and probe.probe.payload_bytes > 0
    assert isinstance(announce, Announce) and announce.decision is monitor.decision
    assert (announce.decision.split_index, announce.decision.degraded) == (LOCAL, True), 'nothing was heard yet'
    assert wake == WakeAt(5.02), 'a look every 20 ms'


def test_probes_go_out_at_ticks_only_and_each_tick_asks_for_the_next() -> None:
    monitor = MonitorPolicy(PROFILE)
    now_s, wake_s, sent_s = 0.0, 0.0, []
    while now_s < 3.0:
        actions = monitor.on_time(now_s)
        assert (WakeAt in kinds(actions)) == (now_s >= wake_s)
        for action in actions:
            if isinstance(action, WakeAt):
                wake_s = action.at_s
            elif isinstance(action, SendProbe):
                assert WakeAt in kinds(actions)
                sent_s.append(now_s)
                monitor.on_probe_answer(action.probe.id, now_s + 0.004)
        now_s = min(now_s + 0.007, wake_s) if wake_s > now_s else now_s + 0.007
    assert 3.0 / 0.25 <= len(sent_s) < 3.0 / TICK_S


@pytest.mark.parametrize('now_s', [math.nan, math.inf, -math.inf])
def test_an_impossible_instant_decides_nothing(now_s) -> None:
    monitor = MonitorPolicy(PROFILE)
    assert not [action for action in monitor.on_time(now_s) if not isinstance(action, WakeAt)]
    assert monitor.decision is None


def test_nothing_is_announced_while_nothing_changes() -> None:
    wire = steady()
    before = len(wire.decisions)
    for _ in range(50):
        wire.frame()
        wire.idle(0.1)
    assert len(wire.decisions) - before <= 2
    assert wire.monitor.decision.choice == wire.decisions[-1].choice


@pytest.mark.parametrize('held_s, announces', [(0.025, False), (0.035, True)])
def test_a_changed_latency_is_announced_from_10_percent_on_and_counts_from_2_percent_on(held_s, announces) -> None:
    """Otherwise the monitor announces a decision for each image, which takes a third more processor time."""
    wire = steady()
    announced, before_s = len(wire.decisions), wire.monitor.decision.predicted_latency_s
    for _ in range(50):
        wire.frame(held_s=held_s)
        wire.idle(0.1)
    assert wire.monitor.decision.predicted_latency_s > 1.02 * before_s
    assert (len(wire.decisions) > announced) == announces


@pytest.mark.parametrize('servers', [1, 2])
def test_a_changed_number_of_servers_is_announced_even_if_the_latency_hardly_changes(servers) -> None:
    """The camera needs the number of servers to send as many frames."""
    wire = steady(MonitorSettings(pinned_split=0, codecs=('raw',)))
    wire.report()
    announced = len(wire.decisions)
    wire.report(queueing_s=0.05 * wire.monitor.decision.predicted_latency_s, servers=servers)
    assert wire.monitor.decision.servers == servers
    assert (len(wire.decisions) > announced) == (servers == 2)


def test_a_changed_local_if_wait_is_announced_even_if_the_latency_hardly_changes() -> None:
    """Where local inference is equally fast, a few milliseconds decide which images the robot computes."""
    wire = steady(rate_bps=9e6)
    wire.report()
    before, announced = wire.monitor.decision, len(wire.decisions)
    wire.report(queueing_s=0.03 * before.predicted_latency_s)
    after = wire.monitor.decision
    assert after.choice == before.choice and after.local_if_wait_s < 0.9 * before.local_if_wait_s
    assert after.predicted_latency_s < 1.1 * before.predicted_latency_s
    assert len(wire.decisions) > announced


@pytest.mark.parametrize('share, counts', [(0.015, False), (0.03, True)])
def test_a_latency_that_differs_by_2_percent_replaces_the_decision(share, counts) -> None:
    wire = steady(MonitorSettings(pinned_split=0, codecs=('raw',)))
    wire.report()
    before = wire.monitor.decision
    wire.report(queueing_s=share * before.predicted_latency_s)
    assert wire.monitor.used.plan.predicted_s == pytest.approx((1 + share) * before.predicted_latency_s, rel=4e-3)
    assert (wire.monitor.decision is not before) == counts


def test_a_decision_is_degraded_as_soon_as_the_edge_is_silent_until_it_answers() -> None:
    wire = steady(MonitorSettings(silence_s=0.5))
    assert not wire.monitor.decision.degraded and wire.monitor.decision.split_index < LOCAL
    wire.lost, lost_s = True, wire.now_s
    while not wire.monitor.decision.degraded:
        wire.idle(0.02)
        assert wire.now_s < lost_s + 1.5
    assert wire.monitor.decision.split_index == LOCAL
    wire.lost, back_s = False, wire.now_s
    while wire.monitor.decision.degraded:
        wire.idle(0.02)
        assert wire.now_s < back_s + 1.5


@pytest.mark.parametrize(
    'changes',
    [
        {'outcome': 'fell_back', 'given_up_s': 1.0},
        {'outcome': 'late'},
        {'split_index': LOCAL, 'outcome': 'local'},
        {'outcome': 'answered', 'given_up_s': 1.0},
    ],
)
def test_a_frame_that_did_not_follow_the_decision_makes_a_new_decision(changes) -> None:
    """After the edge failed a frame, the camera follows only a decision that accounts for that frame."""
    wire = steady()
    wire.sequence += 1
    wire.monitor.on_frame(FrameRecord(**{'sequence': wire.sequence, 'split_index': 0, 'codec': 'raw', **changes}))
    (decision,) = (action.decision for action in wire.monitor.on_time(wire.now_s) if isinstance(action, Announce))
    expected = wire.sequence - 1 if changes.get('outcome') == 'late' else wire.sequence
    assert decision.last_frame == expected, 'a late answer tells of a frame that was reported before'


def test_while_a_payload_that_was_given_up_may_occupy_the_link_frames_are_local() -> None:
    wire = steady()
    wire.sequence += 1
    wire.monitor.on_sent(wire.sequence, wire.now_s, 0, 'raw', 150_528)
    sent_s, wire.now_s = wire.now_s, wire.now_s + 0.03
    wire.monitor.on_frame(
        FrameRecord(
            sequence=wire.sequence,
            outcome='fell_back',
            split_index=0,
            codec='raw',
            payload_bytes=150_528,
            sent_s=sent_s,
            given_up_s=wire.now_s,
        )
    )
    wire.tick()
    assert (wire.monitor.decision.split_index, wire.monitor.decision.degraded) == (LOCAL, False)
    wire.now_s += 0.01
    wire.monitor.on_acknowledgement(wire.sequence, wire.now_s)
    wire.tick()
    assert wire.monitor.decision.split_index < LOCAL


@pytest.mark.parametrize('servers, counted', [(3, 3), (1, 1), (0, 1)])
def test_a_decision_has_the_number_of_servers_but_at_least_one(servers, counted) -> None:
    """An edge without servers answers each frame at once, as one server would."""
    wire = steady()
    wire.report(servers=servers)
    wire.sequence += 1
    wire.monitor.on_frame(
        FrameRecord(sequence=wire.sequence, split_index=0, codec='raw', outcome='fell_back', given_up_s=1.0)
    )
    assert wire.monitor.tick(wire.now_s).servers == counted


def test_an_expected_frame_makes_no_new_decision() -> None:
    wire = steady()
    before = wire.monitor.decision
    wire.frame()
    assert wire.monitor.decision is before


def test_other_settings_make_a_new_decision() -> None:
    wire = steady()
    wire.monitor.reconfigure(MonitorSettings(pinned_split=1))
    assert Announce in kinds(wire.monitor.on_time(wire.now_s))
    assert wire.monitor.decision.split_index == 1


def test_changed_settings_apply_to_edges_that_are_already_known() -> None:
    wire = steady()
    wire.report()
    wire.monitor.reconfigure(MonitorSettings(report_timeout_s=5.0, silence_s=4.0))
    heard_s = wire.now_s
    load = wire.monitor.used.load
    assert load.estimate(heard_s + 4.9).fresh and not load.estimate(heard_s + 5.1).fresh
    wire.lost = True
    while wire.now_s < heard_s + 3.9:
        wire.idle(0.1)
    assert wire.monitor.link.alive, 'silent for less than silence_s'


@pytest.mark.parametrize(
    'offered_hz, expected_hz',
    [(10.9, 10.0), (11.1, 11.1), (9.2, 10.0), (9.0, 9.0), (0.001, 10.0), (2000.0, 10.0), (math.nan, 10.0)],
)
def test_a_measured_frame_rate_is_followed_when_it_differs_by_a_tenth(offered_hz, expected_hz) -> None:
    wire = Wire(MonitorPolicy(PROFILE))
    wire.frame(offered_hz=offered_hz)
    assert wire.monitor.frame_rate_hz == expected_hz
    told = Wire(MonitorPolicy(PROFILE, MonitorSettings(frame_rate_hz=15.0)))
    told.frame(offered_hz=30.0)
    assert told.monitor.frame_rate_hz == 15.0, 'the setting holds'


def test_frames_that_take_longer_than_predicted_raise_the_prediction() -> None:
    wire = steady(MonitorSettings(pinned_split=0, codecs=('raw',)))
    before_s = wire.monitor.decision.predicted_latency_s
    for _ in range(100):
        wire.frame(latency_s=before_s + 0.02)
        wire.idle(0.1)
    assert wire.monitor.decision.predicted_latency_s == pytest.approx(before_s + 0.02, rel=0.15)


def test_a_slow_head_counts_only_if_no_other_frame_was_finished_meanwhile() -> None:
    def predicted_s(finishing_s: float) -> float:
        wire = Wire(MonitorPolicy(PROFILE, MonitorSettings(pinned_split=LOCAL)))
        wire.idle(1.0)
        for number in range(1, 30):
            wire.now_s += 0.5
            wire.monitor.on_frame(
                FrameRecord(
                    sequence=number,
                    outcome='local',
                    split_index=LOCAL,
                    head_s=3 * PROFILE.cuts[LOCAL].head_s[1],
                    finishing_s=finishing_s,
                )
            )
            wire.tick()
        return wire.monitor.decision.predicted_latency_s

    alone_s = PROFILE.cuts[LOCAL].head_s[1]
    assert predicted_s(0.0) > 2 * alone_s
    assert predicted_s(0.1) == pytest.approx(alone_s, rel=0.1)


def test_an_answer_to_a_probe_changes_the_decision_at_once() -> None:
    monitor, at_ticks, after_answers = MonitorPolicy(PROFILE), 0, 0
    for tick in range(50):
        now_s = tick * TICK_S
        actions = monitor.on_time(now_s)
        at_ticks += Announce in kinds(actions)
        for action in actions:
            if isinstance(action, SendProbe):
                monitor.on_probe_answer(action.probe.id, now_s + 0.003)
                after_answers += Announce in kinds(monitor.on_time(now_s + 0.003))
    assert at_ticks == 1 and after_answers >= 2


def test_a_decision_is_reviewed_four_times_a_second_while_nothing_is_observed() -> None:
    """A load report that becomes stale is not an observation, so the next review takes it into account."""
    settings = MonitorSettings(pinned_split=0, codecs=('raw',), report_timeout_s=0.05, silence_s=60.0)
    wire = steady(settings)
    wire.report(queueing_s=0.5)
    told_s, told = wire.now_s, wire.monitor.decision
    assert told.predicted_latency_s > 0.5
    while wire.monitor.decision is told:
        wire.now_s += 0.01
        wire.tick()
    assert wire.now_s - told_s == pytest.approx(0.25, abs=0.011)
    assert wire.monitor.decision.predicted_latency_s < 0.5


def test_an_acknowledgement_that_precedes_the_cameras_report_counts_as_an_observation() -> None:
    wire = steady(MonitorSettings(codecs=('raw',)))
    sent_s = wire.now_s
    wire.now_s = sent_s + 1.0
    wire.tick()  # a review
    before, number = wire.monitor.decision, wire.sequence + 1
    wire.monitor.on_acknowledgement(number, wire.now_s)
    wire.monitor.on_sent(number, sent_s, 0, 'raw', 150_528)  # the link has become 80 times as slow
    wire.now_s += 0.001
    wire.tick()
    assert wire.monitor.decision is not before


def test_an_estimate_that_moves_by_more_than_1_percent_of_the_latency_causes_a_plan() -> None:
    """Without any hysteresis, the better choice is taken; below a hundredth, the monitor does not plan again."""
    settings = MonitorSettings(switching_cost=0.0, confidence=0.0, frame_rate_hz=2.0, codecs=('raw',))
    wire = steady(settings, rate_bps=1e9)
    wire.frame()
    latency_s = {candidate.split_index: candidate.latency_s for candidate in wire.monitor.decision.candidates}
    gain_s = latency_s[LOCAL] - latency_s[0]
    chosen = []
    for queueing_s in (gain_s - 0.0075 * latency_s[LOCAL], gain_s + 0.0075 * latency_s[LOCAL]):
        wire.report(queueing_s=queueing_s)
        chosen.append(wire.monitor.decision.split_index)
    assert chosen == [0, LOCAL]


def test_a_review_plans_again_only_after_an_estimate_has_moved() -> None:
    """Planning is the largest part of the monitor's processor time."""
    wire = steady()
    wire.report()
    plan = wire.monitor.used.plan
    for _ in range(3):
        wire.report()
        assert wire.monitor.used.plan is plan
    wire.report(queueing_s=0.1)
    assert wire.monitor.used.plan is not plan


def test_a_load_report_is_fresh_for_the_report_timeout() -> None:
    wire = steady(MonitorSettings(report_timeout_s=0.5))
    wire.report(queueing_s=0.1)
    assert wire.monitor.load.fresh and wire.monitor.load.queueing_s == 0.1
    wire.idle(0.6)
    assert not wire.monitor.load.fresh and wire.monitor.load.queueing_s == 0.0


def test_an_edge_without_servers_is_not_used_until_it_has_one_again() -> None:
    wire = steady()
    assert wire.monitor.decision.split_index < LOCAL and not wire.monitor.decision.degraded
    wire.report(servers=0)
    decision = wire.monitor.decision
    assert (decision.split_index, decision.degraded) == (LOCAL, True) and 'no capacity' in decision.reason
    assert wire.monitor.link.alive, 'the link is there'
    wire.report(servers=3)
    decision = wire.monitor.decision
    assert decision.split_index < LOCAL and (decision.degraded, decision.servers) == (False, 3)
