# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Texts from the network, made fit to be kept, logged and shown."""

from __future__ import annotations

#: Most characters of a text from the network that are kept, logged or published again.
MOST_CHARACTERS = 1000


def printable(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return a text cut to a length, without what could steer a terminal or begin a line of its own in a log."""
    cut = ''.join(character if character.isprintable() else '·' for character in text[:most])
    return cut if len(text) <= most else f'{cut[:-1]}…'
