# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The next probe: its size, its lead, and the detection of pauses of this machine."""

from __future__ import annotations

from dataclasses import replace
import math

import numpy as np
import pytest

from dynsplit_ros.estimators.link import HEARTBEAT_BYTES, LinkEstimator
from dynsplit_ros.estimators.probing import LinkRules, ProbePlan, Probing
from dynsplit_ros.estimators.rate import RateFilter
from dynsplit_ros.estimators.round_trip import RoundTrip

RULES = LinkRules(heartbeat_period_s=0.25, probe_period_s=0.2, probe_share=0.01, silence_s=0.5, downlink_ratio=1.0)


def probing(rate_bps: float = 20e6, jitter_s: float = 2e-4) -> Probing:
    """Return the probing of a link whose rate is known, after the first probe."""
    rate, trip = RateFilter(), RoundTrip()
    for _ in range(100):
        rate.elapse(0.1)
        rate.observe(8 * 100_000 / rate_bps, 100_000, 1e-4)
    for number in range(25):
        trip.observe(0.004 + (number % 5 - 2) * jitter_s / 1.4826, 0.0)
    known = Probing(rate, trip)
    known.add_income(0.0, RULES, alive=True)
    known.choose(0.0, RULES)
    known.spend(600)
    return known


def plan(known: Probing, now_s: float = 100.0) -> ProbePlan | None:
    known.add_income(now_s, RULES, alive=True)
    return known.choose(now_s, RULES)


def test_the_first_probe_is_one_packet_on_credit() -> None:
    known = Probing(RateFilter(), RoundTrip())
    known.add_income(0.0, RULES, alive=True)
    first = known.choose(0.0, RULES)
    assert first is not None and 512 <= first.size <= 1000 and first.lead == 0
    known.spend(first.size)
    known.on_dispersion(1e6)  # the first one with a lead would be on credit too
    assert plan(known, 0.1) is None


@pytest.mark.parametrize(
    ('rate_bps', 'least', 'most'), [(3e4, 128, 200), (20e6, 9_000, 13_000), (2e9, 262_144, 262_144)]
)
def test_a_probe_takes_twenty_jitters_within_the_limits_of_its_size(rate_bps, least, most) -> None:
    known = probing(rate_bps)
    for _ in range(10):  # a larger probe follows one that arrived
        known.on_arrived(262_144)
    sent = plan(known)
    assert sent is not None and least <= sent.size <= most and sent.lead == 0


@pytest.mark.parametrize(('jitter_s', 'lead_bytes'), [(4e-4, 0), (6e-4, 3000)])
def test_a_probe_has_a_lead_if_one_second_of_budget_does_not_measure_the_rate(jitter_s, lead_bytes) -> None:
    sent = plan(probing(20e6, jitter_s))
    assert sent is not None and sent.lead == lead_bytes
    if lead_bytes:
        assert sent.size - sent.lead == pytest.approx(20e6 / 8 * 0.0013, rel=0.15)


@pytest.mark.parametrize(('rate_bps', 'lead_bytes'), [(4e5, 0), (10e6, 3000)])
def test_on_a_slow_link_a_probe_has_no_lead_that_would_take_more_bytes_than_a_long_probe(rate_bps, lead_bytes) -> None:
    sent = plan(probing(rate_bps, 8e-4))
    assert sent is not None and sent.lead == lead_bytes


def test_a_probe_with_a_lead_is_long_enough_to_show_a_change_on_a_slow_link() -> None:
    known = probing(1e6, 2e-3)
    known.on_dispersion(1e6)
    sent = plan(known)
    assert sent is not None and sent.size == 3000 + 800


def test_the_first_probe_with_a_lead_is_on_credit_the_next_one_is_not() -> None:
    known = probing(1e6, 2e-3)
    first = plan(known, 1.0)
    assert first is not None and first.lead > 0
    known.spend(first.size)
    known.on_dispersion(1e6)
    assert plan(known, 1.1) is None


@pytest.mark.parametrize(('measured_bps', 'follows_at_once'), [(1.2e6, False), (0.2e6, False), (4e6, True)])
def test_another_probe_confirms_a_faster_link_at_once_and_is_long_enough_for_it(measured_bps, follows_at_once) -> None:
    known = probing(1e6, 2e-3)
    first = plan(known)
    assert first is not None
    known.spend(first.size)
    known.on_arrived(first.size)
    known.on_dispersion(measured_bps)
    assert known.is_due(0.0, 10.0, RULES) == follows_at_once
    second = plan(known, 100.01)
    if follows_at_once:
        assert second is not None and second.size == 3000 + 800
        known.spend(second.size)
        known.on_dispersion(1e6)
    assert not known.is_due(0.0, 10.0, RULES) and plan(known, 100.02) is None


