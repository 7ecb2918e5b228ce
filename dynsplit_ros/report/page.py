# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Make one HTML page of a run that needs nothing but itself: its script and style are in it, and it may load nothing else.

Everything that comes from the recording is escaped where it stands in HTML, and reaches the script as data alone.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
import hashlib
from html import escape
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from dynsplit_ros.policies.records import FrameRecord, Outcome
from dynsplit_ros.protocol import MOST_EDGES
from dynsplit_ros.report.figures import count, Figures, PERCENTS
from dynsplit_ros.report.run import LoadSample, OUTCOMES, RecordedRobot, Recording
from dynsplit_ros.text import printable

#: Most points of a line or a cloud that are drawn, and most bars.
MOST_POINTS = 3000
MOST_BARS = 150
MOST_SWITCHES = 60

#: Colours of style.css by meaning.
_OUTCOME_COLOURS = {Outcome.ANSWERED: 0, Outcome.LOCAL: 2, Outcome.FELL_BACK: 3}
_OUTCOME_NAMES = {
    Outcome.ANSWERED: 'answered by the edge',
    Outcome.LOCAL: 'local inference',
    Outcome.FELL_BACK: 'finished on the robot, no answer in time',
}
_PART_GROUPS = (
    ('waiting for the robot', ('wait_s',), 7),
    ('resize, head and encode', ('resize_s', 'head_s', 'encode_s'), 2),
    ('waiting for the link', ('link_wait_s',), 6),
    ('transfer, both ways', ('transfer_s',), 1),
    ('queue at the edge', ('queueing_s',), 4),
    ('decode and tail', ('decode_s', 'tail_s'), 0),
    ('finishing on the robot', ('finish_s',), 3),
)

Chart = dict[str, Any]


def make_page(run: Recording) -> str:
    """Return the page's HTML."""
    here = Path(__file__).parent
    style, script = ((here / name).read_text(encoding='utf-8') for name in ('style.css', 'charts.js'))
    charts: dict[str, Chart] = {}
    body = ''.join(_robot(run, robot, number, charts) for number, robot in enumerate(run.robots))
    data = json.dumps(
        {'span': _rounded(max(run.duration_s, 0.1)), 'charts': charts}, allow_nan=False, separators=(',', ':')
    )
    for character in '<>&\u2028\u2029':
        data = data.replace(character, f'\\u{ord(character):04x}')
    hashes = {
        kind: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for kind, text in (('script', script), ('style', style))
    }
    # The charts set colours by style attributes, which have no hash.
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    title = f'{run.model or "dynsplit_ros"}: {run.source}'
    notes = ''.join(f'<li>{escape(note)}</li>' for note in run.notes[:20])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="about">{escape(_about(run))}</p>
{f'<ul class="card explain">{notes}</ul>' if notes else ''}
{body}
<footer>{escape(_FOOTNOTE)}</footer>
</main>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


_FOOTNOTE = (
    'A lost frame was accepted and has no prediction. In a recording, a frame counts as lost if it has no '
    'prediction and a later frame of the same session has one. Latency is from the arrival of the image at '
    'camera_node to the publishing of its prediction. A switch is a frame with another split than the frame before '
    'it. The probe share compares the traffic of the monitor itself with the rate that it estimated. Made by '
    'dynsplit_ros.'
)


def _about(run: Recording) -> str:
    parts = [f'{_seconds(run.duration_s)}', f'{len(run.robots)} robot{"s" if len(run.robots) > 1 else ""}']
    try:
        parts.insert(0, datetime.fromtimestamp(run.began_s, timezone.utc).strftime('%Y-%m-%d %H:%M:%S UTC'))
    except (ValueError, OverflowError, OSError):  # no time, or none of this world
        pass
    return ' · '.join(parts)


def _seconds(value: float) -> str:
    return f'{value:.0f} s' if value < 180 else f'{value / 60:.1f} min'


# ---- one robot -------------------------------------------------------------------------------------------------------


