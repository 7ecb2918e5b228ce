# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Lossy codecs for floating-point tensors: half precision, and few bits per element with an entropy coder."""

from __future__ import annotations

from collections.abc import Callable
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynsplit_ros.codec import blosc, jpegls, raw
from dynsplit_ros.codec.blosc import compress, decompress, first_chunk
from dynsplit_ros.codec.raw import Buffer, Bytes, bytes_of, TORCH_TYPES
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tensors import TensorSpec

#: Bits per element of the codecs ``quantN-zstd``.
QUANTISED_BITS = (8, 7, 6, 5, 4, 3, 2)
#: Bits per element of the codecs ``quantN-jpegls``, before the coder. A bound on the agreement lies between two levels,
#: and the next larger one is sent: a quarter bit is 5 to 8 % of the bytes. Each level costs time in a profile, but none
#: in the planner: of the levels that a bound allows, the smallest is also the fastest.
PLANE_BITS = (8, 7.5, 7.25, 7, 6.75, 6.5, 6.25, 6, 5.75, 5.5, 5)

#: Channels with fewer elements share one scale: the 4 bytes of a scale cost them more than they gain.
_MIN_GROUP = 16
#: Largest magnitude of a channel's lowest step: with a rotation of 4 bits it fits into int16.
_MOST_STEPS = 2000
_ROTATIONS = 16
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}
_Floats = npt.NDArray[np.float32]

_encode_exactly, _decode_exactly = blosc.codec('zstd', 'byte')


def encode_float16(tensor: Tensor) -> Buffer:
    """Return the elements in half precision; values beyond its range become its largest value, NaN stays."""
    if not tensor.is_floating_point() or tensor.dtype == torch.float16:
        return raw.encode(tensor)
    limit = torch.finfo(torch.float16).max
    return raw.encode(tensor.detach().clamp(-limit, limit).to(torch.float16))


def decode_float16(data: memoryview, spec: TensorSpec) -> Tensor:
    """Undo :func:`encode_float16` except for the rounding."""
    dtype = TORCH_TYPES[spec.dtype]
    if not dtype.is_floating_point:
        return raw.decode(data, spec)
    return raw.decode(data, TensorSpec(spec.name, 'float16', spec.shape)).to(dtype)