@pytest.mark.parametrize(
    ('measured_bps', 'enough_bytes'), [(15e6, int(15e6 * 0.0013 / 8)), (1e9, pytest.approx(20e6 * 0.0013 / 8, rel=0.1))]
)
def test_a_probe_that_confirms_a_faster_link_is_long_enough_for_four_times_the_rate_at_most(
    measured_bps, enough_bytes
) -> None:
    known = probing(5e6, 1e-3)
    first = plan(known)
    assert first is not None and first.size == pytest.approx(3000 + 5e6 / 8 * 0.0013, rel=0.1)
    known.on_arrived(262_144)
    known.on_dispersion(measured_bps)
    confirming = plan(known, 100.01)
    assert confirming is not None and confirming.size - 3000 == enough_bytes


@pytest.mark.parametrize(
    ('gap_s', 'dispersion_s', 'least_gap_s', 'paused'),
    [
        (0.0009, 0.001, math.inf, False),
        (0.0015, 0.001, math.inf, True),
        (0.0015, 0.01, math.inf, False),
        (0.003, 0.01, math.inf, True),
        (0.005, 0.001, 0.002, False),
        (0.007, 0.001, 0.002, True),
    ],
)
def test_an_unusually_long_gap_between_lead_and_probe_counts_as_a_pause(
    gap_s, dispersion_s, least_gap_s, paused
) -> None:
    known = probing()
    known.on_gap(least_gap_s)
    known.on_gap(2 * least_gap_s)  # the least gap counts
    assert known.has_paused(gap_s, dispersion_s) == paused


def test_a_probe_is_due_after_the_probe_period_or_while_the_rate_is_uncertain() -> None:
    known = probing()
    assert not known.is_due(0.1, 10.0, RULES) and known.is_due(0.2, 0.0, RULES)
    assert Probing(RateFilter(), RoundTrip()).is_due(0.0, 10.0, RULES)
    vague = RateFilter()
    for _ in range(3):
        vague.observe(0.005, 6000, 0.003)
    assert 0.5 < vague.level_spread < 1.0
    known = Probing(vague, RoundTrip())
    known.choose(0.0, RULES)  # the first probe
    assert known.is_due(0.0, 0.2, RULES)


def test_no_probe_is_due_while_payloads_measure_an_uncertain_rate() -> None:
    vague = RateFilter()
    vague.observe(0.005, 6000, 0.003)
    known = Probing(vague, RoundTrip())
    known.choose(0.0, RULES)  # the first probe
    assert known.is_uncertain
    assert not known.is_due(0.1, 0.1, RULES)
    assert known.is_due(0.1, 0.2, RULES)


def test_each_lost_probe_halves_the_next_one_down_to_one_packet() -> None:
    known = probing(2e9)
    sizes = []
    for size in (262_144, 131_072, 600, 600):
        known.on_lost(size)
        sent = plan(known, 100.0 + len(sizes))
        sizes.append(sent.size if sent else 0)
    assert sizes == [131_072, 65_536, 65_536, 65_536]
    known.on_arrived(65_536)
    known.on_arrived(600)  # the arrival of a small probe does not allow larger ones
    sent = plan(known, 200.0)
    assert sent is not None and sent.size == 131_072
    known.on_lost(1000)
    sent = plan(known, 300.0)
    assert sent is not None and sent.size == 600


def test_no_budget_is_earned_while_the_edge_is_silent() -> None:
    known = probing()
    known.spend(10**6)
    known.add_income(1000.0, RULES, alive=False)
    assert plan(known, 1000.1) is None


def test_the_first_heartbeats_come_five_times_as_often() -> None:
    link, times = LinkEstimator(RULES), []
    for number in range(200):
        now_s = number * 0.01
        probe = link.next_probe(now_s)
        if probe is not None:
            times += [now_s] if probe.payload_bytes == HEARTBEAT_BYTES else []
            link.on_answer(('probe', probe.id), now_s + 0.001, 0.0, 0)
    gaps = [after - before for before, after in zip(times, times[1:])]
    assert gaps[:8] == [pytest.approx(0.05, abs=0.011)] * 8 and gaps[-1] == pytest.approx(0.25, abs=0.011)


@pytest.mark.parametrize(('reports', 'period_s', 'lost_after_s'), [(5, 0.1, 0.7), (5, 0.4, 1.3), (3, 0.1, math.inf)])
def test_a_missing_report_counts_after_three_reports_and_twice_their_period(reports, period_s, lost_after_s) -> None:
    link, now_s = LinkEstimator(RULES), 0.0
    for _ in range(reports):
        now_s += period_s
        link.on_report(now_s, period_s)
    link.on_sent(1, now_s, 10**9, 0.0)  # its answer may take minutes
    last_s = now_s
    while link.alive and now_s < last_s + 5.0:
        now_s += 0.01
        link.tick(now_s)
    assert now_s - last_s == pytest.approx(min(lost_after_s, 5.0), abs=0.05)


@pytest.mark.parametrize(('jitter_s', 'lead_bytes'), [(8e-4, 0), (1.2e-3, 3000)])
def test_a_jitter_of_twice_the_limit_makes_probes_keep_their_lead(jitter_s, lead_bytes) -> None:
    known = Probing(RateFilter(), trip := RoundTrip())
    known.choose(0.0, RULES)  # the first probe has none
    for now_s, jitter in ((1.0, jitter_s), (30.0, 2e-4)):
        for number in range(25):
            trip.observe(0.004 + (number % 5 - 2) * jitter / 1.4826, 0.0)
        sent = plan(known, now_s)
    assert sent is not None and sent.lead == lead_bytes


