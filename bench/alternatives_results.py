# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the rows of bench/alternatives.py say: figures, the tables of README.md and docs/alternatives.md, a picture."""

from __future__ import annotations

from pathlib import Path
import statistics
from typing import Any

import matplotlib

matplotlib.use('Agg')

from matplotlib import pyplot as plt  # noqa: E402

from bench.figures import Figures  # noqa: E402
from dynsplit_ros.engine_names import EAGER  # noqa: E402

DYNAMIC = 'dynamic split'
#: Bars: latency over the best alternative's in each step (settled), and over all steps (changes included).
STEP_BAR, ALL_BAR = 1.05, 0.8
#: The rows of README.md's table: how their names begin.
SUMMARY = ('local inference', 'JPEG 95', 'JPEG', 'full offloading', 'fixed split', DYNAMIC)


def overall_s(measured: dict[str, Any]) -> float:
    """Return the mean of the steps' mean latencies in seconds; infinite where a step has no answer."""
    means = measured['mean_s']
    return float('inf') if None in means else statistics.fmean(means)


def _median(row: dict[str, Any], value: Any) -> float:
    return statistics.median(value(measured) for measured in row['rounds'])


def add_figures(figures: Figures, document: dict[str, Any]) -> None:
    """Add the medians over the rounds, with the spread from the least to the largest."""
    rows = document['alternatives']
    for name, row in rows.items():
        values = [overall_s(measured) for measured in row['rounds']]
        figures.add(
            f'{name}: mean latency over all steps, median of {len(values)} rounds',
            1e3 * statistics.median(values),
            'ms',
        )
        if max(values) < float('inf'):  # a step without an answer has no latency
            figures.add(f'{name}: the same, from the best to the worst round', 1e3 * (max(values) - min(values)), 'ms')
        for what, value, factor, unit in (
            ('images with a prediction', lambda of: statistics.fmean(of['answered']), 100, '%'),
            (
                'bytes on the link for each offered image',
                lambda of: statistics.fmean(of['bytes_per_image']),
                1 / 1024,
                'KiB',
            ),
            (
                'processor time on the robot for each offered image',
                lambda of: of['robot_processor_s_per_image'],
                1e3,
                'ms',
            ),
            ("same best class as the whole model's", lambda of: of['agreement'], 100, '%'),
            ("outputs equal to the whole model's bit for bit", lambda of: of['same'], 100, '%'),
        ):
            figures.add(f'{name}: {what}', factor * _median(row, value), unit)
    for name in rows:
        if name.startswith(DYNAMIC):
            _judge(figures, name, rows, document['setting'])


def _judge(figures: Figures, name: str, rows: dict[str, Any], setting: dict[str, Any]) -> None:
    """
    Compare a dynamic split with the best alternative of at least its agreement: in each step, and over all.

    The alternatives are those on eager and on its own engine. Only a dynamic split on eager has a bar over all steps.
    """
    engine = rows[name].get('engine', EAGER)  # files of earlier versions have no engine
    others = [
        other
        for other, row in rows.items()
        if row['rank'] <= rows[name]['rank']
        and row.get('engine', EAGER) in (EAGER, engine)
        and not other.startswith(DYNAMIC)
    ]
    if not others:
        return
    for at, rate in enumerate(setting['steps_mbps']):

        def settled_s(other: str, at: int = at) -> float:
            return float(_median(rows[other], lambda of: _or_inf(of['settled_s'][at])))

        best = min(others, key=settled_s)
        figures.add(
            f'{name}, step {at + 1}, {rate:g} Mbit/s, settled / {best}',
            settled_s(name) / settled_s(best),
            'times',
            f'<= {STEP_BAR}',
        )
    best = min(others, key=lambda other: float(_median(rows[other], overall_s)))
    ratio = _median(rows[name], overall_s) / _median(rows[best], overall_s)
    figures.add(f'{name}, mean over all steps / {best}', ratio, 'times', f'<= {ALL_BAR}' if engine == EAGER else None)


