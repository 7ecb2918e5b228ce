# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How near the policy comes to one who knows the future, with profiles measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math
import os
from pathlib import Path
import time
from typing import Any

import numpy as np

from bench.figures import argument_parser, Figures
from dynsplit_ros.policies.records import FrameRecord
from dynsplit_ros.profile.profile import CodecProfile, CutProfile, merge, Profile, SystemProfile
from dynsplit_ros.runtime.monitor import Monitor, MonitorSettings
from dynsplit_ros.simulation.compare import Job, run_all, summarise
from dynsplit_ros.simulation.trace import constant, load_trace, markov, noisy, steps, Trace
from dynsplit_ros.simulation.world import Run, Scenario

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
TRACES = Path(__file__).resolve().parents[2] / 'shared' / 'link_traces'


@dataclass(frozen=True)
class Outcome:
    """What the bars are about, of one run: times in seconds."""

    arrived_s: np.ndarray[Any, Any]
    latency_s: np.ndarray[Any, Any]
    late_wait_s: float
    fell_back: int
    switches_per_minute: float
    probe_share: float
    error_at_ten: float
    error_later: float

    def mean_s(self, since_s: float = 0.0, until_s: float = math.inf) -> float:
        """Mean latency of the frames whose images arrived in this time."""
        return float(self.latency_s[(self.arrived_s >= since_s) & (self.arrived_s < until_s)].mean())

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
        np.array([frame.arrived_s for frame in frames]), np.array([frame.latency_s for frame in frames]),
        max(waits, default=0.0), summary.fell_back, summary.switches_per_minute, summary.probe_share, at_ten, later)


Worst = tuple[float, str]


def main() -> int:
    """Measure profiles, simulate, print and write the figures."""
    parser = argument_parser(__doc__ or '')
    parser.add_argument('--traces', type=Path, default=TRACES, metavar='FOLDER',
                        help='CSV files of measured links (link_traces in the folder shared beside the repository)')
    parser.add_argument('--quick', action='store_true', help='the first model and a part of each sweep')
    parser.add_argument('--models', nargs='+', default=MODELS, metavar='NAME', help='(' + ' '.join(MODELS) + ')')
    parser.add_argument('--profiles', type=Path, metavar='FOLDER', help='use MODEL.yaml from here instead of measuring')
    parser.add_argument('--workers', type=int, metavar='N', help='processes (one for each core)')
    arguments = parser.parse_args()
    started_s = time.monotonic()
    figures = Figures()
    _cost(figures)
    models = arguments.models[:1] if arguments.quick else arguments.models
    profiles = {name: _profile(name, arguments.profiles, figures) for name in models}
    links = _links(arguments.traces, arguments.quick)
    for name, profile in profiles.items():
        plan = _Plan(profile, arguments.quick, links)
        results = dict(zip(plan.jobs, run_all(list(plan.jobs.values()), outcome, arguments.workers)))
        _report(figures, name, plan, results)
    figures.add('time that all of this took', time.monotonic() - started_s, 's')
    return figures.finish(arguments.json)


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
        edge = measure(SplitModel(load_model(name)), (1,), MonitorSettings().codecs)
    figures.extra.setdefault('profiles', {})[name] = edge.to_document()  # to see again what these figures are about
    figures.add(f'{name}: the whole model on the edge', 1000 * edge.cuts[0].tail_s[1], 'ms')
    return merge(edge.scaled(SLOWDOWN), edge)


def _links(folder: Path, quick: bool) -> dict[str, Trace]:
    links = {}
    for path in sorted(folder.glob('*.csv')) if folder.is_dir() else []:
        links[path.stem] = load_trace(path)
    if not links:
        print(f'no measured link traces in {folder}: only generated links are tried', flush=True)
    for seed in range(1 if quick else 4):
        links[f'markov, seed {seed}'] = markov(2e6, 20e6, 5.0, 120.0, seed)
    return links


