# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Runs many simulations in parallel, and summarises each run in a few numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
import math
import multiprocessing
import os
from typing import Any, TypeVar

import numpy as np

from dynsplit_ros.policies.monitor_settings import MonitorSettings
from dynsplit_ros.profile.profile import SystemProfile
from dynsplit_ros.simulation.world import Run, Scenario, simulate

Result = TypeVar('Result')


@dataclass(frozen=True)
class Job:
    """One policy in one scenario; see :class:`dynsplit_ros.simulation.world.World` for the policies' names."""

    profile: SystemProfile
    scenario: Scenario
    policy: str
    settings: MonitorSettings = MonitorSettings()


@dataclass(frozen=True)
class Summary:
    """
    A run in numbers.

    The fields are latencies in seconds (NaN if no frame was delivered), numbers of delivered frames, of dropped images
    and of frames that fell back, changes of the split per minute, the mean rate of payloads in bit/s, and the share (0
    to 1) of the link that heartbeats and probes took. ``in_time_share`` is the share of frames within a deadline,
    ``None`` without one.
    """

    mean_s: float
    median_s: float
    p95_s: float
    longest_s: float
    frames: int
    dropped: int
    fell_back: int
    switches_per_minute: float
    payload_bps: float
    probe_share: float
    in_time_share: float | None = None


def summarise(run: Run, duration_s: float, since_s: float = 0.0, deadline_s: float = math.nan) -> Summary:
    """Return the summary of a run; latencies and changes count from ``since_s`` on."""
    latencies = run.latencies(since_s)
    median_s, p95_s, longest_s = np.percentile(latencies, (50, 95, 100)).tolist() if len(latencies) else [math.nan] * 3
    changes = sum(bool(change_s > since_s) for change_s in run.decisions_changed)
    return Summary(
        mean_s=float(latencies.mean()) if len(latencies) else math.nan,
        median_s=median_s,
        p95_s=p95_s,
        longest_s=longest_s,
        frames=len(run.frames),
        dropped=run.dropped,
        fell_back=sum(frame.outcome == 'fell_back' for frame in run.frames),
        switches_per_minute=60 * changes / max(duration_s - since_s, 1e-9),
        payload_bps=8 * run.payload_bytes / duration_s,
        probe_share=(run.probe_bytes + run.heartbeat_bytes) / max(run.capacity_bytes, 1e-9),
        in_time_share=None if math.isnan(deadline_s) or not len(latencies) else float((latencies <= deadline_s).mean()),
    )


def run_all(
    jobs: Sequence[Job],
    reduce: Callable[[Job, Run], Result],
    workers: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Result]:
    """
    Simulate each job and return the results of ``reduce``, in the order of the jobs.

    ``reduce`` runs in the process of the simulation, so it must be picklable unless ``workers`` is 1. ``workers`` is
    the number of processes, by default one for each core. ``progress`` is called after each job with the number of jobs
    done.
    """
    results = []
    for done, result in enumerate(in_processes(_run, [(job, reduce) for job in jobs], workers), 1):
        results.append(result)
        progress(done)
    return results


def in_processes(
    call: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], workers: int | None = None
) -> Iterator[Result]:
    """Yield the result of ``call`` for each tuple of arguments, in order; all picklable unless ``workers`` is 1."""
    workers = min(len(arguments), workers or os.cpu_count() or 1)
    if workers <= 1:
        yield from (call(*each) for each in arguments)
        return
    # Do not fork: the caller may have started threads.
    with ProcessPoolExecutor(workers, multiprocessing.get_context('spawn')) as pool:
        for future in [pool.submit(call, *each) for each in arguments]:
            yield future.result()


def _run(job: Job, reduce: Callable[[Job, Run], Result]) -> Result:
    return reduce(job, simulate(job.profile, job.scenario, job.policy, job.settings))
