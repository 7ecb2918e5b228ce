# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Edge side: follows every robot's split, runs the tails of its activations, and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
import math
import socket
import sys
import time
from types import SimpleNamespace

from diagnostic_msgs.msg import DiagnosticStatus
import torch

from dynsplit_ros import msg
from dynsplit_ros.engine_names import EAGER
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.estimators.load import LoadReport
from dynsplit_ros.messages.fields import to_message
from dynsplit_ros.messages.tensors import from_tensors, to_tensors
from dynsplit_ros.messages.timing import describe_split, to_profile
from dynsplit_ros.metrics import EdgeMetrics
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.base_node import run
from dynsplit_ros.nodes.managed_node import END_S, ManagedNode
from dynsplit_ros.nodes.split_model import (
    batches_to_profile,
    convert_in_background,
    load,
    load_for_replicas,
    split_options,
    unload,
)
from dynsplit_ros.parameters import EDGE
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.policies.edge import EdgeSettings
from dynsplit_ros.policies.records import EdgeFrame, Status
from dynsplit_ros.policies.senders import SenderSessions
from dynsplit_ros.profile.profile import Profile
from dynsplit_ros.protocol import Side
from dynsplit_ros.runtime.conversion import Conversion
from dynsplit_ros.runtime.edge import Edge
from dynsplit_ros.runtime.ray_pool import parse_resources, RayPool
from dynsplit_ros.runtime.replica import ModelOnReplica
from dynsplit_ros.runtime.tails import EncodedAnswer
from dynsplit_ros.text import printable

#: How often the graph is searched for robots that came or left, and after how long one that is not found has left: a
#: robot whose link flickers keeps its topics.
DISCOVERY_PERIOD_S = 0.1
ABSENCE_S = 1.5
#: Most characters of an engine's name in a message; real ones have some ten.
MOST_ENGINE_CHARACTERS = 60
NO_OUTPUTS = EncodedAnswer('raw', ())
#: The topics of a robot that the edge subscribes to or publishes on.
ROBOT_TOPICS = (
    topics.ACTIVATION,
    topics.PROBE,
    topics.EDGE_SPLIT,
    topics.ACKNOWLEDGEMENT,
    topics.TAIL_RESULT,
    topics.EDGE_LOAD,
    topics.EDGE_PROFILE,
)


