# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Draw a demonstration: what the robot saw and said, and rate, split and latency over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
import numpy as np

from dynsplit_ros.demo.film import colour, computed, middles, Picture, said
from dynsplit_ros.policies.records import Outcome

OUTCOMES = {
    Outcome.ANSWERED: ('#1f77b4', 'answered by the edge'),
    Outcome.LOCAL: ('#2ca02c', 'local inference'),
    Outcome.FELL_BACK: ('#d62728', 'finished on the robot, no answer in time'),
}

#: 100, not ten to the second.
PLAIN = FuncFormatter(lambda value, _: f'{value:g}')


def split_names(cuts: Sequence[dict[str, Any]]) -> list[str]:
    """Return what a reader who does not know the network's layers is told about each split, first to last."""
    sizes = [f'{cut["bytes"] / 1024:.3g} KiB' for cut in cuts]
    return [
        f'0  edge runs all, {sizes[0]} image',
        *(f'{index}  both, {size}' for index, size in enumerate(sizes[1:-1], 1)),
        f'{len(cuts) - 1}  robot runs all',
    ]


def draw(report: dict[str, Any], image_at: Callable[[int], Picture], path: Path) -> None:
    """Write the plot of a demonstration's report as PNG; ``image_at`` returns the camera image of a stamp in ns."""
    frames, summary = report['frames'], report['summary']
    time_s = np.array([frame['time_s'] for frame in frames])
    figure = Figure(figsize=(11, 9.6), layout='constrained')
    strip, plots = figure.subfigures(2, 1, height_ratios=(1, 3.6))
    rate, split, latency = plots.subplots(3, 1, sharex=True, height_ratios=(1, 1, 1.3))
    for axes, step, frame in zip(strip.subplots(1, len(report['steps'])), report['steps'], middles(report)):
        axes.imshow(image_at(frame['stamp_ns']))
        axes.set_title(f'{step["name"]}\n{said(frame)}', fontsize=9)
        axes.set_xlabel(computed(frame), fontsize=8, color=[part / 255 for part in colour(frame)])
        axes.set_xticks([])
        axes.set_yticks([])

    def series(name: str) -> np.ndarray:
        return np.array([np.nan if frame[name] is None else frame[name] for frame in frames], dtype=float)

    estimated = np.where([frame['link_alive'] for frame in frames], series('rate_estimated_bps') / 1e6, np.nan)
    changes = [*report['rates'], {**report['rates'][-1], 'time_s': report['seconds']}]
    rate.step(
        [change['time_s'] for change in changes],
        [change['rate_bps'] / 1e6 for change in changes],
        where='post',
        color='black',
        lw=1.2,
        label='true rate (0: dead)',
    )
    rate.plot(time_s, estimated, '.', ms=4, color='#ff7f0e', label='estimated')
    rate.set_yscale('symlog', linthresh=1)
    rate.set_ylim(bottom=-0.1)
    rate.yaxis.set_major_formatter(PLAIN)
    rate.set_ylabel('uplink, Mbit/s')
    rate.legend(loc='lower right', fontsize=9)

    split.step(time_s, [frame['split_index'] for frame in frames], where='post', color='#9467bd')
    names = split_names(report['cuts'])
    split.set_yticks(range(len(names)), names, fontsize=8)
    split.yaxis.set_minor_locator(MaxNLocator(integer=True))
    split.set_ylabel('split in use')
    split.grid(axis='y', alpha=0.3)

    for outcome, (shade, label) in OUTCOMES.items():
        mask = np.array([frame['outcome'] == outcome for frame in frames])
        if mask.any():
            latency.plot(time_s[mask], 1e3 * series('latency_s')[mask], '.', ms=5, color=shade, label=label)
    latency.set_yscale('log')
    latency.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    latency.yaxis.set_major_formatter(PLAIN)
    latency.yaxis.set_minor_formatter(NullFormatter())
    latency.set_ylabel('latency of each frame, ms')
    latency.set_xlabel('time, s')
    latency.grid(axis='y', which='both', alpha=0.2)
    latency.legend(loc='lower center', bbox_to_anchor=(0.5, 0.99), ncols=3, frameon=False, fontsize=9)

    for number, step in enumerate(report['steps']):
        for axes in (rate, split, latency):
            axes.axvspan(step['start_s'], step['end_s'], color='black', alpha=0.04 if number % 2 else 0, lw=0)
        rate.text(
            (step['start_s'] + step['end_s']) / 2,
            1.02,
            step['name'],
            transform=rate.get_xaxis_transform(),
            ha='center',
            fontsize=9,
        )
    strip.suptitle(
        f'{report["model"]}, robot {report["slowdown"]:g} times slower than the edge: '
        f'{summary["frames_accepted"]} frames, {summary["frames_lost"]} lost, '
        f'{summary["mismatches"]} differing from the whole model\n'
        f'{summary["images_dropped"]} images were dropped for newer ones while the robot was busy',
        fontsize=11,
    )
    latency.set_xlim(0, report['seconds'])
    figure.savefig(path, dpi=110)
