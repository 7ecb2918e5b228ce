# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
What each mechanism of estimators, planner and pacing is worth: backward elimination in simulation.

Each mechanism of ``bench/switches.py`` is switched off in a copy of the package, which then meets the same scenarios
with the same seeds. The mechanism that costs least is removed, and the others are tried again without it: of two that
stand in for each other, one stays. A mechanism may go as long as no group of scenarios loses more than the spread
between seeds. At the end, constants without a physical meaning are halved and doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import json
import math
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from bench.figures import argument_parser, Figures
from bench.switches import constants, MECHANISMS, Switch
from bench.variants import copy_package, environment, PACKAGE, ROOT
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.profile.profile import merge, Profile, SystemProfile
from dynsplit_ros.simulation.link import Disturbances, Pauses
from dynsplit_ros.simulation.trace import constant, load_trace, markov, noisy, steps, Trace
from dynsplit_ros.simulation.world import Run, Scenario, simulate

PROFILES = ROOT / 'test' / 'data'
TRACES = ROOT.parent / 'shared' / 'link_traces'
#: The robot takes this many times as long as the edge.
SLOWDOWN = 8.0
SECONDS = 20.0
#: A loss below this counts as none: share of the latency, mean error (natural logarithm) of the estimated rate, changes
#: of split per minute in hundreds, share of the link that probes take in hundreds of their limit.
LEAST_LOSS = {'latency': 0.002, 'rate': 0.01, 'switches': 0.005, 'probes': 0.02}
#: A loss of one seed beyond this needs no other seed.
DECISIVE = 0.1
#: Longest run of one variant, in seconds; a variant that takes longer has failed.
LONGEST_S = 900.0

DEFAULTS = MonitorSettings()
DISTURBED = {
    'pauses of the robot': Disturbances(handover_s=0.001, robot=Pauses(2.0, 0.015)),
    'pauses of the edge': Disturbances(edge=Pauses(2.0, 0.015)),
    'time slices': Disturbances(
        handover_s=0.001, robot=Pauses(slice_s=0.025, slice_share=0.7), edge=Pauses(slice_s=0.025, slice_share=0.8)
    ),
    'bursts': Disturbances(burst_bytes=3_100),
    'loss': Disturbances(loss=0.2, buffer_bytes=20_000),
}

#: Scores by group, seed and scenario.
Scores = dict[str, list[list[float]]]


@dataclass(frozen=True)
class Case:
    """One scenario of a group, and the policy and settings that meet it."""

    group: str
    profile: SystemProfile
    scenario: Callable[[int], Scenario]
    policy: str = 'dynamic'
    settings: MonitorSettings = DEFAULTS