class RobotLink:
    """The topics of one robot, in its namespace."""

    def __init__(self, node: EdgeNode, namespace: str) -> None:
        self.namespace = namespace
        self.found_s = time.monotonic()
        self.senders = SenderSessions()
        self._lead = (0, 0, 0.0)  # session and number of what follows a lead, and when that came
        self._node = node

        def name(topic: topics.Topic) -> str:
            return topic.name_in(namespace, node.edge.name)

        self.acknowledgement = topics.ACKNOWLEDGEMENT.publisher(node, name(topics.ACKNOWLEDGEMENT))
        self.tail_result = node.downlink.publisher(topics.TAIL_RESULT, name(topics.TAIL_RESULT))
        self.edge_load = topics.EDGE_LOAD.publisher(node, name(topics.EDGE_LOAD))
        self.edge_profile = topics.EDGE_PROFILE.publisher(node, name(topics.EDGE_PROFILE))
        self.announced = False
        self._subscriptions = [
            topics.ACTIVATION.subscription(node, self._on_activation, name(topics.ACTIVATION)),
            topics.PROBE.subscription(node, self._on_probe, name(topics.PROBE)),
            topics.EDGE_SPLIT.subscription(node, self._on_split, name(topics.EDGE_SPLIT)),
        ]

    def _on_activation(self, message: msg.Activation) -> None:
        arrived_s = time.monotonic()
        if message.edge not in ('', self._node.edge.name):  # another edge's name can have the same token
            return
        self.senders.on_camera(message.session, arrived_s)
        self._node.edge.submit(
            EdgeFrame(
                robot=self.namespace,
                source=(self, message.header, message.session, message.sequence, arrived_s),
                fingerprint=message.fingerprint,
                split_index=message.split_index,
                codec=message.codec,
                answer_timeout_s=message.answer_timeout_s,
                tail_engine=printable(message.tail_engine, MOST_ENGINE_CHARACTERS),
                min_score=message.min_score,
                payload=from_tensors(message.tensors),
            )
        )

    def _on_split(self, message: msg.SplitDecision) -> None:
        if message.edge != self._node.edge.name:
            self._node.edge.on_split_elsewhere(self.namespace)
            return
        try:
            self._node.edge.on_split(
                self.namespace,
                message.fingerprint,
                message.split_index,
                message.codec,
                printable(message.tail_engine, MOST_ENGINE_CHARACTERS),
            )
        except DynsplitError as error:
            self._node.log_throttled(
                f'split of {self.namespace}', f'ignoring the split that {self.namespace} announced: {error}'
            )

    def _on_probe(self, message: msg.Probe) -> None:
        arrived_s = time.monotonic()
        if message.is_lead:
            self._lead = message.session, message.sequence, arrived_s
        else:
            self.senders.on_monitor(message.session, arrived_s)
            self.acknowledge(msg.Acknowledgement.PROBE, message.session, message.sequence, arrived_s)

    def acknowledge(self, kind: int, session: int, sequence: int, arrived_s: float) -> None:
        """Tell the robot that a message arrived, and how long after its lead."""
        led = self._lead[:2] == (session, sequence)
        self.acknowledgement.publish(
            to_message(
                msg.Acknowledgement,
                kind=kind,
                edge=self._node.edge.name,
                edge_session=self._node.edge.session,
                session=session,
                sequence=sequence,
                fingerprint=self._node.split.fingerprint,
                held_s=time.monotonic() - arrived_s,
                dispersion_s=arrived_s - self._lead[2] if led else math.nan,
            )
        )

    def announce(self) -> None:
        """Tell the robot of this edge, or of a new profile, when it can hear answers: it would miss earlier ones."""
        known = self._node.has_profile
        if known and not self.announced and self.tail_result.get_subscription_count() > 0:
            self.announced = True
            self.edge_profile.publish(self._node.profile_message())

    def close(self) -> None:
        """Give the topics back."""
        for subscription in self._subscriptions:
            self._node.forget(subscription.topic_name)
            self._node.destroy_subscription(subscription)
        for owner, publisher in (
            (self._node.downlink, self.tail_result),
            *((self._node, publisher) for publisher in (self.acknowledgement, self.edge_load, self.edge_profile)),
        ):
            self._node.forget(publisher.topic_name)
            owner.destroy_publisher(publisher)


