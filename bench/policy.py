# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
How near the policy comes to oracles that know the future, and to the best fixed split, with profiles measured here.

The greedy oracle chooses the least latency frame by frame; its bars are about the mean over frames. The look-ahead
oracle chooses the best sequence of choices; its bars are about the mean over images, in which a dropped image counts
with the latency of the frame before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
import math
import os
from pathlib import Path
import time
from typing import Any

import numpy as np

from bench.figures import argument_parser, Figures
from dynsplit_ros.policies.monitor import MonitorPolicy
from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.policies.records import FrameRecord
from dynsplit_ros.profile.profile import CodecProfile, CutProfile, merge, Profile, SystemProfile
from dynsplit_ros.simulation.compare import Job, run_all, summarise
from dynsplit_ros.simulation.trace import constant, load_trace, markov, noisy, steps, Trace
from dynsplit_ros.simulation.world import images_of_frames, Run, Scenario

MODELS = ('mobilenet_v2', 'efficientnet_b0', 'resnet50')
#: The robot takes this many times as long as the edge.
SLOWDOWN = 8.0
RATES_BPS = np.geomspace(0.25e6, 1000e6, 13).tolist()
LOADS = (1.0, 2.0, 4.0, 8.0)
#: Higher of the two rates of a step of ten times.
STEP_BPS = (2.5e6, 5e6, 10e6, 20e6, 40e6, 80e6, 160e6, 1000e6)
SETTLED_S = 5.0
#: Camera and slowest stage beat: where a frame takes nearly one and a half periods, each choice of the same split finds
#: images of another age for tens of seconds, and a shorter run compares chance.
CONSTANT_S = 120.0
STEP_S = 15.0
MARKOV_SEEDS = 10
TRACES = Path(__file__).resolve().parents[2] / 'shared' / 'link_traces'
#: Each trace is also run with its rate and its pace multiplied by these: nothing was tuned on such links.
VARIANTS = {'half the rate': (0.5, 1.0), 'four times the rate': (4.0, 1.0), 'three times as fast': (1.0, 3.0)}
#: Part of a trace that its variants have, in seconds.
VARIANT_S = 120.0
AHEAD = 'look-ahead oracle'


@dataclass(frozen=True)
class Outcome:
    """What the bars are about, of one run: times in seconds."""

    arrived_s: np.ndarray[Any, Any]
    latency_s: np.ndarray[Any, Any]
    images: np.ndarray[Any, Any]
    late_wait_s: float
    fell_back: int
    switches_per_minute: float
    probe_share: float
    error_at_ten: float
    error_later: float

    def mean_s(self, since_s: float = 0.0, until_s: float = math.inf) -> float:
        """Mean latency of the frames whose images arrived in this time."""
        return float(self.latency_s[(self.arrived_s >= since_s) & (self.arrived_s < until_s)].mean())

    def mean_per_image_s(self, since_s: float = 0.0) -> float:
        """Mean over images, where a dropped one counts with the latency of the frame before it."""
        return float(np.average(self.latency_s, weights=self.images * (self.arrived_s >= since_s)))

    def p95_s(self) -> float:
        """95th percentile of the latency."""
        return float(np.percentile(self.latency_s, 95))


def outcome(job: Job, run: Run) -> Outcome:
    """Reduce a run, in the process that simulated it."""
    frames = run.frames
    waits = [frame.waited_s - frame.answer_timeout_s for frame in frames if math.isfinite(frame.sent_s)]
    at_ten, later = math.nan, math.nan
    if run.estimates and len(frames) > 10 and min(job.scenario.link.values) > 0:
        estimates = np.array([pair for pair in run.estimates if pair[0] >= frames[9].delivered_s])
        errors = np.abs(estimates[:, 1] / np.array([job.scenario.link.at(time_s) for time_s in estimates[:, 0]]) - 1)
        at_ten, later = float(errors[0]), float(np.percentile(errors, 95))
    summary = summarise(run, job.scenario.duration_s, SETTLED_S)
    return Outcome(
        np.array([frame.arrived_s for frame in frames]),
        np.array([frame.latency_s for frame in frames]),
        images_of_frames(frames),
        max(waits, default=0.0),
        summary.fell_back,
        summary.switches_per_minute,
        summary.probe_share,
        at_ten,
        later,
    )


