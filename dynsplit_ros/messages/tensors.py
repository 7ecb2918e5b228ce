# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Converts encoded tensors to and from messages.

The bytes of an outgoing tensor are copied once into the message's ``array.array``, whose elements rclpy does not check
one by one. The bytes of an incoming tensor stay in the message, without a copy.
"""

from __future__ import annotations

import array
from collections.abc import Iterable

from dynsplit_ros.codec import EncodedTensor
from dynsplit_ros.msg import Tensor as TensorMessage


def to_tensors(encoded: Iterable[EncodedTensor]) -> list[TensorMessage]:
    """Return encoded tensors as messages; one copy of the bytes."""
    messages = []
    for tensor in encoded:
        message = TensorMessage(name=tensor.name, dtype=tensor.dtype, shape=array.array('I', tensor.shape))
        message.data = array.array('B')
        message.data.frombytes(memoryview(tensor.data).cast('B'))
        messages.append(message)
    return messages


def from_tensors(messages: Iterable[TensorMessage]) -> list[EncodedTensor]:
    """Return messages as encoded tensors that share the messages' bytes; nothing is checked yet."""
    return [EncodedTensor(message.name, message.dtype, tuple(message.shape), message.data) for message in messages]
