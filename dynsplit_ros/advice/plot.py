# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Draw advice: latency by link rate, and the split for every link rate and edge load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import itertools
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
import numpy as np

from dynsplit_ros.advice.conditions import Adviser, Range

POINTS = 200


def plot_advice(adviser: Adviser, ranges: Mapping[float, Sequence[Range]], path: str | Path) -> None:
    """
    Write a PNG of the advice.

    ``ranges`` are the adviser's, by how many times as slow as profiled the edge is; the first of them is drawn over
    the rate as latency, all of them as a map of the splits.
    """
    profile = adviser.profile
    loads = list(ranges)
    low_bps, high_bps = ranges[loads[0]][0].first.rate_bps, ranges[loads[0]][-1].last.rate_bps
    rates_bps = np.geomspace(low_bps, high_bps, POINTS).tolist()
    used = sorted({found.first.best.split_index for of_load in ranges.values() for found in of_load})
    colours = {split: colormaps['viridis'](0.95 * number / max(1, len(used) - 1)) for number, split in enumerate(used)}

    figure = Figure(figsize=(10, 4.8 + 0.5 * len(loads)), layout='constrained')
    latency, splits = figure.subplots(2, 1, sharex=True, height_ratios=[5, 0.6 + 0.6 * len(loads)])
    advice = [adviser.at(rate_bps, loads[0]) for rate_bps in rates_bps]
    mbps = [rate_bps / 1e6 for rate_bps in rates_bps]
    latency.plot(mbps, [1e3 * a.local.latency_s for a in advice], color='tab:blue', lw=1.4, label='local inference')
    latency.plot(
        mbps, [1e3 * a.offloading.latency_s for a in advice], color='tab:purple', lw=1.4, label='full offloading'
    )
    latency.plot(
        mbps,
        [1e3 * a.best.latency_s for a in advice],
        color='tab:red',
        lw=5,
        alpha=0.5,
        solid_capstyle='round',
        zorder=1.5,
        label='dynamic split',
    )
    best_ms = np.array([1e3 * a.best.latency_s for a in advice])
    worst_ms = max(1e3 * max(a.local.latency_s for a in advice), 1e3 * min(a.offloading.latency_s for a in advice))
    latency.set_yscale('log')
    latency.set_ylim(0.6 * best_ms.min(), 3 * worst_ms)
    latency.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    latency.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    latency.yaxis.set_minor_formatter(NullFormatter())
    latency.set_ylabel('predicted latency (ms)')
    latency.legend(loc='upper right', fontsize='small')
    edge = 'as profiled' if loads[0] == 1 else f'{loads[0]:g} times as slow as profiled'
    latency.set_title(
        f'{profile.model}, {adviser.constraints.frame_rate_hz:g} images/s, round trip {1e3 * adviser.rtt_s:g} ms, '
        f'edge {edge}',
        fontsize='medium',
    )

    bars = {}  # by split, for the legend
    for row, load in enumerate(loads):
        for split, group in itertools.groupby(ranges[load], lambda found: found.first.best.split_index):
            of_split = list(group)
            left, right = of_split[0].first.rate_bps / 1e6, of_split[-1].last.rate_bps / 1e6
            bars[split] = splits.barh(
                row, right - left, left=left, height=0.9, color=colours[split], edgecolor='white', linewidth=0.8
            )
            if np.log(right / left) > 0.09 * np.log(high_bps / low_bps):  # where there is room for it
                name = 'local' if split == profile.local_index else 'offload' if split == 0 else str(split)
                splits.text(
                    (left * right) ** 0.5,
                    row,
                    name,
                    ha='center',
                    va='center',
                    fontsize='small',
                    color='white' if sum(colours[split][:3]) < 1.5 else 'black',
                )
    splits.legend(
        [bars[split] for split in used],
        [_label(adviser, split) for split in used],
        ncols=min(5, len(used)),
        fontsize='small',
        loc='upper center',
        bbox_to_anchor=(0.5, -0.6 / (0.3 + 0.6 * len(loads))),
        frameon=False,
    )
    splits.set_xscale('log')
    splits.set_xlim(low_bps / 1e6, high_bps / 1e6)
    splits.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    splits.set_yticks(range(len(loads)), [f'× {load:g}' for load in loads])
    splits.set_ylabel('edge slower by')
    splits.set_xlabel('link rate (Mbit/s)')
    splits.set_title('split in use', fontsize='medium')
    latency.grid(alpha=0.3, which='both', lw=0.5)
    figure.savefig(Path(path), dpi=120)


def _label(adviser: Adviser, split: int) -> str:
    if split == adviser.profile.local_index:
        return 'local inference'
    return 'full offloading' if split == 0 else f'split {split} ({adviser.profile.cuts[split].name})'
