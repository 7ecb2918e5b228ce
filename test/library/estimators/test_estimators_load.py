# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The monitor's estimate of the edge: queueing delay and slowdown from reports and answers until these are stale."""

from __future__ import annotations

import math

import numpy as np
import pytest
from worlds import system, Wire

from dynsplit_ros.estimators.load import LoadEstimator, LoadReport
from dynsplit_ros.estimators.service import ServiceTimes
from dynsplit_ros.policies.monitor import MonitorPolicy
from dynsplit_ros.simulation.trace import constant, steps
from dynsplit_ros.simulation.world import Scenario, simulate

PROFILE = system()


def report(sequence: int, session: int = 1, **values) -> LoadReport:
    known = {'utilisation': 0.5, 'queue_length': 1, 'queueing_s': 0.05, 'slowdown': 1.0, **values}
    return LoadReport(session, sequence, **known)


def test_a_report_counts_until_it_is_stale() -> None:
    load = LoadEstimator(1.0)
    assert not load.estimate(0.0).fresh
    for number in range(10):
        load.on_report(report(number), number / 10)
    assert load.estimate(1.0).queueing_s == pytest.approx(0.05, rel=0.05)
    assert load.estimate(1.0).fresh
    stale = load.estimate(3.0)
    assert not stale.fresh and stale.queueing_s == 0 and stale.utilisation == 0


def test_the_number_of_servers_is_that_of_the_latest_report() -> None:
    load = LoadEstimator(1.0)
    for number, servers in enumerate((3, 0, 2)):
        load.on_report(report(number, servers=servers), number / 10)
        assert load.servers == load.estimate(number / 10).servers == servers


def test_repeated_and_late_reports_are_ignored() -> None:
    load = LoadEstimator(1.0)
    assert load.on_report(report(5), 0.0)
    assert not load.on_report(report(5, queueing_s=9.0), 0.1)
    assert not load.on_report(report(4, queueing_s=9.0), 0.1)
    assert load.estimate(0.1).queueing_s == pytest.approx(0.05)


def test_a_restart_of_the_edge_resets_its_estimate() -> None:
    load = LoadEstimator(1.0)
    for number in range(20):
        load.on_report(report(1000 + number, queueing_s=2.0, slowdown=8.0), number / 10)
    assert load.estimate(2.0).slowdown > 4
    assert load.on_report(report(0, session=2, queueing_s=0.0), 2.0)
    for number in range(1, 5):
        load.on_report(report(number, session=2, queueing_s=0.0), 2.0 + number / 10)
    assert load.estimate(2.4).queueing_s < 0.1
    assert load.estimate(2.4).slowdown < 1.5


@pytest.mark.parametrize(
    'values',
    [
        {'queueing_s': -1.0},
        {'queueing_s': math.nan},
        {'queueing_s': math.inf},
        {'queueing_s': 61.0},
        {'utilisation': -0.5},
        {'utilisation': 7.0},
        {'utilisation': math.nan},
        {'period_s': 0.0},
        {'period_s': math.nan},
        {'period_s': 61.0},
        {'slowdown': 0.0},
        {'slowdown': -2.0},
        {'slowdown': math.nan},
        {'slowdown': math.inf},
        {'queue_length': -1},
    ],
)
def test_impossible_reports_are_ignored(values) -> None:
    load = LoadEstimator(1.0)
    load.on_report(report(0), 0.0)
    before = load.estimate(0.1)
    assert not load.on_report(report(1, **values), 0.1)
    assert load.estimate(0.1) == before


def test_a_report_with_a_future_instant_becomes_stale() -> None:
    wire = Wire(MonitorPolicy(PROFILE))
    wire.idle(2.0)
    now_s = wire.now_s
    wire.monitor.on_load(LoadReport(1, 1, 0.5, 1, 5.0, 1.0), now_s + 3600.0)
    wire.now_s = now_s
    wire.idle(5.0)
    assert wire.decisions and math.isfinite(wire.decisions[-1].predicted_latency_s)
    for _ in range(10):
        wire.report(sequence=wire.reports + 10)
        wire.idle(0.1)
    assert wire.monitor.load.queueing_s < 0.1


