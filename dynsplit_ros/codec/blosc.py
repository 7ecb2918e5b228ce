# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Lossless codecs on Blosc2 chunks: shuffled elements, elements without their zeros, and differences of pixels.

A chunk is a header of 32 bytes, then compressed blocks (README_CHUNK_FORMAT in the C-Blosc2 sources). The decoder
trusts the size of the result in the header, so a forged header would make it write beyond the destination. It would
also run filters and codecs that the header names. Therefore this module passes a chunk on only if its header is one
that the encoder writes for the expected size. The sender controls only the compressed streams, whose lengths the
decoder checks. The helpers of the Python package that unpickle are not used.

The settings were chosen by measurement (``python -m bench.codecs``) on float32 activations. zstd and lz4 run at level
1, because level 2 gains nothing and costs a quarter of the speed. Each byte of an element is a separate stream, which
is 2 to 4 % smaller than one stream. Blocks of 128 KiB fit the caches of small machines and are as good as larger ones.
One thread is used, because the model needs the other cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import struct
import threading
from typing import Any

import blosc2
import numpy as np
from torch import Tensor

from dynsplit_ros.codec.image import check_image
from dynsplit_ros.codec.raw import Buffer, Bytes, bytes_of, element_type, empty
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tensors import ITEM_SIZES, TensorSpec

_BLOCK_BYTES = 131072
_MAX_BYTES = 2**31 - 1 - blosc2.MAX_OVERHEAD  # sizes in the header are int32
# Version, codec's version, flags, bytes of an element; bytes of the result, of a block, of the chunk; the
# pipeline: six filters, codec's number and setting, six filters' settings, and two bytes of flags.
_HEADER = struct.Struct('<4B3i16s')
_VERSION = 5
_EXTENDED, _COPIED, _UNSPLIT = 0x05, 0x02, 0x10
_PLAIN, _ALL_ZERO = 0x00, 0x10

_COMPRESSORS = {'zstd': (blosc2.Codec.ZSTD, 0x80), 'lz4': (blosc2.Codec.LZ4, 0x20)}
_FILTERS = {'none': blosc2.Filter.NOFILTER, 'byte': blosc2.Filter.SHUFFLE, 'bit': blosc2.Filter.BITSHUFFLE}
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

_switching = threading.Lock()  # guards the two below
_users = 0
_host_releases = False


@contextlib.contextmanager
def _other_threads_run() -> Iterator[None]:
    """
    Let other threads run during the block: compression takes milliseconds.

    blosc2 has one switch for the whole process, off by default. Other code of the process may need its value, so the
    first concurrent call sets the switch and the last one restores it.
    """
    global _users, _host_releases
    with _switching:
        if _users == 0:
            _host_releases = blosc2.set_releasegil(True)
        _users += 1
    try:
        yield
    finally:
        with _switching:
            _users -= 1
            if _users == 0:
                blosc2.set_releasegil(_host_releases)


def codec(
    compressor: str, shuffle: str
) -> tuple[Callable[[Tensor], Buffer], Callable[[memoryview, TensorSpec], Tensor]]:
    """Return encode and decode for 'zstd' or 'lz4' after a shuffle by 'byte' or 'bit'."""

    def encode(tensor: Tensor) -> Buffer:
        return compress(bytes_of(tensor), tensor.element_size(), compressor, shuffle)

    def decode(data: memoryview, spec: TensorSpec) -> Tensor:
        tensor = empty(spec)
        decompress(data, bytes_of(tensor), ITEM_SIZES[spec.dtype], compressor, shuffle)
        return tensor

    return encode, decode


def encode_sparse(tensor: Tensor) -> Buffer:
    """
    Return two chunks: a mask with one bit for each element, set unless all its bits are 0, and the marked elements.

    An element that a ReLU has set to zero then costs at most one bit, instead of one bit in each byte's stream.
    """
    words = bytes_of(tensor).view(_WORDS[tensor.element_size()])
    marked = words != 0
    mask = compress(np.packbits(marked), 1, 'zstd', 'none')
    return mask + compress(words[marked].view(np.uint8), tensor.element_size(), 'zstd', 'byte')


