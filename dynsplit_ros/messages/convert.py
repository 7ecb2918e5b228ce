# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
The package's own messages to and from the library's types.

An encoded tensor goes into a message with one copy (into the message's ``array.array``, which rclpy takes without
looking at its elements); one that comes in is read where the middleware put it, without a copy.
"""

from __future__ import annotations

import array
from collections.abc import Iterable
from dataclasses import fields
import json

from dynsplit_ros.codec import EncodedTensor
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.msg import FrameTiming as FrameTimingMessage
from dynsplit_ros.msg import Profile as ProfileMessage
from dynsplit_ros.msg import Tensor as TensorMessage
from dynsplit_ros.profile import Profile
from dynsplit_ros.runtime.frame import FrameTiming, State

#: A profile that comes in as a message is refused beyond this; real ones have some 10 kB.
MAX_PROFILE_CHARACTERS = 1_000_000


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


def to_timing(timing: FrameTiming) -> FrameTimingMessage:
    """Return a frame's timing as a message; the fields have the same names."""
    return FrameTimingMessage(**{field.name: getattr(timing, field.name) for field in fields(timing)}
                              | {'state': int(timing.state)})


def from_timing(message: FrameTimingMessage) -> FrameTiming:
    """Return a frame's timing from a message; raise DynsplitError for a state that there is not."""
    try:
        state = State(message.state)
    except ValueError:
        raise DynsplitError(f'a frame timing has state {message.state}, but states go from 0 to 3; run the same '
                            'version of this package on all sides') from None
    return FrameTiming(**{field.name: getattr(message, field.name) for field in fields(FrameTiming)}
                       | {'state': state})


def to_profile(profile: Profile) -> ProfileMessage:
    """Return a profile as a message."""
    return ProfileMessage(model=profile.model, fingerprint=profile.fingerprint,
                          profile_json=json.dumps(profile.to_document()))


def from_profile(message: ProfileMessage, where: str) -> Profile:
    """Return a profile from a message; raise DynsplitError, which names ``where``, for one that cannot be used."""
    if len(message.profile_json) > MAX_PROFILE_CHARACTERS:
        raise DynsplitError(f'{where} has {len(message.profile_json)} characters, but at most '
                            f'{MAX_PROFILE_CHARACTERS} are allowed')
    try:
        document = json.loads(message.profile_json)
    except (ValueError, RecursionError) as error:
        raise DynsplitError(f'{where} is not JSON; run the same version of this package on all sides') from error
    return Profile.from_document(document, where)
