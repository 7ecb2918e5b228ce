# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Encodes answers: label maps and masks are compressed, other outputs are sent unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import reprlib

from torch import Tensor

from dynsplit_ros.codec.registry import decode, encode, EncodedTensor, MAX_DECODED_BYTES
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tensors import TensorSpec

#: Least bytes of integers for which an answer is compressed; for fewer, the transfer would hardly be shorter.
MIN_COMPRESSED_BYTES = 4096
_CODECS = ('raw', 'blosc2')


def encode_answer(outputs: Mapping[str, Tensor]) -> tuple[str, list[EncodedTensor]]:
    """
    Return the name of a codec and the outputs that it has encoded.

    An answer is compressed if most of its bytes are integers. A label map of 520 x 520 pixels shrinks from 270 to about
    20 kB in 0.5 ms, and the mask of an object of 800 x 1066 pixels from 853 to about 2 kB. Floating-point outputs would
    hardly shrink.
    """
    total = sum(tensor.nbytes for tensor in outputs.values())
    whole = sum(tensor.nbytes for tensor in outputs.values() if not tensor.is_floating_point())
    compressed = max(MIN_COMPRESSED_BYTES, total / 2) <= whole and total <= MAX_DECODED_BYTES
    codec = 'blosc2' if compressed else 'raw'
    return codec, encode(codec, outputs)


def decode_answer(
    codec: str, encoded: Sequence[EncodedTensor], expected: Sequence[TensorSpec] | None, max_batch: int = 1
) -> dict[str, Tensor]:
    """Return the outputs, like :func:`dynsplit_ros.decode`, but only for the codecs of answers."""
    if codec not in _CODECS:
        raise DynsplitError(f'an answer came by codec {reprlib.repr(codec)}; allowed are {", ".join(_CODECS)}')
    return decode(codec, encoded, expected, max_batch)
