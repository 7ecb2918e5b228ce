# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The mean age of images when their head starts: a(u) of docs/how_it_decides.md."""

from __future__ import annotations

import functools

import numpy as np

from dynsplit_ros.planner.choices import Array
from dynsplit_ros.policies.staleness import mean_age

#: Relative standard deviation of the slowest stage's time. With 0, the age jumps by half a period where a stage takes
#: one period, and the choice flaps there; with more, the jump is smoothed too much.
_STAGE_SPREAD = 0.03
#: Periods of the slowest stage in the table of ages; beyond the last one the age hardly changes.
_STAGE_PERIODS: Array = np.linspace(0.0, 20.0, 4001, dtype=np.float64)


def image_age(stage_periods: Array | float, waiting_share: float, alternating: bool = False) -> Array:
    """
    Return the mean age of images, in periods, if the slowest stage takes ``stage_periods`` periods for a frame.

    ``waiting_share`` and ``alternating`` are those of :func:`~dynsplit_ros.policies.staleness.mean_age`. The result is
    averaged over a 3 % variation of the stages.
    """
    return np.asarray(np.interp(stage_periods, _STAGE_PERIODS, _table(waiting_share, alternating)))


@functools.lru_cache
def _table(waiting_share: float, alternating: bool) -> Array:
    exact = mean_age(_STAGE_PERIODS, waiting_share, alternating)
    deviations = np.linspace(-3, 3, 61)
    weights = np.exp(-(deviations**2) / 2)
    ages = [
        np.interp(_STAGE_PERIODS * (1 + _STAGE_SPREAD * deviation), _STAGE_PERIODS, exact) for deviation in deviations
    ]
    return np.asarray(np.average(ages, axis=0, weights=weights))
