# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Computes how many replicas a pool needs for its load."""

from __future__ import annotations

import math

from dynsplit_ros.estimators.load import LoadReport

#: Largest mean utilisation of the replicas (0 to 1). Closer to 1, frames of robots that send at the same instant wait
#: for each other; a smaller value wastes machines.
BUSY_SHARE = 0.8
#: Time constants, in seconds: the first one averages the load that adds replicas, the second one the load that removes
#: them. A replica needs seconds to start, so with a shorter first one the pool adds replicas for bursts that are
#: already over. With a shorter second one the pool ends replicas between two bursts.
RISE_S, FALL_S = 2.0, 30.0


def replicas_for(load: float) -> int:
    """Return how many replicas a load needs; ``load`` is the mean number of busy replicas."""
    return math.ceil(load / BUSY_SHARE)


class PoolSize:
    """
    Follows the load reports between ``minimum`` and ``maximum`` replicas.

    The load is the mean number of busy replicas plus the number of waiting frames. How long these frames take is not
    known, so one step at most doubles the replicas.
    """

    def __init__(self, minimum: int, maximum: int) -> None:
        self.minimum, self.maximum = minimum, maximum
        self.wanted = minimum
        self._rising = self._falling = 0.0

    def on_load(self, report: LoadReport) -> int:
        """Take a load report, and return how many replicas the pool should have."""
        load = report.utilisation * report.servers + report.queue_length
        self._rising += (load - self._rising) * -math.expm1(-report.period_s / RISE_S)
        self._falling = max(
            self._rising, self._falling + (load - self._falling) * -math.expm1(-report.period_s / FALL_S)
        )
        up = min(replicas_for(self._rising), 2 * max(1, report.servers))
        down = min(self.wanted, replicas_for(self._falling))
        self.wanted = min(self.maximum, max(self.minimum, up, down))
        return self.wanted