def test_a_burst_of_another_robot_changes_the_estimate_within_a_second() -> None:
    wire = Wire(MonitorPolicy(PROFILE), rate_bps=100e6)
    wire.idle(2.0)
    for _ in range(10):
        wire.frame()
        wire.report()
        wire.idle(0.1)
    assert wire.decisions[-1].split_index == 0
    for _ in range(9):
        wire.report(queueing_s=1.0, utilisation=1.0, queue_length=40)
        wire.idle(0.1)
    assert wire.monitor.load.queueing_s > 0.5
    assert wire.decisions[-1].split_index == PROFILE.local_index


def test_answers_of_one_cut_correct_the_times_of_every_cut() -> None:
    wire = Wire(MonitorPolicy(PROFILE), rate_bps=100e6)
    wire.idle(2.0)
    tail_s = PROFILE.cuts[0].tail_s[1]
    for _ in range(15):
        wire.frame(held_s=4 * tail_s)
        wire.idle(0.05)
    assert wire.monitor.load.slowdown == pytest.approx(4.0, rel=0.15)
    other = next(candidate for candidate in wire.decisions[-1].candidates if candidate.split_index == 2)
    assert other.tail_s == pytest.approx(4 * PROFILE.cuts[2].tail_s[1], rel=0.25)


def test_the_robot_stops_sending_to_an_edge_that_becomes_slow() -> None:
    fast = simulate(PROFILE, Scenario(constant(16e6, 30), 30.0, slowdown=steps([(0, 1.0), (10, 8.0)], 30.0), seed=2))
    late = [frame for frame in fast.frames if frame.arrived_s > 12]
    local = sum(frame.split_index == PROFILE.local_index for frame in late)
    assert local > 0.8 * len(late)


def test_a_pause_changes_the_estimate_little_after_a_short_tail_and_much_after_a_long_one() -> None:
    for profiled_s, most, least in ((0.0008, 1.3, 1.0), (0.1, 3.1, 2.5)):
        load = LoadEstimator()
        for number in range(20):
            load.on_answer(4, 0.0, profiled_s, profiled_s, number / 10)
        for number in range(20, 24):
            load.on_answer(4, 0.0, 3 * profiled_s, profiled_s, number / 10)
        assert least <= load.times.factor_of(4) <= most


def test_one_silence_after_a_short_tail_counts_as_a_pause_and_two_as_a_slow_edge() -> None:
    load = LoadEstimator()
    for number in range(20):
        load.on_answer(4, 0.0, 0.001, 0.001, number / 10)
    load.on_silence(4, 0.2, 0.001, 2.1)
    assert load.times.factor_of(0) < 2
    load.on_silence(4, 0.2, 0.001, 2.5)
    assert load.times.factor_of(0) > 20


def test_one_silence_that_a_slow_edge_explains_counts_at_once() -> None:
    load = LoadEstimator()
    for number in range(20):
        load.on_answer(0, 0.0, 0.05, 0.05, number / 10)
    load.on_silence(0, 0.3, 0.05, 2.1)
    assert load.times.factor_of(0) > 4


def test_a_change_of_cut_shows_the_ratio_of_the_two_cuts() -> None:
    """The machine's speed drifts, and a measurement of one cut changes only this factor of the other cut."""
    times, rng, now_s, machine = ServiceTimes(0.5), np.random.default_rng(0), 0.0, 0.0
    for turn in range(20):
        for _ in range(15):
            now_s, machine = now_s + 0.1, machine + 0.03 * rng.standard_normal()
            own, cut = ((0.0, 6), (0.35, 2))[turn % 2]
            times.observe(cut, 0.1 * math.exp(machine + own + 0.08 * rng.standard_normal()), 0.1, now_s)
    assert math.log(times.factor_of(2) / times.factor_of(6)) == pytest.approx(0.35, abs=0.06)
    for _ in range(30):
        now_s += 0.1
        times.observe(6, 0.2, 0.1, now_s)
    assert times.factor_of(6) == pytest.approx(2.0, rel=0.05)
    assert times.factor_of(2) == pytest.approx(2.0 * math.exp(0.35), rel=0.1)


