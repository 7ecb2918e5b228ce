# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Compare the dynamic split with an oracle and with each fixed split on a simulated link and edge."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import csv
from dataclasses import asdict, replace
import math
from pathlib import Path
import sys
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from dynsplit_ros.advice.bounds import BoundPoint, bounds_of, plot_bounds, RATES_BPS
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.profile.profile import Profile, SystemProfile
from dynsplit_ros.simulation import trace as traces
from dynsplit_ros.simulation.compare import Job, run_all, summarise, Summary
from dynsplit_ros.simulation.fleet import fleet_points, takes_over_at
from dynsplit_ros.simulation.trace import load_trace, Trace
from dynsplit_ros.simulation.world import Run, Scenario
from dynsplit_ros.tools.model_options import split_model
from dynsplit_ros.tools.system_options import (
    add_system_options,
    positive,
    set_threads,
    settings as chosen,
    system_profile,
)

#: What estimators and planner need to know link and edge does not count in a mean over a constant link, in seconds.
SETTLING_S = 5.0
#: A mean over fewer frames than this says little.
_FEWEST_FRAMES = 30
#: What a table says of the oracle where the dynamic split has another objective.
_CAPTIONS = {
    'frame_rate': 'the oracle minimises the latency; the dynamic split maximises the frame rate (--objective)',
    'deadline': 'the oracle minimises the latency; the dynamic split maximises the frames in time (--objective)',
}
#: Most robots of a fleet: the simulation of more takes hours.
MOST_ROBOTS = 256
#: What frames.csv has of each frame.
_FRAME_COLUMNS = (
    'image',
    'arrived_s',
    'latency_s',
    'split_index',
    'codec',
    'outcome',
    'payload_bytes',
    'head_s',
    'encode_s',
    'sent_s',
    'acknowledged_s',
    'answered_s',
    'queueing_s',
    'decode_s',
    'tail_s',
    'waited_s',
    'finish_s',
)
_KINDS = {
    'constant': ('VALUE', 1, 1),
    'noisy': ('VALUE,SHARE', 2, 2),
    'step': ('BEFORE,AFTER[,TIME]', 2, 3),
    'sine': ('LOW,HIGH[,PERIOD]', 2, 3),
    'markov': ('LOW,HIGH[,DWELL]', 2, 3),
}
_FORMS = ', '.join(f'{kind}:{form}' for kind, (form, _, _) in _KINDS.items())


