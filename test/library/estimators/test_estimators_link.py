# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The monitor's estimate of the link: rate, round trip, silence, and the cost of probes."""

from __future__ import annotations

from dataclasses import fields
import math
from statistics import NormalDist

import numpy as np
import pytest
from worlds import system, Wire

from dynsplit_ros.estimators.link import HEARTBEAT_BYTES, LinkEstimator
from dynsplit_ros.estimators.probing import LinkRules
from dynsplit_ros.estimators.rate import RATE_SHARES, RateFilter
from dynsplit_ros.estimators.round_trip import RoundTrip
from dynsplit_ros.parameters import EDGE
from dynsplit_ros.policies.monitor import MonitorPolicy
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import FrameRecord
from dynsplit_ros.simulation.trace import constant, noisy, steps
from dynsplit_ros.simulation.world import Scenario, simulate

PROFILE = system()
LOAD_PERIOD = next(parameter for parameter in EDGE if parameter.name == 'load_period_s')


def run(link, policy='dynamic', seconds=20.0, **values):
    return simulate(PROFILE, Scenario(link, seconds, seed=1, **values), policy)


def estimate_at(result, time_s: float) -> float:
    return [rate for at_s, rate in result.estimates if at_s <= time_s][-1]


@pytest.mark.parametrize('rate_mbps', [0.5, 8, 100, 1000])
@pytest.mark.parametrize('policy', ['0', '5', str(PROFILE.local_index)])
def test_the_rate_is_known_after_ten_frames_of_any_split(rate_mbps, policy) -> None:
    result = run(constant(1e6 * rate_mbps, 60), policy, 60.0 if rate_mbps < 1 else 20.0)
    estimated = estimate_at(result, result.frames[9].delivered_s)
    assert estimated == pytest.approx(1e6 * rate_mbps, rel=0.2)


def test_the_first_probe_measures_a_slow_link_although_the_round_trip_contains_the_bytes_of_heartbeats() -> None:
    local = str(PROFILE.local_index)
    result = run(constant(0.25e6, 10), local, 10.0)
    assert estimate_at(result, result.frames[9].delivered_s) == pytest.approx(0.25e6, rel=0.06)


@pytest.mark.parametrize('rate_mbps', [0.25, 8])
def test_no_payload_is_sent_before_a_probe_has_measured_the_rate(rate_mbps) -> None:
    """At a guess of 10 Mbit/s, one image would occupy a slow link for five seconds without a measurement."""
    fast_robot = system(slower=4.0)  # its first frame was done before many heartbeats were answered
    result = simulate(fast_robot, Scenario(constant(1e6 * rate_mbps, 30), 30.0, seed=1), '0')
    first = next(frame for frame in result.frames if frame.payload_bytes)
    assert first.started_s < 1.0
    assert result.estimate_bps(first.started_s) == pytest.approx(1e6 * rate_mbps, rel=0.3)


def test_the_first_payload_waits_at_most_a_second_for_a_probe() -> None:
    monitor, decided_s = MonitorPolicy(PROFILE), []
    for number in range(100):
        now_s = number * 0.02
        decided_s += [now_s] if monitor.tick(now_s) else []
        probe = monitor.next_probe(now_s)
        if probe is not None and probe.payload_bytes <= HEARTBEAT_BYTES:
            monitor.on_probe_answer(probe.id, now_s + 0.001)
    unheard_s, waited_s = decided_s[:2]
    assert unheard_s == 0.0 and 1.0 <= waited_s < 1.1


def times_lost(settings: MonitorSettings, load_period_s: float, seconds: float) -> int:
    """Return the number of ticks after the first five seconds in which a perfect link counts as lost."""
    wire, due_s, lost = Wire(MonitorPolicy(PROFILE, settings)), 0.0, 0
    while wire.now_s < seconds:
        wire.idle(0.02)
        if wire.now_s >= due_s:
            wire.report(period_s=load_period_s)
            due_s += load_period_s
        lost += wire.now_s > 5.0 and not wire.monitor.link.alive
    return lost


@pytest.mark.parametrize('load_period_s', [LOAD_PERIOD.minimum, 0.2, 1.0, 1.6, 2.0, 5.0, LOAD_PERIOD.maximum])
def test_a_perfect_link_is_never_lost_at_any_period_of_the_load_reports(load_period_s) -> None:
    assert times_lost(MonitorSettings(), load_period_s, 120.0) == 0


@pytest.mark.parametrize(
    'name, value',
    [
        (setting.name, setting.metadata[end])
        for setting in fields(MonitorSettings)
        for end in ('minimum', 'maximum')
        if setting.metadata[end] is not None and setting.name != 'batch'
    ],
)  # this profile is of one image
def test_a_perfect_link_is_never_lost_at_either_end_of_a_setting(name, value) -> None:
    value = min(int(value), PROFILE.local_index) if name.endswith('_split') else value
    for load_period_s in (0.2, LOAD_PERIOD.maximum):
        assert times_lost(MonitorSettings(**{name: value}), load_period_s, 35.0) == 0


