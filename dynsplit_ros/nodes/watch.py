# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Watch one robot by its topics and say in words how it is: what the demonstration and ``top`` show."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
import contextlib
import statistics
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from dynsplit_ros import msg
from dynsplit_ros.messages.timing import describe_split, OUTCOMES
from dynsplit_ros.nodes import topics
from dynsplit_ros.policies.records import Outcome
from dynsplit_ros.protocol import MOST_EDGES
from dynsplit_ros.text import printable

#: Frames whose latency and rate are shown.
RECENT = 20
#: Most counters of a camera that are kept, and characters of a counter's name; a camera has a dozen.
MOST_COUNTERS, MOST_NAME = 100, 60
#: Outcomes that end a frame, in the order in which they are shown.
SHOWN = (Outcome.ANSWERED, Outcome.LOCAL, Outcome.FELL_BACK)
#: The topics of a robot that are watched.
WATCHED = (topics.SPLIT, topics.LINK_STATE, topics.EDGE_LOAD, topics.FRAME_TIMING, topics.AGREEMENT)


class Watch:
    """
    The latest of everything that a robot says, and how its recent frames went.

    ``node`` subscribes to the topics in ``namespace``, best effort wherever that does: who watches shall not make a
    slow link slower. ``on_split`` is told of every decision. ``outcomes`` counts frames since the watch began;
    ``counters`` are the camera's own, since its start.
    """

    def __init__(
        self, node: Node, namespace: str, on_split: Callable[[msg.SplitDecision], None] = lambda message: None
    ) -> None:
        self._told_of_split = on_split
        self.namespace = namespace.strip('/')
        self.split: msg.SplitDecision | None = None
        self.link: msg.LinkState | None = None
        self._loads: dict[str, msg.EdgeLoad] = {}  # by edge
        self.last: msg.FrameTiming | None = None
        self.agreement: msg.Agreement | None = None
        self.outcomes: Counter[str] = Counter()
        self.counters: dict[str, int] = {}
        self._version_faults: dict[str, str] = {}
        self.deciding = False  # by the monitor's own word
        self.quiet = 0  # reports of the camera in a row that said the same
        self.began_s = time.monotonic()
        self.heard_s = self.began_s
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)  # when it was done, and its latency
        prefix = f'/{self.namespace}' if self.namespace else ''
        self._names = {f'{prefix}/{name}': name for name in ('camera_node', 'monitor_node')}
        gentle = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
        # Reliable, because a decision that was made before the watch began is only then handed on.
        self._subscriptions = [
            topic.subscription(
                node,
                callback,
                f'{prefix}/{topic.name}',
                on_version=self._on_version,
                qos=None if topic is topics.SPLIT else gentle,
            )
            for topic, callback in zip(
                WATCHED, (self._on_split, self._on_link, self._on_load, self._on_timing, self._on_agreement)
            )
        ]
        self._subscriptions.append(
            node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, gentle)
        )

    def close(self, node: Node) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            node.destroy_subscription(subscription)

    def _on_version(self, topic: str, fault: str) -> None:
        if fault:
            self.heard_s = time.monotonic()
            self._version_faults[topic] = fault
        else:
            self._version_faults.pop(topic, None)

    def _on_split(self, message: msg.SplitDecision) -> None:
        self.split = message
        self.heard_s = time.monotonic()
        self._told_of_split(message)

    def _on_link(self, message: msg.LinkState) -> None:
        self.link = message
        self.heard_s = time.monotonic()

    def _on_load(self, message: msg.EdgeLoad) -> None:
        if message.edge in self._loads or len(self._loads) < MOST_EDGES:
            self._loads[message.edge] = message

    @property
    def load(self) -> msg.EdgeLoad | None:
        """The latest load report of the edge in use; where the monitor names none, of the only edge that reports."""
        if self.link is None and len(self._loads) == 1:
            return next(iter(self._loads.values()))
        return self._loads.get(self.link.edge) if self.link is not None else None

    def _on_timing(self, message: msg.FrameTiming) -> None:
        outcome = OUTCOMES.get(message.outcome)
        if outcome in SHOWN:
            self.last = message
            self.heard_s = time.monotonic()
            self.outcomes[outcome] += 1
            self._recent.append((self.heard_s, message.latency_s))

    def _on_agreement(self, message: msg.Agreement) -> None:
        self.agreement = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = self._names.get(status.name)
            if name == 'camera_node':
                counters: dict[str, int] = {}
                for pair in status.values[:MOST_COUNTERS]:
                    with contextlib.suppress(ValueError):  # what is no number is no counter
                        counters[pair.key[:MOST_NAME]] = int(pair.value[:20])
                self.quiet = self.quiet + 1 if counters == self.counters else 0
                self.counters = counters
            elif name == 'monitor_node':
                self.deciding = status.level == DiagnosticStatus.OK

    @property
    def version_fault(self) -> str:
        """A sentence if messages of this robot or its edge have another protocol version, else empty."""
        return next(iter(self._version_faults.values()), '')

    @property
    def median_s(self) -> float | None:
        """Median latency of the recent frames."""
        return statistics.median(latency_s for _, latency_s in self._recent) if self._recent else None

    def rate_hz(self, now_s: float) -> float:
        """Return the frames per second since the oldest of the recent ones."""
        return (len(self._recent) - 1) / max(now_s - self._recent[0][0], 1e-3) if len(self._recent) > 1 else 0.0