def main(argv: list[str] | None = None) -> int:
    """Simulate what ``argv`` asks for; print a table, write CSV files and plots."""
    arguments = _parser().parse_args(argv)
    console = Console(stderr=True)
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        with Progress(
            TextColumn('{task.description:28}'),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        ) as bar:
            profile, _ = system_profile(arguments, lambda: _measure(arguments, bar))
            scenario = _scenario(arguments)
            settings = MonitorSettings(**chosen(arguments))
            written: list[Path] = []
            if 'time' in arguments.figure:
                written += _over_time(profile, scenario, settings, arguments, bar)
            if 'agreement' in arguments.figure:
                written += _over_bounds(profile, scenario, settings, arguments, bar)
            if 'fleet' in arguments.figure:
                written += _over_robots(profile, scenario, settings, arguments, bar)
            for figure in ('rates', 'load'):
                if figure in arguments.figure:
                    written += _sweep(figure, profile, scenario, settings, arguments, bar)
    except (DynsplitError, OSError) as error:
        print(f'simulate: {error}', file=sys.stderr)
        return 2
    print('written: ' + ', '.join(str(path) for path in written))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, conflict_handler='resolve')
    add_system_options(parser)
    world = parser.add_argument_group('link and load')
    link = world.add_mutually_exclusive_group()
    link.add_argument('--trace', type=Path, metavar='CSV', help='rate of the link: columns time_s,rate_mbps')
    link.add_argument(
        '--link',
        default='markov:2,20,5',
        metavar='KIND:VALUES',
        help=f'generated rate of the link, in Mbit/s and seconds: {_FORMS} (default: markov:2,20,5)',
    )
    world.add_argument(
        '--load',
        default='constant:1',
        metavar='CSV|KIND:VALUES',
        help='time of the edge divided by its profiled time: columns time_s,slowdown, or generated',
    )
    world.add_argument(
        '--others',
        default='constant:0',
        metavar='CSV|KIND:VALUES',
        help='frames per second from other robots at the edge: columns time_s,others_hz, or generated',
    )
    world.add_argument('--seconds', type=positive, help='simulated time in seconds (default: that of the trace, or 60)')
    world.add_argument(
        '--noise',
        type=_share,
        default=0.02,
        metavar='SHARE',
        help='relative standard deviation of computing times (default: 0.02)',
    )
    world.add_argument('--seed', type=int, default=0, help='seed of link, noise and weights (default: 0)')
    output = parser.add_argument_group('output')
    output.add_argument(
        '--figure',
        nargs='+',
        choices=('time', 'rates', 'load', 'agreement', 'fleet'),
        default=['time'],
        help='time: latency over time; rates: mean latency by link rate; load: by edge load; '
        'agreement: latency and bytes by --min-agreement; fleet: latency by number of robots '
        '(default: time)',
    )
    output.add_argument('--batch', type=int, default=1, help='images in a frame, for the figure time (default: 1)')
    output.add_argument(
        '--batches',
        type=int,
        nargs='+',
        metavar='N',
        help='batch sizes of the other figures (default: 1; with profiles, all that they contain)',
    )
    output.add_argument(
        '--rates',
        type=positive,
        nargs='+',
        metavar='MBIT/S',
        help='link rates of the figure rates (default: 13 from 0.25 to 1000)',
    )
    output.add_argument(
        '--loads',
        type=positive,
        nargs='+',
        default=[1, 2, 4, 8, 16],
        metavar='TIMES',
        help='edge loads of the figure load (default: 1 2 4 8 16)',
    )
    output.add_argument(
        '--robots',
        type=_count,
        nargs='+',
        default=[1, 2, 4, 8, 12, 16, 24, 32],
        metavar='N',
        help='numbers of robots in the figure fleet; each robot has its own link (default: 1 2 4 8 12 16 24 32)',
    )
    output.add_argument(
        '--replicas',
        type=_count,
        nargs='+',
        default=[1, 2, 4, 8],
        metavar='N',
        help='numbers of replicas of the edge in the figure fleet (default: 1 2 4 8)',
    )
    output.add_argument(
        '--output',
        type=Path,
        default=Path('simulation'),
        metavar='FOLDER',
        help='write the figures to this folder (default: simulation)',
    )
    output.add_argument('--workers', type=int, metavar='N', help='number of processes (default: one for each core)')
    return parser


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 1')
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST_ROBOTS:
        raise argparse.ArgumentTypeError(f'{text} is not from 1 to {MOST_ROBOTS}')
    return value


def _measure(arguments: argparse.Namespace, bar: Progress) -> Profile:
    from dynsplit_ros.profile.measure import measure  # the simulation's own processes do without torch

    set_threads(arguments)
    batches = sorted({1, arguments.batch, *(arguments.batches or [])})
    task = bar.add_task('', total=None)
    profile = measure(
        split_model(arguments),
        batches,
        arguments.codec or None,
        progress=lambda what, share: bar.update(task, description=what),
    )
    bar.remove_task(task)
    return profile


def _scenario(arguments: argparse.Namespace) -> Scenario:
    seed = arguments.seed
    if arguments.trace is not None:
        link = _from_zero(load_trace(arguments.trace))
        seconds = arguments.seconds or max(link.duration_s, 1.0)
    else:
        seconds = arguments.seconds or 60.0
        link = generated(arguments.link, seconds, seed).scaled(1e6)
    load = _load(arguments.load, 'slowdown', seconds, seed)
    if min(load.values) <= 0:
        raise DynsplitError(
            f'--load {arguments.load} falls to {min(load.values):g}, but must be above 0; 1 is an edge as profiled'
        )
    return Scenario(
        link=link,
        duration_s=seconds,
        slowdown=load,
        others_hz=_load(arguments.others, 'others_hz', seconds, seed),
        base_rtt_s=arguments.round_trip,
        noise=arguments.noise,
        frame_rate_hz=arguments.rate / arguments.batch,
        batch=arguments.batch,
        seed=seed,
    )


def _load(text: str, column: str, seconds: float, seed: int) -> Trace:
    if text.partition(':')[0] in _KINDS:
        return generated(text, seconds, seed)
    return _from_zero(load_trace(text, column, 1.0))


