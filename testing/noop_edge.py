# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""An edge node whose tails do nothing, and a bare node that makes the same copies; processes of bench/fleet.py."""

from __future__ import annotations

from collections.abc import Callable
import sys
from unittest import mock

from dynsplit_ros import msg
from dynsplit_ros.messages.fields import to_message
from dynsplit_ros.messages.tensors import from_tensors, to_tensors
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.base_node import BaseNode, run
from dynsplit_ros.nodes.edge_node import EdgeNode
from dynsplit_ros.parameters import REMOTE_CONTROL
from dynsplit_ros.runtime import edge
from dynsplit_ros.runtime.tails import Payload
from testing.fleet_robots import EDGE
from testing.tails import SleepingTails


class NoOpEdge(EdgeNode):
    """The edge node with tails that take no time, in the thread that runs real ones."""

    def activate(self) -> None:
        """Serve robots."""
        with mock.patch.object(edge, 'TailRunner', lambda *_: SleepingTails()):
            super().activate()


class BareNode(BaseNode):
    """Acknowledges and answers each activation in its callback, and does nothing else."""

    def __init__(self) -> None:
        super().__init__('bare_node', (REMOTE_CONTROL,))
        self._loads: dict[str, Callable[[], None]] = {}
        self._tails = SleepingTails()

    def start(self) -> None:
        """Look for robots, and tell them of this edge."""
        super().start()
        self.every(0.1, self._discover)
        self.every(0.2, lambda: [tell() for tell in self._loads.values()] and None)

    def _discover(self) -> None:
        for name, _ in self.get_topic_names_and_types():
            namespace, _, topic = name.rpartition('/')
            if topic == topics.ROBOT_PROFILE.name and namespace not in self._loads:
                self._serve(namespace)

    def _serve(self, namespace: str) -> None:
        def publisher(topic: topics.Topic):  # type: ignore[no-untyped-def]
            return topic.publisher(self, topic.name_in(namespace))

        acknowledgement, result, load = map(publisher, (topics.ACKNOWLEDGEMENT, topics.TAIL_RESULT, topics.EDGE_LOAD))

        def answer(message: msg.Activation) -> None:
            payload = Payload(message.codec, from_tensors(message.tensors))
            acknowledgement.publish(
                to_message(
                    msg.Acknowledgement,
                    kind=msg.Acknowledgement.ACTIVATION,
                    session=message.session,
                    sequence=message.sequence,
                    fingerprint=message.fingerprint,
                )
            )
            (answered,), _ = self._tails.run((0, ''), [payload])
            result.publish(
                to_message(
                    msg.TailResult,
                    header=message.header,
                    session=message.session,
                    sequence=message.sequence,
                    fingerprint=message.fingerprint,
                    outputs=to_tensors(answered.tensors),
                )
            )

        topics.ACTIVATION.subscription(self, answer, topics.ACTIVATION.name_in(namespace, EDGE))
        self._loads[namespace] = lambda: load.publish(to_message(msg.EdgeLoad, fingerprint='bare', servers=1))


if __name__ == '__main__':
    run({'edge': NoOpEdge, 'bare': BareNode}[sys.argv.pop(1)])