def test_an_outage_does_not_delay_the_detection_of_the_next_one() -> None:
    """The time of the outage does not count as a pause between reports."""
    wire = Wire(MonitorPolicy(PROFILE))
    missed_s = []
    for _ in range(2):
        for _ in range(50):
            wire.idle(0.2)
            wire.report(period_s=0.2)
        wire.lost, began_s = True, wire.now_s
        while wire.monitor.link.alive:
            wire.idle(0.02)
            assert wire.now_s < began_s + 10.0
        missed_s.append(wire.now_s - began_s)
        wire.idle(30.0)
        wire.lost = False
    assert max(missed_s) < 1.5


def test_no_payload_is_sent_to_an_edge_that_answers_before_the_first_decision() -> None:
    monitor = MonitorPolicy(PROFILE)
    monitor.on_probe_answer(monitor.next_probe(0.0).id, 0.001)
    decision = monitor.tick(0.01)
    assert monitor.link.alive and decision.split_index == PROFILE.local_index and not decision.degraded


@pytest.mark.parametrize('noise, mean_off', [(0.0, 0.005), (0.03, 0.022)])
def test_the_rate_of_a_steady_link_is_known_better_than_one_step_of_the_grid(noise, mean_off) -> None:
    """The rates cover one step of the grid, 7.8 %, and a little more."""
    chance, jitter_s = np.random.default_rng(0), 5e-4
    for rate_bps in np.geomspace(9.5e6, 10.5e6, 15).tolist():
        belief, off = RateFilter(), []
        for _ in range(200):
            belief.elapse(0.1)
            belief.observe(8 * 60_000 / rate_bps * math.exp(chance.normal(0, noise)), 60_000, jitter_s)
            off.append(math.log(belief.median_bps / rate_bps))
        assert abs(np.mean(off[50:])) < mean_off


@pytest.mark.parametrize('rate_bps', [1.0, 1.9e4, 2e10])
def test_a_rate_beyond_the_grid_counts_as_its_end(rate_bps) -> None:
    belief = RateFilter()
    for _ in range(300):
        belief.elapse(0.1)
        belief.observe(8e9 / rate_bps, 1e9, 1e-6)
    assert belief.median_bps == pytest.approx(min(max(rate_bps, 2e4), 5e9), rel=0.1)


@pytest.mark.parametrize('rtt_s', [0.001, 0.02, 0.1])
def test_the_round_trip_and_the_rate_are_separated(rtt_s) -> None:
    wire = Wire(MonitorPolicy(PROFILE), rate_bps=5e6, rtt_s=rtt_s)
    wire.idle(3.0)
    for _ in range(10):
        wire.frame()
        wire.idle(0.1)
    assert wire.monitor.link.rtt_s == pytest.approx(rtt_s, rel=0.1, abs=5e-4)
    assert wire.monitor.link.throughput_bps == pytest.approx(5e6, rel=0.1)
    assert wire.monitor.link.relative_uncertainty < 0.3


@pytest.mark.parametrize('high_bps', [10e6, 40e6, 200e6])
def test_a_step_down_is_recognised_within_three_frames(high_bps) -> None:
    result = run(steps([(0.0, high_bps), (10.0, high_bps / 10)], 20.0), '0')
    met = [frame for frame in result.frames if frame.started_s >= 10.0]
    assert estimate_at(result, met[2].delivered_s) < 2 * high_bps / 10


@pytest.mark.parametrize('policy', ['0', str(PROFILE.local_index)])
def test_a_step_up_is_recognised_within_seconds(policy) -> None:
    result = run(steps([(0.0, 2e6), (10.0, 20e6)], 20.0), policy)
    assert estimate_at(result, 12.0) > 10e6


@pytest.mark.parametrize('rate_mbps', [1, 20, 100])
@pytest.mark.parametrize('payload_bytes', [0, 40_000])
def test_the_dispersion_measures_the_rate_although_the_robot_pauses(rate_mbps, payload_bytes) -> None:
    monitor, rng, now_s, rate_bps = MonitorPolicy(PROFILE), np.random.default_rng(1), 0.0, rate_mbps * 1e6
    while now_s < 20.0:
        now_s += 0.02
        probe = monitor.next_probe(now_s)
        if probe is not None:
            took_s = probe.payload_bytes * 8 / rate_bps
            led_s = (probe.payload_bytes - probe.lead_bytes) * 8 / rate_bps if probe.lead_bytes else math.nan
            now_s += took_s + 0.002 + rng.exponential(0.02)
            monitor.on_probe_answer(probe.id, now_s, 0.0, led_s)
        elif payload_bytes and rng.random() < 0.1:
            sequence, took_s = round(now_s * 1000), payload_bytes * 8 / rate_bps
            monitor.on_sent(sequence, now_s, 2, 'raw', payload_bytes)
            now_s += took_s + 0.002 + rng.exponential(0.02)
            monitor.on_acknowledgement(sequence, now_s, took_s)
            monitor.on_frame(
                FrameRecord(
                    sequence=sequence,
                    outcome='answered',
                    split_index=2,
                    codec='raw',
                    payload_bytes=payload_bytes,
                    answer_bytes=4000,
                    answered_s=now_s + 0.03,
                    held_s=0.02,
                )
            )
            now_s += 0.03
        monitor.tick(now_s)
    assert monitor.link.throughput_bps == pytest.approx(rate_bps, rel=0.15)
    assert monitor.link.jitter_s > 0.005


