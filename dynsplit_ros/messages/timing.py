# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Timings and profiles to and from messages; without torch, which the monitor does not need."""

from __future__ import annotations

from dataclasses import fields
import json
from typing import Any

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.msg import FrameTiming as FrameTimingMessage, Profile as ProfileMessage
from dynsplit_ros.policies.records import FrameRecord, Outcome
from dynsplit_ros.profile.profile import Profile

#: A profile that comes in as a message is refused beyond this; real ones have some 10 kB.
MAX_PROFILE_CHARACTERS = 1_000_000


#: The fields that record and message share, by their one name, and the outcomes by their numbers in the message.
_NAMES = tuple(field.name for field in fields(FrameRecord)
               if field.name in FrameTimingMessage.get_fields_and_field_types())
_OUTCOMES = {getattr(FrameTimingMessage, outcome.name): outcome for outcome in Outcome}


def to_timing(frame: FrameRecord) -> FrameTimingMessage:
    """Return a frame's record as a message."""
    return FrameTimingMessage(outcome=getattr(FrameTimingMessage, frame.outcome.name),
                              **{name: getattr(frame, name) for name in _NAMES})


def from_timing(message: FrameTimingMessage) -> FrameRecord:
    """Return a frame's record from a message; raise DynsplitError for a state that there is not."""
    if message.outcome not in _OUTCOMES:
        raise DynsplitError(f'a frame timing has outcome {message.outcome}, but outcomes go from 0 to 4; run the same '
                            'version of this package on all sides')
    return FrameRecord(outcome=_OUTCOMES[message.outcome], **{name: getattr(message, name) for name in _NAMES})


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
