# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Camera messages become RGB arrays whatever their encoding and padding."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.messages.images import from_rgb, to_rgb

RGB = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)


def image(pixels: np.ndarray, encoding: str, padding: int = 0) -> Image:
    """Return an Image of these pixels whose rows end with some bytes that mean nothing."""
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    padded = np.full((len(rows), rows.shape[1] + padding), 170, np.uint8)
    padded[:, :rows.shape[1]] = rows
    return Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=padded.shape[1],
                 data=array.array('B', padded.tobytes()))


@pytest.mark.parametrize('padding', [0, 1, 8])
@pytest.mark.parametrize('encoding, pixels', [
    ('rgb8', RGB),
    ('bgr8', np.ascontiguousarray(RGB[:, :, ::-1])),
    ('rgba8', np.dstack([RGB, np.full((6, 10), 255, np.uint8)])),
    ('bgra8', np.dstack([RGB[:, :, ::-1], np.full((6, 10), 255, np.uint8)])),
])
def test_colour_encodings(encoding, pixels, padding) -> None:
    assert np.array_equal(to_rgb(image(pixels, encoding, padding)), RGB)


@pytest.mark.parametrize('padding', [0, 5])
def test_grey_becomes_three_equal_channels(padding) -> None:
    grey = np.ascontiguousarray(RGB[:, :, 0])
    assert np.array_equal(to_rgb(image(grey, 'mono8', padding)), np.dstack([grey] * 3))


def test_the_last_row_need_not_be_padded() -> None:
    message = image(RGB, 'rgb8', 4)
    message.data = message.data[:-4]
    assert np.array_equal(to_rgb(message), RGB)


def test_there_and_back() -> None:
    assert np.array_equal(to_rgb(from_rgb(RGB)), RGB)
    assert np.array_equal(to_rgb(from_rgb(RGB[:, ::2])), RGB[:, ::2])


def test_compressed() -> None:
    png = cv2.imencode('.png', RGB[:, :, ::-1])[1].tobytes()
    assert np.array_equal(to_rgb(CompressedImage(format='rgb8; png compressed bgr8', data=png)), RGB)


@pytest.mark.parametrize('message, sentence', [
    (Image(encoding='rgb8'), 'has no pixels'),
    (image(RGB, 'seven colours'), "'seven colours'"),
    (image(RGB, ''), 'does not know this encoding'),
    (image(RGB[:, :, :2].copy(), 'yuv422'), 'yuv422'),
    (Image(height=6, width=10, encoding='rgb8', step=29, data=bytes(6 * 29)), 'step 29'),
    (Image(height=6, width=10, encoding='rgb8', step=30, data=bytes(179)), '179 bytes'),
    (Image(height=2**31, width=2**31, encoding='rgb8', step=3, data=bytes(9)), 'step 3'),
    (CompressedImage(format='jpeg'), 'has no bytes'),
    (CompressedImage(format='jpeg', data=b'\xff\xd8\xff nothing'), 'jpeg'),
])
def test_what_cannot_be_used_is_refused_in_one_sentence(message, sentence) -> None:
    try:
        result = to_rgb(message)
    except DynsplitError as error:
        assert sentence in str(error) and '\n' not in str(error)
    else:  # a real cv_bridge knows yuv422
        assert message.encoding == 'yuv422' and result.shape == RGB.shape
