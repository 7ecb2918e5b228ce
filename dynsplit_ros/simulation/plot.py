# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Plots of simulations: latency over time, and mean latency by data rate or load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
import numpy as np

from dynsplit_ros.profile.profile import SystemProfile
from dynsplit_ros.simulation.fleet import FleetPoint
from dynsplit_ros.simulation.trace import Trace
from dynsplit_ros.simulation.world import Run

DYNAMIC, ORACLE = 'tab:red', 'black'


def policy_label(policy: str, profile: SystemProfile) -> str:
    """Return a policy's name for a legend."""
    if not policy.isdigit():
        return policy
    index = int(policy)
    if index == 0:
        return 'full offloading (split 0)'
    if index == profile.local_index:
        return f'local inference (split {index})'
    return f'split {index}'


def plot_over_time(
    profile: SystemProfile, runs: Mapping[str, Run], link: Trace, load: Trace, duration_s: float, path: str | Path
) -> None:
    """
    Draw latency over time for some policies, with the dynamic policy's split and the link's rate below.

    ``runs`` is by policy and holds 'dynamic'; ``link`` is in bit/s; the load (times slower) is drawn only if it
    changes.
    """
    figure = Figure(figsize=(12, 8), layout='constrained')
    FigureCanvasAgg(figure)
    loaded = len(set(load.values)) > 1
    axes = figure.subplots(4 if loaded else 3, 1, sharex=True, height_ratios=[5, 3, 2, 1][: 4 if loaded else 3])
    _draw_latencies(axes[0], profile, runs)
    axes[0].set_title(f'{profile.model}: link {Path(link.name).stem}')
    _draw_splits(axes[1], profile, runs['dynamic'])
    _draw_rate(axes[2], link, runs['dynamic'], duration_s)
    if loaded:
        times, values = _steps(load, duration_s)
        axes[3].step(times, values, where='post', color='tab:green')
        axes[3].set_ylabel('edge slower\n(times)')
        axes[3].set_ylim(bottom=0)
    for each in axes:
        each.grid(alpha=0.3)
        each.set_xlim(0, duration_s)
    axes[-1].set_xlabel('time (s)')
    figure.savefig(Path(path), dpi=120)


def _draw_latencies(axes: Axes, profile: SystemProfile, runs: Mapping[str, Run]) -> None:
    fixed = [policy for policy in runs if policy.isdigit()]
    styles: dict[str, tuple[Any, float, float]] = {'dynamic': (DYNAMIC, 1.8, 4.0), 'oracle': (ORACLE, 1.0, 3.0)}
    styles.update({policy: (colour, 0.9, 2.0) for policy, colour in _colours(fixed, profile).items()})
    for policy, run in runs.items():
        colour, width, order = styles[policy]
        axes.plot(
            [frame.arrived_s for frame in run.frames],
            [1000 * frame.latency_s for frame in run.frames],
            color=colour,
            linewidth=width,
            zorder=order,
            alpha=0.9,
            label=policy_label(policy, profile),
        )
    _logarithmic(axes, 'y')
    axes.set_ylabel('latency of a frame (ms)')
    axes.legend(ncols=4, fontsize='small', loc='upper center', bbox_to_anchor=(0.5, -0.02))


