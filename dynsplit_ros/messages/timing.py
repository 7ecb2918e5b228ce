# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Converts frame records and profiles to and from messages, without torch, which the monitor does not need."""

from __future__ import annotations

import json
from typing import Any

from dynsplit_ros import msg
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.messages.fields import from_message, to_message
from dynsplit_ros.policies.records import FrameRecord, Outcome
from dynsplit_ros.profile.profile import Profile
from dynsplit_ros.protocol import Side

#: Largest number of characters of a profile in a message; real ones have about 10,000. The limit bounds the memory that
#: a peer can take.
MAX_PROFILE_CHARACTERS = 1_000_000
#: The side of a robot without further data: one image in a frame.
ROBOT = Side()
#: The outcomes by their numbers in the message.
OUTCOMES = {getattr(msg.FrameTiming, outcome.name): outcome for outcome in Outcome}


def to_timing(frame: FrameRecord) -> msg.FrameTiming:
    """Return a frame's record as a message."""
    return to_message(msg.FrameTiming, frame, outcome=getattr(msg.FrameTiming, frame.outcome.name))


def from_timing(message: msg.FrameTiming) -> FrameRecord:
    """Return a frame's record from a message; raise DynsplitError for an unknown outcome."""
    if message.outcome not in OUTCOMES:
        raise DynsplitError(
            f'a frame timing has outcome {message.outcome}, but outcomes go from 0 to 4; run the same '
            'version of this package on all sides'
        )
    return from_message(FrameRecord, message, outcome=OUTCOMES[message.outcome])


def describe_split(decision: Any) -> str:
    """Return the split and codec of a decision or frame as text."""
    return (
        f'{decision.split_index} ({decision.split_name}) {decision.codec}'.strip()
        if decision.codec
        else (f'{decision.split_index} (local inference)')
    )


def to_profile(profile: Profile, side: Side = ROBOT) -> msg.Profile:
    """Return the profile of one side as a message."""
    return to_message(
        msg.Profile,
        side,
        model=profile.model,
        fingerprint=profile.fingerprint,
        profile_json=json.dumps(profile.to_document()),
    )


def from_profile(message: msg.Profile, where: str) -> tuple[Profile, Side]:
    """Return a profile and its side; raise DynsplitError, which names ``where``, for an unusable one."""
    if len(message.profile_json) > MAX_PROFILE_CHARACTERS:
        raise DynsplitError(
            f'{where} has {len(message.profile_json)} characters, but at most {MAX_PROFILE_CHARACTERS} are allowed'
        )
    try:
        document = json.loads(message.profile_json)
    except (ValueError, RecursionError) as error:
        raise DynsplitError(f'{where} is not JSON; run the same version of this package on all sides') from error
    return Profile.from_document(document, where), from_message(Side, message, images=max(1, message.images))
