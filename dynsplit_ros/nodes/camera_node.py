# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Camera side: takes images, runs heads, publishes activations and one prediction for every accepted frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
import sys
import time
from types import SimpleNamespace

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.publisher import Publisher
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger
import torch
from torch import Tensor

from dynsplit_ros import msg
from dynsplit_ros.codec import EncodedTensor
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.messages.bridge import announce, bridge
from dynsplit_ros.messages.decisions import from_decision
from dynsplit_ros.messages.fields import from_message, to_message
from dynsplit_ros.messages.images import assumption, to_rgb
from dynsplit_ros.messages.tensors import from_tensors, to_tensors
from dynsplit_ros.messages.timing import describe_split, to_profile, to_timing
from dynsplit_ros.model import LoadedModel
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.base_node import run
from dynsplit_ros.nodes.managed_node import END_S, ManagedNode
from dynsplit_ros.nodes.publications import Publications
from dynsplit_ros.nodes.spinning import receive
from dynsplit_ros.nodes.split_model import convert_in_background, load, unload
from dynsplit_ros.parameters import CAMERA, MIN_SCORE
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.policies.image_batch import ImageBatcher
from dynsplit_ros.policies.records import EdgeTimes, FrameRecord, Outcome, SplitDecision
from dynsplit_ros.profile.profile import Profile
from dynsplit_ros.protocol import MOST_EDGES, Side
from dynsplit_ros.runtime.conversion import Conversion
from dynsplit_ros.runtime.robot import Outputs, Robot
from dynsplit_ros.tasks import class_numbers, condensed, Result
from dynsplit_ros.tensors import of_image
from dynsplit_ros.text import printable

#: The messages that a camera topic may carry, by their names; the first is taken where a topic carries both.
IMAGE_TYPES = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage}
#: How image_transport ends the name of a topic of compressed images.
COMPRESSED_SUFFIX = '/compressed'
#: Longest wait of the service infer for its prediction, in seconds: a large network on a small robot takes some.
INFER_S = 10.0
#: How often, in seconds, the types of the publishers are looked at; images of another type are not heard for as long.
TYPES_PERIOD_S = 0.25


@dataclass(eq=False)
class CameraImage:
    """
    A camera message on its way, when it came, and its size in pixels once it has been converted.

    ``min_score`` is the smallest score to show, as it was set when the message came. ``outcome`` says whether it has a
    prediction, and which, or why it has none.
    """

    message: Image | CompressedImage
    arrived_s: float
    min_score: float
    width: int = 0
    height: int = 0
    outcome: tuple[bool, str] | None = None


