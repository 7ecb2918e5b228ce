# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The chosen split, the constraints on it, and its description."""

from __future__ import annotations

from collections import Counter
import math

import numpy as np
import pytest
from worlds import MODELS, system, Wire

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.planner import Planner, PlannerConstraints, SystemEstimate
from dynsplit_ros.policies.monitor import MonitorPolicy
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import FrameRecord
from dynsplit_ros.simulation.trace import constant, markov, noisy
from dynsplit_ros.simulation.world import Scenario, simulate

PROFILE = system()
LOCAL = PROFILE.local_index


def run(rate_bps, seconds=15.0, profile=PROFILE, **settings):
    return simulate(
        profile, Scenario(constant(rate_bps, seconds), seconds, seed=1), 'dynamic', MonitorSettings(**settings)
    )


def usual(result, since_s=5.0):
    return Counter((f.split_index, f.codec) for f in result.frames if f.arrived_s > since_s).most_common(1)[0][0]


def test_fast_links_offload_and_slow_ones_do_not() -> None:
    assert usual(run(1e9))[0] == 0
    assert usual(run(0.3e6))[0] == LOCAL


@pytest.mark.parametrize('shallowest', [1, 3, LOCAL])
def test_no_frame_is_cut_before_shallowest_split(shallowest) -> None:
    link = markov(1e6, 1e9, 2.0, 20.0, 3)
    result = simulate(PROFILE, Scenario(link, 20.0, seed=3), 'dynamic', MonitorSettings(shallowest_split=shallowest))
    assert result.frames
    assert all(frame.split_index >= shallowest for frame in result.frames)


@pytest.mark.parametrize('pinned', [0, 2, LOCAL])
def test_a_pinned_split_is_used_while_the_edge_answers(pinned) -> None:
    result = run(20e6, pinned_split=pinned)
    assert {frame.split_index for frame in result.frames if frame.arrived_s > 2} == {pinned}


@pytest.mark.parametrize('codec', ['raw', 'blosc2'])
def test_only_allowed_codecs_are_used(codec) -> None:
    result = run(20e6, codecs=(codec,))
    assert {frame.codec for frame in result.frames} <= {codec, ''}
    assert any(frame.codec == codec for frame in result.frames)


def test_the_codec_follows_the_rate() -> None:
    # On slow links the codec compresses, on fast links it does not.
    assert usual(run(30e6, pinned_split=1))[1] == 'blosc2'
    assert usual(run(10e9, pinned_split=1))[1] == 'raw'


@pytest.mark.parametrize('bandwidth_bps', [0.5e6, 2e6, 8e6])
def test_payloads_stay_below_bandwidth_bps(bandwidth_bps) -> None:
    result = run(100e6, 30.0, bandwidth_bps=bandwidth_bps)
    assert 8 * result.payload_bytes / 30.0 <= 1.1 * bandwidth_bps


@pytest.mark.parametrize('name', MODELS)
def test_the_frame_rate_objective_delivers_no_fewer_frames(name) -> None:
    profile = system(name)
    many = run(12e6, 30.0, profile, objective='frame_rate')
    soon = run(12e6, 30.0, profile)
    assert len(many.frames) >= 0.98 * len(soon.frames)


def test_the_frame_rate_objective_weighs_the_slowest_stage() -> None:
    wire = Wire(MonitorPolicy(PROFILE, MonitorSettings(objective='frame_rate')), rate_bps=12e6)
    wire.idle(3.0)
    for _ in range(5):
        wire.frame()
        wire.idle(0.1)
    decision = wire.decisions[-1]
    rates = {(c.split_index, c.codec): c.frame_rate_hz for c in decision.candidates}
    assert rates[decision.split_index, decision.codec] >= 0.9 * max(rates.values())


@pytest.mark.parametrize('name, rate_bps, load', [('mobilenet_v2', 8.25e6, 1.0), ('efficientnet_b0', 7.18e6, 2.0)])
def test_robot_and_steady_link_alternate_where_that_pays(name, rate_bps, load) -> None:
    profile = system(name)
    scenario = Scenario(constant(rate_bps, 30.0), 30.0, slowdown=constant(load, 30.0), seed=1)
    dynamic, oracle = (simulate(profile, scenario, policy) for policy in ('dynamic', 'oracle'))
    assert dynamic.mean_s(5.0) <= 1.03 * oracle.mean_s(5.0)
    late = [frame for frame in dynamic.frames if frame.arrived_s > 5]
    turns = sum(frame.split_index == profile.local_index for frame in late) / len(late)
    assert 0.3 < turns < 0.6, 'every other image is done by the robot'


