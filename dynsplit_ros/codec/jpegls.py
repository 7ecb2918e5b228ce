# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Encodes planes of 8-bit numbers with JPEG-LS (ITU-T T.87), which predicts each number from its neighbours.

The optional package imagecodecs (CharLS) contains the coder. Only the scan is sent; the receiver adds the header for
the size that it expects. So a payload cannot make the library allocate more or use another mode.
"""

from __future__ import annotations

import importlib.util
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from dynsplit_ros.codec.raw import Bytes
from dynsplit_ros.errors import DynsplitError

PACKAGE = 'imagecodecs'

#: Largest number of rows and columns of a frame.
_MAX_SIDE = 65535
#: Start of image; frame of 8 bits, one component; its scan: lossless, not interleaved.
_FRAME = struct.Struct('>2s2sHBHHB3s')
_SCAN = bytes.fromhex('ffda0008010100000000')
_END = b'\xff\xd9'
#: A sample takes at most 32 bits (T.87, LIMIT), and stuffing adds one bit in eight; then headers.
_MAX_SAMPLE_BYTES, _OVERHEAD_BYTES = 5, 256


def is_installed() -> bool:
    """Return whether the optional package is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def encode(plane: Bytes) -> bytes:
    """Return the scan of a plane, uint8 [rows, columns], and the end marker."""
    _check_sides(*plane.shape)
    # The buffer size that the library estimates is too small for some noise.
    stream: bytes = _library().jpegls_encode(plane, out=_most_bytes(*plane.shape))
    start = stream.find(_SCAN)
    if start < 0:
        raise DynsplitError(f'this version of {PACKAGE} writes another JPEG-LS scan: install the tested one')
    return stream[start + len(_SCAN) :]


def decode(data: memoryview, rows: int, columns: int) -> Bytes:
    """Undo :func:`encode` for a plane of this size; raise DynsplitError for any other bytes."""
    _check_sides(rows, columns)
    limit = _most_bytes(rows, columns)
    if data.nbytes > limit:
        raise DynsplitError(f'{data.nbytes} bytes came, but a JPEG-LS scan of {rows} x {columns} has at most {limit}')
    scan = bytes(data)
    # A scan contains no marker: a byte of 255 is followed by one below 128. Without the end marker, CharLS 2.4 reads
    # beyond a scan of one byte.
    if not scan.endswith(_END) or scan.index(_END) < len(scan) - len(_END):
        raise DynsplitError('the JPEG-LS scan is truncated, or more follows it')
    library = _library()
    plane: npt.NDArray[np.uint8] = np.empty((rows, columns), np.uint8)
    frame = _FRAME.pack(b'\xff\xd8', b'\xff\xf7', 11, 8, rows, columns, 1, b'\x01\x11\x00')
    try:
        library.jpegls_decode(frame + _SCAN + scan, out=plane)
    except (RuntimeError, ValueError) as error:
        raise DynsplitError('the JPEG-LS scan is damaged') from error
    return plane


def _most_bytes(rows: int, columns: int) -> int:
    return _MAX_SAMPLE_BYTES * rows * columns + _OVERHEAD_BYTES


def _check_sides(rows: int, columns: int) -> None:
    if max(rows, columns) > _MAX_SIDE:
        raise DynsplitError(
            f'{rows} x {columns} is beyond the {_MAX_SIDE} rows and columns of JPEG-LS: use another codec'
        )


def _library() -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise DynsplitError(f'the optional package {PACKAGE} is not installed: pip install {PACKAGE}') from error
    return imagecodecs
