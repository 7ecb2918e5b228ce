# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Camera messages become RGB arrays whatever their encoding and padding."""

from __future__ import annotations

import array
import re
import resource
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.messages.images import assumption, from_rgb, to_image, to_rgb

RGB = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)


def image(pixels: np.ndarray, encoding: str, padding: int = 0, *, is_bigendian: bool = False) -> Image:
    """Return an Image of these pixels whose rows end with some bytes that mean nothing."""
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    padded = np.full((len(rows), rows.shape[1] + padding), 170, np.uint8)
    padded[:, : rows.shape[1]] = rows
    return Image(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        step=padded.shape[1],
        is_bigendian=is_bigendian,
        data=array.array('B', padded.tobytes()),
    )


@pytest.mark.parametrize('padding', [0, 1, 8])
@pytest.mark.parametrize(
    'encoding, pixels',
    [
        ('rgb8', RGB),
        ('bgr8', np.ascontiguousarray(RGB[:, :, ::-1])),
        ('rgba8', np.dstack([RGB, np.full((6, 10), 255, np.uint8)])),
        ('bgra8', np.dstack([RGB[:, :, ::-1], np.full((6, 10), 255, np.uint8)])),
    ],
)
def test_colour_encodings(encoding, pixels, padding) -> None:
    assert np.array_equal(to_rgb(image(pixels, encoding, padding)), RGB)


@pytest.mark.parametrize('padding', [0, 5])
def test_grey_becomes_three_equal_channels(padding) -> None:
    grey = np.ascontiguousarray(RGB[:, :, 0])
    assert np.array_equal(to_rgb(image(grey, 'mono8', padding)), np.dstack([grey] * 3))


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('is_bigendian', [False, True])
@pytest.mark.parametrize(
    'kind, pixels',
    [
        ('rgb16', RGB),
        ('bgr16', RGB[:, :, ::-1]),
        ('rgba16', np.dstack([RGB, RGB[:, :, :1]])),
        ('bgra16', np.dstack([RGB[:, :, ::-1], RGB[:, :, :1]])),
    ],
)
def test_16_bits_are_scaled_to_8(kind, pixels, is_bigendian, padding) -> None:
    wide = np.ascontiguousarray(pixels.astype('>u2' if is_bigendian else '<u2') * 257)
    wide = wide.astype('>u2' if is_bigendian else '<u2')
    assert np.array_equal(to_rgb(image(wide, kind, padding, is_bigendian=is_bigendian)), RGB)
    grey = np.ascontiguousarray(wide[:, :, 0])
    assert np.array_equal(
        to_rgb(image(grey, 'mono16', padding, is_bigendian=is_bigendian)), np.dstack([pixels[:, :, 0]] * 3)
    )


