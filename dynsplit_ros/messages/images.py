# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Converts camera messages to and from arrays with cv_bridge where it works, else with our own table."""

from __future__ import annotations

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.messages.bridge import bridge
from dynsplit_ros.messages.compressed import from_file
from dynsplit_ros.messages.encodings import ASSUMED, by_table, describe, from_array, planes


def to_rgb(message: Image | CompressedImage, bits: int = 16) -> np.ndarray:
    """
    Return a camera message as uint8 [height, width, 3], RGB, contiguous.

    Allowed are all encodings of colours or grey, with or without padding of rows (``step``), and image files. Values of
    16 bits are scaled to 8; ``bits`` is the number of bits that the camera uses. Raises DynsplitError for an image
    without pixels, with bytes missing, or in another encoding.
    """
    compressed = isinstance(message, CompressedImage)
    try:
        if compressed:
            return np.ascontiguousarray(from_file(message, bits))
        planes(message)  # cv_bridge checks less
        image = bridge().to_rgb(message, bits)
        return np.ascontiguousarray(by_table(message, bits) if image is None else image)
    except cv2.error as error:
        what = f'the compressed image of format {message.format[:100]!r}' if compressed else describe(message)
        raise DynsplitError(
            f'{what} could not be converted to RGB ({" ".join(str(error).split())[:200]}); check what publishes it'
        ) from error


def assumption(message: Image | CompressedImage) -> str:
    """Return a sentence about the assumption that ``to_rgb`` makes for an image's encoding, empty if none."""
    encoding = '' if isinstance(message, CompressedImage) else message.encoding
    if encoding not in ASSUMED:
        return ''
    return (
        f'images come in encoding {encoding!r}, which does not name colours; they are taken as '
        f'{ASSUMED[encoding]!r}; publish that encoding'
    )


def from_rgb(image: np.ndarray) -> Image:
    """Return uint8 [height, width, 3], RGB, as an Image without a header."""
    return to_image(image, 'rgb8')


def to_image(image: np.ndarray, encoding: str) -> Image:
    """Return an array as an Image without a header; ``encoding`` must be one of rgb8, mono8, mono16."""
    message = bridge().to_message(image, encoding)
    return from_array(image, encoding) if message is None else message
