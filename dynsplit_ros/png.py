# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The chunks of a PNG file, read without decoding it (W3C, PNG specification, third edition, section 5)."""

from __future__ import annotations

from collections.abc import Iterator
import struct

from dynsplit_ros.errors import DynsplitError

SIGNATURE = b'\x89PNG\r\n\x1a\n'


def is_png(data: memoryview) -> bool:
    """Tell whether a file begins as a PNG does."""
    return bytes(data[: len(SIGNATURE)]) == SIGNATURE


def png_chunks(data: memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, length and end of each chunk up to IEND; raise DynsplitError where one is not within the PNG."""
    position, kind = len(SIGNATURE), b''
    while kind != b'IEND':
        if position + 12 > data.nbytes:
            raise DynsplitError('the PNG is truncated')
        length, kind = struct.unpack_from('>I4s', data, position)
        position += 12 + length
        if position > data.nbytes:
            raise DynsplitError('the PNG is truncated')
        yield kind, length, position