def _robot(run: Recording, robot: RecordedRobot, number: int, charts: dict[str, Chart]) -> str:
    figures = count(robot, run.duration_s, run.accepted)
    parts = [f'<section><h2>{escape(robot.name)}</h2>', _tiles(run, figures)]
    for name, chart in _charts(run, robot).items():
        identifier = f'chart-{number}-{name}'
        charts[identifier] = chart
        legend = ''.join(
            f'<span style="--mark:var(--c{entry["colour"]})">{escape(entry["name"])}</span>'
            for series in chart['series']
            for entry in series.get('layers', [series])
            if entry.get('name') and not series.get('silent')
        )
        legend += '<span style="--mark:var(--lost)">link lost</span>' if chart['lost'] else ''
        parts.append(
            f'<figure id="{identifier}"><h3>{escape(chart["title"])}</h3><figcaption>{escape(chart.pop("caption"))}'
            f'</figcaption><div class="legend">{legend}</div><div class="plot"></div></figure>'
        )
    parts += [_split_table(figures), _edge_table(figures), _audit_table(robot), _switch_table(robot), '</section>']
    return '\n'.join(parts)


def _tiles(run: Recording, figures: Figures) -> str:
    total, fell_back = max(figures.frames, 1), figures.outcomes[Outcome.FELL_BACK]
    tiles: list[tuple[str, str, str, bool | None]] = [
        ('frames', f'{figures.frames}', f'{figures.rate_hz:.1f}/s', None),
        ('lost', f'{figures.lost}', '', figures.lost == 0),
        ('duplicates', f'{figures.doubled}', '', figures.doubled == 0),
        ('out of order', f'{figures.disordered}', '', figures.disordered == 0),
        ('mean latency', _ms(figures.mean_s), 'ms', None),
        *((f'{percent} % within', _ms(value), 'ms', None) for percent, value in zip(PERCENTS, figures.percentiles_s)),
        ('longest', _ms(figures.longest_s), 'ms', None),
        ('by the edge', f'{100 * figures.outcomes[Outcome.ANSWERED] / total:.1f}', '%', None),
        ('local inference', f'{100 * figures.outcomes[Outcome.LOCAL] / total:.1f}', '%', None),
        ('fallbacks', f'{fell_back}', f'{100 * fell_back / total:.1f} %', None),
        ('switches', f'{figures.switches}', f'{60 * figures.switches / max(run.duration_s, 1e-9):.1f}/min', None),
        ('payloads', f'{figures.payload_bps / 1e6:.2f}', 'Mbit/s', None),
    ]
    if math.isfinite(figures.probe_share):
        tiles.append(('probe share', f'{100 * figures.probe_share:.2f}', '%', None))
    if run.mismatches is not None:
        tiles.append(('differing outputs', f'{run.mismatches}', '', run.mismatches == 0))
    verdict = {None: '', True: ' class="good"', False: ' class="bad"'}
    return (
        '<dl class="tiles">'
        + ''.join(
            f'<div{verdict[good]}><dt>{escape(name)}</dt><dd>{escape(value)} <small>{escape(unit)}</small></dd></div>'
            for name, value, unit, good in tiles
        )
        + '</dl>'
    )


def _ms(seconds: float) -> str:
    if not math.isfinite(seconds):
        return '–'
    return f'{1e3 * seconds:.0f}' if seconds >= 0.1 else f'{1e3 * seconds:.1f}'


