# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Show before you deploy which split is best for each link rate and edge load, and what it gains."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import sys
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dynsplit_ros.advice.bounds import plot_bounds, what_bounds_buy
from dynsplit_ros.advice.conditions import Advice, Adviser, largest_gain, offloading_from_bps, pays_from_bps, Range
from dynsplit_ros.advice.fleet import replicas_by_rate
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.planner import Candidate, PlannerConstraints
from dynsplit_ros.profile.profile import Profile, SystemProfile
from dynsplit_ros.tools.model_options import picture, split_model, writable
from dynsplit_ros.tools.system_options import add_system_options, positive, set_threads, settings, system_profile

LOWEST_MBPS, HIGHEST_MBPS = 0.1, 1000.0
#: From this width of the terminal on, the advice is a table.
WIDE = 120
#: Link rates of the JSON's points, from the lowest to the highest.
POINTS = 25


def main(argv: list[str] | None = None) -> int:
    """Print the advice that ``argv`` asks for, draw it, and write it as JSON where it is asked for."""
    arguments = _parser().parse_args(argv)
    try:
        profile, assumed = system_profile(arguments, lambda: _measured(arguments))
        constraints = PlannerConstraints(frame_rate_hz=arguments.rate, **settings(arguments))
        adviser = Adviser(profile, constraints, arguments.round_trip)
        low, high = arguments.link
        if arguments.robots < 0:
            raise DynsplitError(f'--robots {arguments.robots} was given, but must be at least 1')
        if not low < high:
            raise DynsplitError(f'--link {low:g} {high:g} was given, but the first rate must be lower than the second')
        ranges = {load: adviser.ranges(1e6 * low, 1e6 * high, load) for load in sorted(set(arguments.loads))}
        sentences = [f'Assumed: {sentence}.' for sentence in assumed]
        verdict = [sentence for load in ranges for sentence in _verdict(profile, ranges[load])]
        verdict += [_fleet_sentence(adviser, ranges[load], arguments.robots) for load in ranges if arguments.robots]
        console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
        console.print(shown(adviser, ranges, console.width))
        console.print('\n'.join([*sentences, *verdict]), markup=False)
        written = [arguments.plot]
        from dynsplit_ros.advice.plot import plot_advice  # half a second that --help need not wait

        arguments.plot.parent.mkdir(parents=True, exist_ok=True)
        plot_advice(adviser, ranges, arguments.plot)
        if arguments.agreement_plot is not None:
            points = what_bounds_buy(adviser)
            for point in points:
                print(
                    f'min_agreement {point.bound:g} at {point.rate_bps / 1e6:g} Mbit/s: split {point.choice}, '
                    f'{point.payload_bytes / 1024:.1f} KiB, {1e3 * point.latency_s:.1f} ms'
                )
            plot_bounds(
                points, f'{profile.model}: what a bound on the agreement buys, as predicted', arguments.agreement_plot
            )
            written.append(arguments.agreement_plot)
        if arguments.json is not None:
            written.append(arguments.json)
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(
                json.dumps(_document(adviser, ranges, assumed, arguments.robots), indent=1, allow_nan=False) + '\n'
            )
    except (DynsplitError, OSError) as error:
        print(f'advise: {error}', file=sys.stderr)
        return 2
    print('written: ' + ', '.join(str(path) for path in written))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='The latencies are the predictions of the planner for a steady link; simulate shows a changing link.',
    )
    add_system_options(parser)
    conditions = parser.add_argument_group('conditions to evaluate')
    conditions.add_argument(
        '--link',
        type=positive,
        nargs=2,
        default=[LOWEST_MBPS, HIGHEST_MBPS],
        metavar='MBIT/S',
        help=f'lowest and highest link rate (default: {LOWEST_MBPS:g} {HIGHEST_MBPS:g})',
    )
    conditions.add_argument(
        '--loads',
        type=positive,
        nargs='+',
        default=[1.0, 2.0, 4.0, 8.0],
        metavar='TIMES',
        help='edge loads: time of the edge divided by its profiled time (default: 1 2 4 8)',
    )
    conditions.add_argument(
        '--robots',
        type=int,
        default=0,
        metavar='N',
        help='also print how many replicas a fleet of N such robots needs, each robot on its own link',
    )
    output = parser.add_argument_group('output')
    output.add_argument(
        '--plot',
        type=picture,
        default=Path('advice.png'),
        metavar='PNG',
        help='draw the advice into this file (default: advice.png)',
    )
    output.add_argument(
        '--agreement-plot',
        type=picture,
        metavar='PNG',
        help='also draw latency and bytes against the bound --min-agreement into this file',
    )
    output.add_argument('--json', type=writable, metavar='OUT', help='also write the advice to this file')
    return parser


