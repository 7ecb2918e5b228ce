# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Camera messages become RGB arrays whatever their encoding and padding."""

from __future__ import annotations

import array
import resource
import struct
import zlib

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.messages.images import from_rgb, to_rgb

RGB = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)


def image(pixels: np.ndarray, encoding: str, padding: int = 0, *, is_bigendian: bool = False) -> Image:
    """Return an Image of these pixels whose rows end with some bytes that mean nothing."""
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    padded = np.full((len(rows), rows.shape[1] + padding), 170, np.uint8)
    padded[:, :rows.shape[1]] = rows
    return Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=padded.shape[1],
                 is_bigendian=is_bigendian, data=array.array('B', padded.tobytes()))


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


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('is_bigendian', [False, True])
@pytest.mark.parametrize('kind, pixels', [
    ('rgb16', RGB),
    ('bgr16', RGB[:, :, ::-1]),
    ('rgba16', np.dstack([RGB, RGB[:, :, :1]])),
    ('bgra16', np.dstack([RGB[:, :, ::-1], RGB[:, :, :1]])),
])
def test_16_bits_are_scaled_to_8(kind, pixels, is_bigendian, padding) -> None:
    wide = np.ascontiguousarray(pixels.astype('>u2' if is_bigendian else '<u2') * 257)
    wide = wide.astype('>u2' if is_bigendian else '<u2')
    assert np.array_equal(to_rgb(image(wide, kind, padding, is_bigendian=is_bigendian)), RGB)
    grey = np.ascontiguousarray(wide[:, :, 0])
    assert np.array_equal(to_rgb(image(grey, 'mono16', padding, is_bigendian=is_bigendian)),
                          np.dstack([pixels[:, :, 0]] * 3))


@pytest.mark.parametrize('bits, most', [(8, 255), (16, 65535)])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('colour', [0, 1, 2])
def test_bayer_patterns(pattern, colour, bits, most) -> None:
    """A camera that sees one colour alone has light in the places of that colour alone."""
    raw = np.zeros((6, 10), np.uint8 if bits == 8 else np.uint16)
    for place, letter in enumerate(pattern):
        raw[place // 2::2, place % 2::2] = most * (letter == 'rgb'[colour])
    seen = to_rgb(image(raw, f'bayer_{pattern}{bits}', 4))
    expected = [255 * (channel == colour) for channel in range(3)]
    assert np.array_equal(seen, np.broadcast_to(np.array(expected, np.uint8), (6, 10, 3)))


@pytest.mark.parametrize('encoding, order', [
    ('yuv422', 'uyvy'), ('uyvy', 'uyvy'), ('yuv422_yuy2', 'yuyv'), ('yuyv', 'yuyv')])
@pytest.mark.parametrize('colour, yuv', [
    ((255, 0, 0), (81, 90, 240)), ((0, 255, 0), (145, 54, 34)), ((0, 0, 255), (41, 240, 110))])
def test_webcams_yuv(encoding, order, colour, yuv) -> None:
    """ITU-R BT.601's values of the pure colours."""
    pair = np.array([yuv['yuv'.index(letter)] for letter in order], np.uint8).reshape(2, 2)
    seen = to_rgb(image(np.tile(pair, (6, 5, 1)), encoding, 4))
    assert seen.shape == (6, 10, 3) and np.abs(seen.astype(int) - colour).max() <= 3


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
    grey = cv2.imencode('.png', RGB[:, :, 0])[1].tobytes()
    message = CompressedImage(format='mono8; png compressed', data=grey)
    assert np.array_equal(to_rgb(message), np.dstack([RGB[:, :, 0]] * 3))


def claiming(extension: str, width: int, height: int) -> CompressedImage:
    """Return a file of a few bytes that claims so many pixels."""
    data = cv2.imencode(extension, RGB)[1].tobytes()
    if extension == '.png':
        ihdr = b'IHDR' + struct.pack('>II', width, height) + data[24:29]
        data = data[:12] + ihdr + struct.pack('>I', zlib.crc32(ihdr)) + data[33:]
    else:
        place = data.index(b'\xff\xc0') + 5
        data = data[:place] + struct.pack('>HH', height, width) + data[place + 4:]
    return CompressedImage(format=extension, data=data)


@pytest.mark.parametrize('extension', ['.png', '.jpg'])
def test_a_compressed_image_has_no_more_memory_allocated_than_a_cameras(extension) -> None:
    assert to_rgb(claiming(extension, RGB.shape[1], RGB.shape[0])).shape == RGB.shape
    for side in (9000, 32000):
        with pytest.raises(DynsplitError, match='claims more than 67108864 pixels'):
            to_rgb(claiming(extension, side, side))


def test_a_png_whose_chunk_claims_more_than_came_is_refused_at_once() -> None:
    png = cv2.imencode('.png', RGB)[1].tobytes()
    place = png.index(b'IDAT') - 4
    longer = png[:place] + struct.pack('>I', 2**31 - 1) + png[place + 4:]
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DynsplitError, match='could not be decoded'):
        to_rgb(CompressedImage(format='png', data=longer))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 100_000


@pytest.mark.parametrize('message, sentence', [
    (Image(encoding='rgb8'), 'has no pixels'),
    (image(RGB, 'seven colours'), "'seven colours'"),
    (image(RGB, ''), 'this encoding is not known; publish one of rgb8'),
    (image(RGB[:, :, 0].astype(np.float32), '32FC1'), '32FC1'),
    (image(RGB[:, :9, :2].copy(), 'yuv422'), 'yuv422'),
    (Image(height=6, width=10, encoding='rgb8', step=29, data=bytes(6 * 29)), 'step 29'),
    (Image(height=6, width=10, encoding='rgb8', step=30, data=bytes(179)), '179 bytes'),
    (Image(height=2**31, width=2**31, encoding='rgb8', step=3, data=bytes(9)), 'step 3'),
    (CompressedImage(format='jpeg'), 'has no bytes'),
    (CompressedImage(format='jpeg', data=b'\xff\xd8\xff nothing'), 'jpeg'),
])
def test_what_cannot_be_used_is_refused_in_one_sentence(message, sentence) -> None:
    with pytest.raises(DynsplitError) as refused:
        to_rgb(message)
    assert sentence in str(refused.value) and '\n' not in str(refused.value)
