# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What robots and edges tell Prometheus: the metrics by their names, and the HTTP server that offers them."""

from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Any

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.policies.records import FrameRecord, LATENCY_PARTS, Outcome, SplitDecision

PIP = "pip install 'prometheus_client>=0.20,<1'"
#: Upper bounds of the latency histogram, in seconds: a factor of about 1.6 apart, so that a quantile is that exact.
LATENCY_BOUNDS_S = (0.005, 0.008, 0.0125, 0.02, 0.03, 0.05, 0.08, 0.125, 0.2, 0.3, 0.5, 0.8, 1.25, 2.0, 5.0)


class _Metrics:
    """Metrics of one node, offered on a port until ``close``."""

    def __init__(self, port: int, address: str) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise DynsplitError(
                f"parameter 'metrics_port' is {port}, but prometheus_client is not installed; {PIP}"
            ) from error
        self._client = prometheus_client
        #: The metrics, for a test to read.
        self.registry = prometheus_client.CollectorRegistry()
        try:
            self._server, self._thread = prometheus_client.start_http_server(port, address, self.registry)
        except (OSError, OverflowError) as error:
            raise DynsplitError(
                f'metrics cannot be offered on {address}:{port} ({error}); choose another metrics_port '
                'or metrics_address'
            ) from error

    def _counter(self, name: str, text: str, *labels: str) -> Any:
        return self._client.Counter(f'dynsplit_{name}', text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Any:
        return self._client.Gauge(f'dynsplit_{name}', text, labels, registry=self.registry)

    def close(self) -> None:
        """Stop offering the metrics."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class RobotMetrics(_Metrics):
    """The metrics of the robot in the namespace ``robot``: its frames, decisions, link and agreement."""

    def __init__(self, robot: str, port: int, address: str) -> None:
        super().__init__(port, address)
        self._robot = robot
        self._frames = self._counter('frames', 'Frames by outcome', 'robot', 'outcome')
        self._latency = self._client.Histogram(
            'dynsplit_frame_latency_seconds',
            "Latency, from an image's arrival to its prediction",
            ('robot',),
            registry=self.registry,
            buckets=LATENCY_BOUNDS_S,
        )
        self._parts = self._client.Summary(
            'dynsplit_frame_part_seconds', 'Parts of the latency', ('robot', 'part'), registry=self.registry
        )
        self._payload = self._counter('payload_bytes', 'Bytes of payloads sent to the edge', 'robot')
        self._split = self._gauge('split', 'Split index in use', 'robot')
        self._degraded = self._gauge(
            'degraded', '1 while the robot runs the whole network because no edge answers', 'robot'
        )
        self._predicted = self._gauge('predicted_latency_seconds', 'Predicted latency of the choice in use', 'robot')
        self._decisions = self._counter('decisions', 'Decisions of the monitor', 'robot')
        self._rate = self._gauge(
            'link_rate_bits_per_second', 'Estimated throughput to the edge; 0 while it is silent', 'robot'
        )
        self._round_trip = self._gauge('link_round_trip_seconds', 'Base round-trip time to the edge', 'robot')
        self._agreement = self._gauge('agreement', 'Running agreement of a lossy choice', 'robot', 'split', 'codec')

    def on_frame(self, frame: FrameRecord) -> None:
        """Count a frame that ended, or the late answer to one."""
        if frame.outcome is Outcome.SENT:
            self._payload.labels(self._robot).inc(frame.payload_bytes)
            return
        self._frames.labels(self._robot, str(frame.outcome)).inc()
        if frame.outcome is Outcome.LATE or not 0 <= frame.latency_s < math.inf:
            return
        self._latency.labels(self._robot).observe(frame.latency_s)
        for part in LATENCY_PARTS:
            value_s = getattr(frame, part)
            if 0 <= value_s < math.inf:
                self._parts.labels(self._robot, part.removesuffix('_s')).observe(value_s)

    def on_decision(self, decision: SplitDecision) -> None:
        """Show a decision."""
        self._decisions.labels(self._robot).inc()
        self._split.labels(self._robot).set(decision.split_index)
        self._degraded.labels(self._robot).set(decision.degraded)
        self._predicted.labels(self._robot).set(decision.predicted_latency_s)

    def on_link(self, alive: bool, throughput_bps: float, round_trip_s: float) -> None:
        """Show the estimate of the link."""
        self._rate.labels(self._robot).set(throughput_bps if alive else 0.0)
        self._round_trip.labels(self._robot).set(round_trip_s)

    def on_agreement(self, split_index: int, codec: str, agreement: float) -> None:
        """Show the running agreement of a choice; only of those that the profile has, which bounds their number."""
        self._agreement.labels(self._robot, str(split_index), codec).set(agreement)


class EdgeMetrics(_Metrics):
    """The metrics of the edge called ``edge``: its load, its answers, and its robots."""

    def __init__(self, edge: str, port: int, address: str) -> None:
        super().__init__(port, address)
        self._edge = edge
        self._answered: dict[str, int] = {}
        self._loads = {
            name: self._gauge(f'edge_{name}', text, 'edge')
            for name, text in {
                'servers': 'Tails that can run at the same time',
                'utilisation': 'Busy share of the servers, 0 to 1',
                'queue_length': 'Frames that wait for their tail',
                'slowdown': 'Time of the latest tails divided by the profiled time',
                'robots': 'Robots that sent something in the last seconds',
            }.items()
        }
        self._answers = self._counter('edge_answers', 'Answers by status', 'edge', 'status')
        self._queueing = self._gauge('edge_queueing_seconds', "Queueing delay of a robot's frames", 'edge', 'robot')
        self._splits = self._gauge('edge_robot_split', 'Split index that a robot has announced', 'edge', 'robot')

    def on_load(
        self,
        report: LoadReport,
        queueing_s: Mapping[str, float],
        splits: Mapping[str, tuple[int, str]],
        counts: Mapping[str, int],
    ) -> None:
        """Show a load report, the queueing delay and the split of each robot, and the frames by status."""
        for name, gauge in self._loads.items():
            gauge.labels(self._edge).set(getattr(report, name))
        for status in ('answered', 'refused', 'superseded', 'failed'):
            count = counts.get(status, 0)
            self._answers.labels(self._edge, status).inc(max(0, count - self._answered.get(status, 0)))
            self._answered[status] = count
        for gauge, values in (
            (self._queueing, queueing_s),
            (self._splits, {robot: split for robot, (split, _) in splits.items()}),
        ):
            gauge.clear()  # robots that left
            for robot, value in values.items():
                gauge.labels(self._edge, robot).set(value)
