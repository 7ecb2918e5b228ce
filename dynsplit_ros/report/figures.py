# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Count what matters in a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import math

import numpy as np

from dynsplit_ros.policies.records import FrameRecord, Outcome
from dynsplit_ros.report.run import LinkSample, OUTCOMES, RecordedRobot

PERCENTS = (50, 95, 99)


@dataclass(frozen=True)
class SplitShare:
    """The frames of one split: how many, their share (0..1), mean latency in s and payload in bytes, and codecs."""

    index: int
    name: str
    frames: int
    share: float
    mean_s: float
    payload_bytes: float
    codecs: tuple[str, ...]


@dataclass(frozen=True)
class EdgeShare:
    """The frames that one edge answered: how many, their share (0..1), and their mean latency in s."""

    name: str
    frames: int
    share: float
    mean_s: float


@dataclass(frozen=True)
class Figures:
    """
    One robot's run in numbers; latencies in s (NaN where there are none).

    ``lost`` are frames that have no prediction though a later one of the same camera session has, ``disordered``
    predictions that came after that of a later frame. ``switches`` counts changes of the split from one frame to the
    next. ``probe_share`` is the share of the estimated capacity that heartbeats and probes took, NaN where it was not
    recorded.
    """

    frames: int
    lost: int
    doubled: int
    disordered: int
    rate_hz: float
    mean_s: float
    percentiles_s: tuple[float, ...]
    longest_s: float
    outcomes: dict[str, int]
    switches: int
    payload_bps: float
    probe_share: float
    splits: tuple[SplitShare, ...]
    edges: tuple[EdgeShare, ...]


def count(robot: RecordedRobot, duration_s: float, accepted: int | None = None) -> Figures:
    """Count one robot's run of ``duration_s`` seconds; ``accepted`` is how many frames its camera took, if known."""
    frames = robot.frames
    latencies = np.array([frame.latency_s for frame in frames if math.isfinite(frame.latency_s)])
    quantiles = np.percentile(latencies, PERCENTS).tolist() if len(latencies) else [math.nan] * len(PERCENTS)
    lost = disordered = 0
    for session in {frame.session for frame in frames}:
        sequences = [frame.sequence for frame in frames if frame.session == session]
        lost += max(sequences) - min(sequences) + 1 - len(sequences)
        highest = np.maximum.accumulate(np.array(sequences, dtype=np.float64))
        disordered += int(np.sum(np.array(sequences[1:], dtype=np.float64) < highest[:-1]))
    if accepted is not None:
        lost = accepted - len(frames)
    seconds = max(duration_s, 1e-9)
    outcomes = Counter(frame.outcome for frame in frames)
    return Figures(
        frames=len(frames),
        lost=lost,
        doubled=robot.doubled,
        disordered=disordered,
        rate_hz=len(frames) / seconds,
        mean_s=float(latencies.mean()) if len(latencies) else math.nan,
        percentiles_s=tuple(quantiles),
        longest_s=float(latencies.max()) if len(latencies) else math.nan,
        outcomes={outcome: outcomes[outcome] for outcome in OUTCOMES},
        switches=sum(a.split_index != b.split_index for a, b in zip(frames, frames[1:])),
        payload_bps=8 * sum(frame.payload_bytes for frame in frames) / seconds,
        probe_share=_probe_share(robot.links),
        splits=_splits(frames),
        edges=_edges(frames),
    )


def _splits(frames: Sequence[FrameRecord]) -> tuple[SplitShare, ...]:
    return tuple(
        SplitShare(
            index,
            of_split[0].split_name,
            len(of_split),
            len(of_split) / len(frames),
            _mean(frame.latency_s for frame in of_split),
            _mean(frame.payload_bytes for frame in of_split),
            tuple(sorted({frame.codec for frame in of_split if frame.codec})),
        )
        for index in sorted({frame.split_index for frame in frames})
        if (of_split := [frame for frame in frames if frame.split_index == index])
    )


def _edges(frames: Sequence[FrameRecord]) -> tuple[EdgeShare, ...]:
    answered = [frame for frame in frames if frame.outcome == Outcome.ANSWERED]
    return tuple(
        EdgeShare(name, len(of_edge), len(of_edge) / len(frames), _mean(frame.latency_s for frame in of_edge))
        for name in sorted({frame.edge for frame in answered})
        if (of_edge := [frame for frame in answered if frame.edge == name])
    )


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _probe_share(links: Sequence[LinkSample]) -> float:
    """Return the share of the capacity that was estimated which probes took."""
    capacity_bytes = probe_bytes = 0.0
    for before, after in zip(links, links[1:]):
        sent = after.probe_bytes_total - before.probe_bytes_total
        elapsed_s = after.time_s - before.time_s
        # A monitor that restarts counts from 0 again; a gap in the recording says nothing of the rate meanwhile.
        if sent >= 0 and 0 <= elapsed_s < 5:
            probe_bytes += sent
            if before.alive and math.isfinite(before.throughput_bps):
                capacity_bytes += before.throughput_bps / 8 * elapsed_s
    return probe_bytes / capacity_bytes if capacity_bytes > 0 else math.nan