class _Plan:
    """The jobs of one model, by (group, point, policy)."""

    def __init__(self, profile: SystemProfile, quick: bool, links: Mapping[str, Trace]) -> None:
        self.local = profile.local_index
        self.jobs: dict[tuple[str, str, str], Job] = {}
        rates = RATES_BPS[::3] if quick else RATES_BPS
        for rate_bps in rates:
            for load in LOADS:
                slowdown = constant(load, CONSTANT_S)
                scenario = Scenario(constant(rate_bps, CONSTANT_S), CONSTANT_S, slowdown=slowdown, seed=3)
                self._add(profile, 'constant', f'{_mbps(rate_bps)}, load {load:g}', scenario, ('dynamic', 'oracle'))
            # Whether the split sends much, little or nothing.
            for split in sorted({0, self.local - 1, self.local}):
                largest = max((codec.payload_bytes[1] for codec in profile.cuts[split].codecs.values()), default=0)
                seconds = max(30.0, 15 * 8 * largest / rate_bps)  # for more than ten frames
                for seed in (1, 3):
                    scenario = Scenario(constant(rate_bps, seconds), seconds, seed=seed)
                    self._add(profile, 'estimate', f'{_mbps(rate_bps)}, seed {seed}', scenario, (str(split),))
            scenario = Scenario(noisy(rate_bps, 0.2, 120.0, 7), 120.0, seed=7)
            self._add(profile, 'noise', _mbps(rate_bps), scenario, ('dynamic',))
        for high_bps in STEP_BPS[::3] if quick else STEP_BPS:
            for group, before_bps, after_bps in (('down', high_bps, high_bps / 10), ('up', high_bps / 10, high_bps)):
                link = steps([(0.0, before_bps), (STEP_S, after_bps)], 30.0)
                self._add(profile, group, f'{_mbps(before_bps)} to {_mbps(after_bps)}',
                          Scenario(link, 30.0, seed=5), ('dynamic', 'oracle'))
        everyone = ('dynamic', 'oracle', *(str(index) for index in range(self.local + 1)))
        for seed, (name, link) in enumerate(links.items()):
            self._add(profile, 'varying', name, Scenario(link, link.duration_s, seed=seed), everyone)

    def _add(self, profile: SystemProfile, group: str, point: str, scenario: Scenario, policies: Sequence[str]) -> None:
        for policy in policies:
            self.jobs[group, point, policy] = Job(profile, scenario, policy)

    def points(self, group: str) -> list[str]:
        """Return the points of a group, in order."""
        return list(dict.fromkeys(point for which, point, _ in self.jobs if which == group))


def _mbps(rate_bps: float) -> str:
    return f'{rate_bps / 1e6:.3g} Mbit/s'


def _worst(values: Mapping[str, float]) -> Worst:
    point = max(values, key=lambda key: math.inf if math.isnan(values[key]) else values[key])
    return values[point], point


def _report(figures: Figures, name: str, plan: _Plan, results: Mapping[tuple[str, str, str], Outcome]) -> None:
    def add(what: str, values: Mapping[str, float], unit: str, bar: str | None) -> None:
        value, point = _worst(values)
        figures.add(f'{name}: {what} (worst: {point})', value, unit, bar)

    def ratio(group: str, point: str, since_s: float = 0.0, until_s: float = math.inf) -> float:
        dynamic, oracle = results[group, point, 'dynamic'], results[group, point, 'oracle']
        return dynamic.mean_s(since_s, until_s) / oracle.mean_s(since_s, until_s)

    points = plan.points('constant')
    ratios = {point: ratio('constant', point, SETTLED_S) for point in points}
    add('mean over oracle, constant', ratios, '', '<= 1.03')
    beyond = sum(value > 1.03 for value in ratios.values())
    figures.add(f'{name}: constant links and loads beyond that bar, of {len(points)}', beyond, '', '== 0')
    figures.extra.setdefault('constant', {})[name] = ratios

    for group in ('down', 'up'):
        near, rest = {}, {}
        for point in plan.points(group):
            since_s = STEP_S + 1.0
            if group == 'down':
                arrived_s = results[group, point, 'dynamic'].arrived_s
                since_s = float(arrived_s[arrived_s >= STEP_S][3])
            near[point] = ratio(group, point, since_s, since_s + 5.0)
            rest[point] = ratio(group, point, since_s)
        since = 'from the 4th frame' if group == 'down' else 'from 1 s on'
        add(f'mean over oracle, step {group}, {since}', rest, '', '<= 1.1')
        add(f'the same, first 5 s of it, step {group}', near, '', None)

    for point in plan.points('varying'):
        dynamic, oracle = results['varying', point, 'dynamic'], results['varying', point, 'oracle']
        fixed = {index: results['varying', point, str(index)].mean_s() for index in range(plan.local + 1)}
        best = min(fixed, key=lambda index: fixed[index])
        figures.add(f'{name}, {point}: mean over oracle', dynamic.mean_s() / oracle.mean_s(), '', '<= 1.1')
        figures.add(f'{name}, {point}: 95th percentile over oracle', dynamic.p95_s() / oracle.p95_s(), '', '<= 1.25')
        room = oracle.mean_s() / fixed[best]
        gained = dynamic.mean_s() / fixed[best]
        bar = '<= 0.9' if room <= 0.85 else '<= 1.02'
        figures.add(f'{name}, {point}: mean over best fixed ({best}); the oracle {room:.3f}', gained, '', bar)
        figures.add(f'{name}, {point}: frames that fell back', dynamic.fell_back, '')
    add('longest wait beyond the fallback bound',
        {point: results['varying', point, 'dynamic'].late_wait_s for point in plan.points('varying')}, 's', '<= 1e-6')

    add(
        'switches a minute, ±20 % noise',
        {point: results['noise', point, 'dynamic'].switches_per_minute for point in plan.points('noise')},
        '1/min',
        '<= 2',
    )

    estimated = {
        f'{point}, split {policy}': result for (group, point, policy), result in results.items()
        if group == 'estimate' or (group == 'constant' and policy == 'dynamic' and point.endswith('load 1'))}
    add('throughput off the truth after 10 frames',
        {key: result.error_at_ten for key, result in estimated.items()}, '', '<= 0.1')
    add('the same, 95th percentile of the time from then on',
        {key: result.error_later for key, result in estimated.items()}, '', None)
    probes = {
        f'{group}, {point}, {policy}': result.probe_share
        for (group, point, policy), result in results.items() if policy != 'oracle'}
    add('share of the link that probes took', probes, '', '<= 0.01')