def test_the_budget_holds_at_most_two_seconds_of_income() -> None:
    known, spent = probing(20e6), 0
    known.add_income(1000.0, RULES, alive=True)
    while (sent := known.choose(1000.0, RULES)) is not None:
        known.spend(sent.size)
        spent += sent.size
    saved = 2 * 0.01 * 20e6 / 8 * 0.85
    assert saved - 13_000 < spent <= saved


def test_a_link_without_a_share_keeps_budget_for_one_probe() -> None:
    known = probing(20e6)
    known.add_income(1000.0, RULES, alive=True)
    known.add_income(1000.1, RULES, alive=True, share=0.0)
    sent = known.choose(1000.1, RULES)
    assert sent is not None
    known.spend(sent.size)
    known.add_income(1010.0, RULES, alive=True, share=0.0)
    assert known.choose(1010.0, RULES) is None


def test_the_next_probe_is_due_sooner_after_a_transfer_that_is_too_short_to_measure_the_rate() -> None:
    due_s = []
    for payload_bytes in (100, 100_000):
        link, now_s = LinkEstimator(RULES), 0.0
        while now_s < 20.0:
            now_s += 0.01
            probe = link.next_probe(now_s)
            if probe is not None:
                link.on_answer(('probe', probe.id), now_s + 0.004 + (probe.payload_bytes + 32) * 8 / 20e6, 0.0, 0)
        now_s += 3.0  # the budget is full
        link.on_sent(1, now_s, payload_bytes, 0.0)
        now_s += 0.004 + payload_bytes * 8 / 20e6
        link.on_acknowledgement(1, now_s)
        acknowledged_s = now_s
        while (probe := link.next_probe(now_s)) is None or probe.payload_bytes == HEARTBEAT_BYTES:
            if probe is not None:
                link.on_answer(('probe', probe.id), now_s + 0.004, 0.0, 0)
            now_s += 0.005
            assert now_s < acknowledged_s + 10.0
        due_s.append(now_s - acknowledged_s)
    assert due_s[0] < 0.1 and 0.19 < due_s[1] < 0.25


def test_the_longest_recent_pause_between_reports_counts() -> None:
    link, now_s = LinkEstimator(RULES), 0.0
    for pause_s in (0.4, 0.4, 0.4, 0.1, 0.1, 0.1):
        now_s += pause_s
        link.on_report(now_s, 0.1)
    link.on_sent(1, now_s, 10**9, 0.0)  # its answer may take minutes
    last_s = now_s
    while link.alive and now_s < last_s + 5.0:
        now_s += 0.01
        link.tick(now_s)
    assert now_s - last_s == pytest.approx(0.5 + 2 * 0.4 * 0.95**3, abs=0.02)


@pytest.mark.parametrize('seed', range(8))
def test_a_faster_link_after_a_silence_is_found_within_a_second(seed) -> None:
    """The jitter requires leads, and at 1 Mbit/s the budget would pay for one in three seconds."""
    rng, link, now_s = np.random.default_rng(seed), LinkEstimator(RULES), 0.0
    silent_s, back_s = 20.0, 25.0 + float(rng.random())
    while now_s < back_s or link.estimate(now_s).throughput_bps < 30e6:
        now_s += 0.02
        link.tick(now_s)
        probe = link.next_probe(now_s)
        if probe is not None and not silent_s < now_s < back_s:
            rate_bps = 1e6 if now_s < silent_s else 100e6
            dispersion_s = (probe.payload_bytes - probe.lead_bytes) * 8 / rate_bps if probe.lead_bytes else math.nan
            now_s += 0.003 + (probe.payload_bytes + 32) * 8 / rate_bps + float(rng.exponential(0.001))
            link.on_answer(('probe', probe.id), now_s, 0.0, 0, dispersion_s)
        assert now_s < back_s + 1.0


def test_an_edge_whose_reports_stop_is_lost_until_its_next_answer() -> None:
    link, now_s, lost = LinkEstimator(RULES), 0.0, 0
    for _ in range(5):
        now_s += 0.1
        link.on_report(now_s, 0.1)
    for _ in range(200):
        now_s += 0.02
        probe = link.next_probe(now_s)
        if probe is not None:
            link.on_answer(('probe', probe.id), now_s + 0.002, 0.0, 0)
        link.tick(now_s + 0.01)
        lost += not link.alive
    assert 0 < lost * 0.02 <= RULES.heartbeat_period_s


@pytest.mark.parametrize(('probe_period_s', 'airtime_s'), [(0.2, 0.004), (0.6, 0.006), (5.0, 0.01)])
def test_a_probe_of_a_longer_period_takes_its_share_of_that_period_but_of_one_second_at_most(
    probe_period_s, airtime_s
) -> None:
    known = probing(jitter_s=2e-4)
    assert known.airtime_s(replace(RULES, probe_period_s=probe_period_s)) == pytest.approx(airtime_s, rel=0.05)