def tables(document: dict[str, Any]) -> dict[str, str]:
    """Return the tables of the pages by the names of their places."""
    rows, setting, facts = document['alternatives'], document['setting'], document['measured']
    rates = setting['steps_mbps']
    heads = ' | '.join(f'{rate:g} Mbit/s' for rate in rates)
    steps = [f'| | {heads} | all steps |', '| --- | ' + '--- | ' * (len(rates) + 1)]
    costs = [
        '| | all steps | from best to worst round | answered | KiB for each image | processor on the robot | '
        'same class | bit for bit |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    ]
    for name, row in rows.items():
        shown = f'**{name}**' if name.startswith(DYNAMIC) else name
        cells = [
            f'{_ms(_median(row, lambda of: _or_inf(of["mean_s"][at])))}, '
            f'{100 * _median(row, lambda of: of["answered"][at]):.0f} %'
            for at in range(len(rates))
        ]
        steps.append(f'| {shown} | {" | ".join(cells)} | {_ms(_median(row, overall_s))} |')
        values = [overall_s(measured) for measured in row['rounds']]
        costs.append(
            f'| {shown} | {_ms(statistics.median(values))} | {_ms(min(values))} to {_ms(max(values))} | '
            f'{100 * _median(row, lambda of: statistics.fmean(of["answered"])):.0f} % | '
            f'{_median(row, lambda of: statistics.fmean(of["bytes_per_image"])) / 1024:.0f} | '
            f'{_ms(_median(row, lambda of: of["robot_processor_s_per_image"]))} | '
            f'{100 * _median(row, lambda of: of["agreement"]):.0f} % | '
            f'{100 * _median(row, lambda of: of["same"]):.0f} % |'
        )
    what = (
        f'{setting["model"]}, a robot {setting["slowdown"]:g} times slower than the edge, {setting["rate_hz"]:g} '
        'images per second.'
    )
    where = f'{what} Measured by `{facts["command"]}` on {facts["when"]}, commit {facts["commit"]}.'
    bars = ['| figure | times | bar | holds |', '| --- | ---: | --- | --- |']
    for figure in document['figures']:
        if figure['bar'] is not None:
            holds = 'yes' if figure['holds'] else '**no**'
            bars.append(f'| {figure["name"]} | {figure["value"]:.2f} | {figure["bar"]} | {holds} |')
    return {
        'bars': '\n'.join(bars),
        'steps': '\n'.join(steps),
        'costs': '\n'.join(costs),
        'measured': where,
        'summary': f'{_summary(rows, rates)}\n\n{what} Measured on {facts["when"]}, commit {facts["commit"]}.',
    }


def _summary(rows: dict[str, Any], rates: list[float]) -> str:
    fast, slow = rates.index(max(rates)), rates.index(min(rates))
    lines = [
        f'| | mean latency | at {rates[fast]:g} Mbit/s | at {rates[slow]:g} Mbit/s | same class as the whole model |',
        '| --- | --- | --- | --- | --- |',
    ]
    for name, row in rows.items():
        if not row['paced'] or not name.startswith(SUMMARY):
            continue
        mark = '**' if name.startswith(DYNAMIC) else ''
        cells = [_ms(_median(row, lambda of: _or_inf(of['mean_s'][at]))) for at in (fast, slow)]
        lines.append(
            f'| {mark}{name}{mark} | {mark}{_ms(_median(row, overall_s))}{mark} | {cells[0]} | {cells[1]} | '
            f'{100 * _median(row, lambda of: of["agreement"]):.0f} % |'
        )
    return '\n'.join(lines)


def _or_inf(value: float | None) -> float:
    return float('inf') if value is None else value


def _ms(seconds: float) -> str:
    return 'no answer' if seconds == float('inf') else f'{1e3 * seconds:.0f} ms'


def draw(document: dict[str, Any], folder: Path, source: str) -> None:
    """Write the picture of docs/alternatives.md: latency against agreement; the file names ``source``."""
    figure, axes = plt.subplots(figsize=(9.5, 5.0), layout='constrained')
    for marker, (name, row) in zip('os^vDP*Xhp<>d8H1', document['alternatives'].items()):
        latency_s = _median(row, overall_s)
        if latency_s == float('inf'):
            continue
        values = [1e3 * overall_s(measured) for measured in row['rounds']]
        agreement = 100 * _median(row, lambda of: of['agreement'])
        colour = 'tab:red' if name.startswith(DYNAMIC) else 'tab:blue' if row['image'] else 'tab:gray'
        axes.errorbar(
            agreement,
            1e3 * latency_s,
            [[1e3 * latency_s - min(values)], [max(values) - 1e3 * latency_s]],
            fmt=marker,
            markersize=8,
            color=colour,
            capsize=3,
            alpha=0.8,
            label=name,
        )
    axes.legend(loc='center left', bbox_to_anchor=(1.0, 0.5))
    axes.set_ylim(bottom=0)
    axes.set_xlabel('images with the class of the whole model, %')
    axes.set_ylabel('mean latency, ms (median and range of the rounds)')
    axes.grid(alpha=0.3)
    figure.savefig(folder / 'alternatives.png', dpi=110, metadata={'Source': source})
    plt.close(figure)
