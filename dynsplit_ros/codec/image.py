# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
JPEG and WebP for 8-bit images [N, 3, H, W] in RGB, which split 0 sends.

A batch is one picture with its images below each other. Before decoding, this module checks that all parts before the
pixels are those that its encoder writes for the expected size. So a payload cannot make the decoder allocate more,
rotate the picture, or use a rare format.

OpenCV writes JPEG and reads both. Pillow writes WebP, because OpenCV cannot set the effort. On crops of 224 x 224
pixels, lossless WebP takes 66 ms with OpenCV, and 3 ms with Pillow's least effort for 18 % more bytes. Lossy WebP takes
4 ms with OpenCV, and half of that with effort 2 for 3 % more bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import io
import struct

import cv2
import numpy as np
import PIL.Image
from torch import Tensor

from dynsplit_ros.codec.raw import Buffer, Bytes, bytes_of, element_type, empty
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tensors import TensorSpec

#: Qualities of the codecs ``jpegN`` and ``webpN``.
JPEG_QUALITIES = (98, 95, 90, 75)
WEBP_QUALITIES = (95, 90, 80, 50)

#: Largest number of pixels of a side, by format.
_JPEG_MAX_SIDE, _WEBP_MAX_SIDE = 65500, 16383
_LOSSY_EFFORT, _LOSSLESS_EFFORT = 2, 0
_READ = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
#: Largest number of bytes of a picture besides its pixels: headers, tables, chunk frames.
_OVERHEAD_BYTES = 4096


def is_image(spec: TensorSpec) -> bool:
    """Return whether a tensor is an 8-bit image [N, 3, H, W] with at least one pixel."""
    return spec.dtype == 'uint8' and len(spec.shape) == 4 and spec.shape[1] == 3 and spec.nbytes > 0


def check_image(dtype: str, shape: Sequence[int]) -> None:
    """Raise DynsplitError unless a tensor of this type and shape is an image."""
    if not is_image(TensorSpec('', dtype, tuple(shape))):
        raise DynsplitError(f'{dtype} {list(shape)} is no 8-bit image [N, 3, H, W]: use another codec')


def jpeg(quality: int) -> tuple[Callable[[Tensor], Buffer], Callable[[memoryview, TensorSpec], Tensor]]:
    """
    Return encode and decode for baseline JPEG with colours at full resolution (4:4:4).

    Colours at half the resolution (4:2:0) save 20 to 25 % of the bytes at the same quality. But at the same agreement,
    4:4:4 needs fewer bytes: EfficientNet-Lite0 keeps 0.932 of its best classes with 27.8 KiB (quality 95), and with
    30.4 KiB in 4:2:0 (quality 98), measured on 220 crops of photographs of 224 x 224 pixels.
    """
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        cv2.IMWRITE_JPEG_PROGRESSIVE,
        0,
        cv2.IMWRITE_JPEG_OPTIMIZE,
        0,
    ]

    def encode(tensor: Tensor) -> Buffer:
        done, data = cv2.imencode('.jpg', _picture(tensor, 'BGR', _JPEG_MAX_SIDE), settings)
        if not done:
            raise DynsplitError(f'OpenCV could not write {list(tensor.shape)} as JPEG: use another codec')
        return data.data

    def decode(data: memoryview, spec: TensorSpec) -> Tensor:
        _check_jpeg(data, *_picture_size(data, spec))
        return _decode(data, spec)

    return encode, decode


def webp(quality: int | None) -> tuple[Callable[[Tensor], Buffer], Callable[[memoryview, TensorSpec], Tensor]]:
    """Return encode and decode for WebP of a quality, or lossless for ``None``."""
    settings = (
        {'quality': quality, 'method': _LOSSY_EFFORT}
        if quality is not None
        else {'lossless': True, 'quality': 0, 'method': _LOSSLESS_EFFORT}
    )

    def encode(tensor: Tensor) -> Buffer:
        data = io.BytesIO()
        PIL.Image.fromarray(_picture(tensor, 'RGB', _WEBP_MAX_SIDE)).save(data, 'WEBP', **settings)
        return data.getbuffer()

    def decode(data: memoryview, spec: TensorSpec) -> Tensor:
        _check_webp(data, *_picture_size(data, spec), quality is None)
        return _decode(data, spec)

    return encode, decode