def _from_zero(trace: Trace) -> Trace:
    return Trace([time_s - trace.times_s[0] for time_s in trace.times_s], trace.values, trace.name)


def generated(text: str, seconds: float, seed: int) -> Trace:
    """Return the trace that KIND:VALUES stands for, ``seconds`` long; raises DynsplitError for any other text."""
    kind, _, rest = text.partition(':')
    try:
        values = [float(value) for value in rest.split(',')]
    except ValueError:
        values = []
    form, fewest, most = _KINDS.get(kind, ('', 1, 0))
    if not (fewest <= len(values) <= most and all(math.isfinite(value) and value >= 0 for value in values)):
        raise DynsplitError(f'the trace {text!r} is not known; give one of {_FORMS}, with numbers of at least 0')
    first, second, third = (*values, math.nan, math.nan)[:3]
    if kind == 'constant':
        return _named(traces.constant(first, seconds), text)
    if kind == 'noisy':
        if second > 1:
            raise DynsplitError(f'the trace {text!r} has noise of {second:g}, but its share is at most 1')
        return _named(traces.noisy(first, second, seconds, seed), text)
    if kind == 'step':
        at_s = third if len(values) == 3 else seconds / 2
        if not 0 < at_s < seconds:
            raise DynsplitError(f'the trace {text!r} steps at {at_s:g} s, but lasts from 0 to {seconds:g} s')
        return _named(traces.steps([(0.0, first), (at_s, second)], seconds), text)
    if len(values) == 3 and third <= 0 or kind == 'sine' and min(first, second) <= 0:
        raise DynsplitError(f'the trace {text!r} needs positive numbers')
    if kind == 'sine':
        return _named(traces.sine(first, second, third if len(values) == 3 else 20.0, seconds), text)
    return _named(traces.markov(first, second, third if len(values) == 3 else 5.0, seconds, seed), text)


def _named(trace: Trace, name: str) -> Trace:
    return Trace(trace.times_s, trace.values, name)


def _whole(job: Job, run: Run) -> Run:
    return run


def _policies(profile: SystemProfile, settings: MonitorSettings) -> list[str]:
    """Return every policy that the settings allow, the fixed ones as :class:`World` names them."""
    return ['dynamic', 'oracle', *(str(index) for index in range(settings.shallowest_split, profile.local_index + 1))]


def _run(
    jobs: Sequence[Job], reduce: Callable[[Job, Run], Any], what: str, arguments: argparse.Namespace, bar: Progress
) -> list[Any]:
    task = bar.add_task(what, total=len(jobs))
    results = run_all(jobs, reduce, arguments.workers, lambda done: bar.update(task, completed=done))
    bar.remove_task(task)
    return results


def _over_time(
    profile: SystemProfile, scenario: Scenario, settings: MonitorSettings, arguments: argparse.Namespace, bar: Progress
) -> list[Path]:
    policies = _policies(profile, settings)
    jobs = [Job(profile, scenario, policy, settings) for policy in policies]
    runs = dict(zip(policies, _run(jobs, _whole, 'simulating', arguments, bar)))
    if not runs['dynamic'].frames:
        raise DynsplitError(f'no frame was done within {scenario.duration_s:g} s; simulate for longer')
    deadline_s = settings.deadline_s if settings.objective == 'deadline' else math.nan
    summaries = {policy: summarise(run, scenario.duration_s, deadline_s=deadline_s) for policy, run in runs.items()}
    bar.stop()
    _print_table(profile, scenario, summaries, settings.objective)
    rows = [{'policy': policy, **asdict(summary)} for policy, summary in summaries.items()]
    frames = [
        {
            'policy': policy,
            **{name: getattr(frame, name) for name in _FRAME_COLUMNS},
            'rate_bps': scenario.link.at(frame.started_s),
            'estimate_bps': run.estimate_bps(frame.started_s),
        }
        for policy, run in runs.items()
        for frame in run.frames
    ]
    paths = [arguments.output / name for name in ('policies.csv', 'frames.csv', 'time.png')]
    _write(paths[0], rows)
    _write(paths[1], frames)
    from dynsplit_ros.simulation.plot import plot_over_time  # matplotlib takes half a second

    # Of the fixed splits, those that a person would ask for: the ends, and the best.
    fixed = [policy for policy in policies if policy.isdigit()]
    best = min(fixed, key=lambda policy: (math.isnan(summaries[policy].mean_s), summaries[policy].mean_s))
    drawn = [policy for policy in policies if policy in ('oracle', 'dynamic', fixed[0], best, fixed[-1])]
    plot_over_time(
        profile,
        {policy: runs[policy] for policy in drawn},
        scenario.link,
        scenario.slowdown,
        scenario.duration_s,
        paths[2],
    )
    return paths