@dataclass(frozen=True)
class Point:
    """One scenario of a part of the benchmark, and the policies that it compares."""

    name: str
    scenario: Scenario
    policies: Sequence[str]


@dataclass
class Results:
    """The outcomes of one model's runs, by part, point and policy."""

    local: int
    outcomes: dict[tuple[str, str, str], Outcome] = field(default_factory=dict)

    def points(self, part: str) -> list[str]:
        """Return the points of a part, in order."""
        return list(dict.fromkeys(point for which, point, _ in self.outcomes if which == part))

    def ratio(self, part: str, point: str, since_s: float = 0.0, until_s: float = math.inf) -> float:
        """Return the mean latency of the dynamic split over that of the greedy oracle."""
        dynamic, oracle = (self.outcomes[part, point, policy] for policy in ('dynamic', 'oracle'))
        return dynamic.mean_s(since_s, until_s) / oracle.mean_s(since_s, until_s)

    def per_image(self, part: str, point: str, policy: str, since_s: float = 0.0) -> float:
        """Return the mean over images of a policy over that of the look-ahead oracle."""
        mean_s, ahead_s = (self.outcomes[part, point, name].mean_per_image_s(since_s) for name in (policy, AHEAD))
        return mean_s / ahead_s

    def best_fixed(self, part: str, point: str, mean_s: Callable[[Outcome], float]) -> tuple[int, float]:
        """Return the fixed split with the least mean, and that mean in seconds."""
        means_s = [mean_s(self.outcomes[part, point, str(split)]) for split in range(self.local + 1)]
        return int(np.argmin(means_s)), min(means_s)


def main() -> int:
    """Measure profiles, simulate, print and write the figures."""
    parser = argument_parser(__doc__ or '')
    parser.add_argument(
        '--traces',
        type=Path,
        default=TRACES,
        metavar='FOLDER',
        help='CSV files of measured links (link_traces in the folder shared beside the repository)',
    )
    parser.add_argument(
        '--part',
        nargs='+',
        choices=('decision', *PARTS),
        default=('decision', *PARTS),
        metavar='PART',
        help='parts to run (all: %(choices)s)',
    )
    parser.add_argument('--quick', action='store_true', help='the first model and a part of each sweep')
    parser.add_argument('--models', nargs='+', default=MODELS, metavar='NAME', help='(' + ' '.join(MODELS) + ')')
    parser.add_argument('--profiles', type=Path, metavar='FOLDER', help='use MODEL.yaml from here instead of measuring')
    parser.add_argument('--workers', type=int, metavar='N', help='processes (one for each core)')
    arguments = parser.parse_args()
    started_s = time.monotonic()
    figures = Figures()
    if 'decision' in arguments.part:
        _cost(figures)
    parts = [part for part in PARTS if part in arguments.part]
    links = _links(arguments.traces)
    for name in (arguments.models[:1] if arguments.quick else arguments.models) if parts else ():
        profile = _profile(name, arguments.profiles, figures)
        results = _simulate(name, profile, parts, links, arguments)
        for part in parts:
            PARTS[part][1](figures, name, results)
        _report_probes(figures, name, results)
    figures.add('time that all of this took', time.monotonic() - started_s, 's')
    return figures.finish(arguments.json)