def _cost(figures: Figures) -> None:
    """
    Time estimators and planner for 30 candidates x 4 codecs, 10 frames/s: the least of several rounds.

    Processor time, so that what else the machine does is not counted. On the steady link frames are as decided; a frame
    that goes another way has everything planned anew, and here each one does.
    """
    codecs = ('raw', 'blosc2', 'third', 'fourth')
    rng = np.random.default_rng(0)
    cuts = tuple(
        CutProfile(index, f'cut {index}', True, 1000, index / 30, {1: 0.001 * index}, {1: 0.001 * (30 - index)},
                   {} if index == 30 else {
                       codec: CodecProfile({1: int(rng.integers(10_000, 200_000))}, {1: 1e-4}, {1: 1e-4})
                       for codec in codecs})
        for index in range(31))
    edge = Profile('thirty cuts', '0', 'cpu', 1, cuts, 4000)
    profile = merge(edge.scaled(SLOWDOWN), edge)
    settings = MonitorSettings(codecs=codecs)
    steady = [_cost_of_frame(profile, settings, False) for _ in range(25)]
    anew = [_cost_of_frame(profile, settings, True) for _ in range(25)]
    figures.add('a decision among 30 candidates x 4 codecs', 1e6 * min(cost[0] for cost in anew), 'µs', '< 100')
    figures.add('estimators and planner, for a frame', 1e6 * min(cost[1] for cost in steady), 'µs', '< 100')
    figures.add('the same where everything is planned anew with each frame', 1e6 * min(cost[1] for cost in anew), 'µs')
    figures.add('a frame with five idle looks at the clock and the heartbeats', 1e6 * min(cost[2] for cost in steady),
                'µs')
    figures.add('cores of this machine', os.cpu_count() or 0, '')


def _cost_of_frame(profile: SystemProfile, settings: MonitorSettings, anew: bool) -> tuple[float, float, float]:
    """Return processor time in seconds, for a frame: of the last look, of all that it takes, of idle looks too."""
    monitor, rng = Monitor(profile, settings), np.random.default_rng(1)
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
        received_s = now_s + dispersion_s + 0.005
        sent_s = time.process_time()
        spent_all_s += sent_s - start_s
        monitor.on_sent(number, now_s, split, codec, payload_bytes)
        monitor.on_receipt(number, received_s, dispersion_s)
        monitor.on_frame(FrameRecord(
            sequence=number, outcome='answered', split_index=split, codec=codec,
            payload_bytes=payload_bytes, answer_bytes=4000, sent_s=now_s,
            received_s=received_s, answered_s=received_s + tail_s + 0.002 + late_s, held_s=tail_s + 1e-4,
            queueing_s=0.0, decode_s=1e-4, tail_s=tail_s, head_s=cut.head_s[1], encode_s=8e-4))
        frame_s = time.process_time()
        monitor.tick(received_s + tail_s + 0.003)
        ended_s = time.process_time()
        spent_s += ended_s - sent_s
        deciding_s += ended_s - frame_s
    return deciding_s / frames, spent_s / frames, (spent_s + spent_all_s) / frames


if __name__ == '__main__':
    from bench.policy import main as importable  # what other processes are to run must have a name they can find

    raise SystemExit(importable())
