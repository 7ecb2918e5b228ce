# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
What further edges cost a robot, and what they are good for when one dies.

The part ``simulation`` kills the edge in use at random instants while another edge stays, and compares estimates with
those of one edge. The part ``uplink`` counts the bytes that real nodes send over the robot's link, with one edge and
with two; it needs root for network namespaces.
"""

from __future__ import annotations

import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any

import numpy as np

from bench.figures import argument_parser, Figures
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import Outcome
from dynsplit_ros.profile.profile import merge, Profile
from dynsplit_ros.simulation.trace import constant
from dynsplit_ros.simulation.world import EdgeScenario, Scenario, World

PROFILE = Path(__file__).resolve().parent.parent / 'test' / 'data' / 'mobilenet_v2.yaml'
#: Seconds between two kills, and until the edge that was killed is back.
PERIOD_S, AWAY_S = 4.0, 2.0
#: Height and width of the images whose bytes are the payloads of the part uplink: 150 kB and 12 kB.
SIZES = (224, 64)


def simulate_kills(figures: Figures, kills: int, seed: int) -> None:
    """Kill the edge in use at random instants, and count what became of the frames."""
    edge = Profile.load(PROFILE)
    duration_s, rng = PERIOD_S * (kills + 1), np.random.default_rng(seed)
    scenario = Scenario(
        constant(30e6, duration_s), duration_s, further_edges=(EdgeScenario(),), frame_rate_hz=20.0, seed=seed
    )
    world = World(merge(edge.scaled(8.0), edge), scenario, 'dynamic')
    killed: list[tuple[float, str]] = []

    def kill() -> None:
        dying = world.edges[world.monitor.used.name]
        killed.append((world.now_s, dying.name))
        dying.kill()
        world.at(world.now_s + AWAY_S, dying.restart)

    for number in range(kills):
        world.at(PERIOD_S * (number + 1) + float(rng.uniform(-0.5, 0.5)), kill)
    run = world.run()
    images = [frame.image for frame in run.frames]
    offered = int(duration_s * scenario.frame_rate_hz) + 1
    replaced_s = [
        min(
            frame.answered_s
            for frame in run.frames
            if frame.sent_s > at_s and frame.edge != name and frame.outcome is Outcome.ANSWERED
        )
        - at_s
        for at_s, name in killed
    ]
    figures.add('edges killed while in use', len(killed), 'edges', f'== {kills}')
    figures.add('  frames delivered', len(images), 'frames', '> 0')
    figures.add(
        '  of these, finished on the robot', sum(frame.outcome is Outcome.FELL_BACK for frame in run.frames), 'frames'
    )
    figures.add('  frames lost', offered - run.dropped - len(set(images)), 'frames', '== 0')
    figures.add('  predictions duplicated', len(images) - len(set(images)), 'frames', '== 0')
    figures.add('  predictions out of order', int(np.sum(np.diff(images) < 0)), 'frames', '== 0')
    figures.add('  answered by the other edge after, median', float(np.median(replaced_s)), 's')
    figures.add(
        '  answered by the other edge after, longest', max(replaced_s), 's', f'<= {MonitorSettings().silence_s + 1.0}'
    )


def compare_estimates(figures: Figures) -> None:
    """Compare one edge with two of the right model and one of another; every edge takes three times its profile."""
    edge, seconds = Profile.load(PROFILE), 55.0
    slow, found = constant(3.0, seconds), []
    for further in ((), (EdgeScenario(slowdown=slow), EdgeScenario(has_model=False))):
        world = World(
            merge(edge.scaled(8.0), edge),
            Scenario(constant(50e6, seconds), seconds, slowdown=slow, further_edges=further, seed=3),
            'dynamic',
        )
        run = world.run()
        found.append((world.monitor.link.throughput_bps, world.monitor.load.slowdown))
    figures.add('three edges: frames', len(run.frames), 'frames', '>= 500')
    figures.add('  fallbacks', sum(frame.outcome is Outcome.FELL_BACK for frame in run.frames), 'frames', '== 0')
    for name, alone, together in zip(('throughput', 'slowdown'), *found):
        figures.add(
            f'  estimated {name} over that with one edge, difference', abs(together / alone - 1), 'times', '<= 0.1'
        )


def measure_uplink(figures: Figures, seconds: float) -> None:
    """Count the bytes per frame on the robot's link with one edge and with two."""
    from bench.network import bench, RATE_HZ, warmed
    from dynsplit_ros.nodes import topics
    from testing.testbed import Testbed

    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.pop('ROS_AUTOMATIC_DISCOVERY_RANGE', None)  # the network is the testbed's own
    for size in SIZES:
        parameters = {'model': 'bench.network:identity', 'weights': 'none', 'threads': 1, 'input_size': [size, size]}
        per_frame = []
        for edges in (1, 2):
            with (
                tempfile.TemporaryDirectory(prefix='dynsplit-edges-') as folder,
                Testbed(50e6) as testbed,
                bench(
                    testbed,
                    Path(folder),
                    transport='wired',
                    model=parameters,
                    edges=edges,
                    monitor={'pinned_split': 0, 'codecs': ['raw'], 'answer_timeout_s': 5.0},
                ) as stage,
            ):
                states: list[Any] = []
                topics.LINK_STATE.subscription(stage.node, states.append)
                stage.play(RATE_HZ, warmed(stage, 10.0))
                stage.seen.clear()
                del states[:-1]
                before, began_s = sent_bytes(), time.monotonic()
                stage.play(RATE_HZ, lambda: time.monotonic() - began_s >= seconds)
                answered = sum(one.timing.payload_bytes > 0 for one in stage.seen)
                per_frame.append((sent_bytes() - before) / answered)
                probes = (states[-1].probe_bytes_total - states[0].probe_bytes_total) / answered
            figures.add(
                f'payload of {3 * size * size} bytes: bytes on the uplink per frame, {edges} edge(s)',
                per_frame[-1],
                'bytes',
            )
            figures.add('  of these, in probes', probes, 'bytes')
        figures.add('  with two edges over one', per_frame[1] / per_frame[0], 'times', '<= 1.01')


def sent_bytes() -> int:
    """Return the bytes that this side of the testbed has sent over the link."""
    (line,) = (line for line in Path('/proc/thread-self/net/dev').read_text().splitlines() if 'link0:' in line)
    return int(line.partition(':')[2].split()[8])


def main() -> int:
    """Measure and report."""
    parser = argument_parser(__doc__.strip().splitlines()[0])
    parser.add_argument(
        '--part', action='append', choices=('simulation', 'uplink'), help='only this part; may be repeated'
    )
    parser.add_argument('--kills', type=int, default=200, help='kills of the part simulation (default: 200)')
    parser.add_argument('--seed', type=int, default=0, help='of the instants of the kills (default: 0)')
    parser.add_argument(
        '--seconds', type=float, default=60.0, help='length of each run of the part uplink (default: 60)'
    )
    given = parser.parse_args()
    parts, figures = given.part or ['simulation', 'uplink'], Figures()
    if 'simulation' in parts:
        simulate_kills(figures, given.kills, given.seed)
        compare_estimates(figures)
    if 'uplink' in parts:
        measure_uplink(figures, given.seconds)
    return figures.finish(given.json)


if __name__ == '__main__':
    sys.exit(main())