def cases(traces: Path) -> list[Case]:
    """Return every case; those of measured traces only where the folder holds them."""
    mobile, alex, efficient = (_system(name) for name in ('mobilenet_v2', 'alexnet', 'efficientnet_b0'))
    made: list[Case] = []

    def add(
        group: str,
        link: Callable[[int], Trace],
        profiles: Sequence[SystemProfile],
        policy: str = 'dynamic',
        settings: MonitorSettings = DEFAULTS,
        **values: object,
    ) -> None:
        for profile in profiles:

            def scenario(seed: int) -> Scenario:
                return Scenario(link(seed), SECONDS, seed=seed, **values)  # type: ignore[arg-type]

            made.append(Case(group, profile, scenario, policy, settings))

    def at(rate_mbps: float) -> Callable[[int], Trace]:
        return lambda seed: constant(rate_mbps * 1e6, SECONDS)

    def step(*rates_mbps: float) -> Callable[[int], Trace]:
        parts = [(SECONDS * i / len(rates_mbps), rate * 1e6) for i, rate in enumerate(rates_mbps)]
        return lambda seed: steps(parts, SECONDS)

    def two_states(seed: int) -> Trace:
        return markov(2e6, 20e6, 4.0, SECONDS, seed)

    for profile, rate_mbps in ((mobile, 1.0), (mobile, 8.25), (mobile, 64.0), (alex, 4.0), (alex, 16.0)):
        add('constant links', at(rate_mbps), (profile,))
    for profile, load in ((mobile, 2.0), (alex, 6.0)):
        add('loaded edges', at(12.0), (profile,), slowdown=constant(load, SECONDS))
    add('loaded edges', at(30.0), (mobile,), slowdown=steps([(0, 1), (7, 8), (14, 1)], SECONDS))
    add('loaded edges', at(30.0), (alex,), others_hz=constant(15.0, SECONDS), others_s=0.03)
    for objective in ('latency', 'frame_rate'):
        add(
            f'busy edges, {objective}',
            at(100.0),
            (mobile,),
            slowdown=constant(8.0, SECONDS),
            noise=0.15,
            settings=MonitorSettings(objective=objective, pinned_split=0),
        )
    for profile, rates_mbps in (
        (mobile, (20.0, 2.0)),
        (mobile, (2.0, 20.0)),
        (mobile, (30.0, 0.3, 30.0)),
        (alex, (80.0, 8.0)),
        (alex, (1.0, 40.0)),
    ):
        add('steps', step(*rates_mbps), (profile,))
    add('Markov links', two_states, (mobile, alex, efficient))
    for number, path in enumerate(sorted(traces.glob('*.csv'))):
        add('measured traces', _part(load_trace(path)), ((mobile, alex)[number % 2],))
    for profile, rate_mbps in ((mobile, 4.0), (mobile, 8.0), (alex, 20.0)):
        add(
            'noisy links',
            lambda seed, rate=rate_mbps: noisy(rate * 1e6, 0.2, SECONDS, seed),  # type: ignore[misc]
            (profile,),
        )
    for group, disturbances in DISTURBED.items():
        add(group, at(6.0), (alex,), disturbances=disturbances)
        add(group, step(4.0, 40.0), (mobile,), disturbances=disturbances)
        for policy in ('0', str(mobile.local_index)):
            add(f'rate: {group}', at(8.0), (mobile,), policy, disturbances=disturbances)
    local = str(mobile.local_index)
    for policy, rate_mbps in (('0', 5.0), ('3', 5.0), (local, 0.5), (local, 100.0)):
        add('rate: constant links', at(rate_mbps), (mobile,), policy)
    for policy in ('0', local):
        add('rate: jitter', at(10.0), (mobile,), policy, base_rtt_s=0.02, jitter_s=0.004)
        add('rate: steps', step(2.0, 20.0, 2.0), (mobile,), policy)
    for profile, rates_mbps in ((mobile, (3.0, 30.0)), (alex, (30.0, 3.0))):
        add('jitter', step(*rates_mbps), (profile,), base_rtt_s=0.02, jitter_s=0.008)
    add(
        'outages',
        lambda seed: Trace([0.0, 6.0, 9.0, 15.0, 15.6], [40e6, 0.0, 40e6, 0.0, 10e6], 'outages'),
        (mobile, alex),
    )
    # Probes need leads, for which the budget at the rate before the outage pays once in seconds.
    add('outages', lambda seed: Trace([0.0, 8.0, 12.0], [1e6, 0.0, 60e6], 'outage'), (mobile,), jitter_s=0.003)
    add('slow downlinks', step(20.0, 4.0), (mobile, alex), downlink_ratio=0.05)
    wrong = Disturbances(profile_error=0.3, handover_s=0.005)
    throttled = Disturbances(robot_slowdown=steps([(0, 1), (7, 2.5), (14, 1)], SECONDS), robot=Pauses(1.0, 0.02))
    for profile, rate_mbps in ((mobile, 5.0), (alex, 12.0)):
        add('wrong profiles', at(rate_mbps), (profile,), disturbances=wrong)
        add('throttled robots', at(rate_mbps), (profile,), disturbances=throttled)
    for profile, rate_hz in ((mobile, 2.0), (alex, 25.0)):
        add('other frame rates', step(4.0, 12.0), (profile,), frame_rate_hz=rate_hz)
    add('the objective frame_rate', step(4.0, 30.0), (alex,), settings=MonitorSettings(objective='frame_rate'))
    return made


