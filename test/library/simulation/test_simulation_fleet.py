# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Fleets of simulated robots: the effect of replicas, and local inference if there are too few."""

from __future__ import annotations

import json
import math

from worlds import DATA, system

from dynsplit_ros.policies.records import Outcome
from dynsplit_ros.simulation.fleet import fleet_point, FleetPoint, simulate_fleet, takes_over_at
from dynsplit_ros.simulation.trace import constant
from dynsplit_ros.simulation.world import Scenario, simulate
from dynsplit_ros.tools import advise
from dynsplit_ros.tools.simulate import main as simulate_tool

PROFILE = system('resnet50')
SCENARIO = Scenario(constant(100e6, 1.0), 8.0, frame_rate_hz=5.0, seed=3)


def test_a_fleet_of_one_robot_equals_a_single_robot() -> None:
    (run,) = simulate_fleet(PROFILE, SCENARIO, 1, 1)
    one = simulate(PROFILE, SCENARIO)
    assert abs(run.mean_s(4.0) - one.mean_s(4.0)) < 0.1 * one.mean_s(4.0)


def test_every_frame_of_every_robot_is_delivered_once_in_order() -> None:
    runs = simulate_fleet(PROFILE, SCENARIO, 6, 2)
    assert len(runs) == 6
    for run in runs:
        numbers = [frame.sequence for frame in run.frames]
        assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 10


def test_with_more_replicas_more_robots_offload_and_are_faster() -> None:
    few, enough = (fleet_point(PROFILE, SCENARIO, 12, replicas, since_s=4.0) for replicas in (1, 8))
    alone = fleet_point(PROFILE, SCENARIO, 1, 1, since_s=4.0)
    assert few.offloaded < enough.offloaded and few.mean_s > 1.3 * enough.mean_s
    assert enough.offloaded > 0.95 and enough.mean_s < 1.2 * alone.mean_s


def test_one_robot_keeps_two_replicas_busy_with_tails_longer_than_a_period() -> None:
    def answered(replicas: int) -> int:
        scenario = Scenario(constant(100e6, 1.0), 8.0, frame_rate_hz=10.0, slowdown=constant(4.0, 1.0), seed=3)
        (run,) = simulate_fleet(system('resnet50', slower=60.0), scenario, 1, replicas)
        return sum(frame.outcome is Outcome.ANSWERED for frame in run.frames)

    assert answered(3) > 1.5 * answered(1)


def test_the_crossover_is_the_smallest_fleet_with_mostly_local_frames() -> None:
    points = [
        FleetPoint(robots, replicas, 0.1, 0.2, share)
        for robots, replicas, share in ((1, 1, 1.0), (4, 1, 0.6), (8, 1, 0.4), (16, 1, 0.2), (1, 2, 1.0), (16, 2, 0.9))
    ]
    assert takes_over_at(points) == {1: 8, 2: None}


def test_the_tool_draws_a_fleet(tmp_path, capsys) -> None:
    arguments = [
        '--edge-profile',
        str(DATA / 'resnet50.yaml'),
        '--link',
        'constant:100',
        '--figure',
        'fleet',
        '--robots',
        '1',
        '3',
        '--replicas',
        '1',
        '2',
        '--seconds',
        '6',
        '--workers',
        '1',
        '--output',
        str(tmp_path),
    ]
    assert simulate_tool(arguments) == 0
    out = capsys.readouterr().out
    assert '1 replica: ' in out and '2 replicas: up to 3 robots, most frames run on the edge' in out
    rows = (tmp_path / 'fleet.csv').read_text().splitlines()
    assert rows[0] == 'robots,replicas,mean_s,p95_s,offloaded' and len(rows) == 5
    assert (tmp_path / 'fleet.png').read_bytes().startswith(b'\x89PNG')


def test_the_advised_replicas_serve_the_simulated_fleet_almost_as_well_as_any_number(tmp_path, capsys) -> None:
    robots = 12
    arguments = [
        '--edge-profile',
        str(DATA / 'resnet50.yaml'),
        '--link',
        '50',
        '200',
        '--loads',
        '1',
        '--rate',
        '5',
        '--robots',
        str(robots),
        '--plot',
        str(tmp_path / 'a.png'),
        '--json',
        str(tmp_path / 'a.json'),
    ]
    assert advise.main(arguments) == 0
    needed = json.loads((tmp_path / 'a.json').read_text())['loads'][0]['replicas']
    replicas = next(each['replicas'] for each in needed if each['from_bps'] <= 100e6 <= each['to_bps'])
    assert f'a fleet of {robots} robots needs this number of replicas' in capsys.readouterr().out
    advised, unlimited, fewer = (
        fleet_point(PROFILE, SCENARIO, robots, count, since_s=4.0).mean_s
        for count in (replicas, robots, math.ceil(replicas / 2))
    )
    assert advised < 1.15 * unlimited < fewer


def test_a_fleet_without_robots_is_refused(tmp_path, capsys) -> None:
    assert advise.main(['--edge-profile', str(DATA / 'resnet50.yaml'), '--robots', '-1']) == 2
    assert '--robots -1 was given' in capsys.readouterr().err
