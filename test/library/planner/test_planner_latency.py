# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The terms of the latency model, the hysteresis and the answer timeout, on numbers that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace
import math

import numpy as np
import pytest
from worlds import measured, system

from dynsplit_ros.estimators.rate import RATE_SHARES
from dynsplit_ros.planner import Planner, PlannerConstraints, SystemEstimate
from dynsplit_ros.planner.image_age import image_age
from dynsplit_ros.planner.latency import BitTime
from dynsplit_ros.policies.pacing import DEFAULT_UNANSWERED
from dynsplit_ros.profile.profile import merge

PROFILE = system()
CUTS = len(PROFILE.cuts)
LOCAL = PROFILE.local_index
RAW = PlannerConstraints(codecs=('raw',))
#: A low frame rate, so that every stage keeps up and images are new.
RARE = PlannerConstraints(codecs=('raw',), frame_rate_hz=0.5)


def estimate(rate_bps: float = 20e6, **values) -> SystemEstimate:
    return SystemEstimate.as_profiled(CUTS, rate_bps, **{'rtt_s': 0.01, 'rate_spread': 0.2, **values})


def candidate(planner: Planner, split: int, **values):
    return next(c for c in planner.plan(estimate(**values)).candidates if c.split_index == split)


def near(rate_bps: float, ratio: float) -> np.ndarray:
    """Return rates that are either ``rate_bps`` or ``ratio`` times as fast, with equal probability."""
    return np.where(np.arange(len(RATE_SHARES)) < len(RATE_SHARES) // 2, rate_bps, ratio * rate_bps)


def test_a_capped_mean_is_that_of_the_distribution() -> None:
    bit_time = BitTime(near(1e6, 4.0))
    slow_s, fast_s = 1e-6, 0.25e-6
    assert bit_time.mean_s == pytest.approx((slow_s + fast_s) / 2, rel=0.02)
    assert float(bit_time.capped_mean_s(np.array(1.0))) == pytest.approx(bit_time.mean_s)
    assert float(bit_time.capped_mean_s(np.array(fast_s))) == pytest.approx(fast_s)
    assert float(bit_time.capped_mean_s(np.array(-1.0))) == 0.0
    assert float(bit_time.share_beyond(np.array(slow_s))) == pytest.approx(0.0, abs=1e-12)
    assert float(bit_time.share_beyond(np.array(0.0))) == 1.0


def test_each_term_changes_the_latency_by_its_own_size() -> None:
    planner, split = Planner(PROFILE, RARE), 2
    cut = PROFILE.cuts[split]
    before = candidate(planner, split)

    def difference(**values) -> float:
        return candidate(planner, split, **values).latency_s - before.latency_s

    assert difference(rtt_s=0.03) == pytest.approx(0.02)
    assert difference(queueing_s=0.02) == pytest.approx(0.02)
    assert difference(resize_s=0.003) == pytest.approx(0.003)
    assert difference(edge_factor=2.0) == pytest.approx(cut.tail_s[1] + cut.codecs['raw'].decode_s[1])
    assert difference(edge=np.full(CUTS, 2.0)) == pytest.approx(cut.tail_s[1])
    assert difference(robot_factor=1.1) == pytest.approx(0.1 * (cut.head_s[1] + cut.codecs['raw'].encode_s[1]))
    assert difference(robot=np.full(CUTS, 1.1)) == pytest.approx(0.1 * cut.head_s[1])
    assert difference(residual_s=np.full(CUTS, 0.015)) == pytest.approx(0.015)
    bits = 8 * (cut.codecs['raw'].payload_bytes[1] + PROFILE.answer_bytes)
    assert difference(rate_bps=10e6) == pytest.approx(bits * (1 / 10e6 - 1 / 20e6))


def test_a_slower_downlink_makes_only_the_answer_longer() -> None:
    slow, fast = (candidate(Planner(PROFILE, RARE, downlink_ratio=ratio), 1) for ratio in (0.5, 1.0))
    assert slow.answer_s == pytest.approx(2 * fast.answer_s)
    assert slow.latency_s - fast.latency_s == pytest.approx(fast.answer_s)
    assert slow.transmit_s == fast.transmit_s


def test_a_residual_reduces_a_prediction_by_at_most_half() -> None:
    planner = Planner(PROFILE, RAW)
    before = candidate(planner, 1)
    without_age_s = before.latency_s - before.image_age_s
    after = candidate(planner, 1, residual_s=np.full(CUTS, -100.0))
    assert after.latency_s - after.image_age_s == pytest.approx(without_age_s / 2)


def test_images_are_new_while_every_stage_keeps_up_and_half_a_period_old_beyond() -> None:
    for waiting_share, old_s in ((0.0, 0.05), (0.08, None)):
        planner = Planner(PROFILE, replace(RAW, frame_rate_hz=10.0, waiting_share=waiting_share))
        assert candidate(planner, 0, rate_bps=1e9).image_age_s == pytest.approx(0.0, abs=1e-6)
        age_s = candidate(planner, LOCAL).image_age_s
        assert age_s == pytest.approx(old_s, rel=0.1) if old_s else 0 < age_s < 0.03


@pytest.mark.parametrize('stage_periods, share', [(0.97, 0.16), (1.0, 0.5), (1.03, 0.84), (1.1, 1.0)])
def test_the_age_of_images_changes_gradually_around_a_stage_of_one_period(stage_periods, share) -> None:
    """The slowest stage varies by 3 %; without waiting, images are half a period old if it does not keep up."""
    assert float(image_age(stage_periods, 0.0)) == pytest.approx(0.5 * share, abs=0.02)


def test_publishing_occupies_the_robot_and_adds_no_latency() -> None:
    planner = Planner(PROFILE, replace(RAW, frame_rate_hz=4.0, waiting_share=0.0))
    local_s = PROFILE.cuts[LOCAL].head_s[1]
    idle, busy = (candidate(planner, LOCAL, publish_s=publish_s) for publish_s in (0.0, 0.3 - local_s))
    assert idle.image_age_s == pytest.approx(0.0, abs=1e-3)
    assert busy.image_age_s == pytest.approx(0.125, rel=0.1)
    assert busy.latency_s - busy.image_age_s == pytest.approx(idle.latency_s - idle.image_age_s)


def test_a_link_that_is_slow_at_times_makes_images_old() -> None:
    planner = Planner(PROFILE, replace(RAW, frame_rate_hz=10.0, waiting_share=0.0))
    bits = 8 * PROFILE.cuts[0].codecs['raw'].payload_bytes[1]
    rates_bps = near(bits / 0.3, 15.0)  # 0.3 s or 0.02 s for a frame
    assert candidate(planner, 0, rates_bps=rates_bps).image_age_s == pytest.approx(0.5 * 0.05, rel=0.2)


def test_the_expected_wait_is_bounded_by_the_answer_timeout_and_the_finish() -> None:
    constraints = replace(RAW, answer_timeout_s=0.2, waiting_share=0.0, frame_rate_hz=0.1)
    cut = PROFILE.cuts[0]
    dead = candidate(Planner(PROFILE, constraints), 0, rate_bps=1e3)
    assert dead.latency_s - dead.image_age_s == pytest.approx(
        cut.head_s[1] + cut.codecs['raw'].encode_s[1] + 0.2 + cut.finish_s[1], rel=0.02
    )


@pytest.mark.parametrize('alive, rate_bps', [(False, 1e9), (True, 1e9)])
def test_without_an_edge_only_local_inference_is_allowed(alive, rate_bps) -> None:
    plan = Planner(PROFILE, RAW).plan(estimate(rate_bps, alive=alive))
    assert (plan.split_index == LOCAL) is not alive
    assert [c.split_index for c in plan.candidates if c.allowed] == (list(range(CUTS)) if alive else [LOCAL])


def test_the_answer_timeout_leaves_a_usual_answer_time_and_ends_before_the_bound() -> None:
    for rate_bps in (5e6, 20e6, 200e6):
        plan = Planner(PROFILE, replace(RAW, pinned_split=0)).plan(estimate(rate_bps))
        chosen = plan.candidates[0]
        wait_s = (
            chosen.transmit_s + chosen.rtt_s + chosen.queueing_s + chosen.decode_s + chosen.tail_s + chosen.answer_s
        )
        longest_s = max(3 * wait_s, 0.2)
        assert 1.5 * wait_s < plan.answer_timeout_s <= max(longest_s, 1.5 * wait_s + 0.02)


def timeout_s(slow_s: float, finish_s: float) -> tuple[float, float]:
    """
    Return the answer timeout and the usual wait.

    A transfer usually takes 0.1 s, but 0.1 s + ``slow_s`` for two of five rates. The rest of the wait takes 0.3 s and a
    tail. The robot finishes a frame in ``finish_s``.
    """
    edge = measured()
    tail_s, codec = edge.cuts[0].tail_s[1], edge.cuts[0].codecs['raw']
    profile = merge(edge.scaled(finish_s / tail_s), edge)
    time_s = np.where(np.arange(len(RATE_SHARES)) < 0.4 * len(RATE_SHARES), 0.1 + slow_s, 0.1)
    rates_bps = 8 * (codec.payload_bytes[1] + edge.answer_bytes) / time_s
    plan = Planner(profile, replace(RAW, pinned_split=0)).plan(estimate(rates_bps=rates_bps, rtt_s=0.3))
    return plan.answer_timeout_s, 0.1 + 0.3 + tail_s + codec.decode_s[1]


def test_the_answer_timeout_is_short_where_finishing_costs_less_than_a_slow_transfer() -> None:
    after_s, usual_s = timeout_s(slow_s=0.5, finish_s=0.2)
    assert after_s == pytest.approx(1.5 * usual_s + 0.02)


def test_the_answer_timeout_lasts_as_long_as_a_slow_transfer_where_finishing_costs_more() -> None:
    after_s, usual_s = timeout_s(slow_s=0.25, finish_s=0.3)
    assert after_s == pytest.approx(usual_s + 0.25) and after_s > 1.5 * usual_s + 0.02


def test_the_robot_finishes_a_frame_within_the_longest_wait() -> None:
    after_s, usual_s = timeout_s(slow_s=0.29, finish_s=0.38)
    assert after_s == pytest.approx(3 * usual_s - 1.5 * 0.38 - 0.02) and after_s > 1.5 * usual_s + 0.02


def test_answer_timeout_s_replaces_the_answer_timeout() -> None:
    assert Planner(PROFILE, replace(RAW, answer_timeout_s=0.7)).plan(estimate(100e6)).answer_timeout_s == 0.7


def turning_point(planner: Planner, low_bps: float, high_bps: float) -> float:
    """Return the rate from which on a new planner sends."""
    while high_bps / low_bps > 1.0005:
        middle_bps = math.sqrt(low_bps * high_bps)
        sends = Planner(PROFILE, planner.constraints).plan(estimate(middle_bps)).split_index != LOCAL
        low_bps, high_bps = (low_bps, middle_bps) if sends else (middle_bps, high_bps)
    return high_bps


@pytest.mark.parametrize(
    'spread, doubt',
    [
        ({'rate_spread': 0.0}, 'none'),
        ({'rate_spread': 0.1}, 'the rate'),
        ({'robot_spread': 0.03}, 'the robot'),
        ({'edge_spread': 0.03}, 'the edge'),
    ],
)
def test_a_change_must_gain_more_than_the_uncertainty_of_the_gain(spread, doubt) -> None:
    constraints = replace(RARE, switching_cost=0.0)
    rate_bps = 1.01 * turning_point(Planner(PROFILE, constraints), 1e6, 100e6)
    values = {'rate_spread': 0.0, **spread}

    def changes(since_s: float) -> bool:
        planner = Planner(PROFILE, constraints)
        assert planner.plan(estimate(rate_bps / 1.2, **values)).split_index == LOCAL
        return planner.plan(estimate(rate_bps, now_s=since_s, **values)).changed

    assert changes(0.01) is (doubt == 'none')


def test_a_large_uncertainty_does_not_delay_a_change() -> None:
    """An uncertain machine (1.0) delays a change no longer than one that fluctuates by 3 %."""
    rate_bps = 1.5 * turning_point(Planner(PROFILE, RARE), 1e6, 100e6)
    for spread in (0.03, 1.0):
        planner = Planner(PROFILE, RARE)
        planner.plan(estimate(rate_bps / 1.6))
        doubt = {'robot_spread': spread, 'edge_spread': spread, 'rate_spread': spread}
        assert planner.plan(estimate(rate_bps, now_s=0.01, **doubt)).changed


def test_the_switching_cost_is_a_share_of_the_latency() -> None:
    rate_bps = 1.05 * turning_point(Planner(PROFILE, RARE), 1e6, 100e6)
    for switching_cost, changed in ((0.0, True), (0.2, False)):
        planner = Planner(PROFILE, replace(RARE, switching_cost=switching_cost))
        planner.plan(estimate(rate_bps / 1.2, rate_spread=0.0))
        assert planner.plan(estimate(rate_bps, now_s=0.01, rate_spread=0.0)).changed is changed
        assert planner.hysteresis.regret.total_s == 0.0, 'a gain that the cost exceeds is not missed'


def test_the_regret_causes_a_change() -> None:
    rate_bps = 1.06 * turning_point(Planner(PROFILE, RARE), 1e6, 100e6)
    for step_s in (0.25, 0.5):  # the sum does not depend on how often the choices are compared
        planner = Planner(PROFILE, RARE)
        planner.plan(estimate(rate_bps / 1.2, rate_spread=0.1))
        changed_s = next(
            (
                now_s
                for now_s in np.arange(step_s, 300.0, step_s)
                if planner.plan(estimate(rate_bps, now_s=float(now_s), rate_spread=0.1)).changed
            ),
            math.inf,
        )
        assert changed_s == pytest.approx(110.0, rel=0.05)


def test_a_plan_after_a_long_time_adds_one_second_of_regret() -> None:
    rate_bps = 1.06 * turning_point(Planner(PROFILE, RARE), 1e6, 100e6)
    planner = Planner(PROFILE, RARE)
    planner.plan(estimate(rate_bps / 1.2, rate_spread=0.1))
    changed = next(
        number
        for number in range(1, 1000)
        if planner.plan(estimate(rate_bps, now_s=1000.0 * number, rate_spread=0.1)).changed
    )
    assert changed == pytest.approx(110, rel=0.05)


def test_the_regret_is_reset_when_the_choice_in_force_is_the_best_again() -> None:
    rate_bps = 1.06 * turning_point(Planner(PROFILE, RARE), 1e6, 100e6)
    planner = Planner(PROFILE, RARE)
    planner.plan(estimate(rate_bps / 1.2, rate_spread=0.1))
    planner.plan(estimate(rate_bps, now_s=0.5, rate_spread=0.1))
    assert planner.hysteresis.regret.total_s > 0
    planner.plan(estimate(rate_bps / 1.2, now_s=0.6, rate_spread=0.1))
    assert planner.hysteresis.regret.total_s == 0


def test_the_planner_uses_a_frame_rate_that_is_set_later() -> None:
    planner = Planner(PROFILE, replace(RAW, bandwidth_bps=4e6))
    rates = []
    for frame_rate_hz in (2.0, 40.0):
        planner.set_frame_rate(frame_rate_hz)
        plan = planner.plan(estimate(100e6))
        chosen = next(c for c in plan.candidates if (c.split_index, c.codec) == (plan.split_index, plan.codec))
        rates.append(chosen.payload_bytes)
    assert rates[1] < rates[0] <= 4e6 / 8 / 2


def test_the_frame_rate_objective_minimises_the_slowest_stage() -> None:
    plan = Planner(PROFILE, replace(RAW, objective='frame_rate')).plan(estimate(12e6))
    chosen = next(c for c in plan.candidates if c.split_index == plan.split_index)
    assert chosen.frame_rate_hz == pytest.approx(max(c.frame_rate_hz for c in plan.candidates))


def test_images_are_computed_locally_during_a_wait_only_if_the_wait_is_predictable() -> None:
    def waits(**values) -> float:
        planner = Planner(PROFILE, replace(RAW, frame_rate_hz=20.0, waiting_share=0.0))
        return planner.plan(estimate(**values)).local_if_wait_s

    slow_edge = {'rate_bps': 1e9, 'edge_factor': 7.0}
    assert waits(**slow_edge, rate_spread=0.05) < math.inf
    assert waits(**slow_edge, rate_spread=0.5) < math.inf, 'the edge is the slowest stage'
    assert waits(rate_bps=1e9, edge_factor=1.0, rate_spread=0.05) == math.inf, 'every stage keeps up'
    slow_link = {'rate_bps': 9e6, 'edge_factor': 1.0}
    assert waits(**slow_link, rate_spread=0.09) < math.inf, 'a link is steady below 0.1'
    assert waits(**slow_link, rate_spread=0.11) == math.inf


@pytest.mark.parametrize(
    'constraints, values',
    [
        ({'frame_rate_hz': 6.0}, {'rate_bps': 2e6}),
        ({'frame_rate_hz': 10.0, 'objective': 'frame_rate'}, {'rate_bps': 11.6e6, 'rtt_s': 0.1}),
    ],
)
def test_the_wait_before_local_inference_is_never_negative(constraints, values) -> None:
    planner = Planner(PROFILE, replace(RAW, waiting_share=0.0, **constraints))
    assert planner.plan(estimate(**values, rate_spread=0.05)).local_if_wait_s == 0.0


@pytest.mark.parametrize(('shorter_s', 'split'), [(0.0015, 0), (0.0007, 1)])
def test_for_the_frame_rate_a_shorter_stage_must_outweigh_a_thousandth_of_the_latency(shorter_s, split) -> None:
    """The edge's stage is shorter than local inference, but with its round trip the frame is done a second later."""
    edge, local = PROFILE.cuts[0], replace(PROFILE.cuts[LOCAL], index=1)
    planner = Planner(replace(PROFILE, cuts=(edge, local)), replace(RARE, objective='frame_rate'))
    factor = (local.head_s[1] - shorter_s) / (edge.tail_s[1] + edge.codecs['raw'].decode_s[1])
    plan = planner.plan(estimate(1e9, rtt_s=1.0, edge_factor=factor))
    assert plan.split_index == split


def test_servers_divide_the_time_of_the_edge_as_a_stage_but_not_the_latency_of_a_frame() -> None:
    planner = Planner(PROFILE, PlannerConstraints(codecs=('raw',), frame_rate_hz=10.0))
    slow = {'rate_bps': 1e9, 'edge_factor': 0.13 / PROFILE.cuts[0].tail_s[1]}
    one, two, many, most = (
        candidate(planner, 0, servers=servers, **slow) for servers in (1, 2, DEFAULT_UNANSWERED, 1000)
    )
    assert candidate(planner, 0, servers=0, **slow).frame_rate_hz == one.frame_rate_hz
    assert two.frame_rate_hz == pytest.approx(2 * one.frame_rate_hz)
    assert many.frame_rate_hz == most.frame_rate_hz, 'the camera has no more frames at the edge'
    assert two.tail_s == one.tail_s and two.image_age_s < one.image_age_s


def test_the_reason_names_local_inference_or_the_split_and_its_codec() -> None:
    planner = Planner(PROFILE, RAW)
    assert 'split 0 (' in planner.plan(estimate(1e9)).reason and ', raw)' in planner.plan(estimate(1e9)).reason
    assert 'local inference' in planner.plan(estimate(1e9, alive=False)).reason