def _simulate(
    name: str, profile: SystemProfile, parts: Sequence[str], links: Mapping[str, Trace], arguments: Any
) -> Results:
    """Run every policy at every point of the parts, and print how many runs are done."""
    jobs = {
        (part, point.name, policy): Job(profile, point.scenario, policy)
        for part in parts
        for point in PARTS[part][0](profile, arguments.quick, links)
        for policy in point.policies
    }

    def progress(done: int) -> None:
        if done % max(1, len(jobs) // 10) == 0:
            print(f'{name}: {done} of {len(jobs)} runs', flush=True)

    outcomes = run_all(list(jobs.values()), outcome, arguments.workers, progress)
    return Results(profile.local_index, dict(zip(jobs, outcomes)))


def _profile(name: str, folder: Path | None, figures: Figures) -> SystemProfile:
    if folder is not None:
        edge = Profile.load(folder / f'{name}.yaml')
    else:
        import torch  # the processes that simulate do without

        from dynsplit_ros.memory import keep_freed
        from dynsplit_ros.model import load_model
        from dynsplit_ros.partition import SplitModel
        from dynsplit_ros.profile.measure import measure

        torch.set_num_threads(1)
        keep_freed()
        edge = measure(SplitModel(load_model(name)), (1,))
    figures.extra.setdefault('profiles', {})[name] = edge.to_document()  # to see again what these figures are about
    figures.add(f'{name}: the whole model on the edge', 1000 * edge.cuts[0].tail_s[1], 'ms')
    return merge(edge.scaled(SLOWDOWN), edge)


def _links(folder: Path) -> dict[str, Trace]:
    links = {path.stem: load_trace(path) for path in sorted(folder.glob('*.csv'))} if folder.is_dir() else {}
    if not links:
        print(f'no measured link traces in {folder}: only generated links are tried', flush=True)
    return links


def _variant(trace: Trace, rate: float, pace: float) -> Trace:
    """Return the first seconds of a trace with its rate and pace multiplied."""
    times_s = [time_s / pace for time_s in trace.times_s if time_s < VARIANT_S * pace]
    return Trace(times_s, [rate * value for value in trace.values[: len(times_s)]], trace.name)


# ---- the points of each part -------------------------------------------------------------------------------------


def _constant_points(profile: SystemProfile, quick: bool, links: Mapping[str, Trace]) -> Iterator[Point]:
    for rate_bps in RATES_BPS[::3] if quick else RATES_BPS:
        for load in LOADS:
            scenario = Scenario(constant(rate_bps, CONSTANT_S), CONSTANT_S, slowdown=constant(load, CONSTANT_S), seed=3)
            yield Point(f'{_mbps(rate_bps)}, load {load:g}', scenario, ('dynamic', 'oracle', AHEAD))


def _estimate_points(profile: SystemProfile, quick: bool, links: Mapping[str, Trace]) -> Iterator[Point]:
    for rate_bps in RATES_BPS[::3] if quick else RATES_BPS:
        # Whether the split sends much, little or nothing.
        for split in sorted({0, profile.local_index - 1, profile.local_index}):
            largest = max((codec.payload_bytes[1] for codec in profile.cuts[split].codecs.values()), default=0)
            seconds = max(30.0, 15 * 8 * largest / rate_bps)  # for more than ten frames
            for seed in (1, 3):
                scenario = Scenario(constant(rate_bps, seconds), seconds, seed=seed)
                yield Point(f'{_mbps(rate_bps)}, seed {seed}, split {split}', scenario, (str(split),))


def _noise_points(profile: SystemProfile, quick: bool, links: Mapping[str, Trace]) -> Iterator[Point]:
    for rate_bps in RATES_BPS[::3] if quick else RATES_BPS:
        yield Point(_mbps(rate_bps), Scenario(noisy(rate_bps, 0.2, 120.0, 7), 120.0, seed=7), ('dynamic',))


def _step_points(factor: float) -> Callable[[SystemProfile, bool, Mapping[str, Trace]], Iterator[Point]]:
    def points(profile: SystemProfile, quick: bool, links: Mapping[str, Trace]) -> Iterator[Point]:
        for high_bps in STEP_BPS[::3] if quick else STEP_BPS:
            before_bps, after_bps = (high_bps, high_bps / 10) if factor < 1 else (high_bps / 10, high_bps)
            link = steps([(0.0, before_bps), (STEP_S, after_bps)], 30.0)
            yield Point(
                f'{_mbps(before_bps)} to {_mbps(after_bps)}', Scenario(link, 30.0, seed=5), ('dynamic', 'oracle')
            )

    return points


def _trace_points(profile: SystemProfile, quick: bool, links: Mapping[str, Trace]) -> Iterator[Point]:
    for seed, (name, link) in enumerate(links.items()):
        yield Point(name, Scenario(link, link.duration_s, seed=seed), _everyone(profile))


def _variant_points(profile: SystemProfile, quick: bool, links: Mapping[str, Trace]) -> Iterator[Point]:
    for seed, (name, link) in enumerate(links.items()):
        for variant, (rate, pace) in VARIANTS.items():
            changed = _variant(link, rate, pace)
            yield Point(
                f'{name}, {variant}',
                Scenario(changed, changed.duration_s, seed=100 + seed),
                ('dynamic', 'oracle', AHEAD),
            )


def _markov_points(profile: SystemProfile, quick: bool, links: Mapping[str, Trace]) -> Iterator[Point]:
    for seed in range(2 if quick else MARKOV_SEEDS):
        yield Point(
            f'markov, seed {seed}', Scenario(markov(2e6, 20e6, 5.0, 120.0, seed), 120.0, seed=seed), _everyone(profile)
        )


def _everyone(profile: SystemProfile) -> tuple[str, ...]:
    return ('dynamic', 'oracle', AHEAD, *(str(index) for index in range(profile.local_index + 1)))


def _mbps(rate_bps: float) -> str:
    return f'{rate_bps / 1e6:.3g} Mbit/s'


# ---- the figures of each part ------------------------------------------------------------------------------------


def _add_worst(figures: Figures, what: str, values: Mapping[str, float], unit: str, bar: str | None) -> None:
    """Record the largest value and its point; a NaN counts as the largest."""
    point = max(values, key=lambda key: math.inf if math.isnan(values[key]) else values[key])
    figures.add(f'{what} (worst: {point})', values[point], unit, bar)


def _report_constant(figures: Figures, name: str, results: Results) -> None:
    points = results.points('constant')
    ratios = {point: results.ratio('constant', point, SETTLED_S) for point in points}
    _add_worst(figures, f'{name}: mean over greedy oracle, constant', ratios, '', '<= 1.03')
    beyond = sum(value > 1.03 for value in ratios.values())
    figures.add(f'{name}: constant links and loads beyond that bar, of {len(points)}', beyond, '', '== 0')
    ahead = {point: results.per_image('constant', point, 'dynamic', SETTLED_S) for point in points}
    _add_worst(figures, f'{name}: mean over look-ahead oracle, constant', ahead, '', '<= 1.05')
    figures.extra.setdefault('constant', {})[name] = ratios
    figures.extra.setdefault('constant, look-ahead', {})[name] = ahead


def _report_step(part: str) -> Callable[[Figures, str, Results], None]:
    def report(figures: Figures, name: str, results: Results) -> None:
        near, rest = {}, {}
        for point in results.points(part):
            since_s = STEP_S + 1.0
            if part == 'down':
                arrived_s = results.outcomes[part, point, 'dynamic'].arrived_s
                since_s = float(arrived_s[arrived_s >= STEP_S][3])
            near[point] = results.ratio(part, point, since_s, since_s + 5.0)
            rest[point] = results.ratio(part, point, since_s)
        since = 'from the 4th frame' if part == 'down' else 'from 1 s on'
        _add_worst(figures, f'{name}: mean over greedy oracle, step {part}, {since}', rest, '', '<= 1.1')
        _add_worst(figures, f'{name}: the same, first 5 s of it, step {part}', near, '', None)

    return report


def _report_varying(figures: Figures, name: str, results: Results, part: str, point: str) -> None:
    """Report a changing link: both oracles, and the best fixed split."""
    dynamic, oracle, ahead = (results.outcomes[part, point, policy] for policy in ('dynamic', 'oracle', AHEAD))
    figures.add(f'{name}, {point}: mean over greedy oracle', results.ratio(part, point), '', '<= 1.1')
    figures.add(f'{name}, {point}: 95th percentile over greedy oracle', dynamic.p95_s() / oracle.p95_s(), '', '<= 1.25')
    best, fixed_s = results.best_fixed(part, point, Outcome.mean_s)
    room = oracle.mean_s() / fixed_s
    figures.add(
        f'{name}, {point}: mean over best fixed ({best}); the greedy oracle {room:.3f}',
        dynamic.mean_s() / fixed_s,
        '',
        '<= 0.9' if room <= 0.85 else '<= 1.02',
    )
    figures.add(f'{name}, {point}: frames that fell back', dynamic.fell_back, '')
    figures.add(
        f'{name}, {point}: mean over look-ahead oracle',
        results.per_image(part, point, 'dynamic'),
        '',
        None if part == 'markov' else '<= 1.15',
    )
    best, fixed_s = results.best_fixed(part, point, Outcome.mean_per_image_s)
    figures.add(
        f'{name}, {point}: look-ahead oracle over best fixed ({best})', ahead.mean_per_image_s() / fixed_s, '', '<= 1'
    )


def _report_traces(figures: Figures, name: str, results: Results) -> None:
    points = results.points('traces')
    for point in points:
        _report_varying(figures, name, results, 'traces', point)
    _report_late_waits(figures, name, results, 'traces')


def _report_variants(figures: Figures, name: str, results: Results) -> None:
    for point in results.points('variants'):
        ratio = results.per_image('variants', point, 'dynamic')
        figures.add(f'{name}, {point}: mean over look-ahead oracle', ratio, '', '<= 1.15')


def _report_markov(figures: Figures, name: str, results: Results) -> None:
    points = results.points('markov')
    for point in points[:4]:
        _report_varying(figures, name, results, 'markov', point)
    means: tuple[tuple[str, Callable[[Outcome], float]], ...] = (
        ('frames', Outcome.mean_s),
        ('images', Outcome.mean_per_image_s),
    )
    for over, mean_s in means:
        ratios = [
            mean_s(results.outcomes['markov', point, 'dynamic']) / results.best_fixed('markov', point, mean_s)[1]
            for point in points
        ]
        figures.add(
            f'{name}, {len(points)} Markov seeds: mean over {over} over best fixed',
            float(np.mean(ratios)),
            '',
            '<= 1.03',
        )
        figures.add(f'{name}, {len(points)} Markov seeds: the same, worst seed', max(ratios), '')
    ahead = [results.per_image('markov', point, 'dynamic') for point in points]
    figures.add(f'{name}, {len(points)} Markov seeds: mean over look-ahead oracle', float(np.mean(ahead)), '')
    never_worse = {
        point: results.outcomes['markov', point, AHEAD].mean_per_image_s()
        / results.best_fixed('markov', point, Outcome.mean_per_image_s)[1]
        for point in points
    }
    _add_worst(figures, f'{name}: look-ahead oracle over best fixed, Markov', never_worse, '', '<= 1')
    _report_late_waits(figures, name, results, 'markov')


def _report_late_waits(figures: Figures, name: str, results: Results, part: str) -> None:
    waits_s = {point: results.outcomes[part, point, 'dynamic'].late_wait_s for point in results.points(part)}
    if waits_s:
        _add_worst(figures, f'{name}: longest wait beyond the answer timeout, {part}', waits_s, 's', '<= 1e-6')


def _report_noise(figures: Figures, name: str, results: Results) -> None:
    switches = {
        point: results.outcomes['noise', point, 'dynamic'].switches_per_minute for point in results.points('noise')
    }
    _add_worst(figures, f'{name}: switches a minute, ±20 % noise', switches, '1/min', '<= 2')


def _report_estimate(figures: Figures, name: str, results: Results) -> None:
    estimated = {
        f'{point}, {policy}': found
        for (part, point, policy), found in results.outcomes.items()
        if part == 'estimate' or (part == 'constant' and policy == 'dynamic' and point.endswith('load 1'))
    }
    _add_worst(
        figures,
        f'{name}: throughput off the truth after 10 frames',
        {key: found.error_at_ten for key, found in estimated.items()},
        '',
        '<= 0.1',
    )
    _add_worst(
        figures,
        f'{name}: the same, 95th percentile of the time from then on',
        {key: found.error_later for key, found in estimated.items()},
        '',
        None,
    )


def _report_probes(figures: Figures, name: str, results: Results) -> None:
    shares = {
        f'{part}, {point}, {policy}': found.probe_share
        for (part, point, policy), found in results.outcomes.items()
        if not policy.endswith('oracle')
    }
    _add_worst(figures, f'{name}: share of the link that probes took', shares, '', '<= 0.01')


#: The points of each part, and what is reported of them.
PARTS: dict[
    str,
    tuple[
        Callable[[SystemProfile, bool, Mapping[str, Trace]], Iterator[Point]], Callable[[Figures, str, Results], None]
    ],
] = {
    'constant': (_constant_points, _report_constant),
    'down': (_step_points(0.1), _report_step('down')),
    'up': (_step_points(10.0), _report_step('up')),
    'traces': (_trace_points, _report_traces),
    'variants': (_variant_points, _report_variants),
    'markov': (_markov_points, _report_markov),
    'noise': (_noise_points, _report_noise),
    'estimate': (_estimate_points, _report_estimate),
}


def _cost(figures: Figures) -> None:
    """
    Time estimators and planner for 30 candidates x 4 codecs, 10 frames/s: the least of several rounds.

    Processor time, so that what else the machine does is not counted. On the steady link frames are as decided; a frame
    that goes another way has everything planned anew, and here each one does.
    """
    codecs = ('raw', 'blosc2', 'third', 'fourth')
    rng = np.random.default_rng(0)
    cuts = tuple(
        CutProfile(
            index,
            f'cut {index}',
            True,
            1000,
            index / 30,
            {1: 0.001 * index},
            {1: 0.001 * (30 - index)},
            {}
            if index == 30
            else {
                # Each is best at some rate: the fewer bytes, the longer it takes.
                codec: CodecProfile({1: size}, {1: 10 / size}, {1: 1e-4})
                for codec, size in zip(codecs, rng.choice(range(10_000, 200_000), 4, False).tolist())
            },
        )
        for index in range(31)
    )
    edge = Profile('thirty cuts', '0', 'cpu', 1, cuts, 4000)
    profile = merge(edge.scaled(SLOWDOWN), edge)
    settings = MonitorSettings(codecs=codecs)
    steady = [_cost_of_frame(profile, settings, False) for _ in range(25)]
    anew = [_cost_of_frame(profile, settings, True) for _ in range(25)]
    figures.add('a decision among 30 candidates x 4 codecs', 1e6 * min(cost[0] for cost in anew), 'µs', '<= 1000')
    figures.add('estimators and planner, for a frame', 1e6 * min(cost[1] for cost in steady), 'µs', '<= 1000')
    figures.add('the same where everything is planned anew with each frame', 1e6 * min(cost[1] for cost in anew), 'µs')
    figures.add(
        'a frame with five idle looks at the clock and the heartbeats', 1e6 * min(cost[2] for cost in steady), 'µs'
    )
    figures.add('cores of this machine', os.cpu_count() or 0, '')


def _cost_of_frame(profile: SystemProfile, settings: MonitorSettings, anew: bool) -> tuple[float, float, float]:
    """Return processor time in seconds, for a frame: of the last look, of all that it takes, of idle looks too."""
    monitor, rng = MonitorPolicy(profile, settings), np.random.default_rng(1)
    frames, spent_s, spent_all_s, deciding_s = 300, 0.0, 0.0, 0.0
    for number in range(frames):
        now_s = number / 10
        start_s = time.process_time()
        for tick in range(5):  # the node's timer, every 20 ms
            probe = monitor.next_probe(now_s + tick / 50 - 0.1)
            monitor.tick(now_s + tick / 50 - 0.1)
            if probe is not None:
                monitor.on_probe_answer(probe.id, now_s + tick / 50 - 0.095)
        decision = monitor.decision
        split, codec = (decision.split_index, decision.codec) if decision and decision.codec else (0, 'raw')
        cut = profile.cuts[split]
        payload_bytes, tail_s = cut.codecs[codec].payload_bytes[1], cut.tail_s[1]
        if anew:
            split = (split + 1) % profile.local_index  # the frame is that of a decision before
        dispersion_s, late_s = payload_bytes * 8 / 16.7e6, 1e-4 * float(rng.random())
        acknowledged_s = now_s + dispersion_s + 0.005
        sent_s = time.process_time()
        spent_all_s += sent_s - start_s
        monitor.on_sent(number, now_s, split, codec, payload_bytes)
        monitor.on_acknowledgement(number, acknowledged_s, dispersion_s)
        monitor.on_frame(
            FrameRecord(
                sequence=number,
                outcome='answered',
                split_index=split,
                codec=codec,
                payload_bytes=payload_bytes,
                answer_bytes=4000,
                sent_s=now_s,
                acknowledged_s=acknowledged_s,
                answered_s=acknowledged_s + tail_s + 0.002 + late_s,
                held_s=tail_s + 1e-4,
                queueing_s=0.0,
                decode_s=1e-4,
                tail_s=tail_s,
                head_s=cut.head_s[1],
                encode_s=8e-4,
            )
        )
        frame_s = time.process_time()
        monitor.tick(acknowledged_s + tail_s + 0.003)
        ended_s = time.process_time()
        spent_s += ended_s - sent_s
        deciding_s += ended_s - frame_s
    return deciding_s / frames, spent_s / frames, (spent_s + spent_all_s) / frames


if __name__ == '__main__':
    from bench.policy import main as importable  # what other processes are to run must have a name they can find

    raise SystemExit(importable())