def _draw_splits(axes: Axes, profile: SystemProfile, run: Run) -> None:
    kinds = (
        ('answered', DYNAMIC, '.', 'answered by the edge'),
        ('local', 'tab:blue', '.', 'computed on the robot'),
        ('fell_back', 'black', 'x', 'sent, then finished on the robot'),
    )
    axes.step(
        [frame.arrived_s for frame in run.frames],
        [frame.split_index for frame in run.frames],
        where='post',
        color='0.75',
        linewidth=0.8,
        zorder=1,
    )
    for outcome, colour, marker, label in kinds:
        chosen = [frame for frame in run.frames if frame.outcome == outcome]
        if chosen:
            axes.scatter(
                [frame.arrived_s for frame in chosen],
                [frame.split_index for frame in chosen],
                s=14,
                color=colour,
                marker=marker,
                label=label,
                zorder=2,
            )
    axes.set_ylim(-0.5, profile.local_index + 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel('split (dynamic)')
    axes.legend(ncols=3, fontsize='small', loc='upper center', bbox_to_anchor=(0.5, -0.02))


def _draw_rate(axes: Axes, link: Trace, run: Run, duration_s: float) -> None:
    positive = [value for value in link.values if value > 0]
    times, values = _steps(link, duration_s)
    axes.step(times, np.maximum(values, 1.0) / 1e6, where='post', color='0.45', linewidth=1.0, label='link')
    estimates = np.array(run.estimates)
    if len(estimates):
        axes.plot(
            estimates[:, 0],
            np.where(estimates[:, 1] > 0, estimates[:, 1], np.nan) / 1e6,
            color=DYNAMIC,
            linewidth=1.0,
            label='estimated',
        )
    if positive:
        _logarithmic(axes, 'y')
        # Show an outage as a fall to the bottom of the axis, not to the logarithm of almost 0.
        low, high = float(np.quantile(positive, 0.01)), max(positive)
        axes.set_ylim(low / 2e6, 2 * high / 1e6)
    axes.set_ylabel('rate (Mbit/s)')
    axes.legend(ncols=2, fontsize='small', loc='lower right')


def plot_sweep(
    profile: SystemProfile,
    means_s: Mapping[int, Mapping[str, Sequence[float]]],
    points: Sequence[float],
    point_label: str,
    title: str,
    path: str | Path,
) -> None:
    """
    Draw mean latency against a data rate or load: one panel for each batch size, one line for each policy.

    ``means_s`` is by batch size, then by policy, with one mean in seconds for each of ``points`` (NaN for none).
    """
    batches = sorted(means_s)
    columns = min(len(batches), {4: 2}.get(len(batches), 3 if len(batches) <= 6 else 4))
    rows = math.ceil(len(batches) / columns)
    figure = Figure(figsize=(max(4.2 * columns, 7.0), 3.6 * rows + 1.2), layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    fixed = sorted({policy for lines in means_s.values() for policy in lines if policy.isdigit()}, key=int)
    colours = _colours(fixed, profile)
    for panel, batch in zip(panels, batches):
        lines = means_s[batch]
        for policy in fixed:
            panel.plot(
                points,
                1000 * np.array(lines[policy]),
                color=colours[policy],
                linewidth=1.4,
                marker='.',
                markersize=4,
                label=policy_label(policy, profile),
            )
        if 'oracle' in lines:
            panel.plot(
                points,
                1000 * np.array(lines['oracle']),
                color=ORACLE,
                linewidth=1.0,
                linestyle='--',
                zorder=4,
                label='oracle',
            )
        panel.plot(
            points,
            1000 * np.array(lines['dynamic']),
            color=DYNAMIC,
            linewidth=5,
            alpha=0.45,
            zorder=1.5,
            solid_capstyle='round',
            label='dynamic',
        )
        _logarithmic(panel, 'x')
        _logarithmic(panel, 'y')
        if len(points) <= 6:
            panel.xaxis.set_major_locator(FixedLocator(list(points)))
        known = 1000 * np.array([value for line in lines.values() for value in line])
        known = known[np.isfinite(known)]
        best = 1000 * np.fmin.reduce(np.array(list(lines.values())), axis=0)
        if len(known):
            # Leave out values far above the best one at every point.
            panel.set_ylim(0.7 * known.min(), min(1.4 * known.max(), 12 * np.nanmax(best)))
        panel.grid(alpha=0.3, which='both', linewidth=0.5)
        panel.set_title(f'batch {batch}', fontsize='medium')
    for number, panel in enumerate(panels):
        panel.set_visible(number < len(batches))
        if number < len(batches):
            if number % columns == 0:
                panel.set_ylabel('mean latency (ms)')
            if number + columns >= len(batches):
                panel.set_xlabel(point_label)
                panel.tick_params(labelbottom=True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=min(5, len(labels)), fontsize='small')
    figure.suptitle(title)
    figure.savefig(Path(path), dpi=120)


def plot_fleet(points: Sequence[FleetPoint], local_s: float, title: str, path: str | Path) -> None:
    """Draw the mean latency and the share of offloaded frames against the number of robots, a line for each pool."""
    figure = Figure(figsize=(8, 6.5), layout='constrained')
    FigureCanvasAgg(figure)
    latency, offloaded = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    pools = sorted({point.replicas for point in points})
    for number, replicas in enumerate(pools):
        line = sorted((point for point in points if point.replicas == replicas), key=lambda point: point.robots)
        robots, colour = [point.robots for point in line], colormaps['viridis'](0.9 * number / max(1, len(pools) - 1))
        label = f'{replicas} replica{"s" * (replicas != 1)}'
        latency.plot(robots, [1000 * point.mean_s for point in line], color=colour, marker='.', label=label)
        offloaded.plot(robots, [100 * point.offloaded for point in line], color=colour, marker='.', label=label)
    latency.axhline(1000 * local_s, color='tab:blue', linestyle='--', linewidth=1.0, label='whole network on the robot')
    offloaded.axhline(50, color='0.6', linestyle=':', linewidth=1.0)
    latency.set_ylabel('mean latency (ms)')
    latency.set_ylim(bottom=0)
    latency.legend(fontsize='small')
    offloaded.set_ylabel('frames that the edge runs (%)')
    offloaded.set_ylim(-2, 102)
    offloaded.set_xlabel('robots; where the lower line crosses 50 %, local inference takes over')
    for axes in (latency, offloaded):
        axes.grid(alpha=0.3)
    latency.set_title(title, fontsize='medium')
    figure.savefig(Path(path), dpi=120)


def _colours(fixed: Sequence[str], profile: SystemProfile) -> dict[str, Any]:
    """Return each fixed split's colour: a gradual scale by split, with distinct colours for the two ends."""
    between = max(1, profile.local_index - 2)
    ends = {0: 'tab:purple', profile.local_index: 'tab:blue'}
    return {policy: ends.get(int(policy), colormaps['summer'](0.9 * (int(policy) - 1) / between)) for policy in fixed}


def _logarithmic(axes: Axes, axis: str) -> None:
    """Make an axis logarithmic, with plain numbers at a few ticks."""
    if axis == 'x':
        axes.set_xscale('log')
        scale: Axis = axes.xaxis
        scale.set_major_locator(LogLocator(subs=(1.0,), numticks=12))
    else:
        axes.set_yscale('log')
        scale = axes.yaxis
        scale.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    scale.set_major_formatter(FuncFormatter(_plain))
    scale.set_minor_formatter(NullFormatter())


def _steps(trace: Trace, duration_s: float) -> tuple[list[float], list[float]]:
    pairs = [(time_s, value) for time_s, value in zip(trace.times_s, trace.values) if 0 < time_s < duration_s]
    return (
        [0.0, *(time_s for time_s, _ in pairs), duration_s],
        [trace.at(0.0), *(value for _, value in pairs), trace.at(duration_s)],
    )


def _plain(value: float, position: int | None = None) -> str:
    return f'{value:g}'
