# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
PNG and JPEG for 8-bit images [N, 3, H, W] in RGB, as split 0 sends them.

A batch is one picture, its images below each other. Before a picture reaches the decoder, every part up to
the pixels is checked to be what the encoder here writes for the expected size: nothing else may tell the
decoder how much to allocate, turn the picture, or lead it into a rarely used format.
"""

from __future__ import annotations

from collections.abc import Sequence
import struct

import cv2
import numpy as np
from torch import Tensor

from dynsplit_ros.codec.raw import Buffer, bytes_of, element_type, empty
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.png import png_chunks, SIGNATURE
from dynsplit_ros.tensors import TensorSpec

JPEG_QUALITY = 90
_JPEG_MAX_SIDE = 65500
_JPEG_SETTINGS = [
    cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    cv2.IMWRITE_JPEG_PROGRESSIVE, 0,
    cv2.IMWRITE_JPEG_OPTIMIZE, 0,
]
# Run lengths: 5 % smaller and 20 % faster than the default strategy; level 6 takes 4 times as long for 1 %.
_PNG_SETTINGS = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
_READ = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
#: What a picture may be larger than its pixels: headers, tables, chunk frames.
_OVERHEAD_BYTES = 4096


def is_image(spec: TensorSpec) -> bool:
    """Tell whether a tensor is an 8-bit image [N, 3, H, W] with at least one pixel."""
    return spec.dtype == 'uint8' and len(spec.shape) == 4 and spec.shape[1] == 3 and spec.nbytes > 0


def check_image(dtype: str, shape: Sequence[int]) -> None:
    """Raise DynsplitError unless a tensor of this type and shape is an image."""
    if not is_image(TensorSpec('', dtype, tuple(shape))):
        raise DynsplitError(f'{dtype} {list(shape)} is no 8-bit image [N, 3, H, W]: use another codec')


def encode_png(tensor: Tensor) -> Buffer:
    """Return an image as PNG. Two copies: the interleaved pixels that the encoder wants, and its output."""
    return _encode(tensor, '.png', _PNG_SETTINGS)


def decode_png(data: memoryview, spec: TensorSpec) -> Tensor:
    """Undo :func:`encode_png`."""
    width, height = _picture_size(data, spec)
    _check_png(data, width, height)
    return _decode(data, spec)


def encode_jpeg(tensor: Tensor) -> Buffer:
    """Return an image as baseline JPEG, colour at half the resolution (4:2:0). Two copies, as for PNG."""
    check_image(element_type(tensor), tensor.shape)
    if max(tensor.shape[0] * tensor.shape[2], tensor.shape[3]) > _JPEG_MAX_SIDE:
        raise DynsplitError(f'{list(tensor.shape)} is beyond the {_JPEG_MAX_SIDE} rows of a JPEG')
    return _encode(tensor, '.jpg', _JPEG_SETTINGS)


def decode_jpeg(data: memoryview, spec: TensorSpec) -> Tensor:
    """Undo :func:`encode_jpeg`, but for what JPEG loses."""
    width, height = _picture_size(data, spec)
    _check_jpeg(data, width, height)
    return _decode(data, spec)


def _encode(tensor: Tensor, extension: str, settings: list[int]) -> Buffer:
    check_image(element_type(tensor), tensor.shape)
    count, _, height, width = tensor.shape
    picture = np.empty((count, height, width, 3), np.uint8)
    for interleaved, (red, green, blue) in zip(picture, bytes_of(tensor).reshape(tensor.shape)):
        cv2.merge((blue, green, red), dst=interleaved)  # 50 times as fast as numpy's transposed copy
    done, data = cv2.imencode(extension, picture.reshape(count * height, width, 3), settings)
    if not done:
        raise DynsplitError(f'OpenCV could not write {list(tensor.shape)} as {extension}: use another codec')
    return data.data


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


def _check_png(data: memoryview, width: int, height: int) -> None:
    """Accept a signature, a header of this size in 8-bit RGB, pixel data, the end, and nothing else."""
    header = struct.pack('>I4sIIBBBBB', 13, b'IHDR', width, height, 8, 2, 0, 0, 0)
    start = SIGNATURE + header
    if bytes(data[: len(start)]) != start:
        raise DynsplitError(f'the PNG header is not that of {width} x {height} pixels of 8-bit RGB')
    chunks = png_chunks(data)
    next(chunks)  # the header
    kind, length, end = next(chunk for chunk in chunks if chunk[0] != b'IDAT')
    if kind != b'IEND' or length or end != data.nbytes:
        raise DynsplitError('the PNG holds more than a header, pixels and an end')


def _check_jpeg(data: memoryview, width: int, height: int) -> None:
    """
    Accept JFIF header, tables and a baseline frame of this size in 4:2:0, then one scan up to the end.

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
            if body[:6] != frame or body[7::3] != b'\x22\x11\x11' or len(body) != 15:
                raise DynsplitError(f'the JPEG header is not that of {width} x {height} pixels in 4:2:0')
            frames += 1
        elif marker not in (0xFFE0, 0xFFDB, 0xFFC4) or length < 2:
            raise DynsplitError(f'the JPEG holds a segment {marker:04x} that no baseline picture needs')
    if frames != 1:
        raise DynsplitError(f'the JPEG has {frames} frames before its scan, but a picture has one')
