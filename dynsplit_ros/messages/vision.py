# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Converts results to messages of vision_msgs; ``vision`` is None if that package is not installed.

In vision_msgs, ``class_id`` is the number of the class as text. Its name is in a ``LabelInfo``, which is published
latched.
"""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from typing import Any, TYPE_CHECKING

from std_msgs.msg import Header

if TYPE_CHECKING:  # it imports torch, which the monitor does not need
    from dynsplit_ros.tasks import Result

try:
    import vision_msgs.msg as vision
except ImportError:
    vision = None

#: Largest number of labels: class numbers in LabelInfo are uint16, and the largest one means unlabelled.
MAX_LABELS = 65535


def to_classification(header: Header, result: Result) -> Any:
    """Return a ``vision_msgs/Classification``: the classes that a prediction names."""
    return vision.Classification(
        header=header,
        results=[
            vision.ObjectHypothesis(class_id=str(number), score=score)
            for number, score in zip(result.class_ids, result.scores)
        ],
    )


def to_detections(header: Header, result: Result) -> Any:
    """Return a ``vision_msgs/Detection2DArray``; the poses of the hypotheses (in metres) are unknown and stay zero."""
    detections = []
    boxes = zip(*[iter(result.boxes_px)] * 4)
    angles = result.box_angles or itertools.repeat(0.0)
    for number, score, (left, top, right, bottom), angle in zip(result.class_ids, result.scores, boxes, angles):
        detection = vision.Detection2D(
            header=header,
            results=[
                vision.ObjectHypothesisWithPose(hypothesis=vision.ObjectHypothesis(class_id=str(number), score=score))
            ],
        )
        detection.bbox.center.position.x = (left + right) / 2
        detection.bbox.center.position.y = (top + bottom) / 2
        detection.bbox.center.theta = angle
        detection.bbox.size_x, detection.bbox.size_y = right - left, bottom - top
        detections.append(detection)
    return vision.Detection2DArray(header=header, detections=detections)


def to_label_info(header: Header, labels: Sequence[str], threshold: float) -> Any:
    """Return a ``vision_msgs/LabelInfo``: the names of the classes, and the least score of published objects."""
    return vision.LabelInfo(
        header=header,
        threshold=threshold,
        class_map=[
            vision.VisionClass(class_id=number, class_name=label) for number, label in enumerate(labels[:MAX_LABELS])
        ],
    )


def to_vision_info(header: Header, method: str, location: str, version: int) -> Any:
    """Return a ``vision_msgs/VisionInfo``: the model, and the topic with the names of its classes."""
    return vision.VisionInfo(header=header, method=method, database_location=location, database_version=version)
