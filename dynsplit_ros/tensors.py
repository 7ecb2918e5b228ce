# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a tensor is before its values are known: its name, element type and shape."""

from __future__ import annotations

from dataclasses import dataclass
import math

#: Bytes of one element, by the element type's name as it stands in messages, profiles and cut lists.
ITEM_SIZES = {
    'uint8': 1,
    'int8': 1,
    'bool': 1,
    'int16': 2,
    'float16': 2,
    'bfloat16': 2,
    'int32': 4,
    'float32': 4,
    'int64': 8,
    'float64': 8,
}


@dataclass(frozen=True)
class TensorSpec:
    """
    Name, element type and shape of one tensor, batch dimension included.

    ``dtype`` is a key of :data:`ITEM_SIZES`; ``shape`` holds non-negative element counts.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the contiguous tensor."""
        return math.prod(self.shape) * ITEM_SIZES[self.dtype]
