# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Listen to a running system and keep what a demonstration reports."""

from __future__ import annotations

import math
import time
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64

from dynsplit_ros import msg
from dynsplit_ros.messages.fields import shared_names
from dynsplit_ros.messages.timing import OUTCOMES
from dynsplit_ros.nodes.watch import Watch
from dynsplit_ros.policies.records import FrameRecord


class Recorder(Node):
    """
    Subscribes to one robot's topics; keeps every prediction and every change of the split, and watches the rest.

    Of the other robot it watches, in ``other``, whether it is ready and how many frames it does.
    """

    def __init__(self, namespace: str, other: str) -> None:
        super().__init__('recorder', namespace=f'/{namespace}')
        self.frames: list[dict[str, Any]] = []
        self.decisions: list[dict[str, Any]] = []
        self.rates: list[dict[str, float]] = []  # when the emulated link's rate changed, and to what
        self.watch = Watch(self, namespace, self._on_split)
        self.other = Watch(self, other)
        # Deeper than the publisher's, so that no prediction is missed while a table is drawn.
        self.create_subscription(msg.Prediction, 'prediction', self._on_prediction, QoSProfile(depth=1000))
        self.create_subscription(Float64, 'emulated_rate_bps', self._on_rate, 10)

    def _on_rate(self, message: Float64) -> None:
        if not self.rates or message.data != self.rates[-1]['rate_bps']:
            self.rates.append({'time_s': time.monotonic(), 'rate_bps': message.data})

    def _on_prediction(self, message: msg.Prediction) -> None:
        timing, link, load = message.timing, self.watch.link, self.watch.load
        self.frames.append(
            {
                **{name: getattr(timing, name) for name in shared_names(FrameRecord, msg.FrameTiming)},
                'outcome': OUTCOMES[timing.outcome],
                'time_s': time.monotonic(),
                'stamp_ns': message.header.stamp.sec * 10**9 + message.header.stamp.nanosec,
                'rate_true_bps': self.rates[-1]['rate_bps'] if self.rates else math.nan,
                'rate_estimated_bps': link.throughput_bps if link else math.nan,
                'link_alive': link.alive if link else False,
                'round_trip_s': link.round_trip_s if link else math.nan,
                'edge_queueing_s': link.edge_queueing_s if link else math.nan,
                'probe_bytes_total': link.probe_bytes_total if link else math.nan,
                'edge_utilisation': load.utilisation if load else math.nan,
                'class_ids': list(message.class_ids),
                'label': message.labels[0] if message.labels else '',
                'scores': list(message.scores),
                'output_digest': message.output_digest,
            }
        )

    def _on_split(self, message: msg.SplitDecision) -> None:
        choice = {'split_index': message.split_index, 'split_name': message.split_name, 'codec': message.codec}
        if not self.decisions or any(self.decisions[-1][key] != value for key, value in choice.items()):
            self.decisions.append({'time_s': time.monotonic(), **choice, 'reason': message.reason})

    def settled(self) -> bool:
        """Whether the camera, which has no more images, has done every frame, and every prediction has arrived here."""
        counters = self.watch.counters
        accepted, failed = (counters.get(name, 0) for name in ('accepted', 'failed'))
        return self.watch.quiet >= 2 and accepted == counters['delivered'] + failed == len(self.frames) + failed
