# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Converts tensors to the bytes of a message and back; each received byte is checked before use."""

from dynsplit_ros.codec.answer import decode_answer, encode_answer
from dynsplit_ros.codec.registry import CodecInfo, CODECS, declared_batch, decode, encode, EncodedTensor, usable_codecs

__all__ = [
    'CODECS',
    'CodecInfo',
    'EncodedTensor',
    'declared_batch',
    'decode',
    'decode_answer',
    'encode',
    'encode_answer',
    'usable_codecs',
]
