# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The look-ahead oracle finds the best sequence of choices, and the simulation confirms its latencies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from worlds import system

from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.profile.profile import CodecProfile, CutProfile, merge, Profile, SystemProfile
from dynsplit_ros.simulation.oracle import PlannedFrame
from dynsplit_ros.simulation.trace import constant, markov, steps, Trace
from dynsplit_ros.simulation.world import Scenario, simulate, World

AHEAD = 'look-ahead oracle'


def small_instance(seed: int, frames: int) -> tuple[SystemProfile, Scenario, MonitorSettings]:
    """Return a network of two cuts and local inference, and a few images on a link that changes."""
    rng = np.random.default_rng(seed)
    whole_s, first_s = rng.uniform(0.01, 0.04), rng.uniform(0.2, 0.8)

    def cut(index: int, share: float, payload_bytes: int) -> CutProfile:
        codecs = {'raw': CodecProfile({1: payload_bytes}, {1: 1e-4}, {1: 1e-4})} if payload_bytes else {}
        return CutProfile(
            index, f'cut {index}', True, payload_bytes, share, {1: whole_s * share}, {1: whole_s * (1 - share)}, codecs
        )

    cuts = (cut(0, 0.0, 150_000), cut(1, first_s, int(rng.integers(10_000, 100_000))), cut(2, 1.0, 0))
    edge = Profile('two cuts', '0', 'cpu', 1, cuts, 4000)
    duration_s = (frames - 1) / 10
    changes = [(time_s, rng.uniform(2e6, 60e6)) for time_s in (0.0, duration_s / 3, duration_s / 2)]
    scenario = Scenario(
        steps(changes, duration_s + 1e-6),
        duration_s,
        slowdown=steps([(0.0, 1.0), (duration_s / 2, 3.0)], 10.0),
        others_hz=constant(rng.choice([0.0, 10.0]), 10.0),
        seed=seed,
    )
    return (
        merge(edge.scaled(rng.uniform(2.0, 8.0)), edge),
        scenario,
        MonitorSettings(waiting_share=float(rng.choice([0.0, 0.08, 0.5]))),
    )


def cost_s(plan: list[PlannedFrame]) -> float:
    """Return the sum of latencies over all images; a dropped image counts with that of the frame before it."""
    images = np.diff([step.image for step in plan], append=plan[-1].image + 1)
    return float(images @ np.array([step.latency_s for step in plan]))


@pytest.mark.parametrize('seed', range(50))
def test_the_beam_finds_what_an_exhaustive_search_finds(seed) -> None:
    profile, scenario, settings = small_instance(seed, frames=3 + seed % 6)
    world = World(profile, scenario, AHEAD, settings)
    everything = World(profile, scenario, AHEAD, settings).look_ahead(width=None)
    assert cost_s(list(world.plan)) == pytest.approx(cost_s(everything), rel=1e-9)
    total_s = world.run().mean_per_image_s() * (3 + seed % 6)
    if max(scenario.others_hz.values) == 0:
        assert total_s == pytest.approx(cost_s(everything), rel=1e-3)
    else:  # the plan assumes first come, first served; the fair edge serves this robot earlier
        assert total_s <= cost_s(everything) * (1 + 1e-3)


@pytest.mark.parametrize('seed', range(4))
def test_no_sequence_of_choices_is_better_in_the_simulation(seed) -> None:
    """Each image's head starts with each choice as soon as the camera's policy permits."""
    frames = 5
    profile, scenario, settings = small_instance(seed, frames)
    choices = [(0, 'raw'), (1, 'raw'), (2, '')]
    means = [
        World(
            profile,
            scenario,
            AHEAD,
            settings,
            [PlannedFrame(image, choice, image / scenario.frame_rate_hz, 0.0) for image, choice in enumerate(sequence)],
        )
        .run()
        .mean_per_image_s()
        for sequence in itertools.product(choices, repeat=frames)
    ]
    assert simulate(profile, scenario, AHEAD, settings).mean_per_image_s() <= min(means) * (1 + 1e-3)


LOST = Trace([0.0, 3.0, 5.0, 8.0, 9.0], [30e6, 0.0, 4e6, 0.0, 12e6], 'outages')
SCENARIOS = {
    'two states': Scenario(markov(2e6, 20e6, 3.0, 12.0, 1), 12.0, seed=1),
    'outages': Scenario(LOST, 12.0, seed=2),
    'loaded edge': Scenario(constant(16e6, 12.0), 12.0, slowdown=constant(4.0, 12.0), seed=3),
    'shared edge': Scenario(constant(60e6, 12.0), 12.0, others_hz=constant(15.0, 12.0), seed=4),
    'near a tie': Scenario(constant(7.5e6, 12.0), 12.0, seed=5),
}


@pytest.mark.parametrize('model', ['efficientnet_b0', 'resnet50'])
@pytest.mark.parametrize('name', SCENARIOS)
def test_the_oracle_is_never_worse_than_a_fixed_choice(name, model) -> None:
    profile, scenario = system(model), SCENARIOS[name]
    best_s = simulate(profile, scenario, AHEAD).mean_per_image_s()
    for split in range(profile.local_index + 1):
        assert best_s <= simulate(profile, scenario, str(split)).mean_per_image_s(), f'split {split}'


@pytest.mark.parametrize('seed', range(3))
def test_the_oracle_keeps_local_inference_in_view_right_before_the_link_stops(seed) -> None:
    """On a link that sometimes stops, a slow robot must start local inference while payloads still cost less."""
    rng = np.random.default_rng(seed)
    lengths_s = rng.uniform(1.0, 5.0, 10)
    rates_bps = [rate * (number % 2 == 0) for number, rate in enumerate(rng.uniform(4e6, 30e6, 10))]
    link = Trace([0.0, *np.cumsum(lengths_s)[:-1].tolist()], rates_bps, 'stops')
    scenario = Scenario(link, float(lengths_s.sum()), seed=seed)
    profile = system('resnet50')
    ahead_s = simulate(profile, scenario, AHEAD).mean_per_image_s()
    for policy in ('eager oracle', 'patient oracle', '0', str(profile.local_index)):
        assert ahead_s <= simulate(profile, scenario, policy).mean_per_image_s() * 1.001, policy


def test_a_wider_beam_finds_nothing_better_where_frames_take_many_periods() -> None:
    scenario = Scenario(constant(63e6, 4.0), 4.0, slowdown=constant(8.0, 4.0), seed=3)
    world = World(system('resnet50'), scenario, AHEAD)
    assert cost_s(world.look_ahead(16)) == pytest.approx(cost_s(world.look_ahead(96)), rel=1e-3)


def test_a_dropped_image_counts_with_the_frame_before_it() -> None:
    run = simulate(system(), SCENARIOS['two states'], 'dynamic')
    assert run.dropped > 0
    delivered = {frame.image: frame.latency_s for frame in run.frames}
    latencies = [delivered[max(image for image in delivered if image <= offered)] for offered in range(121)]
    assert run.mean_per_image_s() == pytest.approx(np.mean(latencies))
    first = min(image for image in delivered if image >= 60)
    assert run.mean_per_image_s(6.0) == pytest.approx(np.mean(latencies[first:]))


def test_the_oracle_does_not_idle_behind_a_slow_frame() -> None:
    """The link is slow for three seconds; a plan that occupies it with one frame for this time is not the best."""
    profile = system('resnet50')
    scenario = Scenario(steps([(0.0, 1.2e6), (3.0, 40e6)], 6.0), 6.0, seed=1)
    assert max(frame.latency_s for frame in simulate(profile, scenario, AHEAD).frames) < 2.0
