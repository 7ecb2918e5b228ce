# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Break things while frames are under way, at random instants and at every split, and count what became of the frames.

Camera, edge and monitor run as processes with an emulated link between them; images come at a fixed rate throughout. A
round injects every kind of fault (testing/faults.py) at every split, in an order and at instants that follow from the
seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import math
import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from bench.figures import argument_parser, Figures
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from testing.faults import Account, account, FAULTS, Faults, QUICK, settle, START_S, STATES
from testing.rig import Rig, rig
from testing.testbed import Testbed

#: Images per second while edges are killed. A busy machine of two cores keeps up with so many, so that gaps between
#: predictions come from the kills.
KILLS_RATE_HZ = 10.0
#: Names of the two edges of the parts edges and cuts.
EDGES = ('edge', 'second')


def inject_all(faults: Faults, rounds: int, budget_s: float, progress: Callable[[str], None]) -> None:
    """Inject every fault at every split, ``rounds`` times, the quick ones three times as often, while time is left."""
    deadline_s = time.monotonic() + budget_s
    for number in range(rounds):
        plan = [
            (kind, split)
            for kind in FAULTS
            for split in range(faults.rig.split.local_index)
            for _ in range(3 if kind in QUICK else 1)
        ]
        faults.chance.shuffle(plan)
        for at, (kind, split) in enumerate(plan):
            if time.monotonic() > deadline_s:
                progress(f'out of time in round {number + 1} of {rounds}, after {at} of {len(plan)} faults')
                return
            faults.inject(kind, split)
            progress(f'{kind} at split {split}: splitting again after {faults.resumed_s[kind][-1]:.2f} s')


def kill_edges(faults: Faults, kills: int, progress: Callable[[str], None]) -> None:
    """
    Kill the edge at random instants, each time at the next split, so that activations of every size are under way.

    Every fifth kill meets an edge that is still starting: others discover it while it dies.
    """
    for number in range(kills):
        if number % 5 == 4:
            time.sleep(faults.chance.uniform(0.0, START_S))
        else:
            faults.pin(number % faults.rig.split.local_index)
            time.sleep(faults.chance.uniform(0.0, 0.5))
        faults.at_s.append((time.monotonic(), f'kill {number + 1} at split {faults.split}'))
        faults.rig.processes.stop('edge', number=signal.SIGKILL)
        faults.injected['edge killed'] += 1
        faults.start_node('edge')
        progress(f'kill {number + 1} of {kills}, at split {faults.split}')


