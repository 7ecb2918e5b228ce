# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Disturbances of simulated links and machines have the effects of real ones."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import system

from dynsplit_ros.simulation.link import Disturbances, OneWayLink, Pauses, ProcessClock, true_profile
from dynsplit_ros.simulation.trace import constant, steps, Trace
from dynsplit_ros.simulation.world import Run, Scenario, simulate

PROFILE = system()
LOCAL = PROFILE.local_index


def run(policy: str = 'dynamic', rate_bps: float = 8e6, seconds: float = 20.0, **disturbances) -> Run:
    scenario = Scenario(constant(rate_bps, seconds), seconds, disturbances=Disturbances(**disturbances), seed=2)
    return simulate(PROFILE, scenario, policy)


def clock(pauses: Pauses, duration_s: float = 100.0, seed: int = 0) -> ProcessClock:
    return ProcessClock(pauses, duration_s, np.random.default_rng(seed))


def test_a_link_carries_one_message_after_the_other_at_the_rate_of_the_moment() -> None:
    link = OneWayLink(Trace([0.0, 1.0], [8e3, 16e3]), delay_s=0.1)
    assert link.transmit(0.5, 500, 0.0) == pytest.approx(1.1)
    assert link.transmit(0.5, 1000, 0.0) == pytest.approx(1.6)
    assert link.free_s == pytest.approx(1.5)


def test_jitter_does_not_change_the_order_of_messages() -> None:
    link = OneWayLink(constant(8e6, 1), delay_s=0.0)
    assert link.transmit(0.0, 1000, 0.5) == pytest.approx(0.501)
    assert link.transmit(0.0, 1000, 0.0) == pytest.approx(0.501)


def test_a_token_bucket_passes_a_burst_at_once_and_keeps_the_rate() -> None:
    link = OneWayLink(constant(8e6, 100), delay_s=0.0, burst_bytes=3000)
    assert link.transmit(1.0, 2000, 0.0) == pytest.approx(1.0, abs=1e-4)
    assert link.transmit(1.0, 2000, 0.0) == pytest.approx(1.001, abs=1e-4)  # 1000 bytes more than the bucket held
    for _ in range(1000):
        arrived_s = link.transmit(1.0, 2000, 0.0)
    assert arrived_s == pytest.approx(1.0 + (1002 * 2000 - 3000) * 8 / 8e6, abs=1e-3)
    assert link.transmit(arrived_s + 0.003, 3000, 0.0) == pytest.approx(arrived_s + 0.003, abs=1e-4)  # full again


def test_a_link_without_a_rate_delivers_nothing() -> None:
    for burst_bytes in (0, 3000):
        link = OneWayLink(steps([(0.0, 8e6), (1.0, 0.0)], 2.0), delay_s=0.0, burst_bytes=burst_bytes)
        assert link.transmit(1.5, 10_000, 0.0) == float('inf')


def test_a_process_computes_nothing_while_it_pauses() -> None:
    sliced = clock(Pauses(slice_s=0.1, slice_share=0.6))
    assert sliced.after(0.03) == 0.03
    assert sliced.after(0.07) == pytest.approx(0.1)
    assert sliced.end_of(0.03, 0.02) == pytest.approx(0.05)
    assert sliced.end_of(0.03, 0.1) == pytest.approx(0.03 + 0.1 + 2 * 0.04)
    assert sliced.end_of(0.0, 6.0) == pytest.approx(10.0, abs=0.05)


def test_pauses_have_the_rate_and_the_duration_that_were_given() -> None:
    paused = clock(Pauses(per_s=2.0, mean_s=0.05), 1000.0)
    assert paused.end_of(0.0, 500.0) == pytest.approx(500.0 * 1.1, rel=0.02)
    assert clock(Pauses(2.0, 0.05), seed=1).end_of(0.0, 9.0) == clock(Pauses(2.0, 0.05), seed=1).end_of(0.0, 9.0)
    assert clock(Pauses(2.0, 0.05), seed=1).end_of(0.0, 9.0) != clock(Pauses(2.0, 0.05), seed=2).end_of(0.0, 9.0)


@pytest.mark.parametrize('policy', ['dynamic', 'oracle', '0', str(LOCAL)])
@pytest.mark.parametrize(
    'disturbances',
    [
        {'burst_bytes': 20_000},
        {'loss': 0.3, 'buffer_bytes': 5000},
        {'handover_s': 0.01},
        {'robot': Pauses(3.0, 0.03)},
        {'edge': Pauses(3.0, 0.03)},
        {'edge': Pauses(slice_s=0.02, slice_share=0.5)},
        {'robot_slowdown': steps([(0.0, 1.0), (5.0, 3.0)], 10.0)},
        {'profile_error': 0.3},
    ],
    ids='-'.join,
)
def test_every_image_is_delivered_or_dropped_under_each_disturbance(policy, disturbances) -> None:
    result = run(policy, seconds=10.0, **disturbances)
    images = [frame.image for frame in result.frames]
    assert images == sorted(set(images))
    assert len(images) + result.dropped == 101


def test_the_dispersion_measures_the_rate_although_the_robot_pauses() -> None:
    """The dispersion between lead and payload contains no pause of the robot."""
    result = run('0', robot=Pauses(10.0, 0.02))
    assert np.percentile([abs(rate / 8e6 - 1) for at_s, rate in result.estimates if at_s > 3], 90) < 0.1


def test_the_time_to_hand_over_a_payload_is_reported() -> None:
    sent = [frame.send_s for frame in run('0', handover_s=0.004).frames if frame.payload_bytes]
    assert sent == [pytest.approx(0.004)] * len(sent)


@pytest.mark.parametrize(
    ('disturbances', 'field', 'policy'),
    [
        ({'edge': Pauses(slice_s=0.01, slice_share=0.5)}, 'tail_s', '0'),
        ({'robot': Pauses(slice_s=0.01, slice_share=0.5)}, 'head_s', str(LOCAL)),
        ({'robot_slowdown': constant(2.0, 1.0)}, 'head_s', str(LOCAL)),
    ],
)
def test_a_machine_that_pauses_or_slows_down_computes_for_longer(disturbances, field, policy) -> None:
    times = [
        [getattr(frame, field) for frame in run(policy, **values).frames if frame.outcome in ('answered', 'local')]
        for values in ({}, disturbances)
    ]
    assert np.median(times[1]) == pytest.approx(2 * np.median(times[0]), rel=0.1)


def test_frames_are_answered_although_acknowledgements_are_lost() -> None:
    result = run('0', loss=0.5)
    sent = [frame for frame in result.frames if frame.outcome == 'answered']
    assert 0.3 < np.mean([np.isnan(frame.acknowledged_s) for frame in sent]) < 0.7


def test_a_probe_larger_than_the_buffer_is_always_lost() -> None:
    for buffer_bytes, measured in ((0, True), (1, False)):
        rate_bps = run(str(LOCAL), buffer_bytes=buffer_bytes).estimates[-1][1]
        assert (rate_bps == pytest.approx(8e6, rel=0.2)) == measured


def test_a_wrong_profile_has_the_given_error() -> None:
    assert true_profile(PROFILE, 0.0, 1) is PROFILE
    errors = [
        np.log(true.tail_s[1] / cut.tail_s[1])
        for seed in range(200)
        for cut, true in list(zip(PROFILE.cuts, true_profile(PROFILE, 0.3, seed).cuts))[:-1]
    ]
    assert np.std(errors) == pytest.approx(0.3, rel=0.1)
