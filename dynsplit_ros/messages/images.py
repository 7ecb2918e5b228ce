# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Camera messages to and from arrays."""

from __future__ import annotations

import array
import io
import sys

import cv2
import numpy as np
from PIL import Image as ImageFile
from sensor_msgs.msg import CompressedImage, Image

from dynsplit_ros.codec.image import is_png, png_chunks
from dynsplit_ros.errors import DynsplitError

#: Channels of each kind of pixels in sensor_msgs/image_encodings.hpp that has colours or grey, and how OpenCV makes RGB
#: of them: as cv_bridge does, of which the Python package index has but a part. OpenCV names a Bayer pattern otherwise.
_KINDS = {
    'rgb': (3, None), 'bgr': (3, cv2.COLOR_BGR2RGB), 'rgba': (4, cv2.COLOR_RGBA2RGB), 'bgra': (4, cv2.COLOR_BGRA2RGB),
    'mono': (1, cv2.COLOR_GRAY2RGB),
    'bayer_rggb': (1, cv2.COLOR_BayerBG2RGB), 'bayer_bggr': (1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg': (1, cv2.COLOR_BayerGR2RGB), 'bayer_grbg': (1, cv2.COLOR_BayerGB2RGB),
}
_UYVY, _YUYV = (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY), (np.uint8, 2, cv2.COLOR_YUV2RGB_YUYV)
#: Type and number of a pixel's elements, and how RGB is made of them, by encoding.
_ENCODINGS = {
    **{f'{kind}{8 * np.dtype(dtype).itemsize}': (dtype, *how) for kind, how in _KINDS.items()
       for dtype in (np.uint8, np.uint16)},
    'yuv422': _UYVY, 'uyvy': _UYVY, 'yuv422_yuy2': _YUYV, 'yuyv': _YUYV,
}
#: A compressed image may claim any size; one with more pixels than this is refused.
MOST_PIXELS = 2**26


def to_rgb(message: Image | CompressedImage) -> np.ndarray:
    """
    Return a camera message as uint8 [height, width, 3], RGB, contiguous.

    Takes every encoding of colours or grey that cv_bridge converts, 16 bits scaled to 8, rows with padding (``step``)
    included. Raises DynsplitError for an image without pixels, with bytes missing, or in another encoding.
    """
    compressed = isinstance(message, CompressedImage)
    if compressed:
        what = f'the compressed image of format {message.format!r} and {len(message.data)} bytes'
        if not message.data:
            raise DynsplitError(f'the compressed image ({message.format!r}) has no bytes; check what publishes it')
    else:
        what = f'the image of {message.width}x{message.height} pixels in encoding {message.encoding!r}'
    try:
        image = _decoded(message) if compressed else _converted(message, what)
    except cv2.error as error:
        raise DynsplitError(f'{what} could not be converted to RGB ({" ".join(str(error).split())[:200]}); check what '
                            'publishes it') from error
    if image is None:
        raise DynsplitError(f'{what} could not be decoded; check what publishes it')
    return np.ascontiguousarray(image)


def _decoded(message: CompressedImage) -> np.ndarray | None:
    """Return the pixels of a JPEG or PNG file as they are stored, None where it is neither."""
    data = np.frombuffer(message.data, np.uint8)
    # OpenCV allocates what a file claims, gigabytes for a few bytes, before it looks whether that much is there.
    try:
        with ImageFile.open(io.BytesIO(data), formats=('JPEG', 'PNG')) as header:
            pixels = header.width * header.height
    except ImageFile.DecompressionBombError:
        pixels = MOST_PIXELS + 1
    except (OSError, ValueError, SyntaxError, EOFError):
        return None
    if pixels > MOST_PIXELS:
        raise DynsplitError(f'a compressed image of {len(data)} bytes claims more than {MOST_PIXELS} pixels, which no '
                            'camera has; check what publishes it')
    if is_png(data.data) and not _is_whole(data.data):
        return None
    image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _is_whole(png: memoryview) -> bool:
    """Tell whether each chunk of a PNG lies within it."""
    try:
        for _ in png_chunks(png):
            pass
    except DynsplitError:
        return False
    return True


def _converted(message: Image, what: str) -> np.ndarray:
    """Return the pixels of an image as RGB."""
    if not message.width or not message.height:
        raise DynsplitError(f'{what} has no pixels; check what publishes it')
    if message.encoding not in _ENCODINGS:
        raise DynsplitError(f'{what}: this encoding is not known; publish one of {", ".join(_ENCODINGS)}')
    kind, channels, code = _ENCODINGS[message.encoding]
    dtype = np.dtype(kind).newbyteorder('>' if message.is_bigendian else '<')
    row = message.width * channels * dtype.itemsize
    if message.step < row or len(message.data) < message.step * (message.height - 1) + row:
        raise DynsplitError(f'{what} has step {message.step} and {len(message.data)} bytes, but needs at least '
                            f'{row} bytes in each row; check what publishes it')
    rows = np.lib.stride_tricks.as_strided(
        np.frombuffer(message.data, np.uint8), (message.height, row), (message.step, 1))
    image = np.ascontiguousarray(rows).view(dtype).astype(kind, copy=False)
    image = image.reshape(message.height, message.width, *((channels,) if channels > 1 else ()))
    if code is not None:
        image = cv2.cvtColor(image, code)
    return image if image.dtype == np.uint8 else np.rint(image * np.float32(255 / 65535)).astype(np.uint8)


def from_rgb(image: np.ndarray) -> Image:
    """Return uint8 [height, width, 3], RGB, as an Image without a header; one copy, none element by element."""
    height, width, _ = image.shape
    message = Image(height=height, width=width, encoding='rgb8', step=3 * width,
                    is_bigendian=sys.byteorder == 'big')
    message.data = array.array('B')
    message.data.frombytes(np.ascontiguousarray(image).data.cast('B'))
    return message