@pytest.mark.parametrize('rate_mbps', [5, 20, 100])
@pytest.mark.parametrize('pause_s', [0.003, 0.02])
def test_an_edge_that_pauses_is_not_taken_for_a_faster_link(rate_mbps, pause_s) -> None:
    """It then sees lead and payload almost at the same time; two such payloads in a row count as a faster link."""
    monitor, rng, now_s = MonitorPolicy(PROFILE), np.random.default_rng(1), 0.0
    believed_bps, payload_bytes = [], 60_000

    def frame(number: int, rate_bps: float, paused_s: float) -> None:
        nonlocal now_s
        took_s = payload_bytes * 8 / rate_bps
        monitor.on_sent(number, now_s, 2, 'raw', payload_bytes)
        now_s += took_s + 0.002 + rng.exponential(pause_s / 2) + max(0.0, paused_s - took_s)
        monitor.on_acknowledgement(number, now_s, max(took_s - paused_s, 1e-4))
        now_s += 0.02
        monitor.on_frame(
            FrameRecord(
                sequence=number,
                outcome='answered',
                split_index=2,
                codec='raw',
                payload_bytes=payload_bytes,
                answer_bytes=4000,
                answered_s=now_s,
                held_s=0.02,
            )
        )
        monitor.tick(now_s)
        believed_bps.append(monitor.link.throughput_bps)
        for _ in range(5):
            now_s += 0.02
            probe = monitor.next_probe(now_s)
            if probe is not None:
                arrived_s = now_s + probe.payload_bytes * 8 / rate_bps + 0.002 + rng.exponential(pause_s / 2)
                monitor.on_probe_answer(probe.id, arrived_s)
            monitor.tick(now_s)

    for number in range(200):
        frame(number, 1e6 * rate_mbps, rng.exponential(pause_s) if number % 15 == 14 else 0.0)
    ratios = np.array(believed_bps[15:]) / (1e6 * rate_mbps)
    assert 0.6 < ratios.min() and ratios.max() < 1.7
    for number in range(200, 204):
        frame(number, 1e7 * rate_mbps, 0.0)
    assert believed_bps[-1] / (1e7 * rate_mbps) == pytest.approx(1.0, rel=0.4)


@pytest.mark.parametrize('seed', range(8))
def test_a_robot_that_pauses_and_sends_nothing_finds_a_faster_link(seed) -> None:
    monitor, rng, now_s, rate_bps = MonitorPolicy(PROFILE), np.random.default_rng(seed), 0.0, 5e6
    changed_s = 15.0 + rng.uniform(0.0, 2.0)
    while now_s < changed_s or (now_s < changed_s + 3.0 and monitor.link.throughput_bps < 14e6):
        now_s += 0.02
        rate_bps = 5e6 if now_s < changed_s else 20e6
        probe = monitor.next_probe(now_s)
        if probe is not None:
            led_s = (probe.payload_bytes - probe.lead_bytes) * 8 / rate_bps if probe.lead_bytes else math.nan
            back_s = now_s + probe.payload_bytes * 8 / rate_bps + 0.002 + rng.exponential(0.02)
            monitor.on_probe_answer(probe.id, back_s, 0.0, led_s)
            now_s = max(now_s, back_s)
        monitor.tick(now_s)
        assert now_s < 10.0 or now_s > changed_s or monitor.link.throughput_bps < 14e6
    assert now_s < changed_s + 3.0
    spent = monitor.link.heartbeat_bytes + monitor.link.probe_bytes
    assert spent < 0.01 / 8 * (5e6 * changed_s + 20e6 * (now_s - changed_s)) + 10_000  # some are on credit


def test_noise_does_not_change_the_estimated_rate() -> None:
    result = run(noisy(20e6, 0.2, 30.0, 1), '0', 30.0)
    assert all(0.6 < rate / 20e6 < 1.6 for time_s, rate in result.estimates if time_s > 5)


@pytest.mark.parametrize('rate_mbps', [0.25, 1, 10, 1000])
@pytest.mark.parametrize('policy', ['dynamic', str(PROFILE.local_index)])
def test_probes_stay_within_their_budget_and_are_counted(rate_mbps, policy) -> None:
    result = run(constant(1e6 * rate_mbps, 60), policy, 60.0)
    assert 0 < result.heartbeat_bytes + result.probe_bytes <= 0.01 * result.capacity_bytes