def _picture(tensor: Tensor, order: str, max_side: int) -> Bytes:
    """Return a copy of an image's pixels, [rows, columns, 3], in this order of colours."""
    check_image(element_type(tensor), tensor.shape)
    count, _, height, width = tensor.shape
    if max(count * height, width) > max_side:
        raise DynsplitError(f'{list(tensor.shape)} is beyond the {max_side} rows and columns of this format')
    picture = np.empty((count, height, width, 3), np.uint8)
    for interleaved, planes in zip(picture, bytes_of(tensor).reshape(tensor.shape)):
        # cv2.merge is 50 times as fast as numpy's transposed copy.
        cv2.merge([planes['RGB'.index(colour)] for colour in order], dst=interleaved)
    return picture.reshape(count * height, width, 3)


def _decode(data: memoryview, spec: TensorSpec) -> Tensor:
    count, _, height, width = spec.shape
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), _READ)
    except cv2.error as error:
        raise DynsplitError('the picture is damaged') from error
    if picture is None or picture.shape != (count * height, width, 3):
        raise DynsplitError('the picture is damaged')
    tensor = empty(spec)
    pixels = picture[..., ::-1].reshape(count, height, width, 3)
    bytes_of(tensor).reshape(spec.shape)[:] = pixels.transpose(0, 3, 1, 2)
    return tensor


def _picture_size(data: memoryview, spec: TensorSpec) -> tuple[int, int]:
    """Return width and height of the picture that carries ``spec``."""
    check_image(spec.dtype, spec.shape)
    count, _, height, width = spec.shape
    limit = spec.nbytes + spec.nbytes // 8 + count * height + _OVERHEAD_BYTES
    if data.nbytes > limit:
        raise DynsplitError(f'{data.nbytes} bytes came, but no such picture has more than {limit}')
    return width, count * height


def _check_webp(data: memoryview, width: int, height: int, lossless: bool) -> None:
    """
    Accept one key frame of this size, lossy or lossless, without transparency, and nothing else.

    Format: RFC 9649, sections 2.4 to 2.6 and 3.4; RFC 6386, section 9.1.
    """
    kind = 'lossless' if lossless else 'lossy'
    start = bytes(data[:30])
    if len(start) < 30 or start[:4] != b'RIFF' or start[8:16] != (b'WEBPVP8L' if lossless else b'WEBPVP8 '):
        raise DynsplitError(f'the WebP is truncated or not a plain {kind} one')
    container, chunk = struct.unpack_from('<I', start, 4)[0], struct.unpack_from('<I', start, 16)[0]
    if container + 8 != data.nbytes or chunk + chunk % 2 + 12 != container:
        raise DynsplitError(f'the WebP declares {container + 8} bytes, but {data.nbytes} came')
    if lossless:
        sizes = struct.pack('<I', (height - 1) << 14 | width - 1)  # then one bit for alpha and three for the version
        fits = start[20:25] == b'\x2f' + sizes
    else:
        fits = not start[20] & 1 and start[23:30] == b'\x9d\x01\x2a' + struct.pack('<2H', width, height)
    if not fits:
        raise DynsplitError(f'the WebP header is not that of {width} x {height} {kind} pixels')


def _check_jpeg(data: memoryview, width: int, height: int) -> None:
    """
    Accept JFIF header, tables and a baseline frame of this size in 4:4:4, then one scan up to the end.

    Format: ITU-T T.81, annex B.
    """
    if bytes(data[:2]) != b'\xff\xd8' or bytes(data[-2:]) != b'\xff\xd9':
        raise DynsplitError('the JPEG is truncated or none')
    frame = struct.pack('>BHHB', 8, height, width, 3)
    position, frames = 2, 0
    while True:
        if position + 4 > data.nbytes:
            raise DynsplitError('the JPEG is truncated')
        marker, length = struct.unpack_from('>HH', data, position)
        body = bytes(data[position + 4 : position + 2 + length])
        position += 2 + length
        if marker == 0xFFDA:
            break
        if marker == 0xFFC0:
            if body[:6] != frame or body[7::3] != b'\x11\x11\x11' or len(body) != 15:
                raise DynsplitError(f'the JPEG header is not that of {width} x {height} pixels in 4:4:4')
            frames += 1
        elif marker not in (0xFFE0, 0xFFDB, 0xFFC4) or length < 2:
            raise DynsplitError(f'the JPEG holds a segment {marker:04x} that no baseline picture needs')
    if frames != 1:
        raise DynsplitError(f'the JPEG has {frames} frames before its scan, but a picture has one')
