# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How an answer travels: label maps compressed, as they repeat themselves, all else as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import reprlib

from torch import Tensor

from dynsplit_ros.codec.registry import decode, encode, EncodedTensor
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tensors import TensorSpec

#: Of a smaller answer, compression saves nothing that a link would notice.
LEAST_COMPRESSED_BYTES = 4096
_CODECS = ('raw', 'blosc2')


def encode_answer(outputs: Mapping[str, Tensor]) -> tuple[str, list[EncodedTensor]]:
    """
    Return a codec's name and the outputs as it has written them.

    Whole numbers are compressed: a label map of 520 x 520 pixels from 270 to about 20 kB in 0.5 ms. Floating point
    would hardly shrink, and the answers whose shapes are free, a detector's, have some.
    """
    nbytes = sum(tensor.nbytes for tensor in outputs.values())
    floating = any(tensor.is_floating_point() for tensor in outputs.values())
    codec = 'raw' if floating or nbytes < LEAST_COMPRESSED_BYTES else 'blosc2'
    return codec, encode(codec, outputs)


def decode_answer(
    codec: str, encoded: Sequence[EncodedTensor], expected: Sequence[TensorSpec] | None, max_batch: int = 1
) -> dict[str, Tensor]:
    """Return the outputs; as :func:`dynsplit_ros.decode`, but for no codec other than those of an answer."""
    if codec not in _CODECS:
        raise DynsplitError(f'an answer came by codec {reprlib.repr(codec)}; allowed are {", ".join(_CODECS)}')
    return decode(codec, encoded, expected, max_batch)