def test_a_silent_edge_is_detected_within_silence_s() -> None:
    settings = MonitorSettings(silence_s=0.5, heartbeat_period_s=0.25)
    wire = Wire(MonitorPolicy(PROFILE, settings), rate_bps=20e6)
    wire.idle(3.0)
    wire.frame()
    assert wire.monitor.link.alive
    wire.lost = True
    lost_s = wire.now_s
    while wire.monitor.link.alive:
        wire.idle(0.02)
        assert wire.now_s < lost_s + settings.silence_s + settings.heartbeat_period_s + 0.15
    assert wire.decisions[-1].split_index == PROFILE.local_index
    assert 'answer' in wire.decisions[-1].reason
    wire.lost = False
    wire.idle(1.0)
    assert wire.monitor.link.alive
    wire.idle(1.0)
    assert wire.decisions[-1].split_index != PROFILE.local_index


@pytest.mark.parametrize('regular', [True, False])
def test_missing_load_reports_show_that_the_edge_is_lost(regular) -> None:
    """Although an answer may be due in ten seconds, an edge that reports ten times per second counts as lost sooner."""
    wire = Wire(MonitorPolicy(PROFILE, MonitorSettings(silence_s=0.5)))
    wire.idle(3.0)
    for _ in range(20 if regular else 3):
        wire.idle(0.1)
        wire.report()
    if not regular:
        wire.idle(3.0)  # heartbeats are answered during this time
    wire.rate_bps = 1e5
    for _ in range(3):
        wire.frame()
        if regular:
            wire.report()
    assert wire.monitor.link.alive
    sent_s = wire.now_s
    wire.monitor.on_sent(99, sent_s, 0, 'raw', 150_528)
    for _ in range(20 if regular else 0):
        wire.idle(0.1)
        wire.report()
    assert wire.monitor.link.alive
    lost_s, wire.lost = wire.now_s, True
    while wire.monitor.link.alive:
        wire.idle(0.02)
    silent_s = wire.now_s - lost_s
    assert (0.5 < silent_s < 1.6) if regular else silent_s > 8.0
    assert wire.decisions[-1].degraded and wire.decisions[-1].split_index == PROFILE.local_index


def test_answers_to_messages_that_were_never_sent_are_ignored() -> None:
    wire = Wire(MonitorPolicy(PROFILE))
    wire.idle(3.0)
    for _ in range(5):
        wire.frame()
    before = wire.monitor.link
    for sequence in (77, -1, 2**62):
        wire.monitor.on_acknowledgement(sequence, wire.now_s)
        wire.monitor.on_frame(
            FrameRecord(
                sequence=sequence,
                outcome='answered',
                split_index=0,
                codec='raw',
                payload_bytes=10**9,
                answer_bytes=10,
                sent_s=wire.now_s - 1e-6,
                answered_s=wire.now_s,
                held_s=0.0,
            )
        )
    wire.monitor.on_probe_answer(10**9, wire.now_s)
    after = wire.monitor.link
    assert after.throughput_bps == pytest.approx(before.throughput_bps, rel=0.01)
    assert after.rtt_s == pytest.approx(before.rtt_s, rel=0.01)


@pytest.mark.parametrize('jump_s', [-1000.0, -1.0, 1000.0])
def test_a_clock_that_jumps_leaves_a_possible_estimate(jump_s) -> None:
    wire = Wire(MonitorPolicy(PROFILE))
    wire.idle(3.0)
    for _ in range(5):
        wire.frame()
    wire.now_s += jump_s
    for _ in range(5):
        wire.frame()
        wire.idle(0.2)
    link = wire.monitor.link
    assert all(math.isfinite(value) for value in (link.throughput_bps, link.rtt_s, link.relative_uncertainty))
    assert link.throughput_bps > 0 and link.rtt_s >= 0


@pytest.mark.parametrize('held_s', [-1.0, 1e6, math.nan, math.inf])
def test_impossible_times_of_the_edge_are_ignored(held_s) -> None:
    wire = Wire(MonitorPolicy(PROFILE))
    wire.idle(3.0)
    for _ in range(20):
        sent_s = wire.now_s
        wire.sequence += 1
        wire.monitor.on_sent(wire.sequence, sent_s, 0, 'raw', 150_528)
        wire.now_s += 0.09
        wire.monitor.on_frame(
            FrameRecord(
                sequence=wire.sequence,
                outcome='answered',
                split_index=0,
                codec='raw',
                payload_bytes=150_528,
                answer_bytes=4000,
                sent_s=sent_s,
                answered_s=wire.now_s,
                held_s=held_s,
                queueing_s=held_s,
                decode_s=held_s,
                tail_s=held_s,
            )
        )
        wire.tick()
    assert np.isfinite([candidate.latency_s for candidate in wire.decisions[-1].candidates]).all()
    assert np.isfinite(wire.monitor.link.throughput_bps)


