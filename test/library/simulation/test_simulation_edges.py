# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Several edges behind one robot's link: the edge in use, its end, and the cost of probes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from worlds import system

from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import FrameRecord, Outcome
from dynsplit_ros.simulation.trace import constant, steps, Trace
from dynsplit_ros.simulation.world import EdgeScenario, Scenario, World

PROFILE = system()
LOCAL = PROFILE.local_index
TWIN = EdgeScenario()


def played(scenario: Scenario, settings: MonitorSettings | None = None) -> tuple[World, list[FrameRecord]]:
    """Return a world after its end, and the frames of its robot."""
    world = World(PROFILE, scenario, 'dynamic', settings)
    return world, world.run().frames


def used(frames: list[FrameRecord]) -> list[str]:
    """Return the sequence of edges that answered, without repetition."""
    return [edge for edge, _ in itertools.groupby(frame.edge for frame in frames if frame.outcome is Outcome.ANSWERED)]


def assert_complete(world: World, frames: list[FrameRecord], dropped: int, scenario: Scenario) -> None:
    images = [frame.image for frame in frames]
    assert images == sorted(set(images)), 'a frame came twice or out of order'
    assert len(images) + dropped == int(scenario.duration_s * scenario.frame_rate_hz) + 1, 'a frame was lost'


def test_a_second_edge_and_one_with_another_model_disturb_neither_frames_nor_estimates() -> None:
    """Both edges take three times as long as profiled."""
    slow = constant(3.0, 60.0)
    alone = Scenario(constant(50e6, 55.0), 55.0, slowdown=slow, seed=3)
    together = Scenario(
        constant(50e6, 55.0),
        55.0,
        slowdown=slow,
        seed=3,
        further_edges=(EdgeScenario(slowdown=slow), EdgeScenario(has_model=False)),
    )
    estimates = []
    for scenario in (alone, together):
        world, frames = played(scenario)
        assert len(frames) >= 500
        assert all(frame.outcome is Outcome.ANSWERED for frame in frames[20:]), 'a frame fell back'
        estimates.append((world.monitor.link.throughput_bps, world.monitor.load.slowdown))
    np.testing.assert_allclose(estimates[1], estimates[0], rtol=0.1)
    assert set(used(frames)) <= {'edge1', 'edge2'}


def test_the_edge_in_use_stays_if_two_edges_are_equal() -> None:
    _, frames = played(Scenario(constant(30e6, 60.0), 60.0, further_edges=(TWIN,), noise=0.05, seed=1))
    assert len(used(frames)) <= 2


def test_the_edge_that_is_faster_is_used() -> None:
    scenario = Scenario(constant(50e6, 20.0), 20.0, slowdown=constant(8.0, 20.0), further_edges=(TWIN,), seed=1)
    _, frames = played(scenario)
    assert used(frames)[-1] == 'edge2'
    late = [frame for frame in frames if frame.arrived_s > 5]
    assert {frame.edge for frame in late if frame.outcome is Outcome.ANSWERED} == {'edge2'}


def test_a_better_edge_that_returns_is_used_again_and_the_edges_do_not_flap() -> None:
    scenario = Scenario(
        constant(50e6, 60.0),
        60.0,
        is_alive=Trace([0.0, 15.0, 25.0], [1.0, 0.0, 1.0], 'death'),
        further_edges=(EdgeScenario(slowdown=constant(4.0, 60.0)),),
        seed=2,
    )
    _, frames = played(scenario)
    assert used(frames) == ['edge1', 'edge2', 'edge1']
    back_s = next(frame.arrived_s for frame in frames if frame.edge == 'edge1' and frame.arrived_s > 25)
    assert back_s < 35


