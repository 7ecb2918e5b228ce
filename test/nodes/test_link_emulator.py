# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The emulated link goes on from one step of its script to the next, whatever the clock says."""

from __future__ import annotations

from itertools import accumulate
import random
from types import SimpleNamespace

from dynsplit_ros.nodes.link_emulator import LinkEmulator


def test_every_step_ends_after_it_begins() -> None:
    chance = random.Random(0)
    durations_s = [share * 40.0 for share in (0.18, 0.17, 0.15, 0.12, 0.14, 0.14, 0.10)]
    rates = [100.0, 4.0, 1.0, 0.0, 100.0, 90.0, 80.0]
    for _ in range(2000):
        emulator = SimpleNamespace(
            _ends_s=list(accumulate(durations_s)),
            _started_s=chance.uniform(0, 1e6),
            values=SimpleNamespace(rates_mbps=rates),
        )
        for step, end_s in enumerate(emulator._ends_s):
            boundary_s = emulator._started_s + end_s
            rate_bps, until_s = LinkEmulator._rate_at(emulator, boundary_s)
            assert until_s > boundary_s
            assert rate_bps == rates[min(step + 1, len(rates) - 1)] * 1e6
