# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Every topic of the package: its type, its quality of service, and the reason for that quality of service."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import copy
from dataclasses import dataclass
from typing import Any

import rclpy
from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rclpy.validate_full_topic_name import validate_full_topic_name
from sensor_msgs.msg import Image

from dynsplit_ros import msg
from dynsplit_ros.messages import fields
from dynsplit_ros.messages.vision import vision
from dynsplit_ros.protocol import check_version, edge_token, MOST_EDGES, VersionError


def _qos(depth: int, *, reliable: bool = True, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


@dataclass(frozen=True)
class Topic:
    """
    A topic, relative to the robot's namespace; ``why`` is the reason for its quality of service.

    ``type`` is the class of the message, or its name if its package is not installed; the topic is then unavailable.
    Of a topic ``per_edge`` there is one for each edge, so that its bytes travel to no other edge: the edge's token
    follows the name.
    """

    name: str
    type: Any
    qos: QoSProfile
    why: str
    per_edge: bool = False

    def name_in(self, namespace: str, edge: str = '') -> str:
        """Return the name of the topic in a robot's namespace; ``edge`` counts for a topic per edge."""
        name = f'{namespace.rstrip("/")}/{self.name}'
        return f'{name}/{edge_token(edge)}' if self.per_edge else name

    def name_to(self, edge: str, node: Node) -> str:
        """Return the name of the topic to one edge as the robot's node has it: remapping the topic's name applies."""
        return f'{node.resolve_topic_name(self.name)}/{edge_token(edge)}'

    @property
    def type_name(self) -> str:
        """The message's name, for example ``sensor_msgs/msg/Image``."""
        if isinstance(self.type, str):
            return self.type
        return f'{self.type.__module__.split(".")[0]}/msg/{self.type.__name__}'

    def publisher(self, node: Node, name: str | None = None) -> Publisher:
        """Create a publisher; ROS 2's QoS override parameters apply."""
        return node.create_publisher(
            self.type,
            name or self.name,
            copy.copy(self.qos),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def subscription(
        self,
        node: Node,
        callback: Any,
        name: str | None = None,
        *,
        qos: QoSProfile | None = None,
        on_version: Callable[[str, str], None] | None = None,
        **options: Any,
    ) -> Subscription:
        """
        Create a subscription; ROS 2's QoS override parameters apply. ``qos`` replaces the topic's own.

        Messages of another protocol version do not reach ``callback``. For each message, ``on_version`` (default: the
        node's) gets the name of the topic and a sentence about the version, empty if the version is ours.
        """
        report = on_version or getattr(node, 'on_version', lambda topic, fault: None)

        def checked(message: Any) -> None:
            fault = ''
            try:
                check_version(message.protocol_version, f'the latest message on {full_name}')
            except VersionError as error:
                fault = str(error)
            report(full_name, fault)
            if not fault:
                callback(message)

        has_version = not options.get('raw') and not isinstance(self.type, str) and fields.has_version(self.type)
        subscription = node.create_subscription(
            self.type,
            name or self.name,
            checked if has_version else callback,
            copy.copy(qos or self.qos),
            **options,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        full_name = subscription.topic_name
        return subscription


def have_valid_names(topics: Iterable[Topic], namespace: str, edge: str = '') -> bool:
    """
    Return whether ROS 2 accepts the names that topics have in a namespace, those per edge for this edge.

    The namespace may be a peer's: one topic's name may be valid there while the name of another topic is too long.
    """
    try:
        for topic in topics:
            validate_full_topic_name(topic.name_in(namespace, edge))
    except NameValidationException:
        return False
    return True


class LargeMessages:
    """
    A second DDS participant of a node, for publishers of large messages.

    A message that waits for a slow link otherwise holds up all that its participant publishes: predictions came 0.2 s
    late while an activation of 0.5 s was on its way. Besides, a node's own participant sends in the publishing thread.
    """

    def __init__(self, node: Node, suffix: str) -> None:
        self._main_node = node
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node(
            f'{node.get_name()}_{suffix}',
            namespace=node.get_namespace(),
            context=self._context,
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )

    def publisher(self, topic: Topic, name: str | None = None) -> Publisher:
        """Create a publisher under the name and with the quality of service that it would have on the node."""
        # Made there first: its remappings apply, and its parameters may override the quality of service.
        publisher = topic.publisher(self._main_node, name)
        full_name, qos = publisher.topic_name, publisher.qos_profile
        self._main_node.destroy_publisher(publisher)
        return self._node.create_publisher(topic.type, full_name, qos)

    def destroy_publisher(self, publisher: Publisher) -> None:
        """Give a publisher back."""
        self._node.destroy_publisher(publisher)

    def close(self) -> None:
        """Withdraw the publishers."""
        self._node.destroy_node()
        self._context.try_shutdown()


def _vision(name: str) -> Any:
    return getattr(vision, name, f'vision_msgs/msg/{name}')


ACTIVATION = Topic(
    'activation',
    msg.Activation,
    _qos(1),
    'DDS must resend a lost fragment, but only of the newest payload: with depth 1, DDS stops resending '
    'a payload when the robot sends the next one.',
    per_edge=True,
)
TAIL_RESULT = Topic(
    'tail_result', msg.TailResult, _qos(8), 'The robot needs every answer; a few can be on the link at the same time.'
)
ACKNOWLEDGEMENT = Topic(
    'acknowledgement', msg.Acknowledgement, _qos(16), 'A lost acknowledgement would delay the next payload.'
)
PROBE = Topic(
    'probe',
    msg.Probe,
    _qos(2, reliable=False),
    'A resent probe measures nothing; depth 2 holds a probe and its lead.',
    per_edge=True,
)
EDGE_LOAD = Topic(
    'edge_load',
    msg.EdgeLoad,
    _qos(MOST_EDGES, reliable=False),
    'The next report comes soon, and a resent old one would mislead. The depth is enough for a report of each edge.',
)
EDGE_PROFILE = Topic(
    'edge_profile',
    msg.Profile,
    _qos(MOST_EDGES, latched=True),
    'Each edge publishes it once; late joiners need it. The depth is enough for the profile of each edge.',
)
ROBOT_PROFILE = Topic('robot_profile', msg.Profile, _qos(1, latched=True), 'Published once; late joiners need it.')
FRAME_TIMING = Topic('frame_timing', msg.FrameTiming, _qos(50), 'The estimators need every frame, bursts included.')
AUDIT = Topic('audit', msg.Audit, _qos(10), 'Every audit counts in the running agreement.')
AGREEMENT = Topic(
    'agreement',
    msg.Agreement,
    _qos(10, latched=True),
    'Late joiners need the latest agreement of each choice, and which choices are taken out.',
)
SPLIT = Topic('split', msg.SplitDecision, _qos(1, latched=True), 'Late joiners need the current decision.')
EDGE_SPLIT = Topic(
    'edge_split',
    msg.SplitDecision,
    _qos(1, latched=True),
    'An edge that restarts needs the current decision. The message crosses the link, so it has no '
    'candidates, and goes only to the edge in use and to the one used before.',
    per_edge=True,
)
LINK_STATE = Topic('link_state', msg.LinkState, _qos(1), 'Only the newest estimate matters.')
PREDICTION = Topic('prediction', msg.Prediction, _qos(10), 'Consumers want every prediction.')
LABEL_IMAGE = Topic(
    'label_image', Image, _qos(5), 'Consumers want every image; published only while a subscriber exists.'
)
DENSE_IMAGE = Topic(
    'dense_image', Image, _qos(5), 'Consumers want every image; published only while a subscriber exists.'
)
ANNOTATED = Topic(
    'annotated',
    Image,
    _qos(1),
    'Subscribers of any reliability match, and only the newest image matters; published only while a '
    'subscriber exists.',
)
CLASSIFICATION = Topic('classification', _vision('Classification'), _qos(10), 'Consumers want every prediction.')
DETECTIONS = Topic('detections', _vision('Detection2DArray'), _qos(10), 'Consumers want every prediction.')
LABEL_INFO = Topic('label_info', _vision('LabelInfo'), _qos(1, latched=True), 'Published once; late joiners need it.')
VISION_INFO = Topic(
    'vision_info', _vision('VisionInfo'), _qos(1, latched=True), 'Published once; late joiners need it.'
)
