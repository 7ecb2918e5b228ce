# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Our own table of image encodings: the layout of the bytes of a sensor_msgs/Image, and their conversion to RGB."""

from __future__ import annotations

import array
from dataclasses import dataclass
import re
import sys
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import Image

from dynsplit_ros.errors import DynsplitError


@dataclass(frozen=True)
class Encoding:
    """Type and number of a pixel's elements, and OpenCV's code for the conversion to RGB (None: they are RGB)."""

    dtype: Any
    channels: int
    code: int | None

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel."""
        return self.channels * np.dtype(self.dtype).itemsize


#: OpenCV names a Bayer pattern after its second row and column, ROS after its first.
_KINDS = {
    'rgb': (3, None),
    'bgr': (3, cv2.COLOR_BGR2RGB),
    'rgba': (4, cv2.COLOR_RGBA2RGB),
    'bgra': (4, cv2.COLOR_BGRA2RGB),
    'mono': (1, cv2.COLOR_GRAY2RGB),
    'bayer_rggb': (1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr': (1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg': (1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg': (1, cv2.COLOR_BayerGB2RGB),
}
_UYVY = Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY)
_YUYV = Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_YUYV)
#: Encodings with packed pixels: all elements of a pixel are adjacent.
PACKED = {
    **{
        f'{kind}{8 * np.dtype(dtype).itemsize}': Encoding(dtype, *how)
        for kind, how in _KINDS.items()
        for dtype in (np.uint8, np.uint16)
    },
    'yuv422': _UYVY,
    'uyvy': _UYVY,
    'yuv422_yuy2': _YUYV,
    'yuyv': _YUYV,
}
#: Encodings with a plane of luma and a plane of chroma pairs: OpenCV's code, and luma pixels per chroma pair in each
#: direction.
SEMI_PLANAR = {
    'nv12': (cv2.COLOR_YUV2RGB_NV12, 2),
    'nv21': (cv2.COLOR_YUV2RGB_NV21, 2),
    'nv24': (cv2.COLOR_YUV2RGB_NV12, 1),
}
#: Encodings that do not name colours, and the encodings that their publishers usually mean.
ASSUMED = {'8UC1': 'mono8', '8UC3': 'bgr8'}
ALLOWED = (*PACKED, *SEMI_PLANAR, *ASSUMED)
#: Encodings of sensor_msgs for measurements: depth, disparity, temperature.
_MEASUREMENTS = re.compile(r'(8S|16[US]|32[SF]|64F)(C\d+)?')


def check_colours(encoding: str, what: str) -> None:
    """Raise DynsplitError if an encoding holds measurements such as depth."""
    if _MEASUREMENTS.fullmatch(encoding):
        raise DynsplitError(
            f'{what} holds measurements such as depth ({encoding}), no colours or grey; publish one of '
            f'{", ".join(ALLOWED)}'
        )


def describe(message: Image) -> str:
    """Return a description of the image for an error message."""
    return f'the image of {message.width}x{message.height} pixels in encoding {message.encoding!r}'


def packed(message: Image) -> Encoding | None:
    """Return the layout of packed pixels, None for planes and unknown encodings."""
    return PACKED.get(ASSUMED.get(message.encoding, message.encoding))


def planes(message: Image) -> list[np.ndarray]:
    """
    Return views of the message's planes, uint8 [rows, bytes of a row], without the padding of rows (``step``).

    The chroma rows of nv24 are twice as long as its luma rows, padding included, as in V4L2. Raises DynsplitError for
    an image without pixels, in an unknown encoding, or with bytes missing.
    """
    what = describe(message)
    width, height, step = message.width, message.height, message.step
    if not width or not height:
        raise DynsplitError(f'{what} has no pixels; check what publishes it')
    encoding = packed(message)
    if encoding in (_UYVY, _YUYV) and width % 2:  # OpenCV refuses an odd width, or reads beyond the row
        raise DynsplitError(
            f'{what} has an odd width, but two pixels share a colour in this encoding; publish an even width'
        )
    if encoding is not None:
        shapes = [(height, width * encoding.pixel_bytes, step)]
    elif message.encoding in SEMI_PLANAR:
        per_pair = SEMI_PLANAR[message.encoding][1]
        shapes = [(height, width, step), (-(-height // per_pair), 2 * -(-width // per_pair), step * 2 // per_pair)]
    else:
        check_colours(message.encoding, what)
        raise DynsplitError(f'{what}: this encoding is not known; publish one of {", ".join(ALLOWED)}')
    views, start = [], 0
    for rows, row, stride in shapes:
        needed = start + stride * (rows - 1) + row
        if stride < row or len(message.data) < needed:
            raise DynsplitError(
                f'{what} has step {step} and {len(message.data)} bytes, but needs at least {row} bytes '
                f'in each row and {max(needed, rows * row)} in all; check what publishes it'
            )
        data = np.frombuffer(message.data, np.uint8)[start:]
        views.append(np.lib.stride_tricks.as_strided(data, (rows, row), (stride, 1), writeable=False))
        start += rows * stride
    return views


def by_table(message: Image, bits: int = 16) -> np.ndarray:
    """Return an image as uint8 [height, width, 3], RGB; raise DynsplitError or cv2.error for a bad image."""
    views = planes(message)
    encoding = packed(message)
    if encoding is None:
        return _from_planes(message, *views)
    dtype = np.dtype(encoding.dtype)
    image = np.ascontiguousarray(views[0]).view(dtype.newbyteorder('>' if message.is_bigendian else '<'))
    image = image.astype(dtype, copy=False)
    image = image.reshape(message.height, message.width, *((encoding.channels,) if encoding.channels > 1 else ()))
    return to_8_bits(image if encoding.code is None else cv2.cvtColor(image, encoding.code), bits)


def _from_planes(message: Image, luma: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Return an image that consists of a luma plane and a plane of chroma pairs as RGB."""
    code, per_pair = SEMI_PLANAR[message.encoding]
    if per_pair == 1:  # OpenCV has no nv24: repeat each pixel four times, which makes an nv12
        luma = luma.repeat(2, 0).repeat(2, 1)
    else:  # OpenCV takes even sizes only
        luma = np.pad(luma, ((0, message.height % 2), (0, message.width % 2)), 'edge')
    pairs = np.ascontiguousarray(chroma).reshape(len(chroma), -1, 2)
    image = cv2.cvtColorTwoPlane(np.ascontiguousarray(luma), pairs, code)
    return image[::2, ::2] if per_pair == 1 else image[: message.height, : message.width]


def to_8_bits(image: np.ndarray, bits: int) -> np.ndarray:
    """Return uint8 values of uint8, or of uint16 with values of ``bits`` bits; larger values become 255."""
    if image.dtype == np.uint8:
        return image
    most = 2**bits - 1
    return np.rint(np.minimum(image, most) * np.float32(255 / most)).astype(np.uint8)


def from_array(image: np.ndarray, encoding: str) -> Image:
    """Return an array [height, width] or [height, width, channels] as an Image, with one copy of the bytes."""
    image = np.ascontiguousarray(image)
    message = Image(
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        step=image.nbytes // len(image),
        is_bigendian=sys.byteorder == 'big',
    )
    message.data = array.array('B')
    message.data.frombytes(image.data.cast('B'))
    return message
