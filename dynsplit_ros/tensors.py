# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a tensor is before its values are known, and how the outputs of several images come apart again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

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


def of_image(outputs: Mapping[str, Tensor], number: int, count: int, by_name: bool) -> dict[str, Tensor]:
    """
    Return the outputs of image ``number``, from 0, of ``count`` that went through the model together, as those of one.

    A detector numbers its outputs by image, ``boxes.2`` (``by_name``, where a model has no output specs); all
    others are joined along the first dimension.
    """
    if count == 1:
        return dict(outputs)
    if by_name:
        return {
            f'{name.rpartition(".")[0]}.0': tensor
            for name, tensor in outputs.items()
            if name.rpartition('.')[2] == str(number)
        }
    return {
        name: tensor[number * (size := len(tensor) // count) : (number + 1) * size] for name, tensor in outputs.items()
    }