@pytest.mark.parametrize('rate_mbps', [4, 6, 8, 10, 30])
def test_noise_on_a_constant_link_does_not_change_the_split(rate_mbps) -> None:
    changes = [
        change_s
        for seed in (7, 8, 9)
        for change_s in simulate(
            PROFILE, Scenario(noisy(1e6 * rate_mbps, 0.2, 65.0, seed), 65.0, seed=seed)
        ).decisions_changed
        if change_s > 5
    ]
    assert len(changes) / 3 <= 2


def test_the_planner_uses_the_measured_frame_rate_unless_one_is_set() -> None:
    for settings, expected_hz in ((MonitorSettings(), 28.0), (MonitorSettings(frame_rate_hz=3.0), 3.0)):
        wire = Wire(MonitorPolicy(PROFILE, settings))
        wire.idle(3.0)
        assert wire.monitor.frame_rate_hz == (settings.frame_rate_hz or 10.0)
        for offered_hz in (28.0, math.nan, 0.0, 27.5, -1.0, math.inf):
            wire.frame(offered_hz=offered_hz)
            wire.idle(0.1)
        assert wire.monitor.frame_rate_hz == expected_hz


def test_a_faster_camera_needs_smaller_payloads_under_bandwidth_bps() -> None:
    wire = Wire(MonitorPolicy(PROFILE, MonitorSettings(bandwidth_bps=4e6)), rate_bps=100e6)
    wire.idle(3.0)
    sent = []
    for offered_hz in (2.0, 40.0):
        for _ in range(20):
            wire.frame(offered_hz=offered_hz)
            wire.idle(0.1)
        chosen = wire.monitor.decision
        sent.append(
            next(
                c.payload_bytes
                for c in chosen.candidates
                if (c.split_index, c.codec) == (chosen.split_index, chosen.codec)
            )
        )
    assert 8 * 2 * sent[0] <= 4e6 and sent[1] < sent[0]


def test_a_decision_has_a_prediction_for_every_choice() -> None:
    wire = Wire(MonitorPolicy(PROFILE), rate_bps=20e6)
    wire.idle(3.0)
    for _ in range(10):
        wire.frame()
        wire.idle(0.1)
    decision = wire.decisions[-1]
    assert {(c.split_index, c.codec) for c in decision.candidates} == {
        *((cut.index, codec) for cut in PROFILE.cuts for codec in cut.codecs),
        (LOCAL, ''),
    }
    chosen = next(c for c in decision.candidates if (c.split_index, c.codec) == (decision.split_index, decision.codec))
    assert chosen.allowed
    assert chosen.latency_s == pytest.approx(decision.predicted_latency_s)
    parts = (
        chosen.image_age_s,
        chosen.head_s,
        chosen.encode_s,
        chosen.transmit_s,
        chosen.rtt_s,
        chosen.queueing_s,
        chosen.decode_s,
        chosen.tail_s,
        chosen.answer_s,
    )
    assert sum(parts) == pytest.approx(chosen.latency_s, rel=0.1)
    truth_s = 0.022 + 150_528 * 8 / 20e6 + 0.004 + 4000 * 8 / 20e6
    raw = next(c for c in decision.candidates if (c.split_index, c.codec) == (0, 'raw'))
    assert raw.latency_s == pytest.approx(truth_s, rel=0.15)
    assert decision.split_name == PROFILE.cuts[decision.split_index].name
    assert decision.reason


def test_the_answer_timeout_is_at_most_three_predicted_waits_or_as_set() -> None:
    for settings in (MonitorSettings(), MonitorSettings(answer_timeout_s=0.35)):
        wire = Wire(MonitorPolicy(PROFILE, settings), rate_bps=20e6)
        wire.idle(3.0)
        for _ in range(10):
            wire.frame()
        sending = [decision for decision in wire.decisions if decision.split_index != LOCAL]
        assert sending
        for decision in sending:
            if settings.answer_timeout_s:
                assert decision.answer_timeout_s == pytest.approx(0.35)
            else:
                assert 0 < decision.answer_timeout_s <= max(0.2, 3.3 * decision.predicted_latency_s)


@pytest.mark.parametrize(
    'settings',
    [
        {'pinned_split': LOCAL + 1},
        {'shallowest_split': LOCAL + 1},
        {'pinned_split': 1, 'shallowest_split': 3},
        {'pinned_split': 1, 'codecs': ('jpeg90',)},
        {'batch': 3},
    ],
)
def test_constraints_that_leave_no_choice_are_refused(settings) -> None:
    with pytest.raises(DynsplitError):
        MonitorPolicy(PROFILE, MonitorSettings(**settings))