class CameraNode(ManagedNode):
    """The robot's half of the network behind a camera topic."""

    split: SplitModel
    _model: LoadedModel | None = None
    _uplink: topics.LargeMessages | None = None
    _publications: Publications | None = None
    _robot: Robot | None = None
    _conversion: Conversion | None = None

    def __init__(self) -> None:
        #: For each edge, the publishers of its activations and of their leads; made before a payload needs them.
        self.to_edges: dict[str, tuple[Publisher, Publisher]] = {}
        self._newest: Image | CompressedImage | None = None
        super().__init__('camera_node', CAMERA)
        self.create_service(Trigger, '~/infer', self._on_infer)

    def configure(self) -> None:
        """Load the model and say how fast it is here."""
        values = self.values
        announce(self.get_logger())
        several = len(values.image_topics) > 1
        if not values.image_topics or several and values.batch not in (1, len(values.image_topics)):
            raise DynsplitError(
                f"parameter 'image_topics' names {len(values.image_topics)} topics, and 'batch' is "
                f'{values.batch}; batch must be 1 with several topics'
            )
        self._topics = [self._topic(name) for name in values.image_topics]
        if len(set(self._topics)) < len(self._topics):
            raise DynsplitError(
                f"parameter 'image_topics' names the same topic twice: {', '.join(self._topics)}; name "
                'each topic once, and set batch for several images of one topic'
            )
        self._images = len(self._topics) if several else values.batch
        self.split, profile = load(self, values, self._images, is_edge=False)
        self._model = self.split.model
        self._uplink = topics.LargeMessages(self, 'uplink')
        self._publications = Publications(self, self.split)
        self._frame_timing = topics.FRAME_TIMING.publisher(self)
        self._audit = topics.AUDIT.publisher(self)
        self._robot_profile = topics.ROBOT_PROFILE.publisher(self)
        self._publish_profile(profile)

    def _publish_profile(self, profile: Profile) -> None:
        """Tell monitor and edges how fast the parts are that are ready."""
        slowdown = self.values.emulate_slowdown
        self._robot_profile.publish(
            to_profile(
                profile.scaled(slowdown) if slowdown > 1 else profile,
                Side(images=self._images, torch_version=torch.__version__),
            )
        )

    def _topic(self, name: str) -> str:
        try:
            return str(self.resolve_topic_name(name))
        except Exception as error:
            raise DynsplitError(
                f"parameter 'image_topics' names {name!r}, which is not a topic name: {' '.join(str(error).split())}"
            ) from error

    def activate(self) -> None:
        """Accept images."""
        values = self.values
        self._batcher = ImageBatcher[CameraImage](len(self._topics), self._images, values.batch_timeout_s)
        # Before the robot: deactivate, which also follows a failure in here, hears answers as long as there is a robot.
        self._answers = topics.TAIL_RESULT.subscription(self, self._on_tail_result)
        self._robot = Robot(
            self.split,
            self,
            max_unanswered=values.max_unanswered,
            slowdown=values.emulate_slowdown,
            audit_share=values.audit_share,
        )
        self._newest = None
        self._left_out = 0  # images that could not be used, of batches that could
        self._counters_before = self._robot.counters()
        self._outcomes = dict.fromkeys(Outcome, 0)
        self._decision: SplitDecision | None = None
        self._last: FrameRecord | None = None
        self._refusal = self._why_fell_back = ''
        topics.EDGE_PROFILE.subscription(self, self._on_edge_profile)
        topics.SPLIT.subscription(self, self._on_split)
        topics.ACKNOWLEDGEMENT.subscription(self, self._on_acknowledgement)
        self._cameras: list[Subscription | None] = [None] * len(self._topics)
        self._follow_types()
        self.every(TYPES_PERIOD_S, self._follow_types)
        if self._images > 1:
            self.every(max(0.01, values.batch_timeout_s / 8), lambda: self._offer(self._batcher.due(time.monotonic())))
        self._conversion = convert_in_background(
            self, self.split, values, self._images, is_edge=False, use=self._publish_profile
        )
        self.get_logger().info(f'waiting for images on {", ".join(self._topics)}')

    def deactivate(self, within_s: float) -> None:
        """Finish the accepted frames: wait a moment for the answers to those that were sent, and do the rest here."""
        if self._conversion is not None:
            self._conversion.close(END_S)
        self._conversion = None
        if self._robot is not None:
            self._robot.stop()
            receive(self._answers, lambda: self._robot.busy, min(within_s, END_S) / 2)
            self._robot.close(within_s)
            self.get_logger().info(', '.join(f'{name} {value}' for name, value in vars(self._robot.counters()).items()))
            self._robot = None

    def on_change(self, values: SimpleNamespace) -> None:
        """Refuse classes that the model does not have (without a model, configure does); audit another share."""
        if self._model is not None:
            class_numbers(values.classes, self._model.labels)
        if self._robot is not None:
            self._robot.audit(values.audit_share)

    def cleanup(self) -> None:
        """Give the model's memory back."""
        self._withdraw()
        self.split = self._model = None
        unload()

    def close(self) -> None:
        """Finish the accepted frames and leave."""
        super().close()
        self._withdraw()

    def _withdraw(self) -> None:
        """Withdraw what is published on participants of its own."""
        if self._publications is not None:
            self._publications.close()
        if self._uplink is not None:
            self._uplink.close()
        self._publications = self._uplink = None
        self.to_edges = {}

    def diagnose(self) -> tuple[bytes, str, dict[str, object]]:
        """Tell what has become of the frames; a warning where the edge could not be used, an error for lost images."""
        robot = self._robot.counters()
        counters = replace(robot, refused_images=robot.refused_images + self._left_out)
        before, self._counters_before = self._counters_before, counters
        decision, last = self._decision, self._last
        values: dict[str, object] = {
            **vars(counters),
            **{f'audits_{name}': count for name, count in vars(self._robot.audits()).items()},
            'image_converter': bridge().words,
            'replaced_in_batch': self._batcher.replaced,
            'offered_hz': self._batcher.rate_hz,
            **{outcome.value: self._outcomes[outcome] for outcome in (Outcome.SENT, Outcome.ANSWERED, Outcome.LOCAL)},
        }
        if last is not None:
            values |= {
                'split': last.split_index,
                'codec': last.codec,
                'head_engine': last.head_engine,
                'tail_engine': last.tail_engine,
                'latency_s': last.latency_s,
            }
        if counters.failed > before.failed:
            return DiagnosticStatus.ERROR, 'frames fail', values
        if counters.refused_images > before.refused_images:
            return DiagnosticStatus.ERROR, f'images are refused: {self._refusal}', values
        if self.values.on_demand and counters.accepted == before.accepted:
            return DiagnosticStatus.OK, 'waiting for a call of the service infer', values
        if counters.delivered == before.delivered and counters.accepted == counters.delivered + counters.failed:
            return (
                (DiagnosticStatus.ERROR, wrong, values)
                if (wrong := self._wrong_type())
                else (DiagnosticStatus.WARN, 'no frame in the last second', values)
            )
        if counters.fell_back > before.fell_back:
            return DiagnosticStatus.WARN, f'the robot finishes frames: {self._why_fell_back}', values
        if decision is None:
            return DiagnosticStatus.WARN, 'degraded to local inference: no decision from the monitor', values
        if decision.degraded and decision.split_index == self.split.local_index:
            return DiagnosticStatus.WARN, f'degraded to local inference: {decision.reason}', values
        return DiagnosticStatus.OK, f'split {describe_split(decision)}', values

    def _wrong_type(self) -> str:
        """Return what to do where an image topic carries no images; empty where each has some, or no publisher."""
        for topic in self._topics:
            types = self._types(topic)
            if types and types.isdisjoint(IMAGE_TYPES):
                return (
                    f'{topic} carries {", ".join(sorted(types))}, but must carry {" or ".join(IMAGE_TYPES)}; name '
                    'the topic of the images (launch argument image_topic)'
                )
        return ''

    def _types(self, topic: str) -> set[str]:
        """Return the names of the types that a topic's publishers have."""
        return {publisher.topic_type for publisher in self.get_publishers_info_by_topic(topic)}

    # ---- what comes in -------------------------------------------------------------------------------------------

    def _follow_types(self) -> None:
        """Subscribe to each image topic with the type of its publishers; while there is none, its name decides."""
        for number, topic in enumerate(self._topics):
            types, camera = self._types(topic), self._cameras[number]
            offered = [kind for name, kind in IMAGE_TYPES.items() if name in types]
            if camera is None:
                named = CompressedImage if topic.endswith(COMPRESSED_SUFFIX) else Image
                self._cameras[number] = self.create_subscription(
                    offered[0] if offered else named,
                    self.values.image_topics[number],
                    partial(self._on_image, number),
                    qos_profile_sensor_data,
                    qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                )
            elif offered and camera.msg_type not in offered:
                # The middleware has one type for a topic: the next subscription follows when this one has gone.
                self.destroy_subscription(camera)
                self._cameras[number] = None

    def _on_image(self, camera: int, message: Image | CompressedImage) -> None:
        now_s = time.monotonic()
        self._newest = message
        images = self._batcher.add(camera, CameraImage(message, now_s, self.values.min_score), now_s)
        if not self.values.on_demand:
            self._offer(images)

    def _on_infer(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Run the network once for the newest image, publish the prediction, and name it in the response."""
        response.success, response.message = self._infer()
        return response

    def _infer(self) -> tuple[bool, str]:
        if self._robot is None:
            return False, (
                f'the node is {self.state}; activate it with ros2 lifecycle set '
                f'{self.get_fully_qualified_name()} activate'
            )
        if self._images > 1:
            return False, (
                f'a frame has {self._images} images, but the service infer needs one; set batch to 1 and '
                'name one image topic'
            )
        if self._newest is None:
            return False, f'no image arrived on {self._topics[0]}; start the camera'
        image = CameraImage(self._newest, time.monotonic(), self.values.min_score)
        self._robot.offer([image])
        # This callback keeps the executor from taking the answer.
        receive(self._answers, lambda: image.outcome is None, INFER_S)
        return image.outcome or (False, f'no prediction within {INFER_S:g} s; read the log of the node')

    def _offer(self, images: list[CameraImage]) -> None:
        if images:
            self._robot.offer(images, 1 / self._batcher.rate_hz)

    def _on_edge_profile(self, message: msg.Profile) -> None:
        if message.fingerprint != self.split.fingerprint:
            return  # the monitor tells of it, and does not use it
        try:
            self._meet(printable(message.edge))
        except DynsplitError as error:
            self.log_throttled('edges', str(error), error=True)

    def _meet(self, edge: str, *, needed: bool = False) -> None:
        """
        Make the publishers to an edge before a payload needs them: the edge takes a while to find them.

        With MOST_EDGES others, one that has gone gives up its place; to an edge that is ``needed``, also one that
        lives. The edge of the decision in force keeps its place.
        """
        if edge in self.to_edges:
            return
        if len(self.to_edges) >= MOST_EDGES:
            used = self._decision.edge if self._decision is not None else None
            others = [name for name in self.to_edges if name != used]
            free = [name for name in others if not self.to_edges[name][0].get_subscription_count()]
            free += others if needed else []
            if not free:
                self.log_throttled(
                    'edges',
                    f'edge {edge[:100]!r} is not used: the robot knows {MOST_EDGES} others; '
                    'run fewer edges in one domain',
                )
                return
            for publisher in self.to_edges.pop(free[0]):
                self.forget(publisher.topic_name)
                self._uplink.destroy_publisher(publisher)
        activation, lead = (
            self._uplink.publisher(topic, topic.name_to(edge, self)) for topic in (topics.ACTIVATION, topics.PROBE)
        )
        self.to_edges[edge] = activation, lead

    def _on_split(self, message: msg.SplitDecision) -> None:
        if message.fingerprint != self.split.fingerprint:
            self.log_throttled(
                'split',
                f'ignoring the monitor: it decides for the model {message.fingerprint[:12]}, but this node '
                f'runs {self.split.fingerprint[:12]}; start both with the same model',
                error=True,
            )
            return
        try:
            decision = from_decision(message)
            if decision.split_index < self.split.local_index:
                self._meet(decision.edge, needed=True)
            self._robot.on_decision(decision)
            self._decision = decision
        except DynsplitError as error:
            self.log_throttled('split', str(error), error=True)

    def _on_acknowledgement(self, message: msg.Acknowledgement) -> None:
        if message.kind == msg.Acknowledgement.PROBE:  # each monitor's probes are answered for all to hear
            self.senders.on_monitor(message.session, time.monotonic())
        else:
            self.senders.on_camera(message.session, time.monotonic())
            self._robot.on_acknowledgement(message.session, message.sequence, printable(message.edge))

    def _on_tail_result(self, message: msg.TailResult) -> None:
        fault = self._robot.on_tail_result(
            message.session,
            message.sequence,
            message.fingerprint,
            message.status,
            message.reason[:500],
            message.codec,
            from_tensors(message.outputs),
            from_message(EdgeTimes, message),
        )
        if fault:
            self.log_throttled(
                'answer',
                f'edge {message.edge[:100]!r} (model {message.fingerprint[:12]}) did not run split '
                f'{message.split_index} of model {self.split.fingerprint[:12]}: {fault}',
                error=True,
            )

    # ---- what the robot asks of the world (runtime.robot.CameraIO); called from its threads -------------------------

    def prepare(self, source: list[CameraImage]) -> Tensor:
        """Convert and resize the camera images of a frame; one that cannot be used is left out of it."""
        resized = []
        for image in list(source):
            try:
                pixels = to_rgb(image.message, self.values.image_bits)
                if assumed := assumption(image.message):
                    self.get_logger().warning(assumed, once=True)
                image.height, image.width = pixels.shape[:2]
                resized.append(self._model.resize(pixels))
            except Exception as error:  # whatever one image meets, the others of its batch are used
                if len(source) == 1:
                    raise
                source.remove(image)
                self._left_out += 1
                self.refuse(
                    [image],
                    str(error)
                    if isinstance(error, DynsplitError)
                    else f'it could not be processed ({type(error).__name__}: {error})',
                )
        return torch.stack(resized)

    def send(self, frame: FrameRecord, payload: Sequence[EncodedTensor]) -> None:
        """Publish an activation, and before it what lets the edge time its arrival."""
        activation = to_message(
            msg.Activation,
            frame,
            header=frame.image[0].message.header,
            fingerprint=self.split.fingerprint,
            tensors=to_tensors(payload),
            # An audit counts the objects from MIN_SCORE on, whatever the prediction shows.
            min_score=min(frame.image[0].min_score, MIN_SCORE) if self._model.task == 'detection' else -1.0,
        )
        publishers = self.to_edges.get(frame.edge)
        if publishers is None:
            raise DynsplitError(f'edge {frame.edge[:100]!r} is not known; it is used when its profile arrives')
        to_edge, lead = publishers
        lead.publish(to_message(msg.Probe, frame, is_lead=True))
        to_edge.publish(activation)

    def deliver(self, frame: FrameRecord, outputs: Outputs) -> None:
        """Publish the prediction of each image."""
        count = len(frame.image)
        frame.offered_hz = self._batcher.rate_hz
        for number, image in enumerate(frame.image):
            own = of_image(outputs, number, count, self.split.output_specs is None)
            result = self._publications.publish(
                image.message,
                (image.height, image.width),
                condensed(self._model.task, own, image.min_score),
                frame if self._images == 1 else _since(image.arrived_s, frame),
            )
            image.outcome = True, in_words_of(result)

    def report(self, frame: FrameRecord) -> None:
        """Publish what became of a frame."""
        self._outcomes[frame.outcome] += 1
        frame.offered_hz = self._batcher.rate_hz
        if frame.outcome is Outcome.FELL_BACK:
            self._why_fell_back = frame.detail
        if frame.outcome not in (Outcome.SENT, Outcome.LATE):
            self._last = frame
        self._frame_timing.publish(to_timing(frame))

    def report_audit(self, frame: FrameRecord, agreement: float) -> None:
        """Publish how far a frame's outputs agree with the unquantised model's."""
        self._audit.publish(
            to_message(
                msg.Audit,
                self._robot.audits(),
                session=frame.session,
                sequence=frame.sequence,
                fingerprint=self.split.fingerprint,
                split_index=frame.split_index,
                codec=frame.codec,
                agreement=agreement,
            )
        )

    def refuse(self, source: list[CameraImage], reason: str) -> None:
        """Log an image that was not accepted."""
        self._refusal = reason
        for image in source:
            image.outcome = False, f'image refused: {reason}'
        self.log_throttled('image', f'image refused: {reason}', error=True)

    def fault(self, reason: str) -> None:
        """Log what a frame met."""
        self.log_throttled('fault', reason, error=True)


def in_words_of(result: Result) -> str:
    """Return a result in a few words: its first classes or objects with their scores."""
    words = [
        f'{label or number} {score:.2f}' for label, number, score in zip(result.labels, result.class_ids, result.scores)
    ]
    return ', '.join(words[:5]) + (f' and {len(words) - 5} more' if len(words) > 5 else '') or 'nothing'


def _since(arrived_s: float, frame: FrameRecord) -> FrameRecord:
    """Return a frame's record as an image saw it that came before its batch was complete."""
    before_s = frame.arrived_s - arrived_s
    return replace(frame, wait_s=frame.wait_s + before_s, latency_s=frame.latency_s + before_s)


def main(args: list[str] | None = None) -> int:
    """Run the node."""
    return run(CameraNode, args, shared_memory=True)


if __name__ == '__main__':
    sys.exit(main())
