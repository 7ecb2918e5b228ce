# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Converts results to this package's own messages."""

from __future__ import annotations

import array
from collections.abc import Mapping

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from torch import Tensor

from dynsplit_ros import msg
from dynsplit_ros.codec import encode
from dynsplit_ros.messages.encodings import from_array
from dynsplit_ros.messages.fields import to_message
from dynsplit_ros.messages.images import to_image
from dynsplit_ros.messages.tensors import to_tensors
from dynsplit_ros.messages.timing import to_timing
from dynsplit_ros.model import LoadedModel
from dynsplit_ros.policies.records import FrameRecord
from dynsplit_ros.tasks import Mask, output_digest, Result


def to_prediction(
    header: Header,
    size: tuple[int, int],
    model: LoadedModel,
    fingerprint: str,
    result: Result,
    outputs: Mapping[str, Tensor],
    timing: FrameRecord,
    *,
    digest: bool = False,
) -> msg.Prediction:
    """Return a prediction for an image of ``size`` (height, width); ``digest`` adds a digest of the outputs."""
    return to_message(
        msg.Prediction,
        header=header,
        task=model.task,
        model=model.name,
        fingerprint=fingerprint,
        height=size[0],
        width=size[1],
        class_ids=array.array('i', result.class_ids),
        labels=result.labels,
        scores=array.array('f', result.scores),
        boxes_px=array.array('f', result.boxes_px),
        box_angles=array.array('f', result.box_angles),
        masks=[to_mask(mask) for mask in result.masks],
        keypoint_names=model.keypoint_names,
        keypoints_px=array.array('f', result.keypoints_px),
        keypoint_scores=array.array('f', result.keypoint_scores),
        outputs=to_tensors(encode('raw', outputs)) if model.task == 'other' else [],
        output_digest=output_digest(outputs) if digest else 0,
        timing=to_timing(timing),
    )


def to_mask(mask: Mask) -> msg.Mask:
    """Return an object's mask with its pixels as a PNG of about 100 bytes instead of tens of thousands."""
    pixels = mask.pixels
    message = msg.Mask(x=mask.x, y=mask.y, height=pixels.shape[0], width=pixels.shape[1])
    if pixels.size:
        message.png = array.array('B')
        message.png.frombytes(cv2.imencode('.png', pixels.view(np.uint8) * np.uint8(255))[1].data)
    return message


def to_dense_image(header: Header, values: np.ndarray) -> Image:
    """Return values of each pixel, float32 [height, width, channels], as an Image such as ``32FC1``."""
    message = from_array(values, f'32FC{values.shape[2]}')
    message.header = header
    return message


def to_label_image(header: Header, labels: np.ndarray) -> Image:
    """Return a label image, uint8 or uint16 [height, width], as ``mono8`` or ``mono16``."""
    message = to_image(labels, f'mono{8 * labels.itemsize}')
    message.header = header
    return message