def test_an_acknowledgement_that_precedes_the_cameras_report_counts() -> None:
    """The camera reports a payload after it has left."""
    told, overtaken = (Wire(MonitorPolicy(PROFILE), rate_bps=20e6) for _ in range(2))
    for wire in (told, overtaken):
        wire.idle(2.0)
        for number in range(20):
            sent_s, acknowledged_s = wire.now_s, wire.now_s + 0.0602 + wire.rtt_s
            tell = [
                lambda: wire.monitor.on_sent(number, sent_s, 0, 'raw', 150_528),
                lambda: wire.monitor.on_acknowledgement(number, acknowledged_s, 0.0602),
            ]
            for say in tell if wire is told else reversed(tell):
                say()
            wire.now_s = acknowledged_s
            wire.tick()
            wire.idle(0.04)
    assert overtaken.monitor.link.throughput_bps == pytest.approx(told.monitor.link.throughput_bps, rel=1e-9)
    assert overtaken.monitor.link.throughput_bps == pytest.approx(20e6, rel=0.05)


def test_only_the_latest_four_acknowledgements_of_unknown_payloads_are_kept() -> None:
    link, now_s = settled_link()
    for number in range(100):
        link.on_acknowledgement(number, now_s + 0.1 * number, 0.01)
    kept = [number for number in range(100) if link.on_sent(number, now_s + 0.1 * number, 1000, 0.0)]
    assert kept == [96, 97, 98, 99]


def probes(monitor: MonitorPolicy):
    """Yield each probe of 1500 ticks of 0.02 s with its instant."""
    for number in range(1500):
        now_s = number * 0.02
        monitor.tick(now_s)
        probe = monitor.next_probe(now_s)
        if probe is not None:
            yield now_s, probe


def answer(monitor: MonitorPolicy, now_s: float, probe, rest_s: float, rng) -> None:
    """Answer a probe with this dispersion over a link with jitter, before the next tick."""
    back_s = now_s + rest_s + 0.003 + min(float(rng.exponential(0.01)), 0.01)
    monitor.on_probe_answer(probe.id, back_s, 0.0, rest_s if probe.lead_bytes else math.nan)


@pytest.mark.parametrize('dispersion_s', [5e-324, 1e-300, 1e300, math.inf, -1.0, 0.0])
def test_any_reported_dispersion_leaves_a_possible_estimate(dispersion_s) -> None:
    monitor, rng, told = MonitorPolicy(PROFILE), np.random.default_rng(0), 0
    for now_s, probe in probes(monitor):
        if probe.lead_bytes and now_s > 20.0:
            told += 1
            monitor.on_probe_answer(probe.id, now_s + 0.01, 0.0, dispersion_s)
        else:
            answer(monitor, now_s, probe, (probe.payload_bytes - probe.lead_bytes) * 8 / 5e6, rng)
    assert told > 3 and 0 < monitor.link.throughput_bps < math.inf


@pytest.mark.parametrize('gap_s', [0.0003, 0.02])
def test_a_pause_between_lead_and_probe_does_not_change_the_rate(gap_s) -> None:
    monitor, rng = MonitorPolicy(PROFILE), np.random.default_rng(0)
    for now_s, probe in probes(monitor):
        paused_s = gap_s if now_s > 20.0 else 0.0003
        monitor.on_probe_sent(probe.id, paused_s)
        rest_s = (probe.payload_bytes - probe.lead_bytes) * 8 / 5e6 + (paused_s if paused_s > 0.001 else 0.0)
        answer(monitor, now_s, probe, rest_s, rng)
    assert monitor.link.throughput_bps == pytest.approx(5e6, rel=0.1)


def test_a_robot_that_is_always_slow_to_send_still_measures_the_rate() -> None:
    monitor, rng = MonitorPolicy(PROFILE), np.random.default_rng(0)
    for now_s, probe in probes(monitor):
        monitor.on_probe_sent(probe.id, 0.002 * (1 + 0.2 * float(rng.random())))
        answer(monitor, now_s, probe, (probe.payload_bytes - probe.lead_bytes) * 8 / 5e6, rng)
    assert monitor.link.throughput_bps == pytest.approx(5e6, rel=0.1)


@pytest.mark.parametrize('payload_bytes', [3400, 12_000])
def test_a_pause_while_a_payload_is_sent_does_not_change_the_rate(payload_bytes) -> None:
    monitor, rng, frames = MonitorPolicy(PROFILE), np.random.default_rng(0), 0
    for now_s, probe in probes(monitor):
        answer(monitor, now_s, probe, (probe.payload_bytes - probe.lead_bytes) * 8 / 20e6, rng)
        if now_s > 25.0 and frames < 5:
            frames += 1
            took_s = max(payload_bytes * 8 / 20e6, 0.02)
            monitor.on_sent(frames, now_s, 2, 'raw', payload_bytes, gap_s=0.02)
            monitor.on_acknowledgement(frames, now_s + 0.003 + took_s, took_s)
            assert monitor.link.throughput_bps == pytest.approx(20e6, rel=0.25)
    assert frames == 5


