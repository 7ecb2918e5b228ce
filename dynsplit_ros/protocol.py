# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Whether a robot and an edge can work together: the version of their messages, and what computes on each side."""

from __future__ import annotations

from dataclasses import dataclass
import hashlib
import re

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.text import printable

#: Version of the messages between robot, edge and tools. Raise it when a field changes its meaning or its type: a
#: node that reads such a field by its old meaning would compute with wrong numbers.
PROTOCOL_VERSION = 1

#: Most edges that a robot knows at a time. Each costs a few publishers and heartbeats on the robot's link; without a
#: bound, a peer could make a robot create thousands of them.
MOST_EDGES = 8
#: Characters of an edge's name, and of the digest behind it, in a topic name. ROS 2 allows 247 in the whole name.
_NAME_CHARACTERS, _DIGEST_CHARACTERS = 40, 8


@dataclass(frozen=True)
class Side:
    """
    What one side tells the other when they meet; the fields are those of Profile.msg.

    ``edge`` and ``edge_session`` are the edge's name and run; the robot leaves them empty and 0. ``images`` is the
    number of images in the robot's frames, or the largest number that the edge takes. ``torch_version`` is the version
    of PyTorch; the profile says which engines are ready.
    """

    edge: str = ''
    edge_session: int = 0
    images: int = 1
    torch_version: str = ''


def edge_token(edge: str) -> str:
    """
    Return the part of a topic name that stands for an edge: its name if that is valid there.

    Else characters are replaced, and a digest of the name follows, so that two names have two tokens.
    """
    clean = re.sub('[^A-Za-z0-9]+', '_', edge).strip('_')
    looks_hashed = re.search(f'_[0-9a-f]{{{_DIGEST_CHARACTERS}}}$', edge)
    if clean == edge and edge[:1].isalpha() and len(edge) <= _NAME_CHARACTERS and not looks_hashed:
        return edge
    digest = hashlib.sha256(edge.encode(errors='replace')).hexdigest()[:_DIGEST_CHARACTERS]
    name = clean[:_NAME_CHARACTERS].rstrip('_')
    return f'{name if name[:1].isalpha() else f"edge_{name}".rstrip("_")}_{digest}'


class VersionError(DynsplitError):
    """A message has another protocol version."""


def check_version(version: int, what: str) -> None:
    """Raise VersionError for ``what``, a message, if its sender has another protocol version."""
    if version != PROTOCOL_VERSION:
        raise VersionError(
            f'{what} has protocol version {version}, but this program has {PROTOCOL_VERSION} and ignores it; install '
            'the same version of dynsplit_ros on robot and edge'
        )


def inexactness(robot: Side, edge: Side) -> str:
    """
    Return why predictions may differ from the whole model's in the last bits; empty if nothing here can cause that.

    PyTorch promises the same bits only for one release: another one may add up the products of a layer in another
    order. The suffix of a version, as in 2.11.0+cpu, names the build and not the release.
    """
    here, there = (side.torch_version.partition('+')[0] for side in (robot, edge))
    if here == there:
        return ''
    return (
        f'predictions of edge {printable(edge.edge)!r} may differ from the whole model in the last bits: '
        f'torch {printable(here)} on the robot and {printable(there)} on the edge; install the same version on '
        'both for exact results'
    )
