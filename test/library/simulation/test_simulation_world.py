# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The simulated world is deterministic, delivers frames in order, and the planner is near the oracle."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from worlds import MODELS, system

from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.simulation.compare import Job, run_all, summarise
from dynsplit_ros.simulation.trace import constant, markov, steps, Trace
from dynsplit_ros.simulation.world import Scenario, simulate

PROFILE = system()
LOCAL = PROFILE.local_index
CHANGING = Scenario(markov(2e6, 20e6, 3.0, 20.0, 1), 20.0, others_hz=constant(3.0, 20.0), seed=4)


def fates(run) -> list[tuple]:
    return [(f.image, f.split_index, f.codec, f.outcome, f.latency_s) for f in run.frames]


@pytest.mark.parametrize('policy', ['dynamic', 'oracle', 'look-ahead oracle', '0', '3', str(LOCAL)])
def test_equal_seeds_give_equal_runs(policy) -> None:
    assert fates(simulate(PROFILE, CHANGING, policy)) == fates(simulate(PROFILE, CHANGING, policy))


def test_different_seeds_give_different_runs() -> None:
    other = Scenario(CHANGING.link, 20.0, others_hz=CHANGING.others_hz, seed=5)
    assert fates(simulate(PROFILE, CHANGING)) != fates(simulate(PROFILE, other))


@pytest.mark.parametrize('policy', ['dynamic', 'oracle', 'look-ahead oracle', '0', '3', str(LOCAL)])
def test_every_image_is_delivered_once_in_order_or_dropped(policy) -> None:
    run = simulate(PROFILE, CHANGING, policy)
    images = [frame.image for frame in run.frames]
    assert images == sorted(set(images))
    assert len(images) + run.dropped == int(CHANGING.duration_s * CHANGING.frame_rate_hz) + 1
    assert all(0 < frame.latency_s < 10 for frame in run.frames)
    assert all(a.delivered_s <= b.delivered_s for a, b in zip(run.frames, run.frames[1:]))
    assert {frame.outcome for frame in run.frames} <= {'answered', 'local', 'fell_back'}


def test_without_noise_a_frame_takes_the_sum_of_its_parts() -> None:
    scenario = Scenario(constant(50e6, 10), 10.0, jitter_s=0.0, noise=0.0, frame_rate_hz=2.0)
    run = simulate(PROFILE, scenario, '0', MonitorSettings(codecs=('raw',)))
    cut, codec = PROFILE.cuts[0], PROFILE.cuts[0].codecs['raw']
    expected_s = (
        cut.head_s[1]
        + codec.encode_s[1]
        + codec.payload_bytes[1] * 8 / 50e6
        + scenario.base_rtt_s
        + codec.decode_s[1]
        + cut.tail_s[1]
        + PROFILE.answer_bytes * 8 / 50e6
    )
    settled = [frame for frame in run.frames if frame.arrived_s > 2]
    assert all(frame.outcome == 'answered' for frame in settled)
    # A small probe may be under way.
    assert float(np.median([frame.latency_s for frame in settled])) == pytest.approx(expected_s, rel=1e-3)
    local = simulate(PROFILE, scenario, str(LOCAL))
    assert local.mean_s() == pytest.approx(PROFILE.cuts[LOCAL].head_s[1], rel=1e-6)


def test_resizing_adds_its_time_to_a_frame_whose_image_is_new() -> None:
    scenario = Scenario(constant(50e6, 10), 10.0, jitter_s=0.0, noise=0.0, frame_rate_hz=2.0)
    without, with_it = (simulate(PROFILE, replace(scenario, resize_s=resize_s), str(LOCAL)) for resize_s in (0.0, 0.01))
    assert with_it.mean_s() == pytest.approx(without.mean_s() + 0.01)
    assert all(frame.resize_s == pytest.approx(0.01) for frame in with_it.frames)


def test_images_that_wait_for_a_late_link_are_resized_meanwhile() -> None:
    """If a transfer takes longer than the one before, the next head starts at the acknowledgement."""
    link = Trace([0.0, 5.0], [20e6, 4e6], 'slower')
    scenario = Scenario(link, 6.0, jitter_s=0.0, noise=0.0, resize_s=0.02)
    settings = MonitorSettings(codecs=('raw',), answer_timeout_s=5.0, waiting_share=0.0)
    frames = simulate(system(slower=1.0), scenario, '0', settings).frames
    before, after = next((a, b) for a, b in zip(frames, frames[1:]) if a.arrived_s < a.acknowledged_s - 0.2)
    assert after.arrived_s + 0.02 < before.acknowledged_s < after.sent_s < before.acknowledged_s + 0.001


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('rate_mbps', [0.25, 4, 100, 1000])
def test_the_planner_is_near_the_oracle_on_constant_links(name, rate_mbps) -> None:
    profile = system(name)
    scenario = Scenario(constant(1e6 * rate_mbps, 20), 20.0, seed=3)
    assert simulate(profile, scenario).mean_s(5) <= 1.06 * simulate(profile, scenario, 'oracle').mean_s(5)