def test_time_slices_of_the_robot_do_not_make_a_slow_link_look_fast() -> None:
    """Most round trips then end at the end of a slice, and so do transfers that take a part of it."""
    monitor, rng = MonitorPolicy(PROFILE), np.random.default_rng(0)
    for now_s, probe in probes(monitor):
        stopped_s = 0.0 if rng.random() < 0.2 else 0.0097
        rest_s = (probe.payload_bytes - probe.lead_bytes) * 8 / 5e6
        took_s = max(probe.payload_bytes * 8 / 5e6 + 0.0005, stopped_s)
        monitor.on_probe_answer(probe.id, now_s + took_s, 0.0, rest_s if probe.lead_bytes else math.nan)
        if now_s > 5.0:
            monitor.tick(now_s + 0.019)
            assert monitor.link.throughput_bps < 10e6


def settled_link(rtt_s: float = 0.004, rate_bps: float = 20e6) -> tuple[LinkEstimator, float]:
    """Return an estimator that knows a link well, and the time."""
    settings = MonitorSettings()
    link = LinkEstimator(LinkRules(**{name: getattr(settings, name) for name in LinkRules.__dataclass_fields__}))
    now_s = 0.0
    while now_s < 20.0:
        now_s += 0.05
        probe = link.next_probe(now_s)
        if probe is not None:
            link.on_answer(('probe', probe.id), now_s + rtt_s + (probe.payload_bytes + 32) * 8 / rate_bps, 0.0, 0)
    assert link.rtt_s == pytest.approx(rtt_s, rel=0.1)
    return link, now_s


def test_a_heartbeat_behind_a_large_answer_does_not_measure_the_round_trip() -> None:
    link, now_s = settled_link()
    before_s = link.rtt_s
    for number in range(40):  # each answer of 250 kB holds the downlink for 0.1 s, and the heartbeat comes behind it
        link.on_sent(number, now_s, 1000, 0.0)
        heartbeat = None
        while heartbeat is None or heartbeat.payload_bytes > HEARTBEAT_BYTES:
            now_s += 0.05
            link.on_acknowledgement(number, now_s)
            heartbeat = link.next_probe(now_s)
            assert now_s < 1000.0
        answered_s = now_s + 0.1
        link.on_answer(number, answered_s, 0.0, 250_000)
        link.on_answer(('probe', heartbeat.id), answered_s + 32 * 8 / 20e6, 0.0, 0)
        now_s = answered_s + 0.3
    assert link.rtt_s == pytest.approx(before_s, rel=0.5)