def _table(title: str, columns: Mapping[str, str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; ``columns`` maps the heads to the classes of style.css: n for numbers, why for sentences."""
    classes = [f' class="{name}"' if name else '' for name in columns.values()]
    head = ''.join(f'<th{kind}>{name}</th>' for kind, name in zip(classes, columns))
    body = ''.join(
        '<tr>' + ''.join(f'<td{kind}>{escape(text)}</td>' for kind, text in zip(classes, row)) + '</tr>' for row in rows
    )
    return f'<table>{title}<tr>{head}</tr>{body}</table>'


def _card(title: str, columns: Mapping[str, str], rows: Iterable[Sequence[str]]) -> str:
    return f'<div class="card scroll">{_table(f"<caption>{title}</caption>", columns, rows)}</div>'


def _split_table(figures: Figures) -> str:
    return _card(
        'Frames by split',
        {'split': 'n', 'cut': '', 'codec': '', 'frames': 'n', 'share': 'n', 'mean latency': 'n', 'mean payload': 'n'},
        (
            (
                str(split.index),
                split.name,
                ', '.join(split.codecs) or '–',
                str(split.frames),
                f'{100 * split.share:.1f} %',
                f'{_ms(split.mean_s)} ms',
                f'{split.payload_bytes / 1024:.1f} KiB',
            )
            for split in figures.splits
        ),
    )


def _edge_table(figures: Figures) -> str:
    if len(figures.edges) < 2:
        return ''
    return _card(
        'Frames by the edge that answered them',
        {'edge': '', 'frames': 'n', 'share': 'n', 'mean latency': 'n'},
        (
            (edge.name, str(edge.frames), f'{100 * edge.share:.1f} %', f'{_ms(edge.mean_s)} ms')
            for edge in figures.edges[:MOST_EDGES]
        ),
    )


def _audit_table(robot: RecordedRobot) -> str:
    if not robot.audits:
        return ''
    return _card(
        'Agreement of lossy codecs with the unquantised model',
        {
            'split': 'n',
            'codec': '',
            'audits': 'n',
            'agreement': 'n',
            '95 % interval': 'n',
            'min_agreement': 'n',
            'taken out': 'why',
        },
        (
            (
                str(one.split_index),
                one.codec,
                str(one.audits),
                f'{one.agreement:.3f}',
                f'{one.low:.3f} to {one.high:.3f}',
                f'{one.min_agreement:g}',
                one.reason,
            )
            for one in robot.audits.values()
        ),
    )


def _switch_table(robot: RecordedRobot) -> str:
    if not robot.decisions:
        return ''
    table = _table(
        '',
        {'time': 'n', 'split': 'n', 'codec': '', 'reason': 'why'},
        (
            (f'{time_s:.1f} s', str(decision.split_index), decision.codec or '–', decision.reason)
            for time_s, decision in robot.decisions[:MOST_SWITCHES]
        ),
    )
    more = len(robot.decisions) - MOST_SWITCHES
    rest = f'<p class="explain">… and {more} more</p>' if more > 0 else ''
    return f'<details class="card scroll"><summary>Why the split moved</summary>{table}{rest}</details>'


# ---- its charts ------------------------------------------------------------------------------------------------------


def _charts(run: Recording, robot: RecordedRobot) -> dict[str, Chart]:
    """Return the charts by name; those without data are left out."""
    charts = {**_link_charts(robot), **_frame_charts(robot), **_time_charts(run, robot)}
    if robot.loads:
        edges = sorted({load.edge for load in robot.loads})[:MOST_EDGES]
        charts['load'] = _chart(
            'Load of the edge' if len(edges) == 1 else 'Load of the edges',
            'Share of the time in which a tail was running, in percent.',
            '%',
            170,
            [_load_line(robot.loads, edge, colour) for colour, edge in zip((4, 0, 1, 2, 3, 5, 6, 7), edges)],
            limits=[0, 100],
        )
    phases = [[_rounded(start_s), _rounded(end_s), name] for start_s, end_s, name in run.phases if 0 <= start_s < end_s]
    return {name: {**chart, 'phases': phases} for name, chart in charts.items()}


def _chart(
    title: str,
    caption: str,
    unit: str,
    height: int,
    series: list[Chart],
    *,
    log: bool = False,
    limits: list[float | None] | None = None,
    lost: list[list[float]] | None = None,
) -> Chart:
    """Return a chart as charts.js takes it; ``limits`` are those of the axis, ``lost`` when the link was lost."""
    return {
        'title': title,
        'caption': caption,
        'unit': unit,
        'height': height,
        'series': series,
        'log': log,
        'lost': lost or [],
        **({} if limits is None else {'range': limits}),
    }


def _link_charts(robot: RecordedRobot) -> dict[str, Chart]:
    """Return the charts of the link's rate and round trip over time."""
    if not robot.links:
        return {}
    charts, lost = {}, _lost(robot)
    times = [link.time_s for link in robot.links]
    estimate, low, high = (
        [_positive(getattr(link, name) / 1e6) if link.alive else None for link in robot.links]
        for name in ('throughput_bps', 'throughput_low_bps', 'throughput_high_bps')
    )
    series = [_line('estimated', 1, times, estimate)]
    if any(value is not None for value in low):
        keep = _thinned(estimate, [value is None for value in estimate])
        series.insert(
            0,
            {
                'kind': 'band',
                'name': 'one standard deviation',
                'colour': 1,
                'x': [_rounded(times[i]) for i in keep],
                'low': [low[i] if high[i] is not None else None for i in keep],
                'high': [high[i] for i in keep],
            },
        )
    true = [_positive(link.true_bps / 1e6) for link in robot.links]
    if any(value is not None for value in true):
        series.insert(0, _line('true rate', 7, times, true, kind='step'))
    charts['rate'] = _chart(
        'Link rate',
        'Mbit/s from the robot to the edge, as the monitor estimates it.',
        'Mbit/s',
        230,
        series,
        log=True,
        lost=lost,
    )
    trip = [_positive(1e3 * link.round_trip_s) for link in robot.links]
    queue = [_known(1e3 * link.edge_queueing_s) for link in robot.links]
    if any(value is not None for value in trip):
        series = [_line('round trip', 5, times, trip)]
        if any(value is not None for value in queue):
            series.append(_line('queue at the edge', 4, times, queue))
        charts['trip'] = _chart(
            'Round trip and queue at the edge',
            'ms, without the transmission of payloads.',
            'ms',
            170,
            series,
            limits=[0, None],
            lost=lost,
        )
    return charts


def _frame_charts(robot: RecordedRobot) -> dict[str, Chart]:
    """Return the charts that have a dot for each frame: its split and its latency."""
    frames, lost = robot.frames, _lost(robot)
    drawn = [frames[i] for i in _thinned([frame.latency_s for frame in frames], [frame.outcome for frame in frames])]
    note = (
        '' if len(drawn) == len(frames) else f' {len(drawn)} of {len(frames)} frames are drawn, the slowest among them.'
    )
    names = {frame.split_index: frame.split_name for frame in frames}
    used = sorted(names)
    rows = {split: row for row, split in enumerate(used)}  # splits that were not used take no room
    words = [f'{split} {names[split]}' for split in used]
    step_x, step_y = _changes([frame.delivered_s for frame in frames], [rows[frame.split_index] for frame in frames])
    steps = {
        'kind': 'step',
        'name': 'split',
        'colour': 7,
        'x': step_x,
        'y': step_y,
        'thin': True,
        'silent': True,
        'words': words,
    }
    splits = _chart(
        'Split in use',
        'Each dot is a frame; 0 sends the image, the largest index nothing. Only splits in use.',
        '',
        min(330, 80 + 26 * len(used)),
        [steps, *_by_outcome(drawn, lambda frame: rows[frame.split_index], words)],
        limits=[-0.5, len(used) - 0.5],
        lost=lost,
    )
    latencies = _chart(
        'Latency of each frame',
        'ms from the image’s arrival to its prediction.' + note,
        'ms',
        250,
        _by_outcome(drawn, lambda frame: _positive(1e3 * frame.latency_s)),
        log=True,
        lost=lost,
    )
    ticks = [[row, str(split), printable(words[row], 17)] for split, row in rows.items()]
    return {'split': {**splits, 'ticks': ticks}, 'latency': latencies}


def _time_charts(run: Recording, robot: RecordedRobot) -> dict[str, Chart]:
    """Return the charts that have a bar for each stretch of time: the parts of the latency, and the outcomes."""
    charts = {}
    step_s, groups = _buckets(robot.frames, run.duration_s)
    every = 'second' if step_s == 1 else f'{step_s:.3g} s'

    def stack(layers: list[Chart]) -> list[Chart]:
        starts = [_rounded(number * step_s) for number in range(len(groups))]
        return [{'kind': 'stack', 'x': starts, 'step': _rounded(step_s), 'layers': layers}]

    layers = []
    for name, parts, colour in _PART_GROUPS:
        values = [
            _rounded(1e3 * _mean(sum(getattr(frame, part) for part in parts) for frame in group)) for group in groups
        ]
        if any(values):
            layers.append({'name': name, 'colour': colour, 'y': values})
    if layers:
        charts['parts'] = _chart(
            'Where the time goes',
            f'ms, mean of the frames of every {every}.',
            'ms',
            230,
            stack(layers),
            limits=[0, None],
        )
    charts['outcomes'] = _chart(
        'Outcomes',
        f'Frames in every {every}.',
        '',
        170,
        stack(
            [
                {
                    'name': _OUTCOME_NAMES[outcome],
                    'colour': _OUTCOME_COLOURS[outcome],
                    'y': [sum(frame.outcome == outcome for frame in group) for group in groups],
                }
                for outcome in OUTCOMES
                if any(frame.outcome == outcome for frame in robot.frames)
            ]
        ),
        limits=[0, None],
    )
    return charts


def _by_outcome(
    frames: Sequence[FrameRecord], value: Callable[[FrameRecord], float | None], words: Sequence[str] | None = None
) -> list[Chart]:
    series = []
    for outcome in OUTCOMES:
        chosen = [frame for frame in frames if frame.outcome == outcome]
        if chosen:
            entry = {
                'kind': 'dots',
                'name': _OUTCOME_NAMES[outcome],
                'colour': _OUTCOME_COLOURS[outcome],
                'x': [_rounded(frame.delivered_s) for frame in chosen],
                'y': [value(frame) for frame in chosen],
            }
            series.append({**entry, 'words': list(words)} if words else entry)
    return series


def _load_line(loads: Sequence[LoadSample], edge: str, colour: int) -> Chart:
    of_edge = [load for load in loads if load.edge == edge]
    return _line(
        edge or 'utilisation',
        colour,
        [load.time_s for load in of_edge],
        [_known(100 * load.utilisation) for load in of_edge],
    )


def _line(name: str, colour: int, times: Sequence[float], values: Sequence[float | None], kind: str = 'line') -> Chart:
    keep = _thinned(values, [value is None for value in values])
    return {
        'kind': kind,
        'name': name,
        'colour': colour,
        'x': [_rounded(times[i]) for i in keep],
        'y': [values[i] for i in keep],
    }


def _thinned(values: Sequence[float | None], kinds: Sequence[object]) -> list[int]:
    """Return which points to draw: of each stretch the lowest, the highest and the first of each kind."""
    if len(values) <= MOST_POINTS:
        return list(range(len(values)))
    keep: set[int] = set()
    for stretch in np.array_split(np.arange(len(values)), MOST_POINTS // 4):
        first: dict[object, int] = {}
        known = {}
        for i in stretch.tolist():
            first.setdefault(kinds[i], i)
            if (value := values[i]) is not None:
                known[i] = value
        keep.update(
            first.values(), [min(known, key=known.__getitem__), max(known, key=known.__getitem__)] if known else []
        )
    return sorted(keep)


def _changes(times: Sequence[float], values: Sequence[int]) -> tuple[list[float], list[int]]:
    """Return when a value changes, and to what, and how it ends."""
    places = [i for i in range(len(values)) if i in (0, len(values) - 1) or values[i] != values[i - 1]]
    if len(places) > 2 * MOST_POINTS:
        places = places[:: math.ceil(len(places) / (2 * MOST_POINTS))]
    return [_rounded(times[i]) for i in places], [values[i] for i in places]


def _buckets(frames: Sequence[FrameRecord], duration_s: float) -> tuple[float, list[list[FrameRecord]]]:
    """Return how long each stretch is, in s, and the frames in each."""
    rough_s = max(duration_s, 0.1) / MOST_BARS
    step_s = next(
        (
            step
            for step in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
            if step >= rough_s
        ),
        rough_s,
    )
    groups: list[list[FrameRecord]] = [[] for _ in range(min(MOST_BARS, int(duration_s / step_s)) + 1)]
    for frame in frames:
        groups[min(max(int(frame.delivered_s / step_s), 0), len(groups) - 1)].append(frame)
    return step_s, groups


def _lost(robot: RecordedRobot) -> list[list[float]]:
    """Return when the link was believed to be lost: start and end, in seconds."""
    found: list[list[float]] = []
    since: float | None = None
    for link in robot.links:
        if not link.alive and since is None:
            since = link.time_s
        elif link.alive and since is not None:
            found.append([_rounded(since), _rounded(link.time_s)])
            since = None
    if since is not None:
        found.append([_rounded(since), _rounded(robot.links[-1].time_s)])
    return found[:1000]


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known) if known else 0.0


def _rounded(value: float) -> float:
    """Return five significant digits: more would only make the page larger."""
    return float(f'{value:.5g}')


def _known(value: float) -> float | None:
    return _rounded(value) if math.isfinite(value) else None


def _positive(value: float) -> float | None:
    return _rounded(value) if math.isfinite(value) and value > 0 else None