@pytest.mark.parametrize('fault, seed', [('killed', 0), ('killed', 1), ('cut off', 2)])
def test_an_edge_that_dies_or_is_cut_off_is_replaced_within_the_silence_and_a_second(fault, seed) -> None:
    """At random instants the edge in use is killed, or its link is cut; the other one stays."""
    settings = MonitorSettings()
    kills, rng = 10, np.random.default_rng(seed)
    duration_s = 4.0 * (kills + 1)
    scenario = Scenario(constant(30e6, duration_s), duration_s, further_edges=(TWIN,), frame_rate_hz=20.0, seed=seed)
    world = World(PROFILE, scenario, 'dynamic', settings)
    killed: list[tuple[float, str]] = []

    def kill() -> None:
        edge = world.edges[world.monitor.used.name]
        killed.append((world.now_s, edge.name))
        if fault == 'killed':
            edge.kill()
            world.at(world.now_s + 2.0, edge.restart)
        else:
            edge.is_reachable = False
            world.at(world.now_s + 2.0, lambda: setattr(edge, 'is_reachable', True))

    for number in range(kills):
        world.at(4.0 * (number + 1) + float(rng.uniform(-0.5, 0.5)), kill)
    run = world.run()
    assert_complete(world, run.frames, run.dropped, scenario)
    assert len(killed) == kills
    for killed_s, name in killed:
        answered_s = next(
            frame.answered_s
            for frame in run.frames
            if frame.outcome is Outcome.ANSWERED and frame.sent_s > killed_s and frame.edge != name
        )
        assert answered_s - killed_s <= settings.silence_s + 1.0


def test_two_edges_are_no_slower_than_one_when_the_radio_becomes_slow() -> None:
    link = steps([(0.0, 30e6), (10.0, 3e6), (20.0, 30e6)], 30.0)
    alone, together = (played(Scenario(link, 30.0, further_edges=edges, seed=4)) for edges in ((), (TWIN,)))
    mean_s, alone_s = (float(np.mean([frame.latency_s for frame in frames])) for _, frames in (together, alone))
    assert mean_s <= 1.1 * alone_s


def test_an_outage_of_the_radio_loses_no_frame_with_two_edges() -> None:
    link = Trace([0.0, 8.0, 14.0], [50e6, 0.0, 50e6], 'outage')
    scenario = Scenario(link, 20.0, further_edges=(TWIN,), seed=2)
    world = World(PROFILE, scenario, 'dynamic')
    run = world.run()
    assert_complete(world, run.frames, run.dropped, scenario)
    assert max(frame.latency_s for frame in run.frames) < 1.0
    assert all(frame.outcome is Outcome.LOCAL for frame in run.frames if 9.5 < frame.arrived_s < 13.5)
    assert all(frame.outcome is Outcome.ANSWERED for frame in run.frames if frame.arrived_s > 16.5)


@pytest.mark.parametrize('rate_bps', [5e6, 20e6, 100e6])
def test_a_second_edge_costs_at_most_a_hundredth_of_the_bytes(rate_bps) -> None:
    bytes_per_frame = []
    for edges in ((), (TWIN,)):
        run = World(PROFILE, Scenario(constant(rate_bps, 60.0), 60.0, further_edges=edges, seed=5), '2').run()
        sent = sum(frame.payload_bytes > 0 for frame in run.frames)
        assert sent > 100
        bytes_per_frame.append((run.payload_bytes + run.heartbeat_bytes + run.probe_bytes) / sent)
    assert bytes_per_frame[1] <= 1.01 * bytes_per_frame[0]


def test_while_the_robot_computes_itself_all_edges_are_probed_within_one_budget() -> None:
    seconds, rate_bps = 60.0, 4e6
    scenario = Scenario(constant(rate_bps, seconds), seconds, further_edges=(TWIN, TWIN), seed=6)
    world = World(PROFILE, scenario, str(LOCAL))
    run = world.run()
    share = world.monitor.settings.probe_share
    assert run.probe_bytes + run.heartbeat_bytes <= share * rate_bps / 8 * (seconds + 2)
    assert all(edge.link.probe_bytes > 0 for edge in world.monitor.edges.values())
