# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The action by which each policy asks for a call at an instant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WakeAt:
    """Call ``on_time`` of the policy at this instant (infinity: never); replaces the policy's WakeAt before it."""

    at_s: float