@pytest.mark.parametrize('noise, most', [(0.02, 0.02), (0.1, 0.06)])
def test_times_that_vary_are_averaged_and_steady_ones_followed(noise, most) -> None:
    times, rng, seen = ServiceTimes(0.5), np.random.default_rng(0), []
    for number in range(400):
        times.observe(3, 0.1 * math.exp(noise * rng.standard_normal()), 0.1, number / 10)
        seen.append(math.log(times.factor_of(3)))
    assert np.std(seen[100:]) < most
    for number in range(400, 412):
        times.observe(3, 0.2 * math.exp(noise * rng.standard_normal()), 0.1, number / 10)
    assert times.factor_of(3) > 1.7


def test_the_mean_of_ten_measurements_has_less_noise_than_one() -> None:
    times = ServiceTimes(0.5)
    for _ in range(10):
        times.observe(None, 0.1, 0.1, 0.0)
    assert times.spread == pytest.approx(0.08 / math.sqrt(10), rel=0.05)


def test_a_report_with_almost_no_work_hardly_changes_the_estimate() -> None:
    """A pause made a tail of a tenth of a millisecond take seven times its profiled time."""
    for utilisation, least, most in ((0.005, 1.0, 1.5), (0.5, 6.0, 7.0)):
        load = LoadEstimator()
        for number in range(20):
            load.on_answer(0, 0.0, 0.05, 0.05, number / 10)
        for number in range(4):
            load.on_report(report(number, utilisation=utilisation, slowdown=6.6, period_s=0.2), 2 + number / 5)
        assert least <= load.times.factor_of(0) <= most


def test_reports_about_answered_frames_do_not_change_the_ratio_of_two_cuts() -> None:
    """
    Reports repeat the times of answers without their cuts.

    Used for the machine, they would change its factor at each change of cut.
    """
    load, now_s, rng = LoadEstimator(), 0.0, np.random.default_rng(0)
    profiled_s, true_s = {0: 0.027, 2: 0.0095}, {0: 0.017, 2: 0.010}
    for turn in range(6):
        cut, other = ((2, 0), (0, 2))[turn % 2]
        for number in range(60):
            now_s += 0.1
            load.on_answer(cut, 0.0, true_s[cut] * math.exp(0.06 * rng.standard_normal()), profiled_s[cut], now_s)
            if number % 2:
                load.on_report(
                    report(
                        turn * 100 + number,
                        utilisation=true_s[cut] / 0.1,
                        period_s=0.2,
                        slowdown=true_s[cut] / profiled_s[cut],
                    ),
                    now_s + 0.01,
                )
    assert profiled_s[other] * load.times.factor_of(other) == pytest.approx(true_s[other], rel=0.15)
    for number in range(10):  # without answers, reports are the only measurement
        load.on_report(report(1000 + number, period_s=0.2, slowdown=5.0), now_s + 0.3 + number / 5)
    assert load.times.factor == pytest.approx(5.0, rel=0.1)


def test_a_restarted_edge_without_measurements_counts_as_profiled() -> None:
    load = LoadEstimator()
    for number in range(20):
        load.on_report(report(number, slowdown=8.0, queueing_s=2.0), number / 10)
    assert load.estimate(2.0).slowdown > 4
    load.on_report(report(0, session=2, slowdown=1.0, utilisation=0.0, queueing_s=0.0), 2.0)
    restarted = load.estimate(2.0)
    assert restarted.slowdown == 1.0 and restarted.queueing_s == 0.0


