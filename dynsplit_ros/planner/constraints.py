# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The user's limits on the planner's choice, and the objective."""

from __future__ import annotations

from dataclasses import dataclass

OBJECTIVES = ('latency', 'frame_rate', 'deadline')
#: The value of ``codecs`` that allows all codecs. ROS parameters cannot hold an empty list of strings.
ALL_CODECS = ('',)


@dataclass(frozen=True)
class PlannerConstraints:
    """
    The user's limits on the choice of split and codec.

    ``objective`` is 'latency' (of one frame), 'frame_rate' (the slowest stage decides) or 'deadline' (the share of
    frames whose latency is at most ``deadline_s`` seconds). ``min_agreement`` (0 to 1) bounds the agreement of lossy
    codecs and of engines with the unquantised model. 1 allows only lossless codecs and exact engines. Less also allows
    those whose measured interval lies above the bound. 0 allows all. ``codecs`` further restricts the codecs to the
    named ones ('' as the only name: all). ``shallowest_split`` is the smallest split index whose activation may leave
    the robot, ``pinned_split`` the only allowed split (-1: any). ``bandwidth_bps`` limits the mean rate of payloads
    (bit/s, 0: no limit) at ``frame_rate_hz`` offered images per second.

    A change of choice must gain more than ``switching_cost`` (share of the predicted latency) plus ``confidence``
    standard deviations of the gain. ``answer_timeout_s`` (s) replaces the default answer timeout (0: keep the default).
    ``waiting_share`` (0 to 1) is the share of the frame rate that the camera may give up to start on newer images.
    """

    objective: str = 'latency'
    deadline_s: float = 0.1
    codecs: tuple[str, ...] = ALL_CODECS
    min_agreement: float = 1.0
    shallowest_split: int = 0
    pinned_split: int = -1
    bandwidth_bps: float = 0.0
    frame_rate_hz: float = 10.0
    switching_cost: float = 0.01
    confidence: float = 3.5
    answer_timeout_s: float = 0.0
    waiting_share: float = 0.08

    @property
    def latency_waiting_share(self) -> float:
        """The waiting share that applies: 0 where the frame rate is the objective."""
        return self.waiting_share if self.objective != 'frame_rate' else 0.0