def decode_sparse(data: memoryview, spec: TensorSpec) -> Tensor:
    """Undo :func:`encode_sparse`."""
    item_bytes = ITEM_SIZES[spec.dtype]
    count = spec.nbytes // item_bytes
    mask, rest = first_chunk(data)
    packed = np.empty((count + 7) // 8, np.uint8)
    decompress(mask, packed, 1, 'zstd', 'none')
    marked = np.unpackbits(packed, count=count).view(np.bool_)
    values = np.empty(int(np.count_nonzero(marked)) * item_bytes, np.uint8)
    decompress(rest, values, item_bytes, 'zstd', 'byte')
    tensor = empty(spec)
    words = bytes_of(tensor).view(_WORDS[item_bytes])
    words[:] = 0
    words[marked] = values.view(words.dtype)
    return tensor


def encode_image(tensor: Tensor) -> Buffer:
    """
    Return one chunk with the differences of an 8-bit image's pixels, modulo 256.

    Green is subtracted from red and blue, as in lossless WebP. Then the row above is subtracted from each row, as in
    PNG's filter "Up". Unlike a difference along the row, this is undone for a whole row at a time.
    """
    check_image(element_type(tensor), tensor.shape)
    pixels = bytes_of(tensor).reshape(tensor.shape).copy()
    pixels[:, ::2] -= pixels[:, 1:2]
    pixels[..., 1:, :] = pixels[..., 1:, :] - pixels[..., :-1, :]
    return compress(pixels.reshape(-1), 1, 'zstd', 'none')


def decode_image(data: memoryview, spec: TensorSpec) -> Tensor:
    """Undo :func:`encode_image`."""
    check_image(spec.dtype, spec.shape)
    tensor = empty(spec)
    flat = bytes_of(tensor)
    decompress(data, flat, 1, 'zstd', 'none')
    pixels = flat.reshape(spec.shape)
    np.add.accumulate(pixels, axis=2, dtype=np.uint8, out=pixels)
    pixels[:, ::2] += pixels[:, 1:2]
    return tensor


def compress(source: Bytes, item_bytes: int, compressor: str, shuffle: str) -> bytes:
    """Return one chunk for items of 1, 2, 4 or 8 bytes; empty for no items."""
    if source.nbytes == 0:
        return b''
    if source.nbytes > _MAX_BYTES:
        raise DynsplitError(f'{source.nbytes} bytes exceed the {_MAX_BYTES} of a Blosc2 chunk: use raw')
    with _other_threads_run():
        chunk: bytes = blosc2.compress2(
            source,
            codec=_COMPRESSORS[compressor][0],
            clevel=1,
            filters=[_FILTERS[shuffle]],
            filters_meta=[0],
            typesize=item_bytes,
            blocksize=_BLOCK_BYTES,
            splitmode=blosc2.SplitMode.ALWAYS_SPLIT,
            nthreads=1,
        )
    return chunk


def decompress(data: memoryview, out: Bytes, item_bytes: int, compressor: str, shuffle: str) -> None:
    """Fill ``out`` from exactly one chunk that :func:`compress` could have written with these arguments."""
    if out.nbytes == data.nbytes == 0:
        return
    version, _, flags, typesize, nbytes, blocksize, cbytes, pipeline = _header(data)
    if nbytes != out.nbytes:
        raise DynsplitError(f'the Blosc2 header declares {nbytes} bytes, but {out.nbytes} are needed')
    if cbytes != data.nbytes:
        raise DynsplitError(f'the Blosc2 header declares a chunk of {cbytes} bytes, but {data.nbytes} came')
    format_bits = flags & ~(_COPIED | _UNSPLIT)
    sound = (
        version == _VERSION
        # The encoder copies incompressible data, and may then name no compressor.
        and (format_bits == _EXTENDED | _COMPRESSORS[compressor][1] or flags == _EXTENDED | _COPIED)
        and typesize == item_bytes
        and 0 < blocksize <= _BLOCK_BYTES
        and (blocksize >= nbytes or blocksize % typesize == 0)
        and pipeline[:6] == bytes([_FILTERS[shuffle].value, 0, 0, 0, 0, 0])
        and not any(pipeline[7:15])
        and (
            pipeline[15] == _PLAIN
            and cbytes <= nbytes + _HEADER.size
            or pipeline[15] == _ALL_ZERO
            and cbytes == _HEADER.size
        )
    )
    if not sound:
        raise DynsplitError(f'the Blosc2 header is not one of {compressor} after shuffle by {shuffle}')
    try:
        with _other_threads_run():
            blosc2.decompress2(data, dst=out, nthreads=1)
    except (RuntimeError, ValueError) as error:
        raise DynsplitError('the Blosc2 chunk is damaged') from error


def first_chunk(data: memoryview) -> tuple[memoryview, memoryview]:
    """Return the first of several chunks, by the size in its header, and the rest."""
    size = min(max(_header(data)[6], 0), data.nbytes)
    return data[:size], data[size:]


def _header(data: memoryview) -> tuple[Any, ...]:
    """Return the fields of the chunk's header at the start of data."""
    if data.nbytes < _HEADER.size:
        raise DynsplitError(f'{data.nbytes} bytes are too few for the {_HEADER.size} of a Blosc2 header')
    return _HEADER.unpack_from(data)
