# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Camera side: takes images, runs heads, publishes activations and one prediction for every accepted frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import sys

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from torch import Tensor

from dynsplit_ros import msg
from dynsplit_ros.codec import EncodedTensor, decode
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.messages.tensors import from_tensors, to_tensors
from dynsplit_ros.messages.timing import to_profile, to_timing
from dynsplit_ros.messages.images import to_rgb
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.publications import Publications
from dynsplit_ros.nodes.shell import Shell, run
from dynsplit_ros.nodes.split_model import load
from dynsplit_ros.parameters import CAMERA
from dynsplit_ros.runtime.frame import EdgeTimes, FrameTiming, Status
from dynsplit_ros.runtime.robot import Frame, Order, Outputs, Robot
from dynsplit_ros.tasks import check_outputs


@dataclass
class Shot:
    """A camera message on its way, and its size in pixels once it has been converted."""

    message: Image | CompressedImage
    width: int = 0
    height: int = 0


class CameraNode(Shell):
    """The robot's half of the network behind a camera topic."""

    def __init__(self) -> None:
        super().__init__('camera_node', CAMERA)
        values = self.values
        self.split, profile = load(self, values)
        self._model = self.split.model
        self._uplink = topics.Apart(self, 'uplink')
        self._activation = self._uplink.publisher(topics.ACTIVATION)
        self._publications = Publications(self, self.split)
        self._frame_timing = topics.FRAME_TIMING.publisher(self)
        self._robot_profile = topics.ROBOT_PROFILE.publisher(self)
        self._robot_profile.publish(to_profile(
            profile.scaled(values.emulate_slowdown) if values.emulate_slowdown > 1 else profile))
        self._robot = Robot(self.split, self, max_on_link=values.max_on_link, max_unanswered=values.max_unanswered,
                            slowdown=values.emulate_slowdown)
        self._counters_before = self._robot.counters()
        topics.SPLIT.subscription(self, self._on_split)
        topics.RECEIPT.subscription(self, self._on_receipt)
        topics.TAIL_RESULT.subscription(self, self._on_tail_result)
        self.create_subscription(CompressedImage if values.compressed else Image, 'image',
                                 lambda message: self._robot.offer(Shot(message)), qos_profile_sensor_data,
                                 qos_overriding_options=QoSOverridingOptions.with_default_policies())
        self.get_logger().info(f'waiting for images on {self.resolve_topic_name("image")}')

    def diagnose(self) -> tuple[bytes, str, dict[str, object]]:
        """Tell what has become of the frames; a warning while frames fall back or images are refused."""
        counters = self._robot.counters()
        before, self._counters_before = self._counters_before, counters
        values = vars(counters)
        if counters.failed > before.failed:
            return DiagnosticStatus.ERROR, 'frames fail', values
        if counters.refused_images > before.refused_images:
            return DiagnosticStatus.ERROR, 'images are refused', values
        if counters.fell_back > before.fell_back:
            return DiagnosticStatus.WARN, 'frames are finished on the robot because the edge does not answer', values
        if counters.delivered == before.delivered:
            return DiagnosticStatus.STALE, 'no frame in the last second', values
        return DiagnosticStatus.OK, 'running', values

    # ---- what comes in -------------------------------------------------------------------------------------------

    def _on_split(self, message: msg.SplitDecision) -> None:
        if message.fingerprint != self.split.fingerprint:
            self.tell('split', f'the monitor decides for the model {message.fingerprint[:12]}, but this node runs '
                      f'{self.split.fingerprint[:12]}; its decisions are not followed', error=True)
            return
        try:
            self._robot.on_order(Order(message.split_index, message.codec, message.fallback_after_s,
                                       message.last_frame_session, message.last_frame, message.local_if_wait_s,
                                       message.predicted_latency_s))
        except DynsplitError as error:
            self.tell('split', str(error), error=True)

    def _on_receipt(self, message: msg.Receipt) -> None:
        if message.kind == msg.Receipt.ACTIVATION:
            self._robot.on_receipt(message.session, message.sequence)

    def _on_tail_result(self, message: msg.TailResult) -> None:
        outputs: Outputs = {}
        try:
            status = Status(message.status)
            reason = message.reason[:500]
            if status is Status.OK:
                if message.fingerprint != self.split.fingerprint:
                    raise DynsplitError('it is of another model')
                outputs = decode('raw', from_tensors(message.outputs), self.split.output_specs)
                if self.split.output_specs is None:  # a detector's shapes are free: what cannot be read is no answer
                    check_outputs(self._model.task, outputs)
        except Exception as error:  # Whatever it holds, the frame is finished here.
            status, reason = Status.FAILED, f'the answer cannot be used: {error}'
        if status in (Status.REFUSED, Status.FAILED):
            self.tell('answer', f'the edge (model {message.fingerprint[:12]}) did not run split '
                      f'{message.split_index} of model {self.split.fingerprint[:12]}: {reason}', error=True)
        self._robot.on_answer(
            message.session, message.sequence, status, reason, outputs,
            sum(len(tensor.data) for tensor in message.outputs),
            EdgeTimes(message.held_s, message.queueing_s, message.decode_s, message.tail_s, message.batch))

    # ---- what the robot asks of the world (runtime.robot.Outside); called from its threads -------------------------

    def prepare(self, source: Shot) -> Tensor:
        """Convert and resize a camera image."""
        image = to_rgb(source.message)
        source.height, source.width = image.shape[:2]
        return self._model.resize(image).unsqueeze(0)

    def send(self, frame: Frame, payload: Sequence[EncodedTensor]) -> None:
        """Publish an activation."""
        timing = frame.timing
        self._activation.publish(msg.Activation(
            header=frame.source.message.header, session=timing.session, sequence=timing.sequence,
            fingerprint=self.split.fingerprint, split_index=timing.split_index, codec=timing.codec,
            patience_s=frame.patience_s, tensors=to_tensors(payload)))

    def deliver(self, frame: Frame, outputs: Outputs) -> None:
        """Publish a prediction."""
        source = frame.source
        self._publications.publish(source.message, (source.height, source.width), outputs, frame.timing)

    def report(self, timing: FrameTiming) -> None:
        """Publish where a frame stands."""
        self._frame_timing.publish(to_timing(timing))

    def refuse(self, source: Shot, reason: str) -> None:
        """Log an image that was not accepted."""
        self.tell('image', f'an image was not accepted: {reason}', error=True)

    def fault(self, reason: str) -> None:
        """Log what a frame met."""
        self.tell('fault', reason, error=True)

    def close(self) -> None:
        """Finish the frames under way."""
        self._robot.close()
        self._publications.close()
        self._uplink.close()
        counters = self._robot.counters()
        self.get_logger().info(', '.join(f'{name} {value}' for name, value in vars(counters).items()))


def main(args: list[str] | None = None) -> int:
    """Run the node."""
    return run(CameraNode, args)


if __name__ == '__main__':
    sys.exit(main())