def quantiser(bits: int) -> tuple[Callable[[Tensor], Buffer], Callable[[memoryview, TensorSpec], Tensor]]:
    """
    Return encode and decode for ``bits`` per element.

    An element becomes ``scale * step``, where step is an integer: affine quantisation with an integer zero point (Jacob
    et al., 2018, arXiv:1712.05877, equation 1), so zero stays exact. The 2**bits steps cover the range of one channel
    of one sample, so a frame does not depend on its batch. The error is at most half a step, and a step is at most 1 %
    more than the range / (2**bits - 1) or, if that is more, the largest magnitude / 2000.

    Layout: first, a Blosc2 chunk of the scales, bfloat16 [groups], and of the lowest steps times 16 plus a rotation,
    int16 [groups]; then a Blosc2 chunk of the steps above the lowest, minus the rotation, modulo 2**bits. Each of its
    bytes holds 8 // bits steps. The rotation makes the frequent steps of all channels equal, which saves 1 to 3 %.
    Because a byte holds neighbours, zstd's Huffman code sees pairs of them: at 4 bits the chunk is 5 % smaller than
    with one element in each byte, at 2 bits 30 %.
    """
    top = 2**bits - 1
    rotation_steps = max(1, 2**bits // _ROTATIONS)

    def encode(tensor: Tensor) -> Buffer:
        if not tensor.is_floating_point():
            return _encode_exactly(tensor)
        least, bfloat16, lowest, steps = _quantised(tensor, _groups(tuple(tensor.shape)), top)
        # After a ReLU, zero is the lowest step and the most frequent one of all channels.
        mean = steps.sum(1, keepdim=True, dtype=torch.int32).numpy() / steps.shape[1]
        rotation = np.clip(np.rint(np.where(least == 0, 0.0, mean) / rotation_steps), 0, _ROTATIONS - 1)
        header = np.concatenate([bfloat16, (lowest * _ROTATIONS + rotation).astype(np.int16).view(np.uint16)])
        steps.sub_(torch.from_numpy((rotation * rotation_steps).astype(np.uint8))).bitwise_and_(top)
        return compress(header.view(np.uint8).ravel(), 2, 'zstd', 'byte') + compress(
            _packed(bytes_of(steps), bits), 1, 'zstd', 'none'
        )

    def decode(data: memoryview, spec: TensorSpec) -> Tensor:
        if not TORCH_TYPES[spec.dtype].is_floating_point:
            return _decode_exactly(data, spec)
        count, groups = math.prod(spec.shape), _groups(spec.shape)
        header = np.empty((2, groups, 1), np.int16)
        scales, rest = first_chunk(data)
        decompress(scales, header.view(np.uint8).ravel(), 2, 'zstd', 'byte')
        scale, (lowest, rotation) = _float32(header[0].view(np.uint16)), np.divmod(header[1], _ROTATIONS)
        _check_range(scale, lowest, top, spec)
        per_byte = 8 // bits
        packed = np.empty(-(-count // per_byte), np.uint8)
        decompress(rest, packed, 1, 'zstd', 'none')
        if bits * per_byte < 8 and packed.max() >> bits * per_byte:
            raise DynsplitError(f'a byte has more than {per_byte} elements of {bits} bits')
        steps = torch.from_numpy(_unpacked(packed, bits, count)).reshape(groups, -1)
        steps.add_(torch.from_numpy((rotation * rotation_steps).astype(np.uint8))).bitwise_and_(top)
        return _values(steps, scale, lowest, spec)

    return encode, decode


def plane_quantiser(bits: float) -> tuple[Callable[[Tensor], Buffer], Callable[[memoryview, TensorSpec], Tensor]]:
    """
    Return encode and decode for 2**bits steps over the range of all channels of a sample, coded with JPEG-LS.

    The step is as in :func:`quantiser`, but all channels of a sample share it: the channels of a layer have about the
    same weight in the outputs, independent of their ranges. The channels are planes side by side in one picture,
    samples below each other, so the coder sees each element's neighbours. At the same error of the logits
    (EfficientNet-Lite0, its first three bottlenecks, 80 crops), JPEG-LS saves 16, 9 and 6 % of zstd's bytes, and one
    step for all channels another 9, 0 and 8 %.

    Layout: the scale of each sample, bfloat16 [N]; its lowest step, int16 [N]; the scan of the steps above the lowest.

    Other methods were measured and left out. Rounding that distributes a part of the error to the neighbours saves 1 to
    3 %. Steps by the gradient of the decision, and joint rounding of the channels, save nothing. JPEG XL at efforts 2
    and 3 needs the same bytes as JPEG-LS and 1.2 to 3 times the time. Lossless WebP needs more bytes than zstd.
    """
    top = round(2**bits) - 1

    def encode(tensor: Tensor) -> Buffer:
        if not tensor.is_floating_point():
            return _encode_exactly(tensor)
        samples, channels, rows, columns = _planes(tuple(tensor.shape))
        _, bfloat16, lowest, steps = _quantised(tensor, samples, top)
        header = np.concatenate([bfloat16, lowest.astype(np.int16).view(np.uint16)])
        picture = bytes_of(steps).reshape(samples, channels, rows, columns).transpose(0, 2, 1, 3)
        return header.tobytes() + jpegls.encode(picture.reshape(samples * rows, channels * columns))

    def decode(data: memoryview, spec: TensorSpec) -> Tensor:
        if not TORCH_TYPES[spec.dtype].is_floating_point:
            return _decode_exactly(data, spec)
        samples, channels, rows, columns = _planes(spec.shape)
        header_bytes = 4 * samples
        if data.nbytes < header_bytes:
            raise DynsplitError(f'{data.nbytes} bytes are too few for the {header_bytes} of the scales')
        header = np.frombuffer(bytes(data[:header_bytes]), np.int16).reshape(2, samples, 1)
        scale, lowest = _float32(header[0].view(np.uint16)), header[1]
        _check_range(scale, lowest, top, spec)
        picture = jpegls.decode(data[header_bytes:], samples * rows, channels * columns)
        if picture.max() > top:
            raise DynsplitError(f'a step is {picture.max()}, but at most {top} is allowed')
        steps = picture.reshape(samples, rows, channels, columns).transpose(0, 2, 1, 3).reshape(samples, -1)
        return _values(torch.from_numpy(steps), scale, lowest, spec)

    return encode, decode


def _quantised(tensor: Tensor, groups: int, top: int) -> tuple[_Floats, npt.NDArray[np.uint16], _Floats, Tensor]:
    """
    Return each group's least value, scale as bfloat16 and lowest step, [groups, 1], and the steps above the lowest.

    The steps are uint8 [groups, elements], 0 to ``top``.
    """
    values = tensor.detach().cpu().to(torch.float32).contiguous().reshape(groups, -1)
    # Both together take 7 µs; aminmax along a dimension takes 73 µs.
    least, greatest = values.amin(1, keepdim=True).numpy(), values.amax(1, keepdim=True).numpy()
    if not (np.isfinite(least).all() and np.isfinite(greatest).all()):
        raise DynsplitError(f'a value is NaN or beyond float32 and is none of {top + 1} steps: use another codec')
    magnitude = np.maximum(np.abs(least), np.abs(greatest))
    bfloat16 = _rounded_up(np.maximum(greatest / top - least / top, magnitude / _MOST_STEPS))
    scale = _float32(bfloat16)
    divisor = np.where(scale > 0, scale, np.float32(1))  # a group of zeros: any divisor gives step 0
    lowest = np.rint(least / divisor)
    steps = values.div(torch.from_numpy(divisor)).sub_(torch.from_numpy(lowest)).round_().clamp_(0, top)
    return least, bfloat16, lowest, steps.to(torch.uint8)


def _check_range(scale: _Floats, lowest: npt.NDArray[np.int16], top: int, spec: TensorSpec) -> None:
    """Raise DynsplitError for scales and lowest steps that no tensor of this type has."""
    # The ends of a valid range lie within the type, except for rounding outwards by at most one step of four.
    with np.errstate(invalid='ignore'):  # infinity times 0 is NaN, which the check refuses
        ends = scale.astype(np.float64) * np.maximum(np.abs(lowest), np.abs(lowest + top))
    if not ((scale >= 0) & (ends <= 1.5 * torch.finfo(TORCH_TYPES[spec.dtype]).max)).all():
        raise DynsplitError(f'a scale is NaN or negative, or its steps are beyond {spec.dtype}')


def _values(steps: Tensor, scale: _Floats, lowest: npt.NDArray[np.int16], spec: TensorSpec) -> Tensor:
    """Return the tensor of these steps above the lowest, [groups, elements]."""
    dtype = TORCH_TYPES[spec.dtype]
    values = steps.to(torch.float32).add_(torch.from_numpy(lowest.astype(np.float32))).mul_(torch.from_numpy(scale))
    limit = torch.finfo(dtype).max if dtype != torch.float64 else torch.finfo(torch.float32).max
    return values.clamp_(-limit, limit).reshape(spec.shape).to(dtype)


def _packed(elements: Bytes, bits: int) -> Bytes:
    """Return elements below 2**bits, 8 // bits of them in each byte, the first in the lowest bits."""
    per_byte = 8 // bits
    if per_byte == 1:
        return elements
    word = _WORDS[per_byte]
    missing = -len(elements) % per_byte
    words = (np.concatenate([elements, np.zeros(missing, np.uint8)]) if missing else elements).view(word)
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


def _rounded_up(scale: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Return non-negative numbers, each rounded up to a bfloat16: the upper half of a float32's bits."""
    return ((scale.view(np.uint32) + np.uint32(0xFFFF)) >> np.uint32(16)).astype(np.uint16)


def _float32(bfloat16: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Return the float32 numbers with these upper halves."""
    return (bfloat16.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _groups(shape: tuple[int, ...]) -> int:
    """Return the number of groups with one scale each: N * C for [N, C, ...], or N if the channels are small."""
    if math.prod(shape[2:]) >= _MIN_GROUP and len(shape) > 2:
        return shape[0] * shape[1]
    return _samples(shape)


def _samples(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) > 1 else 1


def _planes(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return samples, channels, and rows and columns of a channel; up to three dimensions are one channel."""
    samples, channels, columns = _samples(shape), shape[1] if len(shape) > 3 else 1, math.prod(shape[-1:])
    return samples, channels, math.prod(shape) // (samples * channels * columns), columns
