# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a bound on the agreement buys: the latency and the bytes of the planner's choice under each bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import math
from pathlib import Path

from dynsplit_ros.advice.conditions import Adviser
from dynsplit_ros.agreement import images_needed
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.profile.profile import SystemProfile

#: Link rates of the picture, in bit/s.
RATES_BPS = (5e6, 20e6, 100e6)
#: Most bounds that are looked at: more would not be told apart in the picture.
_MOST_BOUNDS = 12
#: Bounds below this share are of no use to anybody.
_LOWEST = 0.8


@dataclass(frozen=True)
class BoundPoint:
    """The choice under a bound at a link rate (bit/s): its latency (s) and the bytes that a frame sends."""

    bound: float
    rate_bps: float
    latency_s: float
    payload_bytes: float
    choice: str = ''


def bounds_of(profile: SystemProfile) -> list[float]:
    """
    Return the bounds at which another codec becomes allowed, from 1 (lossless only) downwards.

    Raises DynsplitError when the profile has no measured agreement.
    """
    lows = {math.floor(1000 * found.low) / 1000 for cut in profile.cuts for found in cut.agreement.values()}
    bounds = sorted(
        (low for low in lows if _LOWEST <= low < 1 and images_needed(low) <= profile.agreement_images), reverse=True
    )
    if not bounds:
        raise DynsplitError(
            f'the profile of {profile.model!r} has no agreement of {_LOWEST:g} or more, so there is no '
            f"bound to draw; run './run profile {profile.model} --image FOLDER' on the robot"
        )
    return [1.0, *bounds[:: math.ceil(len(bounds) / _MOST_BOUNDS)]]


def what_bounds_buy(adviser: Adviser) -> list[BoundPoint]:
    """Return the planner's choice under each bound at each of RATES_BPS, with the edge as profiled."""
    points = []
    for bound in bounds_of(adviser.profile):
        bounded = Adviser(
            adviser.profile, replace(adviser.constraints, min_agreement=bound), adviser.rtt_s, adviser.batch
        )
        for rate_bps in RATES_BPS:
            best = bounded.at(rate_bps, 1.0).best
            points.append(
                BoundPoint(
                    bound, rate_bps, best.latency_s, best.payload_bytes, f'{best.split_index} {best.codec}'.strip()
                )
            )
    return points


def plot_bounds(points: Sequence[BoundPoint], title: str, path: str | Path) -> None:
    """Write a picture of latency and bytes against the bound, a line for each link rate."""
    from matplotlib.figure import Figure  # half a second that --help need not wait

    figure = Figure(figsize=(10, 4.2), layout='constrained')
    latency, size = figure.subplots(1, 2)
    for rate_bps in sorted({point.rate_bps for point in points}):
        line = sorted((point for point in points if point.rate_bps == rate_bps), key=lambda point: point.bound)
        bounds, label = [point.bound for point in line], f'{rate_bps / 1e6:g} Mbit/s'
        latency.plot(bounds, [1e3 * point.latency_s for point in line], marker='o', ms=4, label=label)
        size.plot(bounds, [point.payload_bytes / 1024 for point in line], marker='o', ms=4, label=label)
    latency.set_ylabel('latency (ms)')
    size.set_ylabel('sent per frame (KiB)')
    for axes in (latency, size):
        axes.set_xlabel('min_agreement (1: lossless only)')
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3, lw=0.5)
        axes.legend(fontsize='small')
    figure.suptitle(title, fontsize='medium')
    figure.savefig(Path(path), dpi=120)