def _edge_in_words(state: msg.EdgeState) -> str:
    """Return the state of an edge that is not in use."""
    words = 'not used' if not state.usable else 'silent' if not state.alive else f'{state.latency_s * 1e3:.0f} ms'
    return f'{state.edge[:MOST_NAME]} {words}'


def facts(watch: Watch) -> dict[str, str]:
    """Return how a robot is, in words by name; what is not known is left out. The words are safe to print."""
    split, link, load, last, agreement = watch.split, watch.link, watch.load, watch.last, watch.agreement
    found: dict[str, Any] = {
        'split': describe_split(split) if split else '',
        'reason': watch.version_fault or (split.reason if split else ''),
        'throughput': (f'{link.throughput_bps / 1e6:.3g} Mbit/s' if link.alive else 'link lost') if link else '',
        'round trip': f'{link.round_trip_s * 1e3:.1f} ms' if link else '',
        'edge': (
            f'{load.edge}: {_capacity(load.servers)}{load.utilisation:.0%} busy, {load.robots} '
            f'robot{"s" * (load.robots != 1)} sending'
            if load
            else ''
        )
        + (f', queue {link.edge_queueing_s * 1e3:.1f} ms' if link and load else ''),
        'other edges': '; '.join(_edge_in_words(state) for state in link.edges[:MOST_EDGES] if state.edge != link.edge)
        if link
        else '',
        'latency': f'{last.latency_s * 1e3:.0f} ms, median {(watch.median_s or 0.0) * 1e3:.0f} ms' if last else '',
        'agreement': (
            f'{agreement.agreement:.3f} ({agreement.low:.3f} to {agreement.high:.3f}), {agreement.audits} '
            f'audits of split {agreement.split_index} {agreement.codec}' + ', taken out' * agreement.removed
        )
        if agreement
        else '',
        'frames': f'{watch.rate_hz(time.monotonic()):.1f}/s: '
        + ', '.join(f'{watch.outcomes[outcome]} {outcome.replace("_", " ")}' for outcome in SHOWN)
        if watch.outcomes
        else '',
    }
    return {name: printable(text, 300) for name, text in found.items() if text}


def _capacity(servers: int) -> str:
    """Return the number of an edge's servers in words; nothing of the usual one."""
    return '' if servers == 1 else 'no capacity, ' if servers == 0 else f'{servers} servers, '
