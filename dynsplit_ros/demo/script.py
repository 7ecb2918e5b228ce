# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What happens during the demonstration, and when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A part of the demonstration: its share of the whole, the link's rate in Mbit/s, and whether the edge is busy."""

    name: str
    share: float
    rate_mbps: float
    other_robot: bool = False


STEPS = (
    Step('fast', 0.18, 100.0),
    Step('slow', 0.17, 4.0),
    Step('slower', 0.15, 1.0),
    Step('dead', 0.12, 0.0),
    Step('fast again', 0.14, 100.0),
    Step('edge busy', 0.14, 100.0, other_robot=True),
    Step('fast', 0.10, 100.0),
)