def _print_table(profile: SystemProfile, scenario: Scenario, summaries: dict[str, Summary], objective: str) -> None:
    from dynsplit_ros.simulation.plot import policy_label

    oracle_s = summaries['oracle'].mean_s
    fixed = [summary.mean_s for policy, summary in summaries.items() if policy.isdigit()]
    best_s = min((mean_s for mean_s in fixed if not math.isnan(mean_s)), default=math.nan)
    table = Table(
        title=f'{profile.model}, batch {scenario.batch}, {scenario.frame_rate_hz:g} frames/s offered for '
        f'{scenario.duration_s:g} s, link {Path(scenario.link.name).name}, seed {scenario.seed}',
        caption=_CAPTIONS.get(objective),
    )
    table.add_column('policy', no_wrap=True)
    for name in (
        'mean ms',
        'over oracle',
        'median ms',
        '95 % ms',
        'longest ms',
        'frames',
        'dropped',
        'fell back',
        'switches/min',
        'sent Mbit/s',
        'probes %',
        *(['in time %'] if objective == 'deadline' else []),
    ):
        table.add_column(name, justify='right', overflow='fold')
    for policy, summary in summaries.items():
        style = 'bold red' if policy == 'dynamic' else 'bold' if summary.mean_s == best_s and policy.isdigit() else ''
        measured = policy != 'oracle'  # the oracle has no monitor that counts its bytes
        table.add_row(
            policy_label(policy, profile),
            f'{1000 * summary.mean_s:.1f}',
            f'{summary.mean_s / oracle_s:.3f}',
            f'{1000 * summary.median_s:.1f}',
            f'{1000 * summary.p95_s:.1f}',
            f'{1000 * summary.longest_s:.1f}',
            str(summary.frames),
            str(summary.dropped),
            str(summary.fell_back),
            f'{summary.switches_per_minute:.1f}' if policy == 'dynamic' else '',
            f'{summary.payload_bps / 1e6:.2f}' if measured else '',
            f'{100 * summary.probe_share:.2f}' if measured else '',
            *([f'{100 * (summary.in_time_share or 0.0):.1f}'] if objective == 'deadline' else []),
            style=style,
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _mean_s(job: Job, run: Run) -> tuple[float, float, int]:
    summary = summarise(run, job.scenario.duration_s, SETTLING_S)
    return summary.mean_s, summary.p95_s, summary.frames


def _sweep(
    figure: str,
    profile: SystemProfile,
    scenario: Scenario,
    settings: MonitorSettings,
    arguments: argparse.Namespace,
    bar: Progress,
) -> list[Path]:
    """Simulate every policy at each link rate, or at each load, for every batch size."""
    batches = sorted(set(arguments.batches or profile.batches))
    if figure == 'rates':
        points = sorted(arguments.rates or np.geomspace(0.25, 1000, 13).tolist())
        column, label = 'rate_mbps', 'link rate (Mbit/s)'
        title = f'{profile.model}: mean latency by link rate, {arguments.rate:g} images/s offered'
    else:
        points = sorted(arguments.loads)
        column, label = 'slowdown', 'time of the edge divided by its profiled time'
        title = f'{profile.model}: mean latency by edge load, link {Path(scenario.link.name).name}'
    policies = _policies(profile, settings)
    jobs, keys = [], []
    for batch in batches:
        rate_hz = arguments.rate / batch
        seconds = max(scenario.duration_s, SETTLING_S + _FEWEST_FRAMES / rate_hz)
        for point in points:
            here = replace(scenario, batch=batch, frame_rate_hz=rate_hz, duration_s=seconds)
            if figure == 'rates':
                here = replace(here, link=traces.constant(1e6 * point, seconds))
            else:
                here = replace(here, slowdown=traces.constant(point, seconds))
            for policy in policies:
                jobs.append(Job(profile, here, policy, settings))
                keys.append((batch, point, policy))
    results = _run(jobs, _mean_s, f'mean latency by {figure}', arguments, bar)
    rows = [
        {'batch': batch, column: f'{point:.6g}', 'policy': policy, 'mean_s': mean_s, 'p95_s': p95_s, 'frames': frames}
        for (batch, point, policy), (mean_s, p95_s, frames) in zip(keys, results)
    ]
    means: dict[int, dict[str, list[float]]] = {batch: {policy: [] for policy in policies} for batch in batches}
    for (batch, _, policy), (mean_s, _, _) in zip(keys, results):
        means[batch][policy].append(mean_s)
    paths = [arguments.output / f'{figure}.csv', arguments.output / f'{figure}.png']
    _write(paths[0], rows)
    from dynsplit_ros.simulation.plot import plot_sweep

    plot_sweep(profile, means, points, label, title, paths[1])
    return paths


def _mean_s_and_bytes(job: Job, run: Run) -> tuple[float, float]:
    sent = [frame.payload_bytes for frame in run.frames if frame.arrived_s > SETTLING_S]
    return summarise(run, job.scenario.duration_s, SETTLING_S).mean_s, sum(sent) / max(1, len(sent))


def _over_bounds(
    profile: SystemProfile, scenario: Scenario, settings: MonitorSettings, arguments: argparse.Namespace, bar: Progress
) -> list[Path]:
    """Simulate the dynamic split under each bound on the agreement at each link rate."""
    seconds = max(scenario.duration_s, SETTLING_S + _FEWEST_FRAMES / scenario.frame_rate_hz)
    rates_bps = [1e6 * rate for rate in arguments.rates] if arguments.rates else RATES_BPS
    keys = [(bound, rate_bps) for bound in bounds_of(profile) for rate_bps in rates_bps]
    jobs = [
        Job(
            profile,
            replace(scenario, link=traces.constant(rate_bps, seconds), duration_s=seconds),
            'dynamic',
            replace(settings, min_agreement=bound),
        )
        for bound, rate_bps in keys
    ]
    results = _run(jobs, _mean_s_and_bytes, 'latency by agreement', arguments, bar)
    points = [BoundPoint(*key, *result) for key, result in zip(keys, results)]
    paths = [arguments.output / 'agreement.csv', arguments.output / 'agreement.png']
    _write(
        paths[0],
        [
            {
                'min_agreement': point.bound,
                'rate_mbps': point.rate_bps / 1e6,
                'mean_s': point.latency_s,
                'mean_payload_bytes': point.payload_bytes,
            }
            for point in points
        ],
    )
    plot_bounds(points, f'{profile.model}: what a bound on the agreement buys, simulated', paths[1])
    return paths


def _over_robots(
    profile: SystemProfile, scenario: Scenario, settings: MonitorSettings, arguments: argparse.Namespace, bar: Progress
) -> list[Path]:
    """Simulate fleets of robots with each number of replicas."""
    seconds = max(scenario.duration_s, SETTLING_S + _FEWEST_FRAMES / scenario.frame_rate_hz)
    here = replace(scenario, duration_s=seconds)
    task = bar.add_task('latency by robots', total=len(arguments.robots) * len(arguments.replicas))
    points = fleet_points(
        profile,
        here,
        sorted(set(arguments.robots)),
        sorted(set(arguments.replicas)),
        settings,
        SETTLING_S,
        arguments.workers,
        lambda: bar.advance(task),
    )
    bar.remove_task(task)
    for replicas, robots in takes_over_at(points).items():
        print(
            f'{replicas} replica{"s" * (replicas != 1)}: '
            + (
                f'from {robots} robots on, most frames run on the robots'
                if robots is not None
                else f'up to {max(point.robots for point in points)} robots, most frames run on the edge'
            )
        )
    paths = [arguments.output / 'fleet.csv', arguments.output / 'fleet.png']
    _write(paths[0], [asdict(point) for point in points])
    from dynsplit_ros.simulation.plot import plot_fleet

    local = profile.cuts[profile.local_index]
    title = f'{profile.model}: {scenario.frame_rate_hz:g} frames/s of each robot, link {Path(scenario.link.name).name}'
    plot_fleet(points, local.head_s[scenario.batch], title, paths[1])
    return paths


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f'{value:.6g}' if isinstance(value, float) else value for key, value in row.items()})


if __name__ == '__main__':
    raise SystemExit(main())
