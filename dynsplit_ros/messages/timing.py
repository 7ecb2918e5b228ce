# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Timings and profiles to and from messages; without torch, which the monitor does not need."""

from __future__ import annotations

from dataclasses import fields
import json
from typing import Any

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.msg import FrameTiming as FrameTimingMessage, Profile as ProfileMessage
from dynsplit_ros.profile.profile import Profile
from dynsplit_ros.runtime.frame import FrameTiming, State

#: A profile that comes in as a message is refused beyond this; real ones have some 10 kB.
MAX_PROFILE_CHARACTERS = 1_000_000


def to_timing(timing: FrameTiming) -> FrameTimingMessage:
    """Return a frame's timing as a message; the fields have the same names."""
    return FrameTimingMessage(**{field.name: getattr(timing, field.name) for field in fields(timing)}
                              | {'state': int(timing.state)})


def from_timing(message: FrameTimingMessage) -> FrameTiming:
    """Return a frame's timing from a message; raise DynsplitError for a state that there is not."""
    try:
        state = State(message.state)
    except ValueError:
        raise DynsplitError(f'a frame timing has state {message.state}, but states go from 0 to 4; run the same '
                            'version of this package on all sides') from None
    return FrameTiming(**{field.name: getattr(message, field.name) for field in fields(FrameTiming)}
                       | {'state': state})


def in_words(decision: Any) -> str:
    """Return a decision's or a frame's split and codec for a person."""
    return f'{decision.split_index} ({decision.split_name}) {decision.codec}'.strip() if decision.codec else (
        f'{decision.split_index} (local inference)')


def to_profile(profile: Profile, images: int = 1) -> ProfileMessage:
    """Return the profile of a machine, whose frames have ``images`` images, as a message."""
    return ProfileMessage(model=profile.model, fingerprint=profile.fingerprint, images=images,
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