def test_a_cut_that_was_slow_half_an_hour_ago_is_tried_again() -> None:
    times, now_s = ServiceTimes(0.5), 0.0
    for turn in range(20):
        for _ in range(15):
            now_s += 0.1
            cut, measured_s = ((6, 0.1), (2, 0.15))[turn % 2]
            times.observe(cut, measured_s, 0.1, now_s)
    assert times.factor_of(2) / times.factor_of(6) > 1.4
    for _ in range(600):  # only the other cut is used for half an hour
        now_s += 3.0
        times.observe(6, 0.1, 0.1, now_s)
    assert times.factor_of(2) / times.factor_of(6) < 1.05


def test_a_slow_machine_is_tried_again_after_a_minute_or_two() -> None:
    times, now_s = ServiceTimes(0.5), 0.0
    for _ in range(20):
        now_s += 0.1
        times.observe(0, 0.4, 0.1, now_s)
    before = math.log(times.factor)
    for _ in range(60):
        now_s += 1.0
        times.forget(now_s)
    assert math.log(times.factor) / before == pytest.approx(math.exp(-1), abs=0.02)


def test_a_very_long_silence_needs_confirmation() -> None:
    """Twenty times the profiled time is more than two standard deviations of an edge's slowdown."""
    load = LoadEstimator()
    for number in range(20):
        load.on_answer(0, 0.0, 0.05, 0.05, number / 10)
    load.on_silence(0, 1.0, 0.05, 2.1)
    assert load.times.factor_of(0) < 2
    load.on_silence(0, 1.1, 0.05, 2.2)
    assert load.times.factor_of(0) > 5


def test_the_utilisation_is_at_most_one() -> None:
    load = LoadEstimator()
    assert load.on_report(report(1, utilisation=1.0005), 0.0)
    assert load.estimate(0.0).utilisation == 1.0


def test_a_silence_does_not_contain_the_queueing_delay() -> None:
    load = LoadEstimator()
    for number in range(20):
        load.on_answer(0, 0.5, 0.05, 0.05, number / 10)
    load.on_silence(0, 0.54, 0.05, 2.1)
    assert load.times.factor_of(0) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    'profiled_s, measured_s, counts',
    [
        (0.0004, 0.0008, False),
        (0.0006, 0.0012, True),
        (0.1, 1e-5, False),
        (0.1, 0.001, True),
        (0.1, 150.0, False),
        (0.1, 90.0, True),
    ],
)
def test_a_time_counts_from_half_a_millisecond_and_up_to_a_factor_of_a_thousand(profiled_s, measured_s, counts) -> None:
    times = ServiceTimes(0.5)
    for _ in range(3):  # the first one may be an outlier
        times.observe(0, measured_s, profiled_s, 0.0)
    assert (times.factor != 1.0) == counts


def test_a_late_measurement_does_not_decrease_the_time() -> None:
    late, prompt = ServiceTimes(0.5), ServiceTimes(0.5)
    for now_s, times in ((0.0, late), (1000.0, prompt)):
        for number in range(20):
            times.observe(number % 2, 0.1 * (1 + number % 2), 0.1, 1000.0)
        times.observe(0, 0.1, 0.1, now_s)
        times.forget(now_s - 100.0)
    assert late.factor_of(1) == prompt.factor_of(1) and late.spread == prompt.spread


def test_two_outliers_count_only_if_nothing_usual_was_measured_between_them() -> None:
    for between, believed in ((1, False), (0, True)):
        times = ServiceTimes(0.5)
        for number in range(20):
            times.observe(0, 0.1, 0.1, number / 10)
        for measured_s in (0.4, *[0.1] * between, 0.4):
            times.observe(0, measured_s, 0.1, 2.0)
        assert (times.factor_of(0) > 2) == believed