class HostPauses:
    """A process that does nothing but sleep and note when it overslept: what it measures, the host did to all of us."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / 'pauses.txt'
        with self._file.open('w') as file:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    '-c',
                    (
                        'import time\n'
                        'last = time.monotonic()\n'
                        'while True:\n'
                        '    time.sleep(0.01)\n'
                        '    now = time.monotonic()\n'
                        '    if now - last > 0.1: print(last, now, flush=True)\n'
                        '    last = now\n'
                    ),
                ],
                stdout=file,
            )

    def stop(self) -> list[tuple[float, float]]:
        """End, and return the pauses of more than 0.1 s: since when and until when (this machine's monotonic clock)."""
        self._process.kill()
        self._process.wait()
        return [(float(since), float(until)) for since, until in map(str.split, self._file.read_text().splitlines())]


def overlap_s(since_s: float, until_s: float, pauses: list[tuple[float, float]]) -> float:
    """Return for how long the host paused between two instants."""
    return sum(max(0.0, min(until_s, end_s) - max(since_s, start_s)) for start_s, end_s in pauses)


def add_frames(figures: Figures, result: Account, lost: int) -> None:
    """Add what became of the frames of a run; no frame may be lost, come twice or out of order, or be wrong."""
    figures.add('frames accepted', result.accepted, 'frames', '> 0')
    for state, name in STATES:
        figures.add(f'  of these, {name}', result.states[state], 'frames')
    figures.add('frames lost', lost, 'frames', '== 0')
    figures.add('predictions duplicated', result.duplicated, 'frames', '== 0')
    figures.add('predictions out of order', result.out_of_order, 'frames', '== 0')
    figures.add('predictions that differ from the whole model', result.wrong, 'frames', '== 0')


def measure_kills(folder: Path, kills: int, seed: int, figures: Figures) -> None:
    """Kill an edge that runs beside its robot many times, and find the longest gap between two predictions."""
    with rig(folder, 128) as made:
        faults = Faults(made, random.Random(seed), rate_hz=KILLS_RATE_HZ, remappings=())
        faults.start()
        watchdog = HostPauses(folder)
        try:
            kill_edges(faults, kills, lambda text: print(text, flush=True))
            last = settle(faults)
        finally:
            pauses = watchdog.stop()
    result = account(faults)
    gap_s, since_s, _ = result.worst_gaps_s[0]
    figures.add('edges killed', faults.injected['edge killed'], 'edges', f'== {kills}')
    add_frames(figures, result, result.lost + last['accepted'] - last['delivered'])
    figures.add('longest gap between predictions', gap_s, 's', '<= 1.5')
    figures.add('  of this, the host paused', overlap_s(since_s, since_s + gap_s, pauses), 's')
    figures.add('longest pause of the host', max((until - since for since, until in pauses), default=0.0), 's')
    figures.add('mean load of the last minute', os.getloadavg()[0], 'processes')
    figures.extra |= {'seed': seed, 'worst_gaps_s': result.worst_gaps_s, 'pauses_s': pauses}


def measure_edges(folder: Path, losses: int, seed: int, figures: Figures) -> None:
    """Kill the edge in use at random instants while another one stays, and see how soon that answers."""
    with rig(folder, 128) as made:
        lose_used(made, 'killed', Faults.kill_used, losses, seed, figures)


def measure_cuts(folder: Path, losses: int, seed: int, figures: Figures) -> None:
    """Cut the link to the edge in use at random instants while another one stays; each has a network namespace."""
    with Testbed(50e6, edges=EDGES) as testbed, rig(folder, 128, testbed) as made:
        lose_used(made, 'cut off', Faults.cut_used, losses, seed, figures)


def lose_used(made: Rig, what: str, lose: Callable[[Faults], float], losses: int, seed: int, figures: Figures) -> None:
    """Lose the edge in use at random instants, and add what became of the frames and how soon the other one answers."""
    faults = Faults(made, random.Random(seed), rate_hz=KILLS_RATE_HZ, remappings=(), edges=EDGES)
    faults.start()
    replaced_s = []
    for number in range(losses):
        faults.pin(number % made.split.local_index)
        time.sleep(faults.chance.uniform(0.0, 0.5))
        replaced_s.append(lose(faults))
        print(f'{what} {number + 1} of {losses}: the other edge answers after {replaced_s[-1]:.2f} s', flush=True)
    last = settle(faults)
    result = account(faults)
    figures.add(f'edges {what} while in use', faults.injected[f'edge in use {what}'], 'edges', f'== {losses}')
    add_frames(figures, result, result.lost + last['accepted'] - last['delivered'])
    figures.add('answered by the other edge after, median', float(np.median(replaced_s)), 's')
    figures.add(
        'answered by the other edge after, longest', max(replaced_s), 's', f'<= {MonitorSettings().silence_s + 1.0}'
    )
    figures.add('mean load of the last minute', os.getloadavg()[0], 'processes')
    figures.extra |= {'seed': seed, 'replaced_s': replaced_s}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argument_parser(__doc__.strip().splitlines()[0])
    parser.add_argument('--rounds', type=int, default=1, help='every fault at every split this many times (default 1)')
    parser.add_argument('--seed', type=int, default=0, help='of the order, the instants and the durations (default 0)')
    parser.add_argument(
        '--budget-s', type=float, default=600.0, help='inject no more after this many seconds (default 600)'
    )
    parser.add_argument(
        '--part',
        choices=('all', 'kills', 'edges', 'cuts'),
        default='all',
        help='all: every kind of fault, over an emulated link (default); kills: an edge on the robot; '
        'edges: the one in use of two edges; cuts: the link to the one in use of two edges, in network '
        'namespaces (root)',
    )
    parser.add_argument(
        '--kills', type=int, default=200, help='of the parts kills, edges and cuts: how often (default 200)'
    )
    parser.add_argument('--logs', type=Path, default=None, help="folder for the nodes' logs (default: a temporary one)")
    given: argparse.Namespace = parser.parse_args(argv)
    folder = given.logs or Path(tempfile.mkdtemp(prefix='dynsplit_faults_'))
    figures = Figures()
    if given.part != 'all':
        measure = {'kills': measure_kills, 'edges': measure_edges, 'cuts': measure_cuts}[given.part]
        measure(folder, given.kills, given.seed, figures)
        figures.extra['logs'] = str(folder)
        return figures.finish(given.json)
    with rig(folder, 64) as made:
        faults = Faults(made, random.Random(given.seed))
        faults.start()
        inject_all(faults, given.rounds, given.budget_s, lambda text: print(text, flush=True))
        last = settle(faults)
        undelivered = sum(counters['accepted'] - counters['delivered'] for counters in made.counters())
    result = account(faults)
    figures.add('faults injected', sum(faults.injected.values()), 'faults', '> 0')
    for kind, count in faults.injected.items():
        figures.add(f'  of these, {kind}', count, 'faults')
    figures.add('images offered', made.player.offered, 'images')
    add_frames(figures, result, result.lost)
    figures.add('predictions before a new camera and its listener had found each other', result.unheard, 'frames')
    figures.add('cameras that ended in order: accepted less delivered', undelivered, 'frames', '== 0')
    figures.add('late answers dropped by the last camera', last['late_answers'], 'answers')
    figures.add(
        'worst gap between predictions of one camera',
        result.worst_gaps_s[0][0] if result.worst_gaps_s else math.nan,
        's',
    )
    figures.add(
        'worst finishing of a lost frame over max(3 × predicted, 0.2 s)',
        result.worst_finishes_s[0][0] if result.worst_finishes_s else math.nan,
        's',
        '<= 0',
    )
    for kind, times_s in faults.resumed_s.items():
        back = kind.startswith(('edge', 'link'))
        figures.add(f'splitting again after {kind}, median', float(np.median(times_s)), 's')
        figures.add(f'splitting again after {kind}, worst', max(times_s), 's', '<= 2' if back else None)
    figures.extra = {
        'seed': given.seed,
        'rounds': given.rounds,
        'resumed_s': faults.resumed_s,
        'worst_gaps_s': result.worst_gaps_s,
        'worst_finishes_s': result.worst_finishes_s,
        'logs': str(folder),
    }
    return figures.finish(given.json)


if __name__ == '__main__':
    sys.exit(main())