@pytest.mark.parametrize('load', [2.0, 8.0])
def test_the_planner_is_near_the_oracle_with_loaded_edges(load) -> None:
    scenario = Scenario(constant(30e6, 20), 20.0, slowdown=constant(load, 20), seed=3)
    assert simulate(PROFILE, scenario).mean_s(5) <= 1.1 * simulate(PROFILE, scenario, 'oracle').mean_s(5)


@pytest.mark.parametrize('before_bps, after_bps', [(40e6, 4e6), (20e6, 2e6), (2e6, 20e6), (4e6, 40e6)])
def test_the_planner_follows_a_step_within_a_second(before_bps, after_bps) -> None:
    scenario = Scenario(steps([(0.0, before_bps), (10.0, after_bps)], 20.0), 20.0, seed=5)
    assert simulate(PROFILE, scenario).mean_s(11.0) <= 1.15 * simulate(PROFILE, scenario, 'oracle').mean_s(11.0)


@pytest.mark.parametrize('name', MODELS[:2])
@pytest.mark.parametrize('seed', [0, 1])
def test_the_planner_is_near_the_oracle_on_markov_links(name, seed) -> None:
    profile = system(name)
    scenario = Scenario(markov(2e6, 20e6, 5.0, 60.0, seed), 60.0, seed=seed)
    run, oracle = simulate(profile, scenario), simulate(profile, scenario, 'oracle')
    assert run.mean_s() <= 1.15 * oracle.mean_s()
    assert run.p95_s() <= 1.35 * oracle.p95_s()
    fixed = [
        simulate(profile, scenario, str(index)).mean_s() for index in (0, profile.local_index - 1, profile.local_index)
    ]
    assert run.mean_s() <= 1.05 * min(fixed)


def test_no_frame_waits_longer_than_its_bound_in_an_outage() -> None:
    link = Trace([0.0, 8.0, 14.0], [50e6, 0.0, 50e6], 'outage')
    run = simulate(PROFILE, Scenario(link, 20.0, seed=2))
    sent = [frame for frame in run.frames if np.isfinite(frame.sent_s)]
    assert all(frame.waited_s <= frame.answer_timeout_s + 1e-9 for frame in sent)
    assert any(frame.outcome == 'fell_back' for frame in run.frames)
    meanwhile = [frame for frame in run.frames if 9.5 < frame.arrived_s < 13.5]
    assert meanwhile and all(frame.outcome == 'local' for frame in meanwhile)
    assert max(frame.latency_s for frame in run.frames) < 1.0
    assert all(frame.outcome == 'answered' for frame in run.frames if frame.arrived_s > 16)


def test_without_a_link_the_robot_runs_every_frame() -> None:
    run = simulate(PROFILE, Scenario(constant(0.0, 5), 5.0))
    assert {frame.outcome for frame in run.frames} == {'local'}
    assert run.payload_bytes == 0


@pytest.mark.parametrize(
    'name, value',
    [
        (setting.name, setting.metadata[end])
        for setting in fields(MonitorSettings)
        for end in ('minimum', 'maximum')
        if setting.metadata[end] is not None and setting.name != 'batch'
    ],
)  # this profile is of one image
def test_a_setting_at_either_end_of_its_range_loses_no_frame(name, value) -> None:
    link = Trace([0.0, 4.0, 5.0, 7.0], [20e6, 2e6, 0.0, 50e6], 'outage')
    scenario = Scenario(link, 12.0, others_hz=constant(3.0, 12.0), seed=6)
    value = min(int(value), LOCAL) if name.endswith('_split') else value
    run = simulate(PROFILE, scenario, settings=MonitorSettings(**{name: value}))
    assert len(run.frames) + run.dropped == int(scenario.duration_s * scenario.frame_rate_hz) + 1
    assert all(frame.latency_s < (70 if name in ('silence_s', 'answer_timeout_s') else 10) for frame in run.frames)


def test_parallel_runs_equal_sequential_ones() -> None:
    jobs = [Job(PROFILE, CHANGING, policy) for policy in ('dynamic', '0')]
    told: list[int] = []
    alone = run_all(jobs, _numbers, 1, told.append)
    assert told == [1, 2]
    assert run_all(jobs, _numbers, 2) == alone


def _numbers(job: Job, run):
    return summarise(run, job.scenario.duration_s)