def test_probes_that_are_lost_become_smaller_until_they_get_through() -> None:
    """A buffer on the way drops every message of more than 20 kB."""
    link, now_s = settled_link(rate_bps=1e9)
    sizes = []
    while now_s < 120.0:
        now_s += 0.05
        link.tick(now_s)
        probe = link.next_probe(now_s)
        if probe is None:
            continue
        sizes += [probe.payload_bytes] if probe.payload_bytes > HEARTBEAT_BYTES else []
        if probe.payload_bytes <= 20_000:
            took_s = 0.004 + (probe.payload_bytes + 32) * 8 / 1e9
            link.on_answer(('probe', probe.id), now_s + took_s, 0.0, 0)
    assert max(sizes[:3]) > 20_000
    late = sizes[len(sizes) // 2 :]
    assert sum(size <= 20_000 for size in late) >= len(late) / 3


def test_the_round_trip_is_followed_while_payloads_leave_no_room_for_heartbeats() -> None:
    link, now_s = settled_link(rtt_s=0.004)
    for number in range(60):  # the next payload leaves with the acknowledgement of the one before
        dispersion_s = 0.2
        link.on_sent(number, now_s, 500_000, 0.0)
        assert link.next_probe(now_s + 0.1) is None
        now_s += dispersion_s + 0.024
        link.on_acknowledgement(number, now_s, dispersion_s)
        link.on_answer(number, now_s, 0.0, 100)
    assert link.rtt_s == pytest.approx(0.024, rel=0.1)


def test_a_payload_to_an_edge_that_ended_does_not_make_the_link_look_slow() -> None:
    link, now_s = settled_link(rate_bps=20e6)
    link.on_sent(1, now_s, 150_000, 0.02)
    silent_until_s = now_s + 12.0
    while now_s < silent_until_s:
        now_s += 0.05
        link.tick(now_s)
        link.next_probe(now_s)
        link.on_given_up(1)
    assert not link.alive
    heartbeat = None
    while heartbeat is None or heartbeat.payload_bytes > HEARTBEAT_BYTES:
        now_s += 0.05
        link.on_given_up(1)
        heartbeat = link.next_probe(now_s)
        assert now_s < 1000.0
    link.on_answer(('probe', heartbeat.id), now_s + 0.004, 0.0, 0)
    link.tick(now_s + 0.01)
    assert link.alive and 10e6 < link.estimate(now_s + 0.01).throughput_bps < 40e6


@pytest.mark.parametrize('payload_bytes, counts', [(4400, False), (5000, True)])
def test_the_dispersion_of_a_payload_counts_from_4500_bytes_on(payload_bytes, counts) -> None:
    """The edge measures 80 Mbit/s within a burst, but the link carries 20 Mbit/s."""
    link, now_s = settled_link()
    for number in range(10):
        now_s += 0.1
        acknowledged_s = now_s + 0.004 + (payload_bytes + 32) * 8 / 20e6
        link.on_sent(number, now_s, payload_bytes, 0.0)
        link.on_acknowledgement(number, acknowledged_s, payload_bytes * 8 / 80e6)
    assert (link.estimate(now_s).throughput_bps > 40e6) == counts


def test_a_steady_link_is_followed_by_transfers_of_fifteen_jitters() -> None:
    for rate_bps in np.geomspace(9.5e6, 10.5e6, 7).tolist():
        belief, transfer_s, off = RateFilter(), 8 * 60_000 / rate_bps, []
        for _ in range(200):
            belief.elapse(0.1)
            belief.observe(transfer_s, 60_000, transfer_s / 15)
            off.append(math.log(belief.median_bps / rate_bps))
        assert abs(np.mean(off[100:])) < 0.01


@pytest.mark.parametrize('rate_bps', [3e5, 1e6])
def test_probes_count_with_the_bytes_of_their_answers(rate_bps) -> None:
    """A probe has a few hundred bytes and its answer 32 bytes; without these, the rate has an error of some percent."""
    link, now_s = settled_link(rate_bps=rate_bps)
    assert link.estimate(now_s).throughput_bps == pytest.approx(rate_bps, rel=0.03)


def test_a_payload_behind_another_one_starts_when_that_has_arrived() -> None:
    link, now_s = settled_link(rtt_s=0.004, rate_bps=20e6)
    for first in range(0, 60, 3):
        for place in range(3):
            link.on_sent(first + place, now_s + 0.001 * place, 250_000, 0.0)
        for place in range(3):
            back_s = now_s + 0.1 * (place + 1) + 0.004
            link.on_acknowledgement(first + place, back_s)
            link.on_answer(first + place, back_s, 0.0, 0)
        now_s += 0.5
    assert link.estimate(now_s).throughput_bps == pytest.approx(20e6, rel=0.05)


def test_the_transfer_of_a_waiting_payload_begins_when_the_message_before_it_arrives() -> None:
    link = LinkEstimator(LinkRules(0.25, 1.0, 0.01, 1.0, 1.0))
    for number, sent_s in ((1, 0.0), (2, 0.1)):
        link.on_sent(number, sent_s, 100_000, 0.0)
    link.on_acknowledgement(1, 1.0)
    message, waited_s = link.waiting(1.5)
    assert message.size == 100_000 and waited_s == pytest.approx(0.5)


def test_a_long_silence_saves_at_most_two_seconds_of_the_budget() -> None:
    link, now_s = settled_link(rate_bps=5e6)
    spent, now_s = link.probe_bytes, now_s + 60.0
    until_s = now_s + 1.0
    while now_s < until_s:
        now_s += 0.02
        probe = link.next_probe(now_s)
        if probe is not None:
            link.on_answer(('probe', probe.id), now_s + 0.004 + (probe.payload_bytes + 32) * 8 / 5e6, 0.0, 0)
    assert 0 < link.probe_bytes - spent <= 3.2 * 0.01 * 5e6 / 8


def test_probes_keep_their_lead_for_a_minute_after_much_jitter() -> None:
    settings, rng = MonitorSettings(), np.random.default_rng(0)
    link = LinkEstimator(LinkRules(**{name: getattr(settings, name) for name in LinkRules.__dataclass_fields__}))
    now_s, last_lead_s = 0.0, 0.0
    while now_s < 200.0:
        now_s += 0.05
        link.tick(now_s)
        probe = link.next_probe(now_s)
        if probe is None:
            continue
        last_lead_s = now_s if probe.lead_bytes else last_lead_s
        rest_s = (probe.payload_bytes - probe.lead_bytes) * 8 / 5e6
        jitter_s = float(rng.exponential(0.02)) if now_s < 20.0 else 0.0
        back_s = now_s + 0.004 + (probe.payload_bytes + 32) * 8 / 5e6 + jitter_s
        link.on_answer(('probe', probe.id), back_s, 0.0, 0, rest_s if probe.lead_bytes else math.nan)
    assert 70.0 < last_lead_s < 100.0


def test_the_filter_accepts_elapsed_times_of_any_length() -> None:
    for elapsed_s in (5e-324, 1e-9, 1e9, 1e300, 1.79e308, math.inf):
        belief = RateFilter()
        belief.observe(0.1, 100_000, 1e-4)
        belief.elapse(elapsed_s)
        assert math.isfinite(belief.median_bps) and math.isfinite(belief.relative_uncertainty)
    assert belief.relative_uncertainty > 3.0  # nothing is left of the measurement


@pytest.mark.parametrize('elapsed_s', [1e9, 1e300, 1.79e308, math.inf])
def test_a_transfer_that_takes_longer_than_at_any_rate_was_held_up_and_leaves_the_rate_known(elapsed_s) -> None:
    belief = RateFilter()
    belief.observe(0.1, 100_000, 1e-4)
    before_bps, uncertainty = belief.median_bps, belief.relative_uncertainty
    belief.observe_unfinished(elapsed_s, 2**32, 1e-4)
    assert belief.median_bps == pytest.approx(before_bps, rel=1e-3)
    assert belief.relative_uncertainty == pytest.approx(uncertainty, rel=1e-3)


def test_a_small_payload_that_a_token_bucket_passes_at_once_does_not_make_the_link_look_fast() -> None:
    link, now_s = settled_link(rate_bps=5e6)
    for number in range(30):
        link.on_sent(number, now_s, 3000, 0.0)
        back_s = now_s + 0.004 + 3032 * 8 / 5e6
        link.on_acknowledgement(number, back_s, 1e-4)  # lead and payload arrive in one burst
        link.on_answer(number, back_s + 0.01, 0.0, 100)
        now_s += 0.1
    assert link.estimate(now_s).throughput_bps == pytest.approx(5e6, rel=0.2)


def test_round_trip_and_jitter_are_five_milliseconds_until_a_heartbeat_is_answered() -> None:
    trip = RoundTrip()
    assert (trip.rtt_s, trip.jitter_s) == (0.005, 0.005)


def test_the_round_trip_has_the_jitter_of_the_clock_at_least_and_is_never_negative() -> None:
    trip = RoundTrip()
    settled = []
    for _ in range(4):
        trip.observe(0.001, 0.002)
        settled.append(trip.settled)
    assert (trip.rtt_s, trip.jitter_s) == (0.0, 2e-4)
    assert settled == [False, False, True, True]


def test_the_round_trip_is_that_of_the_latest_25_heartbeats() -> None:
    trip = RoundTrip()
    for rtt_s, heartbeats in ((0.004, 100), (0.010, 20)):
        for _ in range(heartbeats):
            trip.observe(rtt_s, 0.0)
    assert trip.rtt_s == pytest.approx(0.010)


@pytest.mark.parametrize(('idle_s', 'is_doubtful'), [(0.15, False), (0.3, True)])
def test_one_late_transfer_makes_an_old_estimate_of_the_rate_uncertain(idle_s, is_doubtful) -> None:
    """Something else delays one in a hundred transfers; later, a change of the link is equally likely."""
    belief = RateFilter()
    for _ in range(100):
        belief.elapse(0.1)
        belief.observe(0.04, 100_000, 1e-4)
    belief.elapse(idle_s)
    belief.observe(0.12, 100_000, 1e-4)
    assert (belief.level_spread > 0.4) == is_doubtful


@pytest.mark.parametrize(('idle_s', 'is_doubtful'), [(0.15, False), (0.3, True)])
def test_one_short_dispersion_makes_an_old_estimate_of_the_rate_uncertain(idle_s, is_doubtful) -> None:
    """Three in a hundred dispersions are short because the edge paused; later, a faster link is equally likely."""
    link, now_s = settled_link()
    for number, (pause_s, dispersion_s) in enumerate([(0.1, 0.024)] * 30 + [(idle_s, 0.008)]):
        now_s += pause_s
        link.on_sent(number, now_s, 60_000, 0.0)
        link.on_acknowledgement(number, now_s + 0.004 + dispersion_s, dispersion_s)
        link.on_answer(number, now_s + 0.005 + dispersion_s, 0.0, 100)
    assert (link.rate_spread > 0.4) == is_doubtful


def test_a_steady_estimate_moves_by_a_tenth_of_the_difference_with_each_transfer() -> None:
    belief = RateFilter()
    for transfer_s in [0.04] * 200 + [0.04 / 1.05]:
        before_bps = belief.median_bps
        belief.elapse(0.1)
        belief.observe(transfer_s, 100_000, 1e-4)
    assert math.log(belief.median_bps / before_bps) == pytest.approx(0.1 * math.log(1.05), rel=0.3)


def test_the_rate_of_the_next_transfer_varies_as_much_as_the_transfers_before_it() -> None:
    rng, rate = np.random.default_rng(1), RateFilter()
    for _ in range(300):
        rate.elapse(0.1)
        rate.observe(8 * 100_000 / (10e6 * float(rng.lognormal(0.0, 0.2))), 100_000, 1e-4)
    low, high = np.interp([0.1587, 0.8413], RATE_SHARES, np.log(rate.next_transfer_bps()))
    assert (high - low) / 2 == pytest.approx(0.2, rel=0.3)
    assert (high - low) / 2 > 2 * rate.level_spread, 'the rate of the link itself is known better'


def test_the_jitter_of_normally_distributed_round_trips_is_their_standard_deviation() -> None:
    trip = RoundTrip()
    for share in (np.arange(200) % 25 + 0.5) / 25:
        trip.observe(0.02 + 0.003 * NormalDist().inv_cdf(share), 0.0)
    assert trip.jitter_s == pytest.approx(0.003, rel=0.08)