def _system(name: str) -> SystemProfile:
    edge = Profile.load(PROFILES / f'{name}.yaml')
    return merge(edge.scaled(SLOWDOWN), edge)


def _part(trace: Trace) -> Callable[[int], Trace]:
    """Return what cuts another part from a trace with each seed."""

    def cut(seed: int) -> Trace:
        first_s = float(np.random.default_rng(seed).uniform(0, max(0.0, trace.duration_s - SECONDS)))
        begin_s = trace.times_s[0] + first_s
        times = [time_s for time_s in trace.times_s if time_s > begin_s]
        return Trace([0.0, *(time_s - begin_s for time_s in times)], [trace.at(begin_s), *map(trace.at, times)])

    return cut


def score(case: Case, run: Run, scenario: Scenario) -> dict[str, float]:
    """Return the scores of a run by group; the lower the better, and a difference of 0.01 is a loss of one percent."""
    if case.group.startswith('rate:'):
        link = scenario.link
        errors = [
            abs(math.log(max(rate_bps, 1.0) / link.at(time_s))) for time_s, rate_bps in run.estimates if time_s > 3.0
        ]
        scores = {case.group: statistics.fmean(errors)}
        return {**scores, 'probes': _probes(run)} if 'constant' in case.group else scores
    if case.settings.objective == 'frame_rate':
        return {case.group: -math.log(max(len(run.frames), 1))}
    scores = {case.group: math.log(run.mean_s()) if run.frames else math.inf}
    if case.group == 'noisy links':
        scores['switches'] = sum(change_s > 5.0 for change_s in run.decisions_changed) * 0.6 / (SECONDS - 5.0)
    return scores


def _probes(run: Run) -> float:
    """Return by how many hundreds of the limit (1 % of the link) probes took more than it allows."""
    return max(0.0, (run.probe_bytes + run.heartbeat_bytes) / max(run.capacity_bytes, 1.0) / 0.01 - 1.0)


def measure(seeds: Sequence[int], traces: Path, reference: Scores | None = None) -> Scores:
    """
    Simulate every case with every seed, and return the scores: of each group, of each seed, of each case.

    Only the groups of ``reference`` count, if it is given. Nothing more is simulated when the first seed shows no
    difference at all or a decisive loss; the scores then hold one seed.
    """
    scores: Scores = {}
    for number, seed in enumerate(seeds):
        for case in cases(traces):
            if reference is not None and case.group not in reference:
                continue
            scenario = case.scenario(seed)
            run = simulate(case.profile, scenario, case.policy, case.settings)
            for group, value in score(case, run, scenario).items():
                rows = scores.setdefault(group, [])
                if len(rows) == number:
                    rows.append([])
                rows[number].append(value)
        if reference is not None and number == 0:
            found = losses(scores, reference)
            if worst(found).mean > DECISIVE or all(loss.mean == 0 for loss in found):
                break
    return scores


@dataclass(frozen=True)
class Loss:
    """What a variant loses in a group against another: the mean over seeds, and its spread between seeds."""

    group: str
    mean: float
    spread: float

    @property
    def counts(self) -> bool:
        """Whether the loss is larger than the spread between seeds, and large enough to matter."""
        return self.excess > 0

    @property
    def excess(self) -> float:
        """The loss beyond the spread between seeds."""
        kind = self.group.partition(':')[0]
        return self.mean - max(self.spread, LEAST_LOSS.get(kind, LEAST_LOSS['latency']))


def losses(variant: Scores, reference: Scores) -> list[Loss]:
    """Return the losses of a variant in each group."""
    found = []
    for group, rows in reference.items():
        by_seed = [statistics.fmean(new) - statistics.fmean(old) for new, old in zip(variant[group], rows)]
        by_seed = [loss if math.isfinite(loss) else 9.0 for loss in by_seed]
        spread = statistics.stdev(by_seed) if len(by_seed) > 1 else 0.0
        found.append(Loss(group, statistics.fmean(by_seed), spread))
    return found


