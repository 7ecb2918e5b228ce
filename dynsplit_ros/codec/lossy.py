# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Fewer bits for floating-point tensors: half precision, and a few bits per element with an entropy coder.

Integers and bools keep every bit in both.
"""

from __future__ import annotations

from collections.abc import Callable
import math

import numpy as np
import torch
from torch import Tensor

from dynsplit_ros.codec import blosc, raw
from dynsplit_ros.codec.blosc import compress, decompress, first_chunk
from dynsplit_ros.codec.raw import Buffer, Bytes, bytes_of, TORCH_TYPES
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tensors import TensorSpec

#: Bits per element of the codecs ``quantN-zstd``.
QUANTISED_BITS = (8, 6, 5, 4, 3, 2)

#: Channels with fewer elements share one scale: the 4 bytes of a scale cost them more than they gain.
_MIN_GROUP = 16
#: Largest number of a channel's lowest step: with a turn of 4 bits it fits int16.
_MOST_STEPS = 2000
_TURNS = 16
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}

_encode_exactly, _decode_exactly = blosc.codec('zstd', 'byte')


def encode_float16(tensor: Tensor) -> Buffer:
    """Return the elements in half precision; beyond its range they become its greatest value, NaN stays."""
    if not tensor.is_floating_point() or tensor.dtype == torch.float16:
        return raw.encode(tensor)
    limit = torch.finfo(torch.float16).max
    return raw.encode(tensor.detach().clamp(-limit, limit).to(torch.float16))


def decode_float16(data: memoryview, spec: TensorSpec) -> Tensor:
    """Undo :func:`encode_float16`, but for the rounding."""
    dtype = TORCH_TYPES[spec.dtype]
    if not dtype.is_floating_point:
        return raw.decode(data, spec)
    return raw.decode(data, TensorSpec(spec.name, 'float16', spec.shape)).to(dtype)


def quantiser(bits: int) -> tuple[Callable[[Tensor], Buffer], Callable[[memoryview, TensorSpec], Tensor]]:
    """
    Return encode and decode for ``bits`` per element.

    An element becomes ``scale * step``, where step is an integer: affine quantisation with an integer zero point (Jacob
    et al., 2018, arXiv:1712.05877, equation 1), so zero stays exact. The 2**bits steps cover the range of one channel
    of one sample; a frame therefore does not depend on the batch that it is sent in. The error is at most half a step,
    and a step is at most 1 % more than the range / (2**bits - 1) or, if that is more, the largest magnitude / 2000.

    Layout: a Blosc2 chunk of the scales, bfloat16 [groups], and the lowest steps times 16 plus a turn, int16 [groups];
    a Blosc2 chunk of the steps above the lowest, minus the turn, modulo 2**bits, 8 // bits of them in each byte. The
    turn makes the frequent steps of all channels equal, which saves 1 to 3 %. Neighbours in one byte let zstd's Huffman
    code see pairs of them: at 4 bits 5 % smaller than one element in each byte, at 2 bits 30 %.
    """
    top = 2**bits - 1
    turn_steps = max(1, 2**bits // _TURNS)

    def encode(tensor: Tensor) -> Buffer:
        if not tensor.is_floating_point():
            return _encode_exactly(tensor)
        groups = _groups(tuple(tensor.shape))
        values = tensor.detach().cpu().to(torch.float32).contiguous().reshape(groups, -1)
        least, greatest = torch.aminmax(values, dim=1, keepdim=True)
        magnitude = torch.maximum(least.abs(), greatest.abs())
        scale = _rounded_up(torch.maximum(greatest / top - least / top, magnitude / _MOST_STEPS))
        if not bool(torch.isfinite(scale).all()):  # a NaN or an infinity in the values is one in the scale
            raise DynsplitError(f'a value is NaN or beyond float32 and has no {bits}-bit form: use another codec')
        divisor = torch.where(scale > 0, scale, 1.0)  # a channel of zeros: any divisor gives step 0
        lowest = (least / divisor).round_()
        steps = values.div(divisor).sub_(lowest).round_().clamp_(0, top).to(torch.uint8)
        # After a ReLU, zero is the lowest step and the most frequent one of all channels.
        mean = steps.sum(1, keepdim=True, dtype=torch.int32) / steps.shape[1]
        turn = (torch.where(least == 0, 0.0, mean) / turn_steps).round_().clamp_(0, _TURNS - 1)
        header = torch.cat([scale.to(torch.bfloat16).view(torch.int16), (lowest * _TURNS + turn).to(torch.int16)])
        steps.sub_((turn * turn_steps).to(torch.uint8)).bitwise_and_(top)
        return compress(bytes_of(header), 2, 'zstd', 'byte') + compress(
            _packed(bytes_of(steps), bits), 1, 'zstd', 'none')

    def decode(data: memoryview, spec: TensorSpec) -> Tensor:
        dtype = TORCH_TYPES[spec.dtype]
        if not dtype.is_floating_point:
            return _decode_exactly(data, spec)
        count, groups = math.prod(spec.shape), _groups(spec.shape)
        header = torch.empty((2, groups, 1), dtype=torch.int16)
        scales, rest = first_chunk(data)
        decompress(scales, bytes_of(header), 2, 'zstd', 'byte')
        scale, lowest = header[0].view(torch.bfloat16).double(), (header[1] // _TURNS).double()
        turn = (header[1] % _TURNS * turn_steps).to(torch.uint8)
        # A range that the encoder could have seen ends within the type, rounded outwards by at most one step of four.
        ends = scale * torch.maximum(lowest.abs(), (lowest + top).abs())
        if not bool(((scale >= 0) & (ends <= 1.5 * torch.finfo(dtype).max)).all()):
            raise DynsplitError(f'a scale is NaN or negative, or its steps are beyond {spec.dtype}')
        per_byte = 8 // bits
        packed = np.empty(-(-count // per_byte), np.uint8)
        decompress(rest, packed, 1, 'zstd', 'none')
        if bits * per_byte < 8 and packed.max() >> bits * per_byte:
            raise DynsplitError(f'a byte has more than {per_byte} elements of {bits} bits')
        steps = torch.from_numpy(_unpacked(packed, bits, count)).reshape(groups, -1).add_(turn).bitwise_and_(top)
        values = steps.to(torch.float32).add_(lowest.float()).mul_(scale.float())
        limit = torch.finfo(dtype).max if dtype != torch.float64 else torch.finfo(torch.float32).max
        return values.clamp_(-limit, limit).reshape(spec.shape).to(dtype)

    return encode, decode


def _packed(elements: Bytes, bits: int) -> Bytes:
    """Return elements below 2**bits, 8 // bits of them in each byte, the first in the lowest bits."""
    per_byte = 8 // bits
    if per_byte == 1:
        return elements
    word = _WORDS[per_byte]
    words = np.pad(elements, (0, -len(elements) % per_byte)).view(word)
    packed = words.copy()
    for place in range(1, per_byte):
        packed |= words >> word((8 - bits) * place)
    return packed.astype(np.uint8) & np.uint8(2 ** (bits * per_byte) - 1)


def _unpacked(packed: Bytes, bits: int, count: int) -> Bytes:
    """Undo :func:`_packed` for ``count`` elements."""
    per_byte = 8 // bits
    if per_byte == 1:
        return packed
    word = _WORDS[per_byte]
    words, mask = packed.astype(word), word(2**bits - 1)
    elements = words & mask
    for place in range(1, per_byte):
        elements |= (words >> word(bits * place) & mask) << word(8 * place)
    unpacked: Bytes = elements.view(np.uint8)[:count]
    return unpacked


def _rounded_up(scale: Tensor) -> Tensor:
    """Return non-negative float32 numbers, each rounded up to one of bfloat16: the upper half of its bits."""
    upper = (scale.view(torch.int32) + 0xFFFF) & ~0xFFFF
    return torch.where(torch.isfinite(scale), upper.view(torch.float32), scale)


def _groups(shape: tuple[int, ...]) -> int:
    """Return how many groups share a scale: [N, C, ...] has N * C, or N where channels are too small to pay for one."""
    if math.prod(shape[2:]) >= _MIN_GROUP and len(shape) > 2:
        return shape[0] * shape[1]
    return shape[0] if len(shape) > 1 else 1
