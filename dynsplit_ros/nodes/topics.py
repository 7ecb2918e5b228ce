# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Every topic of the package with its type and its quality of service, and the reason for it, in one place."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from dynsplit_ros import msg


def _qos(depth: int, *, reliable: bool = True, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE)


@dataclass(frozen=True)
class Topic:
    """A topic, relative to the robot's namespace; ``why`` is the reason for its quality of service."""

    name: str
    type: Any
    qos: QoSProfile
    why: str

    def publisher(self, node: Node, name: str | None = None) -> Publisher:
        """Create a publisher; ROS 2's QoS override parameters apply."""
        return node.create_publisher(self.type, name or self.name, copy.copy(self.qos),
                                     qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def subscription(self, node: Node, callback: Any, name: str | None = None, **options: Any) -> Subscription:
        """Create a subscription; ROS 2's QoS override parameters apply."""
        return node.create_subscription(self.type, name or self.name, callback, copy.copy(self.qos), **options,
                                        qos_overriding_options=QoSOverridingOptions.with_default_policies())


ACTIVATION = Topic('activation', msg.Activation, _qos(1),
                   'A lost fragment must be sent again, but only of the newest payload: depth 1 ends the resending of '
                   'one that the robot has given up.')
TAIL_RESULT = Topic('tail_result', msg.TailResult, _qos(8), 'Each answer counts; a few may be under way.')
RECEIPT = Topic('receipt', msg.Receipt, _qos(16), 'A lost receipt would hold the next payload back.')
PROBE = Topic('probe', msg.Probe, _qos(1, reliable=False), 'A probe that is sent again would measure nothing.')
EDGE_LOAD = Topic('edge_load', msg.EdgeLoad, _qos(1, reliable=False), 'The next report comes soon; an old one misleads.')
EDGE_PROFILE = Topic('edge_profile', msg.Profile, _qos(1, latched=True), 'Sent once; late joiners need it.')
ROBOT_PROFILE = Topic('robot_profile', msg.Profile, _qos(1, latched=True), 'Sent once; late joiners need it.')
FRAME_TIMING = Topic('frame_timing', msg.FrameTiming, _qos(50), 'The estimators need every frame, bursts included.')
SPLIT = Topic('split', msg.SplitDecision, _qos(1, latched=True), 'Late joiners need the decision in force.')
LINK_STATE = Topic('link_state', msg.LinkState, _qos(1), 'Only the newest estimate matters.')
PREDICTION = Topic('prediction', msg.Prediction, _qos(10), 'Consumers want every prediction.')