def _measured(arguments: argparse.Namespace) -> Profile:
    from dynsplit_ros.profile.kept import kept_profile

    set_threads(arguments)
    return kept_profile(split_model(arguments), progress=lambda text: print(text, file=sys.stderr))


def shown(adviser: Adviser, ranges: Mapping[float, Sequence[Range]], width: int) -> RenderableType:
    """Return what a terminal of this width shows: a table, or a paragraph for each row where a row has no room."""
    title = (
        f'{adviser.profile.model}, {adviser.constraints.frame_rate_hz:g} images/s, '
        f'round trip {1e3 * adviser.rtt_s:g} ms: the best choice at each link rate, and what it saves'
    )
    if width < WIDE:
        paragraphs: list[RenderableType] = [Text(title)]
        for load, of_load in ranges.items():
            paragraphs.append(Text(f'\nEdge slower × {load:g}', style='bold'))
            for found in of_load:
                row = _row(adviser, found)
                rest = ', '.join(f'{name} {text}' for name, text in list(row.items())[2:] if text)
                paragraphs.append(Text(f'{row["link Mbit/s"]} Mbit/s: {row["split"]}, {rest}'))
        return Group(*paragraphs)
    table = Table(title=title)
    table.add_column('edge slower', justify='right')
    for name in _row(adviser, next(iter(ranges.values()))[0]):
        table.add_column(name, justify='left' if name in ('split', 'codec') else 'right', overflow='fold')
    for load, of_load in ranges.items():
        table.add_section()
        for number, found in enumerate(of_load):
            table.add_row(f'× {load:g}' if number == 0 else '', *_row(adviser, found).values())
    return table


def _row(adviser: Adviser, found: Range) -> dict[str, str]:
    """Return what is said of a range of link rates, by the name of its column."""
    profile, first, last = adviser.profile, found.first, found.last
    sends = first.best.split_index != profile.local_index
    offloads = first.best.split_index == 0
    return {
        'link Mbit/s': f'{_number(first.rate_bps / 1e6)} – {_number(last.rate_bps / 1e6)}',
        'split': _name(profile, first.best),
        'codec': first.best.codec,
        'KiB': f'{first.best.payload_bytes / 1024:.1f}' if sends else '',
        'latency ms': _span(1e3 * first.best.latency_s, 1e3 * last.best.latency_s),
        'than local': _span(-100 * first.gain_over_local, -100 * last.gain_over_local, '{:+.0f} %') if sends else '',
        'than offloading': ''
        if offloads
        else _span(-100 * first.gain_over_offloading, -100 * last.gain_over_offloading, '{:+.0f} %'),
        **(
            {'in time': _span(100 * (1 - first.best.late_share), 100 * (1 - last.best.late_share), '{} %')}
            if first.best.late_share is not None and last.best.late_share is not None
            else {}
        ),
        **(
            {'engines': ' and '.join(filter(None, (first.best.head_engine, first.best.tail_engine)))}
            if adviser.profile.has_engines
            else {}
        ),
        'frames/s': _span(_offered(adviser, first), _offered(adviser, last)),
    }


def _name(profile: SystemProfile, candidate: Candidate) -> str:
    if candidate.split_index == profile.local_index:
        return 'local inference'
    return 'full offloading' if candidate.split_index == 0 else f'{candidate.split_index} ({candidate.split_name})'


def _offered(adviser: Adviser, advice: Advice) -> float:
    """Return the frames per second that are kept up: no more than are offered."""
    return min(advice.best.frame_rate_hz, adviser.constraints.frame_rate_hz)


def _number(value: float) -> str:
    """Return three significant digits without an exponent."""
    return f'{float(f"{value:.3g}"):g}' if value < 1e6 else f'{value:.0f}'


def _span(first: float, last: float, form: str = '') -> str:
    """Return a value at both ends of a range, or once where it hardly changes."""
    texts = [form.format(round(value) + 0.0) if form else _number(value) for value in (first, last)]
    return texts[0] if texts[0] == texts[1] else ' … '.join(texts)


