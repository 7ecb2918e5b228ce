# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Camera messages to and from arrays."""

from __future__ import annotations

import array
import sys

from cv_bridge import CvBridge
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from dynsplit_ros.errors import DynsplitError

_bridge = CvBridge()


def to_rgb(message: Image | CompressedImage) -> np.ndarray:
    """
    Return a camera message as uint8 [height, width, 3], RGB, contiguous.

    Takes every encoding that cv_bridge converts, rows with padding (``step``) included. Raises DynsplitError for an
    image without pixels, with bytes missing, or in an encoding that cv_bridge refuses.
    """
    if isinstance(message, CompressedImage):
        if not message.data:
            raise DynsplitError(f'the compressed image ({message.format!r}) has no bytes; check what publishes it')
        what = f'the compressed image of format {message.format!r} and {len(message.data)} bytes'
    else:
        what = f'the image of {message.width}x{message.height} pixels in encoding {message.encoding!r}'
        if not message.width or not message.height:
            raise DynsplitError(f'{what} has no pixels; check what publishes it')
    try:
        if isinstance(message, CompressedImage):
            image = _bridge.compressed_imgmsg_to_cv2(message, 'rgb8')
        else:
            image = _bridge.imgmsg_to_cv2(_without_padding(message, what), 'rgb8')
    except DynsplitError:
        raise
    except Exception as error:  # cv_bridge raises its own error, OpenCV's, numpy's, KeyError, … depending on the fault
        reason = ' '.join(str(error).split())[:200]
        raise DynsplitError(f'cv_bridge cannot convert {what} to rgb8 ({reason}); publish an encoding of '
                            'sensor_msgs/image_encodings.hpp that has colours or grey') from error
    if image is None or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DynsplitError(f'{what} could not be decoded; check what publishes it')
    return np.ascontiguousarray(image)


def _without_padding(message: Image, what: str) -> Image:
    """Return the message with rows that follow each other without a gap; cv_bridge's Python port needs them so."""
    try:
        dtype, channels = _bridge.encoding_to_dtype_with_channels(message.encoding)
    except Exception as error:
        raise DynsplitError(f'{what}: cv_bridge does not know this encoding; publish one of '
                            'sensor_msgs/image_encodings.hpp') from error
    row = message.width * channels * np.dtype(dtype).itemsize
    if message.step < row or len(message.data) < message.step * (message.height - 1) + row:
        raise DynsplitError(f'{what} has step {message.step} and {len(message.data)} bytes, but needs at least '
                            f'{row} bytes in each row; check what publishes it')
    if message.step == row and len(message.data) == row * message.height:
        return message
    data = np.frombuffer(message.data, np.uint8)
    rows = np.lib.stride_tricks.as_strided(data, (message.height, row), (message.step, 1))
    packed = Image(header=message.header, height=message.height, width=message.width, encoding=message.encoding,
                   is_bigendian=message.is_bigendian, step=row)
    packed.data = array.array('B', rows.tobytes())
    return packed


def from_rgb(image: np.ndarray) -> Image:
    """Return uint8 [height, width, 3], RGB, as an Image without a header; one copy, none element by element."""
    height, width, _ = image.shape
    message = Image(height=height, width=width, encoding='rgb8', step=3 * width,
                    is_bigendian=sys.byteorder == 'big')
    message.data = array.array('B')
    message.data.frombytes(np.ascontiguousarray(image).data.cast('B'))
    return message