class EdgeNode(ManagedNode):
    """Discovers robots by their profiles and serves them with one model."""

    split: SplitModel
    edge: Edge | None = None
    downlink: topics.LargeMessages | None = None
    _metrics: EdgeMetrics | None = None
    _conversion: Conversion | None = None

    def __init__(self) -> None:
        super().__init__('edge_node', EDGE)
        self._links: dict[str, RobotLink] = {}

    def configure(self) -> None:
        """Load the model."""
        values = self.values
        if values.engine_pool == 'ray':
            if values.engine != EAGER:
                raise DynsplitError(
                    f"parameter 'engine' is {values.engine!r}, but with engine_pool 'ray' it must be "
                    f'{EAGER!r}: replicas run tails in PyTorch'
                )
            self._resources = parse_resources(values.replica_resources) if values.replica_resources else None
            if len(values.replicas) != 2 or values.replicas[0] > values.replicas[1]:
                raise DynsplitError(
                    f"parameter 'replicas' is {values.replicas}, but must be the smallest and the "
                    'largest number of replicas, such as [1, 4]'
                )
            self.split, self._profile = load_for_replicas(self, values, values.batch)
        else:
            self.split, self._profile = load(self, values, values.batch, is_edge=True)
        self.downlink = topics.LargeMessages(self, 'downlink')

    def activate(self) -> None:
        """Serve robots."""
        self._load: LoadReport | None = None
        self._fault = 'no replica is ready'
        self._counts_before: dict[str, int] = {}
        self._unserved: set[str] = set()
        values = self.values
        self.edge = Edge(
            self.split,
            self,
            name=self._name(),
            profile=self._profile,
            slowdown=values.emulate_slowdown,
            servers=self._replicas() if values.engine_pool == 'ray' else None,
            settings=EdgeSettings(
                values.max_waiting, values.max_batch, values.max_batch_wait_s, values.batch, values.load_period_s
            ),
        )
        if values.metrics_port:
            self._metrics = EdgeMetrics(self._name(), values.metrics_port, values.metrics_address)
        self.every(DISCOVERY_PERIOD_S, self._discover)
        self._discover()
        if values.engine_pool == 'none':
            self._conversion = convert_in_background(
                self, self.split, values, values.batch, is_edge=True, use=self.edge.on_profile
            )
        where = self.values.device if values.engine_pool == 'none' else f'{values.replicas[0]} or more replicas'
        self.get_logger().info(f'serving {self.values.model} ({self.split.fingerprint[:12]}) on {where}')

    def _replicas(self) -> RayPool:
        """Return the replicas that run the tails of this node's model."""
        values = self.values
        return RayPool(
            ModelOnReplica(
                self.split.model,
                split_options(values),
                self.split.fingerprint,
                values.batch,
                values.emulate_slowdown,
                values.threads,
                sorted(batches_to_profile(values, self.split, values.batch)),
            ),
            address=values.ray_address,
            minimum=values.replicas[0],
            maximum=values.replicas[1],
            resources=self._resources,
            has_profile=self._profile is not None,
        )

    def _name(self) -> str:
        """Return the name by which robots know this edge."""
        return printable(self.values.edge_name or f'{self.get_namespace()}/{socket.gethostname()}'.lstrip('/'))

    @property
    def has_profile(self) -> bool:
        """Whether the times of the servers are known; replicas measure them after the start."""
        return self._profile is not None

    def profile_message(self) -> msg.Profile:
        """Return what robots need to know of this edge."""
        slowdown = self.values.emulate_slowdown
        return to_profile(
            self._profile.scaled(slowdown) if slowdown > 1 else self._profile,
            Side(self.edge.name, self.edge.session, self.values.batch, torch.__version__),
        )

    def deactivate(self, within_s: float) -> None:
        """Leave the robots, which then go on alone."""
        if self._conversion is not None:
            self._conversion.close(END_S)
        self._conversion = None
        if self.edge is not None:
            self.edge.close(within_s)
        if self._metrics is not None:
            self._metrics.close()
        self._metrics = None
        while self._links:
            self._links.popitem()[1].close()
        self.edge = None

    def cleanup(self) -> None:
        """Give the model's memory back."""
        self._withdraw()
        self.split = self._profile = None
        unload()

    def close(self) -> None:
        """Leave."""
        super().close()
        self._withdraw()

    def _withdraw(self) -> None:
        if self.downlink is not None:
            self.downlink.close()
        self.downlink = None

    def _discover(self) -> None:
        if self.edge is None:  # deactivated since this call was due
            return
        now_s = time.monotonic()
        self._unserved.clear()
        for namespace in self._robots():
            if (link := self._links.get(namespace)) is not None:
                link.found_s = now_s
            elif not topics.have_valid_names(ROBOT_TOPICS, namespace, self.edge.name):
                self.log_throttled(
                    'names',
                    f'the robot in namespace {namespace} is not served: ROS 2 refuses the name of one of its '
                    'topics, because a topic name has at most 247 characters; start the robot in a shorter namespace',
                )
            elif len(self._links) >= self.values.max_robots:
                self._unserved.add(namespace)
                self.log_throttled(
                    'robots',
                    f'not serving the robot in namespace {namespace}: {len(self._links)} robots are served; '
                    'raise max_robots',
                )
            else:
                self._links[namespace] = RobotLink(self, namespace)
                self.get_logger().info(f'serving the robot in namespace {namespace}')
        for namespace, link in list(self._links.items()):
            if now_s - link.found_s > ABSENCE_S:
                self.get_logger().info(f'the robot in namespace {namespace} left')
                self.edge.forget(namespace)
                self._links.pop(namespace).close()
            else:
                link.announce()

    def _robots(self) -> list[str]:
        """Return the namespaces in which a robot offers its profile."""
        suffix = '/' + topics.ROBOT_PROFILE.name
        return [
            name[: -len(suffix)] or '/'
            for name, types in self.get_topic_names_and_types()
            if name.endswith(suffix) and topics.ROBOT_PROFILE.type_name in types and self.count_publishers(name)
        ]

    def diagnose(self) -> tuple[bytes, str, dict[str, object]]:
        """Tell how busy the edge is, where each robot is split, and whom it refuses; a failing tail is an error."""
        counts = self.edge.counts()
        before, self._counts_before = self._counts_before, counts
        load = asdict(self._load) if self._load is not None else {}
        load.pop('refused_total', None)
        values = {
            **load,
            'robots': ', '.join(self._links) or 'none',
            'robots_not_served': len(self._unserved),
            'answered': 0,
            'refused': 0,
            'superseded': 0,
            'failed': 0,
            **counts,
            **self._splits(),
        }

        def grows(name: str) -> bool:
            return counts.get(name, 0) > before.get(name, 0)

        if self._load is not None and not self._load.servers:
            return DiagnosticStatus.ERROR, f'no capacity: {self._fault}', values
        if grows('failed'):
            return DiagnosticStatus.ERROR, 'tails fail', values
        if grows('refused'):
            robots, kinds = (
                ', '.join(name.removeprefix(prefix) for name in counts if name.startswith(prefix) and grows(name))
                for prefix in ('refused from ', 'refused: ')
            )
            return DiagnosticStatus.WARN, f'refusing activations from {robots}: {kinds}', values
        if grows('engine not ready'):
            return DiagnosticStatus.WARN, 'running tails on eager: the engine that robots name is not ready', values
        if self._unserved:
            some = ', '.join(sorted(self._unserved)[:10])
            return DiagnosticStatus.WARN, f'not serving {len(self._unserved)} robots ({some}); raise max_robots', values
        return DiagnosticStatus.OK, f'serving {len(self._links)} robot{"s" * (len(self._links) != 1)}', values

    def shared_namespaces(self) -> list[str]:
        """Return the namespaces in which this edge hears two robots."""
        now_s = time.monotonic()
        return [namespace for namespace, link in self._links.items() if link.senders.has_duplicate(now_s)]

    def _splits(self) -> dict[str, str]:
        """Return, in words, the split that each robot has announced."""
        announced = self.edge.splits()
        return {
            f'split of {namespace}': describe_split(
                SimpleNamespace(split_index=index, split_name=self.split.cuts[index].name, codec=codec)
            )
            for namespace, (index, codec) in announced.items()
            if namespace in self._links
        }

    # ---- what the edge does to the world (runtime.edge.EdgeIO); called from its threads too ------------------------

    def acknowledge(self, frame: EdgeFrame) -> None:
        """Acknowledge an activation."""
        link, _, session, sequence, arrived_s = frame.source
        link.acknowledge(msg.Acknowledgement.ACTIVATION, session, sequence, arrived_s)

    def answer(self, frame: EdgeFrame) -> None:
        """Send an answer to the robot that the frame came from."""
        link, header, session, sequence, _ = frame.source
        if frame.status is Status.REFUSED:
            self.log_throttled(
                f'refused {frame.robot}', f'activation from {frame.robot} refused: {frame.reason}', error=True
            )
        answer = frame.outputs or NO_OUTPUTS
        link.tail_result.publish(
            to_message(
                msg.TailResult,
                frame.times,
                header=header,
                session=session,
                sequence=sequence,
                fingerprint=self.split.fingerprint,
                split_index=frame.split_index,
                status=int(frame.status),
                reason=frame.reason,
                codec=answer.codec,
                outputs=to_tensors(answer.tensors),
            )
        )

    def report_load(self, report: LoadReport, queueing_s: Mapping[str, float]) -> None:
        """Send the load report to each robot."""
        self._load = report
        if self._metrics is not None and self.edge is not None:
            self._metrics.on_load(report, queueing_s, self.edge.splits(), self.edge.counts())
        for link in list(self._links.values()):
            try:
                link.edge_load.publish(
                    to_message(
                        msg.EdgeLoad,
                        report,
                        model=self.values.model,
                        fingerprint=self.split.fingerprint,
                        queueing_s=queueing_s.get(link.namespace, 0.0),
                    )
                )
            except Exception:
                if link.namespace in self._links:  # else the robot left meanwhile, and its publishers went
                    raise

    def keep_profile(self, profile: Profile) -> None:
        """Take a profile that was measured after the start; robots hear of it."""
        self._profile = profile
        for link in list(self._links.values()):
            link.announced = False

    def fault(self, reason: str) -> None:
        """Log what the edge survived."""
        self._fault = reason
        self.log_throttled(f'fault {reason[:40]}', reason, error=True)


def main(args: list[str] | None = None) -> int:
    """Run the node."""
    return run(EdgeNode, args)


if __name__ == '__main__':
    sys.exit(main())