@pytest.mark.parametrize('bits, most', [(8, 255), (16, 65535)])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('colour', [0, 1, 2])
def test_bayer_patterns(pattern, colour, bits, most) -> None:
    """A camera that sees one colour alone has light in the places of that colour alone."""
    raw = np.zeros((6, 10), np.uint8 if bits == 8 else np.uint16)
    for place, letter in enumerate(pattern):
        raw[place // 2 :: 2, place % 2 :: 2] = most * (letter == 'rgb'[colour])
    seen = to_rgb(image(raw, f'bayer_{pattern}{bits}', 4))
    expected = [255 * (channel == colour) for channel in range(3)]
    assert np.array_equal(seen, np.broadcast_to(np.array(expected, np.uint8), (6, 10, 3)))


@pytest.mark.parametrize(
    'encoding, order', [('yuv422', 'uyvy'), ('uyvy', 'uyvy'), ('yuv422_yuy2', 'yuyv'), ('yuyv', 'yuyv')]
)
@pytest.mark.parametrize(
    'colour, yuv', [((255, 0, 0), (81, 90, 240)), ((0, 255, 0), (145, 54, 34)), ((0, 0, 255), (41, 240, 110))]
)
def test_webcams_yuv(encoding, order, colour, yuv) -> None:
    """ITU-R BT.601's values of the pure colours."""
    pair = np.array([yuv['yuv'.index(letter)] for letter in order], np.uint8).reshape(2, 2)
    seen = to_rgb(image(np.tile(pair, (6, 5, 1)), encoding, 4))
    assert seen.shape == (6, 10, 3) and np.abs(seen.astype(int) - colour).max() <= 3


def semi_planar(luma: np.ndarray, pairs: np.ndarray, encoding: str, padding: int) -> Image:
    """Return an Image of a luma plane and a plane of chroma pairs, each row of luma so many bytes too long."""
    height, width = luma.shape
    chroma = pairs.reshape(len(pairs), -1)
    step = max(width, chroma.shape[1] if encoding != 'nv24' else 0) + padding
    data = bytearray()
    for rows, stride in ((luma, step), (chroma, 2 * step if encoding == 'nv24' else step)):
        padded = np.full((len(rows), stride), 170, np.uint8)
        padded[:, : rows.shape[1]] = rows
        data += padded.tobytes()
    return Image(height=height, width=width, encoding=encoding, step=step, data=array.array('B', bytes(data)))


@pytest.mark.parametrize('padding', [0, 1, 6])
@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'nv24'])
@pytest.mark.parametrize('height, width', [(6, 10), (5, 7), (1, 1)])
def test_planes_of_luma_and_chroma(height, width, encoding, padding) -> None:
    """The left half is red, the right half blue (ITU-R BT.601), so that planes and order of the pairs show."""
    per_pair = 1 if encoding == 'nv24' else 2
    luma = np.full((height, width), 81, np.uint8)
    pairs = np.full((-(-height // per_pair), -(-width // per_pair), 2), (90, 240), np.uint8)
    blue = pairs.shape[1] // 2
    if blue:
        pairs[:, blue:], luma[:, blue * per_pair :] = (240, 110), 41
    if encoding == 'nv21':
        pairs = pairs[..., ::-1].copy()
    seen = to_rgb(semi_planar(luma, pairs, encoding, padding)).astype(int)
    assert seen.shape == (height, width, 3)
    edge = blue * per_pair or width
    assert np.abs(seen[:, :edge] - (255, 0, 0)).max() <= 3
    assert not blue or np.abs(seen[:, edge:] - (0, 0, 255)).max() <= 3


@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'nv24'])
def test_a_missing_byte_of_the_last_plane_is_refused(encoding) -> None:
    pairs = np.zeros((6, 10, 2) if encoding == 'nv24' else (3, 5, 2), np.uint8)
    message = semi_planar(np.zeros((6, 10), np.uint8), pairs, encoding, 0)
    message.data = message.data[:-1]
    with pytest.raises(DynsplitError, match=f'{len(message.data)} bytes, but needs .* {len(message.data) + 1} in all'):
        to_rgb(message)


def test_encodings_without_colours_are_taken_for_what_nodes_mean() -> None:
    """``cv2_to_imgmsg(image)`` without an encoding calls colours 8UC3 and grey 8UC1."""
    bgr = np.ascontiguousarray(RGB[:, :, ::-1])
    for pixels, encoding, meant, expected in (
        (bgr, '8UC3', 'bgr8', RGB),
        (bgr[:, :, 0].copy(), '8UC1', 'mono8', np.dstack([bgr[:, :, :1]] * 3)),
    ):
        message = image(pixels, encoding, 3)
        assert np.array_equal(to_rgb(message), expected)
        assert repr(encoding) in assumption(message) and repr(meant) in assumption(message)
    assert not assumption(image(RGB, 'rgb8')) and not assumption(CompressedImage(format='8UC3; jpeg'))


@pytest.mark.parametrize('bits', [9, 12, 14, 16])
def test_a_camera_that_uses_fewer_than_16_bits(bits) -> None:
    most = 2**bits - 1
    values = np.linspace(0, most, 256).astype(np.uint16)[None]
    expected = np.rint(values[0] * (255 / most)).astype(int)
    files = [
        CompressedImage(format=f'mono16; {name}', data=cv2.imencode(f'.{name}', values)[1].tobytes())
        for name in ('png', 'tiff')
    ]
    for message in (image(values, 'mono16'), image(values, 'mono16', 1), *files):
        seen = to_rgb(message, bits)
        assert seen.dtype == np.uint8 and np.abs(seen[0, :, 1] - expected).max() <= 1
    colours = np.dstack([values] * 3)
    assert np.abs(to_rgb(image(colours, 'bgr16'), bits)[0, :, 2] - expected).max() <= 1
    assert np.array_equal(to_rgb(image(RGB, 'rgb8'), bits), RGB), '8 bits are 8 bits'
    over = np.array([[most, min(2 * most, 65535)]], np.uint16)
    assert to_rgb(image(over, 'mono16'), bits).min() == 255, 'what is brighter than white is white'


@pytest.mark.parametrize('encoding, dtype', [('rgb8', np.uint8), ('mono8', np.uint8), ('mono16', np.uint16)])
def test_arrays_become_images(encoding, dtype) -> None:
    pixels = np.arange(6 * 10 * 3, dtype=dtype).reshape(6, 10, 3)
    pixels = pixels if encoding == 'rgb8' else pixels[:, :, 0]  # not contiguous
    message = to_image(pixels, encoding)
    assert (message.height, message.width, message.encoding) == (6, 10, encoding)
    assert message.step == pixels.nbytes // 6 and bytes(message.data) == pixels.tobytes()
    assert message.is_bigendian == (sys.byteorder == 'big')


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


@pytest.mark.parametrize('extension', ['.png', '.bmp', '.tiff', '.webp'])
def test_image_files(extension) -> None:
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101] if extension == '.webp' else []
    for pixels, expected in ((RGB[:, :, ::-1], RGB), (RGB[:, :, 0], np.dstack([RGB[:, :, 0]] * 3))):
        data = cv2.imencode(extension, pixels, lossless)[1].tobytes()
        seen = to_rgb(CompressedImage(format=f'bgr8; {extension[1:]} compressed bgr8', data=data))
        assert seen.dtype == np.uint8 and seen.flags.c_contiguous and np.array_equal(seen, expected)


