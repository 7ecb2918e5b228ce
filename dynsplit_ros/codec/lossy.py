# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Fewer bits for floating-point tensors: half precision, and 8-bit affine quantisation by channel.

Integers and bools pass through both as they are.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dynsplit_ros.codec import raw
from dynsplit_ros.codec.blosc import compress, decompress
from dynsplit_ros.codec.raw import Buffer, bytes_of, TORCH_TYPES
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tensors import TensorSpec

_STEPS = 255
_MIN_GROUP = 16


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


def encode_quant8(tensor: Tensor) -> Buffer:
    """
    Return scales and offsets, float32 [groups] each, then steps, uint8, one for each element.

    An element is ``offset + scale * step``, with the group's least value as offset and (greatest - least) /
    255 as scale: affine quantisation (Jacob et al., 2018, arXiv:1712.05877, equation 1, its zero point kept
    as a real number). The error is at most half a scale, and the least value, zero after a ReLU, is exact. A
    group is one channel of one sample, so what a frame becomes does not depend on the batch it is sent in.
    Raises DynsplitError where a value is NaN or infinite: such a tensor has no scale.
    """
    if not tensor.is_floating_point():
        return raw.encode(tensor)
    groups = _groups(tuple(tensor.shape))
    values = tensor.detach().cpu().to(torch.float32).contiguous().reshape(groups, -1)
    least, greatest = torch.aminmax(values, dim=1, keepdim=True)
    scales = (greatest - least) / _STEPS
    if not bool(torch.isfinite(scales).all() and torch.isfinite(least).all()):
        raise DynsplitError('a value is NaN or beyond float32 and has no 8-bit form: use another codec')
    # A constant channel has scale 0: any divisor gives step 0. The clamp is for scales too small to be exact.
    steps = (values - least).div_(torch.where(scales > 0, scales, 1.0)).round_().clamp_(0, _STEPS)
    return np.concatenate([bytes_of(part) for part in (scales, least, steps.to(torch.uint8))]).data


def decode_quant8(data: memoryview, spec: TensorSpec) -> Tensor:
    """Undo :func:`encode_quant8`, but for the rounding; refuse scales and offsets that no values have."""
    dtype = TORCH_TYPES[spec.dtype]
    if not dtype.is_floating_point:
        return raw.decode(data, spec)
    groups, count = _groups(spec.shape), math.prod(spec.shape)
    needed = _quant8_bytes(spec)
    if data.nbytes != needed:
        raise DynsplitError(f'{data.nbytes} bytes came, but {groups} groups and {count} steps need {needed}')
    scales, offsets = torch.from_numpy(np.frombuffer(data, '<f4', 2 * groups).reshape(2, groups, 1).copy())
    if not bool((scales >= 0).all() and torch.isfinite((offsets + _STEPS * scales).to(dtype)).all()
                and torch.isfinite(offsets.to(dtype)).all()):
        raise DynsplitError('a scale or an offset is NaN, infinite, negative or too large')
    steps = np.frombuffer(data, np.uint8, count, 8 * groups).reshape(groups, -1)
    values = torch.from_numpy(steps.astype(np.float32)).mul_(scales).add_(offsets)
    return values.reshape(spec.shape).to(dtype)


def encode_quant8_blosc2(tensor: Tensor) -> Buffer:
    """Return the bytes of :func:`encode_quant8` as one Blosc2 chunk; after a ReLU about half as many."""
    return compress(np.frombuffer(encode_quant8(tensor), np.uint8), 1, 'zstd', 'none')


def decode_quant8_blosc2(data: memoryview, spec: TensorSpec) -> Tensor:
    """Undo :func:`encode_quant8_blosc2`, but for the rounding."""
    plain = np.empty(_quant8_bytes(spec), np.uint8)
    decompress(data, plain, 1, 'zstd', 'none')
    return decode_quant8(plain.data, spec)


def _quant8_bytes(spec: TensorSpec) -> int:
    if not TORCH_TYPES[spec.dtype].is_floating_point:
        return spec.nbytes
    return 8 * _groups(spec.shape) + math.prod(spec.shape)


def _groups(shape: tuple[int, ...]) -> int:
    """Return how many groups share a scale: [N, C, ...] has N * C, or N where channels are too small to pay for one."""
    if math.prod(shape[2:]) >= _MIN_GROUP and len(shape) > 2:
        return shape[0] * shape[1]
    return shape[0] if len(shape) > 1 else 1