def worst(found: Iterable[Loss]) -> Loss:
    """Return the loss that exceeds its spread the most."""
    return max(found, key=lambda loss: loss.excess)


def mean_loss(found: Sequence[Loss]) -> float:
    """Return the mean loss over all groups."""
    return statistics.fmean(loss.mean for loss in found)


_PROGRAM = """
import json, pathlib, sys
from bench import ablation
seeds, traces = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
print(json.dumps(ablation.measure(seeds, traces, json.loads(pathlib.Path('reference.json').read_text()))))
"""


class Bench:
    """Measures variants of the package, several at a time."""

    def __init__(self, seeds: Sequence[int], traces: Path, workers: int) -> None:
        self._seeds, self._traces = seeds, traces
        self._pool = ThreadPoolExecutor(workers)
        self.measured = 0

    def measure_all(
        self, variants: Iterable[Sequence[Switch]], reference: Scores | None = None
    ) -> Iterator[Scores | None]:
        """
        Yield the scores of each variant; None where its switches do not fit together, or it fails.

        Camera and planner do not change what fixed splits teach of the rate, so these groups keep the scores of the
        ``reference`` where only those differ from it.
        """
        return self._pool.map(lambda switches: self._measure(switches, reference), variants)

    def _measure(self, switches: Sequence[Switch], reference: Scores | None) -> Scores | None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            copy_package(folder)
            try:
                for switch in switches:
                    switch.apply(folder)
            except ValueError:
                return None
            estimates = bool(switches) and switches[-1].file.startswith(('estimators', 'runtime'))
            kept = {
                group: rows
                for group, rows in (reference or {}).items()
                if not estimates and (group.startswith('rate:') or group == 'probes')
            }
            compared = {group: rows for group, rows in (reference or {}).items() if group not in kept}
            (folder / 'reference.json').write_text(json.dumps(compared or None))
            ran = subprocess.run(
                [sys.executable, '-c', _PROGRAM, json.dumps(list(self._seeds)), str(self._traces)],
                env=environment(folder),
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=LONGEST_S,
                check=False,
            )
            self.measured += 1
            if ran.returncode != 0:
                print(f'{", ".join(map(str, switches))} failed: {ran.stderr[-300:]}', flush=True)
                return None
            scores: Scores = json.loads(ran.stdout)
            if reference is not None and scores == {group: rows[:1] for group, rows in compared.items()}:
                return reference
            return {**kept, **scores}


def eliminate(
    bench: Bench, mechanisms: Sequence[Switch], until_s: float, note: Callable[[str], None]
) -> tuple[list[Switch], dict[str, tuple[float, Loss]], Scores]:
    """
    Remove mechanisms, the one that costs least first, until each of the others costs more than the spread.

    Returns those that were removed, by name the mean and the worst loss of each when it was last tried, and the scores
    without the removed ones. A cost is tried again when it is the next candidate for removal: most costs only grow as
    others go.
    """
    removed: list[Switch] = []
    [full] = bench.measure_all([[]])
    if full is None:
        raise RuntimeError('the simulation fails without any change')
    reference = full
    known: dict[str, tuple[float, Loss]] = {}
    fresh: dict[str, Scores] = {}

    def learn(tried: Sequence[Switch]) -> None:
        variants = [[*removed, switch] for switch in tried]
        for switch, scores in zip(tried, bench.measure_all(variants, reference)):
            if scores is None:
                known[str(switch)] = (math.inf, Loss('it does not apply', math.inf, 0.0))
                continue
            found = losses(scores, reference)
            cost, loss = known[str(switch)] = (mean_loss(found), worst(found))
            fresh[str(switch)] = scores
            note(f'{cost:+8.4f} {loss.mean:+8.4f} ±{loss.spread:.4f} {loss.group:<24} {switch}')

    learn(mechanisms)
    left = list(mechanisms)
    while time.monotonic() < until_s:
        free = sorted((s for s in left if not known[str(s)][1].counts), key=lambda s: known[str(s)][0])
        if not free:
            break
        best = free[0]
        if str(best) in fresh:  # measured without all that is removed so far
            removed.append(best)
            left.remove(best)
            reference = fresh[str(best)]
            fresh.clear()
            cost, loss = known[str(best)]
            note(f'removed {best}: {cost:+.4f}, worst {loss.mean:+.4f} ±{loss.spread:.4f} in {loss.group}')
        else:
            learn(free[:2])
    return removed, known, reference


