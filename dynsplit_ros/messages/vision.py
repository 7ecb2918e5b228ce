# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Results to messages of vision_msgs; ``vision`` is that package's messages, or None where it is not installed.

By its conventions ``class_id`` is the class's number as text; the name is to be looked up in a ``LabelInfo``, which is
latched beside the results.
"""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from typing import Any, TYPE_CHECKING

from std_msgs.msg import Header

if TYPE_CHECKING:  # it brings torch, which the monitor, who knows these topics too, does not need
    from dynsplit_ros.tasks import Result

try:
    import vision_msgs.msg as vision
except ImportError:
    vision = None

#: LabelInfo's numbers of classes are uint16, of which the greatest means unlabelled.
MAX_LABELS = 65535


def to_classification(header: Header, result: Result) -> Any:
    """Return a ``vision_msgs/Classification``: the classes that a prediction names."""
    return vision.Classification(header=header, results=[
        vision.ObjectHypothesis(class_id=str(number), score=score)
        for number, score in zip(result.class_ids, result.scores)])


def to_detections(header: Header, result: Result) -> Any:
    """Return a ``vision_msgs/Detection2DArray``; the hypotheses' poses, in metres, are not known and left at zero."""
    detections = []
    boxes = zip(*[iter(result.boxes_px)] * 4)
    angles = result.box_angles or itertools.repeat(0.0)
    for number, score, (left, top, right, bottom), angle in zip(result.class_ids, result.scores, boxes, angles):
        detection = vision.Detection2D(header=header, results=[vision.ObjectHypothesisWithPose(
            hypothesis=vision.ObjectHypothesis(class_id=str(number), score=score))])
        detection.bbox.center.position.x = (left + right) / 2
        detection.bbox.center.position.y = (top + bottom) / 2
        detection.bbox.center.theta = angle
        detection.bbox.size_x, detection.bbox.size_y = right - left, bottom - top
        detections.append(detection)
    return vision.Detection2DArray(header=header, detections=detections)


def to_label_info(header: Header, labels: Sequence[str], threshold: float) -> Any:
    """Return a ``vision_msgs/LabelInfo``: the classes' names, and the least score of what is published."""
    return vision.LabelInfo(header=header, threshold=threshold, class_map=[
        vision.VisionClass(class_id=number, class_name=label) for number, label in enumerate(labels[:MAX_LABELS])])


def to_vision_info(header: Header, method: str, location: str, version: int) -> Any:
    """Return a ``vision_msgs/VisionInfo``: the model, and the topic on which its classes' names stand."""
    return vision.VisionInfo(header=header, method=method, database_location=location, database_version=version)
