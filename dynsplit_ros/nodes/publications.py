# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Publish what is predicted: the prediction first, then the same for vision_msgs, as label image, and annotated."""

from __future__ import annotations

from collections.abc import Callable
import itertools
import math
import threading
from typing import Any

from rclpy.duration import Duration
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
import torch
from torch import Tensor

from dynsplit_ros.messages import vision
from dynsplit_ros.messages.images import from_rgb, to_rgb
from dynsplit_ros.messages.predictions import to_dense_image, to_label_image, to_prediction
from dynsplit_ros.messages.timing import describe_split
from dynsplit_ros.nodes import topics
from dynsplit_ros.nodes.base_node import BaseNode
from dynsplit_ros.partition import SplitModel
from dynsplit_ros.policies.records import FrameRecord, Outcome
from dynsplit_ros.tasks import check_outputs, class_numbers, interpret, Result
from dynsplit_ros.tasks.draw import annotate

#: How vision_msgs has each task, and the images of those that it does not have.
VISION = {
    'classification': (topics.CLASSIFICATION, vision.to_classification),
    'detection': (topics.DETECTIONS, vision.to_detections),
}
IMAGES = {
    'segmentation': (topics.LABEL_IMAGE, lambda header, result: to_label_image(header, result.label_image)),
    'dense': (topics.DENSE_IMAGE, lambda header, result: to_dense_image(header, result.dense)),
}
#: Counts the models that this process has published for, as VisionInfo wants it.
_versions = itertools.count(1)
#: At its end, a node waits so long for listeners to confirm the last predictions, in seconds.
_HAND_OVER_S = 0.2


class Publications:
    """
    The topics on which one model's predictions leave a node.

    Images are drawn by a thread of their own, the newest result first and only while someone subscribes, and leave by a
    DDS participant of their own, so that no prediction waits for a viewer.
    """

    def __init__(self, node: BaseNode, split: SplitModel) -> None:
        """Announce the topics; raise DynsplitError for outputs that do not fit the task, and for unknown classes."""
        self._node = node
        self._model = split.model
        self._fingerprint = split.fingerprint
        class_numbers(node.values.classes, self._model.labels)
        if split.output_specs is not None:
            check_outputs(
                self._model.task,
                {
                    spec.name: torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device='meta')
                    for spec in split.output_specs
                },
            )
        self._pictures = topics.LargeMessages(node, 'pictures')
        self._annotated = self._pictures.publisher(topics.ANNOTATED)
        self._forms: list[tuple[Publisher, Callable[[Header, Result], Any]]] = []
        if self._model.task in IMAGES:
            topic, to_form = IMAGES[self._model.task]
            self._forms.append((self._pictures.publisher(topic), to_form))
        self._own: list[Publisher] = []
        self._prediction = self._publisher(topics.PREDICTION)
        self._label_info = None
        self._threshold = math.nan
        if vision.vision is not None:
            self._announce()
        self._changed = threading.Condition()
        self._to_draw: tuple[Image | CompressedImage, Result, FrameRecord] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run_drawing, name='draw', daemon=True)
        self._thread.start()

    def _publisher(self, topic: topics.Topic) -> Publisher:
        publisher = topic.publisher(self._node)
        self._own.append(publisher)
        return publisher

    def _announce(self) -> None:
        """Offer vision_msgs' topics, and latch what its listeners need to know of the model."""
        if self._model.task in VISION:
            topic, to_form = VISION[self._model.task]
            self._forms.append((self._publisher(topic), to_form))
        self._label_info = self._publisher(topics.LABEL_INFO)
        self._publisher(topics.VISION_INFO).publish(
            vision.to_vision_info(self._now(), self._model.name, self._label_info.topic_name, next(_versions))
        )
        self._tell_labels()

    def _tell_labels(self) -> None:
        """Latch the classes' names, again when the least score has changed."""
        threshold = self._node.values.min_score if self._model.task == 'detection' else 0.0
        if self._label_info is not None and threshold != self._threshold:
            self._threshold = threshold
            self._label_info.publish(vision.to_label_info(self._now(), self._model.labels, threshold))

    def _now(self) -> Header:
        return Header(stamp=self._node.get_clock().now().to_msg())

    def publish(
        self, source: Image | CompressedImage, size: tuple[int, int], outputs: dict[str, Tensor], timing: FrameRecord
    ) -> Result:
        """
        Publish what the outputs say of a camera message of ``size`` (height, width), and return that.

        It may be called from any thread.

        Raises DynsplitError for outputs that cannot be read.
        """
        header, values = source.header, self._node.values
        result = interpret(
            self._model.task,
            outputs,
            self._model.labels,
            placement=self._model.resize.placement(*size),
            top_k=values.top_k,
            min_score=values.min_score,
            scores=self._model.scores,
            classes=class_numbers(values.classes, self._model.labels),
        )
        self._prediction.publish(
            to_prediction(
                header, size, self._model, self._fingerprint, result, outputs, timing, digest=values.output_digest
            )
        )
        try:
            self._publish_forms(source, result, timing)
        except Exception as error:  # The frame has its prediction.
            self._node.log_throttled(
                'forms', f'published the prediction, but not all its forms ({type(error).__name__}: {error})'
            )
        return result

    def _publish_forms(self, source: Image | CompressedImage, result: Result, timing: FrameRecord) -> None:
        """Publish the same in the forms that someone listens to."""
        if self._annotated.get_subscription_count():
            with self._changed:
                self._to_draw = (source, result, timing)
                self._changed.notify()
        for publisher, to_form in self._forms:
            if publisher.get_subscription_count():
                publisher.publish(to_form(source.header, result))
        self._tell_labels()

    def _run_drawing(self) -> None:
        while (job := self._next_to_draw()) is not None:
            try:
                self._draw(*job)
            except Exception as error:  # A picture that cannot be drawn is no reason to have no further one.
                self._node.log_throttled('annotated', f'image not annotated ({type(error).__name__}: {error})')

    def _next_to_draw(self) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._to_draw is not None)
            job, self._to_draw = self._to_draw, None
            return None if self._closing else job

    def _draw(self, source: Image | CompressedImage, result: Result, timing: FrameRecord) -> None:
        outcome = '' if timing.outcome is Outcome.LOCAL else f', {timing.outcome.replace("_", " ")}'
        caption = [f'split {describe_split(timing)}{outcome}', f'{1000 * timing.latency_s:.0f} ms']
        message = from_rgb(annotate(to_rgb(source, self._node.values.image_bits), self._model.task, result, caption))
        message.header = source.header
        self._annotated.publish(message)

    def close(self) -> None:
        """Withdraw the topics; nothing may be published afterwards."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(1.0)
        # What the middleware has not handed over when its participant leaves is lost.
        self._prediction.wait_for_all_acked(Duration(seconds=_HAND_OVER_S))
        for publisher in self._own:
            self._node.destroy_publisher(publisher)
        self._pictures.close()