def list_changes() -> int:
    """Print every change; return 1 if one does not fit the sources."""
    misfits = 0
    for switch in (*MECHANISMS, *constants()):
        try:
            switch.change((ROOT / PACKAGE / switch.file).read_text())
            print(switch)
        except ValueError as error:
            misfits += 1
            print(f'{switch}: {error}')
    return int(misfits > 0)


def main() -> int:
    """Eliminate, try the constants, print and write the figures."""
    parser = argument_parser(__doc__ or '')
    parser.add_argument(
        '--traces',
        type=Path,
        default=TRACES,
        metavar='FOLDER',
        help='CSV files of measured links (link_traces in the folder shared beside the repository)',
    )
    parser.add_argument('--seeds', type=int, default=3, metavar='N', help='seeds of each scenario (3)')
    parser.add_argument('--first-seed', type=int, default=1, metavar='N', help='the first of them (1)')
    parser.add_argument('--workers', type=int, default=2, metavar='N', help='variants measured at a time (2)')
    parser.add_argument(
        '--minutes',
        type=float,
        default=100.0,
        metavar='N',
        help='no new removal after that (100); with 0, each mechanism is only tried beside all others',
    )
    parser.add_argument('--only', metavar='TEXT', default='', help='only mechanisms whose name holds this text')
    parser.add_argument('--no-constants', action='store_true', help='leave the constants out')
    parser.add_argument('--list', action='store_true', help='check that every change fits the sources, and print them')
    arguments = parser.parse_args()
    if arguments.list:
        return list_changes()
    started_s = time.monotonic()
    bench = Bench(
        range(arguments.first_seed, arguments.first_seed + arguments.seeds), arguments.traces, arguments.workers
    )
    figures = Figures()
    mechanisms = [switch for switch in MECHANISMS if arguments.only in str(switch)]
    removed, known, reference = eliminate(
        bench, mechanisms, started_s + 60 * arguments.minutes, lambda line: print(line, flush=True)
    )
    rows = []
    for switch in mechanisms:
        cost, loss = known[str(switch)]
        rows.append(
            {
                'mechanism': str(switch),
                'mean_loss': cost,
                'worst_loss': loss.mean,
                'spread': loss.spread,
                'group': loss.group,
                'removed': switch in removed,
            }
        )
        figures.add(f'{switch}: mean loss without it', cost, '', None)
    if not arguments.no_constants:
        tried = constants()
        variants = [[*removed, switch] for switch in tried]
        for switch, scores in zip(tried, bench.measure_all(variants, reference)):
            found = losses(scores, reference) if scores is not None else [Loss('it fails', math.inf, 0.0)]
            loss = worst(found)
            rows.append(
                {
                    'constant': str(switch),
                    'mean_loss': mean_loss(found),
                    'worst_loss': loss.mean,
                    'spread': loss.spread,
                    'group': loss.group,
                }
            )
            figures.add(f'{switch}: mean loss', mean_loss(found), '', None)
    figures.extra['rows'] = rows
    figures.add('mechanisms tried', len(mechanisms), '')
    free = sum(not known[str(switch)][1].counts for switch in mechanisms if switch not in removed)
    figures.add('mechanisms that cost less than the spread between seeds', len(removed) + free, '')
    figures.add('variants measured', bench.measured, '')
    figures.add('time that all of this took', time.monotonic() - started_s, 's', '<= 7200')
    return figures.finish(arguments.json)


if __name__ == '__main__':
    raise SystemExit(main())
