# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Simulates a fleet: robots with separate links, and one edge with replicas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
import math

import numpy as np

from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import Outcome
from dynsplit_ros.profile.profile import SystemProfile
from dynsplit_ros.simulation.compare import in_processes
from dynsplit_ros.simulation.edge import SimulatedEdge
from dynsplit_ros.simulation.link import ProcessClock
from dynsplit_ros.simulation.timeline import Timeline
from dynsplit_ros.simulation.world import AFTER_S, FIRST_EDGE, Run, Scenario, World


@dataclass(frozen=True)
class FleetPoint:
    """The result of a fleet: mean and 95th percentile of the latency (s), and the share of offloaded frames."""

    robots: int
    replicas: int
    mean_s: float
    p95_s: float
    offloaded: float


def simulate_fleet(
    profile: SystemProfile, scenario: Scenario, robots: int, replicas: int, settings: MonitorSettings | None = None
) -> list[Run]:
    """
    Simulate ``robots`` robots, each in ``scenario``, and one edge whose tails run on ``replicas`` replicas.

    Each robot has its own link, noise and first image, which follow from the scenario's seed. The scenario's other
    robots are left out.
    """
    timeline = Timeline()
    ends_s = scenario.duration_s + AFTER_S
    edge = SimulatedEdge(
        profile,
        timeline,
        ProcessClock(scenario.disturbances.edge, ends_s, np.random.default_rng([scenario.seed, 5])),
        name=FIRST_EDGE,
        slowdown=scenario.slowdown,
        others_at_s=[],
        other_robots=1,
        others_s=scenario.others_s,
        batch=scenario.batch,
        servers=replicas,
    )
    phases = np.random.default_rng([scenario.seed, 7]).random(robots).tolist()
    worlds = [
        World(
            profile,
            replace(scenario, seed=1000 * scenario.seed + number, first_image_s=phase / scenario.frame_rate_hz),
            'dynamic',
            settings,
            shared=edge,
            robot=f'/robot{number}',
        )
        for number, phase in enumerate(phases)
    ]
    for world in worlds:
        world.begin()
    edge.start()
    timeline.run(
        lambda time_s: time_s > ends_s or (time_s > scenario.duration_s and all(world.camera.idle for world in worlds))
    )
    return [world.outcome() for world in worlds]


def fleet_point(
    profile: SystemProfile,
    scenario: Scenario,
    robots: int,
    replicas: int,
    settings: MonitorSettings | None = None,
    since_s: float = 0.0,
) -> FleetPoint:
    """Simulate a fleet, and return the result of its frames from ``since_s`` on."""
    runs = simulate_fleet(profile, scenario, robots, replicas, settings)
    frames = [frame for run in runs for frame in run.frames if frame.arrived_s >= since_s]
    if not frames:
        return FleetPoint(robots, replicas, math.nan, math.nan, math.nan)
    latencies = [frame.latency_s for frame in frames]
    return FleetPoint(
        robots,
        replicas,
        float(np.mean(latencies)),
        float(np.percentile(latencies, 95)),
        sum(frame.outcome is Outcome.ANSWERED for frame in frames) / len(frames),
    )


def fleet_points(
    profile: SystemProfile,
    scenario: Scenario,
    robots: Sequence[int],
    replicas: Sequence[int],
    settings: MonitorSettings,
    since_s: float,
    workers: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[FleetPoint]:
    """Return the result for each number of robots with each number of replicas; ``workers`` are processes."""
    jobs = [(profile, scenario, count, servers, settings, since_s) for servers in replicas for count in robots]
    points = []
    for point in in_processes(fleet_point, jobs, workers):
        points.append(point)
        progress()
    return points


def takes_over_at(points: Sequence[FleetPoint]) -> dict[int, int | None]:
    """Return, by number of replicas, the smallest fleet that runs most frames on its robots; None for none."""
    return {
        replicas: min(
            (point.robots for point in points if point.replicas == replicas and point.offloaded < 0.5), default=None
        )
        for replicas in sorted({point.replicas for point in points})
    }