def _verdict(profile: SystemProfile, ranges: Sequence[Range]) -> list[str]:
    """Return what a person wants to know first, in sentences, for one load."""
    load = ranges[0].first.slowdown
    where = 'With the edge as profiled' if load == 1 else f'With an edge {load:g} times as slow'
    low, high = (
        f'{_number(rate_bps / 1e6)} Mbit/s' for rate_bps in (ranges[0].first.rate_bps, ranges[-1].last.rate_bps)
    )
    pays, offloading = pays_from_bps(ranges, profile.local_index), offloading_from_bps(ranges)
    if pays is None:
        return [f'{where}: local inference is best at every rate up to {high}.']
    gain = largest_gain(ranges)
    text = (
        f'{where}: splitting pays at every rate from {low} on'
        if pays == 0
        else f'{where}: splitting stops paying below {_number(pays / 1e6)} Mbit/s'
    )
    if not any(0 < found.first.best.split_index < profile.local_index for found in ranges):
        text += ', and above it, full offloading is best: no split between the two is better than both'
    elif offloading is not None:
        text += f'; full offloading is best from {_number(offloading / 1e6)} Mbit/s on'
    saved = 1 - gain.best.latency_s / min(gain.local.latency_s, gain.offloading.latency_s)
    if saved > 0.005:
        text += (
            f'; most is saved over the better of local and full offloading at {_number(gain.rate_bps / 1e6)} Mbit/s '
            f'({100 * saved:.0f} %)'
        )
    return [text + '.']


def _fleet_sentence(adviser: Adviser, ranges: Sequence[Range], robots: int) -> str:
    """Return how many replicas a fleet needs at each link rate, in one sentence."""
    parts = [
        f'{replicas} from {_number(low_bps / 1e6)} to {_number(high_bps / 1e6)} Mbit/s'
        for replicas, low_bps, high_bps in replicas_by_rate(adviser, ranges, robots)
    ]
    load = ranges[0].first.slowdown
    where = 'as profiled' if load == 1 else f'{load:g} times as slow'
    idle = ' With 0 replicas, the robots run the whole network.' if parts[0].startswith('0 ') else ''
    return (
        f'With replicas {where}, a fleet of {robots} robot{"s" * (robots != 1)} needs this number of replicas: '
        f'{", ".join(parts)}.{idle}'
    )


def _document(
    adviser: Adviser, ranges: Mapping[float, Sequence[Range]], assumed: Sequence[str], robots: int
) -> dict[str, Any]:
    """Return the advice as JSON holds it: rates in bit/s, times in seconds."""
    profile = adviser.profile
    low_bps, high_bps = ranges[next(iter(ranges))][0].first.rate_bps, ranges[next(iter(ranges))][-1].last.rate_bps
    return {
        'model': profile.model,
        'fingerprint': profile.fingerprint,
        'assumed': list(assumed),
        'frame_rate_hz': adviser.constraints.frame_rate_hz,
        'round_trip_s': adviser.rtt_s,
        'objective': adviser.constraints.objective,
        'loads': [
            {
                'slowdown': load,
                'pays_from_bps': pays_from_bps(of_load, profile.local_index),
                'offloading_from_bps': offloading_from_bps(of_load),
                'replicas': [
                    {'replicas': replicas, 'from_bps': from_bps, 'to_bps': to_bps}
                    for replicas, from_bps, to_bps in replicas_by_rate(adviser, of_load, robots)
                ]
                if robots
                else [],
                'ranges': [
                    {
                        'from_bps': found.first.rate_bps,
                        'to_bps': found.last.rate_bps,
                        'split_index': found.first.best.split_index,
                        'split_name': found.first.best.split_name,
                        'codec': found.first.best.codec,
                        'payload_bytes': found.first.best.payload_bytes,
                    }
                    for found in of_load
                ],
                'points': [
                    _point(adviser.at(rate_bps, load)) for rate_bps in np.geomspace(low_bps, high_bps, POINTS).tolist()
                ],
            }
            for load, of_load in ranges.items()
        ],
    }


def _point(advice: Advice) -> dict[str, Any]:
    return {
        'rate_bps': advice.rate_bps,
        'split_index': advice.best.split_index,
        'codec': advice.best.codec,
        'head_engine': advice.best.head_engine,
        'tail_engine': advice.best.tail_engine,
        **({'in_time_share': 1 - advice.best.late_share} if advice.best.late_share is not None else {}),
        'latency_s': advice.best.latency_s,
        'frame_rate_hz': advice.best.frame_rate_hz,
        'local_s': advice.local.latency_s,
        'offloading_s': advice.offloading.latency_s,
        'gain_over_local': advice.gain_over_local,
        'gain_over_offloading': advice.gain_over_offloading,
    }


if __name__ == '__main__':
    raise SystemExit(main())