def claiming(extension: str, width: int, height: int) -> CompressedImage:
    """Return a file of a few bytes that claims so many pixels."""
    data = cv2.imencode(extension, RGB, [cv2.IMWRITE_WEBP_QUALITY, 90] if extension == '.webp' else [])[1].tobytes()
    if extension == '.png':
        ihdr = b'IHDR' + struct.pack('>II', width, height) + data[24:29]
        data = data[:12] + ihdr + struct.pack('>I', zlib.crc32(ihdr)) + data[33:]
    elif extension == '.bmp':
        data = data[:18] + struct.pack('<ii', width, height) + data[26:]
    elif extension == '.tiff':
        for tag, value in ((256, width), (257, height)):
            data = re.sub(
                re.escape(struct.pack('<HH', tag, 3)) + b'.{8}',
                struct.pack('<HHIHH', tag, 3, 1, value, 0),
                data,
                flags=re.DOTALL,
            )
    elif extension == '.webp':
        place = data.index(b'\x9d\x01\x2a') + 3
        data = data[:place] + struct.pack('<HH', min(width, 16383), min(height, 16383)) + data[place + 4 :]
    else:
        place = data.index(b'\xff\xc0') + 5
        data = data[:place] + struct.pack('>HH', height, width) + data[place + 4 :]
    return CompressedImage(format=extension, data=data)


@pytest.mark.parametrize('extension', ['.png', '.jpg', '.bmp', '.tiff', '.webp'])
def test_a_compressed_image_has_no_more_memory_allocated_than_a_cameras(extension) -> None:
    assert to_rgb(claiming(extension, RGB.shape[1], RGB.shape[0])).shape == RGB.shape
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for side in (9000, 32000):
        with pytest.raises(DynsplitError, match='claims more than 67108864 pixels'):
            to_rgb(claiming(extension, side, side))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 100_000


def test_a_png_whose_chunk_claims_more_than_came_is_refused_at_once() -> None:
    png = cv2.imencode('.png', RGB)[1].tobytes()
    place = png.index(b'IDAT') - 4
    longer = png[:place] + struct.pack('>I', 2**31 - 1) + png[place + 4 :]
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DynsplitError, match='could not be decoded'):
        to_rgb(CompressedImage(format='png', data=longer))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 100_000


def compressed(name: str, extension: str, dtype: type) -> CompressedImage:
    """Return a file of grey pixels."""
    return CompressedImage(format=name, data=cv2.imencode(extension, RGB[:, :, 0].astype(dtype))[1].tobytes())


@pytest.mark.parametrize(
    'message, sentence',
    [
        (Image(encoding='rgb8'), 'has no pixels'),
        (image(RGB, 'seven colours'), "'seven colours'"),
        (image(RGB, ''), 'this encoding is not known; publish one of rgb8'),
        (image(RGB[:, :, 0].astype(np.float32), '32FC1'), '32FC1'),
        (image(RGB[:, :9, :2].copy(), 'yuv422'), "'yuv422' has an odd width"),
        (image(RGB[:, :9, :2].copy(), 'yuyv'), "'yuyv' has an odd width"),
        (Image(height=6, width=10, encoding='rgb8', step=29, data=bytes(6 * 29)), 'step 29'),
        (Image(height=6, width=10, encoding='rgb8', step=30, data=bytes(179)), '179 bytes'),
        (Image(height=2**31, width=2**31, encoding='rgb8', step=3, data=bytes(9)), 'step 3'),
        (CompressedImage(format='jpeg'), 'has no bytes'),
        (CompressedImage(format='jpeg', data=b'\xff\xd8\xff nothing'), 'jpeg'),
        (CompressedImage(format='jpeg', data=cv2.imencode('.jpg', RGB)[1].tobytes()[:300]), '300 bytes could not'),
        (image(RGB[:, :, 0].astype(np.uint16), '16UC1'), 'depth (16UC1), no colours or grey; publish one of rgb8'),
        (compressed('16UC1; png compressed ', '.png', np.uint16), 'depth (16UC1), no colours or grey; publish'),
        (compressed('16UC1; compressedDepth png', '.png', np.uint16), 'depth, no colours or grey; publish JPEG, PNG'),
        (compressed('32FC1; tiff', '.tiff', np.float32), 'depth (32FC1), no colours or grey; publish'),
        (compressed('tiff', '.tiff', np.float32), '32 bits'),
        (
            CompressedImage(format='tiff', data=cv2.imencode('.tiff', RGB * np.uint16(257))[1].tobytes()),
            '16 bits of RGB',
        ),
        (CompressedImage(format='h264', data=bytes.fromhex('00000001674200')), 'publish JPEG, PNG, BMP, TIFF or WEBP'),
        (CompressedImage(format='nv12', data=bytes(90)), 'publish JPEG, PNG, BMP, TIFF or WEBP'),
        (CompressedImage(format='x' * 10**6, data=b'nothing'), 'publish JPEG, PNG, BMP, TIFF or WEBP'),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(message, sentence) -> None:
    with pytest.raises(DynsplitError) as refused:
        to_rgb(message)
    assert sentence in str(refused.value) and '\n' not in str(refused.value) and len(str(refused.value)) < 600
