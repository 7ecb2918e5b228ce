# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The codec ``raw``, the base of the others: tensors as the bytes of their elements, row-major, little-endian."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tensors import ITEM_SIZES, TensorSpec

#: Anything bytes-like (``collections.abc.Buffer`` is Python 3.12's).
Buffer = bytes | bytearray | memoryview | Any
Bytes = npt.NDArray[np.uint8]

TORCH_TYPES = {name: getattr(torch, name) for name in ITEM_SIZES}
_NAMES = {dtype: name for name, dtype in TORCH_TYPES.items()}

if sys.byteorder != 'little':
    raise ImportError('dynsplit_ros sends elements as they lie in memory, and that must be little-endian')


def element_type(tensor: Tensor) -> str:
    """Return the name of a dense tensor's element type; raise DynsplitError for one that cannot be sent."""
    name = _NAMES.get(tensor.dtype)
    if name is None or tensor.layout != torch.strided:
        raise DynsplitError(
            f'{tensor.dtype} in layout {tensor.layout} cannot be sent, only dense {", ".join(ITEM_SIZES)}'
        )
    return name


def bytes_of(tensor: Tensor) -> Bytes:
    """
    Return a tensor's elements as one row of bytes, uint8 [nbytes].

    The result is a view of the tensor's memory if that is contiguous and on the CPU, otherwise of a contiguous copy.
    """
    # contiguous() first: a channels_last tensor must go out row-major. reshape: a scalar has no axis to view.
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def empty(spec: TensorSpec) -> Tensor:
    """Return a tensor of this type and shape with undefined values."""
    return torch.empty(spec.shape, dtype=TORCH_TYPES[spec.dtype])


def encode(tensor: Tensor) -> Buffer:
    """Return a read-only view of the elements, without a copy if :func:`bytes_of` needs none."""
    return bytes_of(tensor).data.toreadonly()


def decode(data: memoryview, spec: TensorSpec) -> Tensor:
    """Copy the elements to a new tensor; raise DynsplitError unless the number of bytes is exact."""
    if data.nbytes != spec.nbytes:
        raise DynsplitError(f'{data.nbytes} bytes came, but {spec.dtype} {list(spec.shape)} is {spec.nbytes}')
    tensor = empty(spec)
    bytes_of(tensor)[:] = np.frombuffer(data, np.uint8)
    return tensor
