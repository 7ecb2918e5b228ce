# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Converts records to and from messages by the names of their fields, and sets the protocol version of each message."""

from __future__ import annotations

from dataclasses import fields
import functools
from typing import Any, TypeVar

from dynsplit_ros.protocol import PROTOCOL_VERSION
from dynsplit_ros.text import printable

_Type = TypeVar('_Type')


@functools.cache
def shared_names(record: type, message: type) -> tuple[str, ...]:
    """Return the names of the fields that a record and a message have in common."""
    of_message = message.get_fields_and_field_types()  # type: ignore[attr-defined]
    return tuple(field.name for field in fields(record) if field.name in of_message)


@functools.cache
def has_version(message: type) -> bool:
    """Return whether a message type has a protocol version; types of other packages have none."""
    return 'protocol_version' in message.get_fields_and_field_types()  # type: ignore[attr-defined]


def to_message(message: type[_Type], record: Any = None, **values: Any) -> _Type:
    """Return a message of this version with the fields that it shares with ``record``; ``values`` override them."""
    names = shared_names(type(record), message) if record is not None else ()
    values = {name: getattr(record, name) for name in names} | values
    if has_version(message):
        values['protocol_version'] = PROTOCOL_VERSION
    return message(**values)


def from_message(record: type[_Type], message: Any, **values: Any) -> _Type:
    """Return a record with the fields that it shares with a message; texts are shortened and made printable."""
    for name in shared_names(record, type(message)):
        value = getattr(message, name)
        values.setdefault(name, printable(value) if isinstance(value, str) else value)
    return record(**values)