@pytest.mark.parametrize(
    'settings',
    [
        {'objective': 'speed'},
        {'batch': 0},
        {'probe_share': -0.1},
        {'silence_s': float('nan')},
        {'answer_timeout_s': -1.0},
        {'downlink_ratio': 0.0},
        {'pinned_split': -2},
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings) -> None:
    with pytest.raises(DynsplitError, match=next(iter(settings))):
        MonitorSettings(**settings)


def test_predictions_are_finite_at_every_rate() -> None:
    for rate_bps in np.geomspace(1e4, 1e10, 7):
        wire = Wire(MonitorPolicy(PROFILE), rate_bps=float(rate_bps))
        wire.idle(3.0)
        wire.frame()
        for decision in wire.decisions:
            assert np.isfinite([c.latency_s for c in decision.candidates]).all()
            assert np.isfinite([decision.predicted_latency_s, decision.answer_timeout_s]).all()
            assert not np.isnan(decision.local_if_wait_s)


def plans(monitor: MonitorPolicy, monkeypatch) -> list[float]:
    """Return the instants of all plans that the monitor makes from now on."""
    made: list[float] = []
    planner = monitor.used.planner
    plan = planner.plan
    monkeypatch.setattr(planner, 'plan', lambda estimate: made.append(estimate.now_s) or plan(estimate))
    return made


def settled(monkeypatch, **settings) -> tuple[Wire, list[float]]:
    """Return a wire on which the choice has settled, and the list of the plans from now on."""
    wire = Wire(MonitorPolicy(PROFILE, MonitorSettings(frame_rate_hz=10.0, **settings)), rate_bps=100e6)
    wire.idle(1.0)
    for _ in range(60):
        wire.frame()
        wire.idle(0.06)
    return wire, plans(wire.monitor, monkeypatch)


def test_constant_estimates_cause_no_new_plan(monkeypatch) -> None:
    wire, made = settled(monkeypatch)
    wire.decisions.clear()
    for _ in range(50):
        wire.frame()
        wire.idle(0.06)
    assert len(made) < 10 and not wire.decisions
    assert wire.monitor.decision.split_index == 0


@pytest.mark.parametrize('what', ['rate', 'round trip', 'edge', 'queue', 'head', 'silence'])
def test_a_changed_estimate_causes_a_new_plan(monkeypatch, what) -> None:
    wire, made = settled(monkeypatch)
    if what == 'rate':
        wire.rate_bps /= 3
    elif what == 'round trip':
        wire.rtt_s += 0.02
    elif what == 'silence':
        wire.lost = True
    for _ in range(12):
        if what == 'silence':
            wire.idle(0.1)
            continue
        if what == 'queue':
            wire.report(queueing_s=0.05)
        frame = wire.frame(held_s=0.08 if what == 'edge' else 0.022)
        if what == 'head':
            frame.sequence, frame.outcome, frame.split_index = frame.sequence + 1000, 'local', LOCAL
            frame.head_s = 2 * PROFILE.cuts[LOCAL].head_s[1]
            wire.monitor.on_frame(frame)
            wire.tick()
        wire.idle(0.06)
    assert made and wire.decisions


@pytest.mark.parametrize('outcome, finishing_s, factor', [('local', 0.1, 1.0), ('local', 0.0, 2.0), ('late', 0.0, 1.0)])
def test_the_robot_estimate_ignores_heads_that_shared_the_robot_and_late_answers(outcome, finishing_s, factor) -> None:
    """An answer is missing: the robot finishes its frame while the next head runs, and both take twice as long."""
    monitor = MonitorPolicy(PROFILE)
    head_s = PROFILE.cuts[LOCAL].head_s[1]
    for sequence in range(1, 40):
        monitor.on_frame(
            FrameRecord(
                sequence=sequence,
                outcome=outcome,
                split_index=LOCAL,
                codec='',
                head_s=2 * head_s,
                finishing_s=finishing_s,
            )
        )
        monitor.tick(sequence * 0.1)
    assert monitor._robot.times.factor_of(LOCAL) == pytest.approx(factor, rel=0.02)


def test_a_split_that_is_slower_than_predicted_is_replaced() -> None:
    """By the measured parts, this split stays the best; the measured latencies show that it is not."""
    wire = Wire(MonitorPolicy(PROFILE, MonitorSettings(codecs=('raw',), frame_rate_hz=10.0)), rate_bps=100e6)
    wire.idle(1.0)

    def play(frames: int, latency_s: float) -> set[int]:
        used = set()
        for _ in range(frames):
            wire.frame(latency_s=latency_s)
            wire.idle(0.06)
            used.add(wire.monitor.decision.split_index)
        return used

    play(10, math.nan)
    predicted_s = wire.monitor.decision.predicted_latency_s
    assert play(60, predicted_s) == {0}
    assert LOCAL in play(300, 2 * PROFILE.cuts[LOCAL].head_s[1])


def test_local_frames_correct_only_the_prediction_of_local_inference() -> None:
    monitor, sequence = MonitorPolicy(PROFILE), 0
    head_s = PROFILE.cuts[LOCAL].head_s[1]
    for latency_s in (1.5 * head_s, 1.1 * head_s):
        for _ in range(300):
            sequence += 1
            monitor.on_frame(
                FrameRecord(
                    sequence=sequence, outcome='local', split_index=LOCAL, codec='', head_s=head_s, latency_s=latency_s
                )
            )
            monitor.tick(sequence * 0.1)
        assert monitor.decision.predicted_latency_s == pytest.approx(latency_s, rel=0.03)
        assert not monitor.residual_s[:LOCAL].any()


def test_sent_frames_correct_their_own_split_most_and_local_inference_not_at_all() -> None:
    settings = MonitorSettings(codecs=('raw',), frame_rate_hz=10.0, pinned_split=0)
    wire = Wire(MonitorPolicy(PROFILE, settings), rate_bps=100e6)
    wire.idle(1.0)
    for _ in range(10):
        wire.frame()
        wire.idle(0.06)
    latency_s = 1.1 * wire.monitor.decision.predicted_latency_s
    for _ in range(100):
        wire.frame(latency_s=latency_s)
        wire.idle(0.06)
    assert wire.monitor.decision.predicted_latency_s == pytest.approx(latency_s, rel=0.02)
    residual_s = wire.monitor.residual_s
    assert 0.01 * latency_s < residual_s[1] == residual_s[2] < 0.6 * residual_s[0] and residual_s[LOCAL] == 0


def test_a_changed_rate_changes_the_split_at_once_and_a_fluctuating_one_does_not() -> None:
    def estimate(rate_bps: float, now_s: float) -> SystemEstimate:
        return SystemEstimate.as_profiled(len(PROFILE.cuts), rate_bps, rtt_s=0.01, now_s=now_s, rate_spread=0.1)

    def planner() -> Planner:
        return Planner(PROFILE, PlannerConstraints(codecs=('raw',)))

    rates = np.geomspace(1e6, 100e6, 300)
    chosen = [planner().plan(estimate(rate_bps, 0.0)).split_index for rate_bps in rates]
    # Slightly above the least rate at which frames are sent, the gain is smaller than the deviation of the rate
    # requires.
    rate_bps = 1.02 * rates[next(index for index, split in enumerate(chosen) if split != LOCAL)]
    for before_bps, follows in ((rate_bps / 1.8, True), (rate_bps / 1.5, False)):
        moved = planner()
        assert moved.plan(estimate(before_bps, 0.0)).split_index == LOCAL
        assert (moved.plan(estimate(rate_bps, 0.1)).split_index != LOCAL) is follows


@pytest.mark.parametrize('outcome', ['fell_back', 'given up', 'local', 'another split'])
def test_a_frame_that_did_not_follow_the_decision_causes_a_new_decision(monkeypatch, outcome) -> None:
    """After the edge failed a frame, frames are local until a decision accounts for that frame."""
    wire, _ = settled(monkeypatch)
    frame = wire.frame()
    wire.decisions.clear()
    frame.sequence += 1
    if outcome == 'given up':
        frame.given_up_s = wire.now_s
    elif outcome == 'another split':
        frame.split_index = 3
    else:
        frame.outcome = outcome
    if outcome == 'local':
        frame.split_index = LOCAL
    wire.monitor.on_frame(frame)
    wire.tick()
    assert [decision.last_frame for decision in wire.decisions] == [frame.sequence]


def test_the_regret_is_zero_while_the_choice_in_force_is_the_best(monkeypatch) -> None:
    wire, _ = settled(monkeypatch)
    planner = wire.monitor.used.planner
    for _ in range(30):
        wire.idle(0.1)
        wire.frame()
    assert planner.hysteresis.regret.total_s == 0.0
    assert wire.now_s - planner.hysteresis.regret.compared_s < 0.3
