# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Listen to a running system and keep what a demonstration reports."""

from __future__ import annotations

import math
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64

from dynsplit_ros import msg
from dynsplit_ros.nodes import topics

#: Parts of a frame's latency, in the order in which they happen.
PARTS = ('wait_s', 'resize_s', 'head_s', 'encode_s', 'link_wait_s', 'transfer_s', 'queueing_s', 'decode_s', 'tail_s',
         'finish_s')


class Recorder(Node):
    """Subscribes to one robot's topics; keeps every prediction and the latest of everything else."""

    def __init__(self, namespace: str) -> None:
        super().__init__('recorder', namespace=f'/{namespace}')
        self.frames: list[dict[str, Any]] = []
        self.split: msg.SplitDecision | None = None
        self.link: msg.LinkState | None = None
        self.load: msg.EdgeLoad | None = None
        self.true_rate_bps = math.nan
        self.counters: dict[str, int] = {}
        self._quiet = 0  # reports of the camera in a row that said the same
        self.deciding = False
        self._camera, self._monitor = (f'/{namespace}/{node}' for node in ('camera_node', 'monitor_node'))
        # Deeper than the publisher's, so that no prediction is missed while a table is drawn.
        self.create_subscription(msg.Prediction, 'prediction', self._on_prediction, QoSProfile(depth=1000))
        topics.SPLIT.subscription(self, lambda message: setattr(self, 'split', message))
        topics.LINK_STATE.subscription(self, lambda message: setattr(self, 'link', message))
        topics.EDGE_LOAD.subscription(self, lambda message: setattr(self, 'load', message))
        self.create_subscription(Float64, 'emulated_rate_bps', self._on_rate, 10)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 100)

    def _on_rate(self, message: Float64) -> None:
        self.true_rate_bps = message.data

    def _on_prediction(self, message: msg.Prediction) -> None:
        timing = message.timing
        self.frames.append({
            'sequence': timing.sequence,
            'time_s': time.monotonic(),
            'stamp_ns': message.header.stamp.sec * 10**9 + message.header.stamp.nanosec,
            'split_index': timing.split_index,
            'split_name': timing.split_name,
            'codec': timing.codec,
            'outcome': {timing.ANSWERED: 'answered', timing.LOCAL: 'local',
                        timing.FELL_BACK: 'fell back'}[timing.state],
            'payload_bytes': timing.payload_bytes,
            'latency_s': timing.latency_s,
            'parts_s': {part.removesuffix('_s'): getattr(timing, part) for part in PARTS},
            'rate_true_bps': self.true_rate_bps,
            'rate_estimated_bps': self.link.throughput_bps if self.link else math.nan,
            'link_alive': self.link.alive if self.link else False,
            'edge_utilisation': self.load.utilisation if self.load else math.nan,
            'class_ids': list(message.class_ids),
            'scores': list(message.scores),
            'output_digest': message.output_digest,
        })

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._camera:
                counters = {pair.key: int(pair.value) for pair in status.values}
                self._quiet = self._quiet + 1 if counters == self.counters else 0
                self.counters = counters
            elif status.name == self._monitor:
                self.deciding = status.level == DiagnosticStatus.OK

    def settled(self) -> bool:
        """Whether the camera, which has no more images, has done every frame, and every prediction has arrived here."""
        accepted, failed = (self.counters.get(name, 0) for name in ('accepted', 'failed'))
        return self._quiet >= 2 and accepted == self.counters['delivered'] + failed == len(self.frames) + failed
