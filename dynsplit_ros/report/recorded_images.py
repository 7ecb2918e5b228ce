# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The images of a recording's camera topic, for measuring with what a robot really sees."""

from __future__ import annotations

import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.report.bag import files_of, IMAGE_TYPES, messages
from dynsplit_ros.report.cdr import Decoder

#: How the files of a recording end.
SUFFIXES = ('.mcap', '.db3')


def is_recording(path: Path) -> bool:
    """Return whether a path looks like a recording: a file of one, or a folder with such a file."""
    inside = path.iterdir() if path.is_dir() else [path]
    return any(suffix in file.suffixes for file in inside for suffix in SUFFIXES)


def recorded_images(path: Path, topic: str = '') -> Iterator[Any]:
    """
    Yield the images of a topic, uint8 [height, width, 3] in RGB, in their order; damaged ones are dropped.

    Without a topic, the recording must have one topic of images. Raises DynsplitError where it has none or several.
    """
    # Only who reads a recording needs ROS's messages.
    from sensor_msgs.msg import CompressedImage, Image  # type: ignore[import-untyped]

    from dynsplit_ros.messages.images import to_rgb

    notes: list[str] = []
    found, why, read = '', '', 0
    decoders: dict[str, Decoder] = {}
    for file in files_of(path, notes):
        for stored in messages(file, IMAGE_TYPES, notes):
            if topic and stored.topic != topic:
                continue
            found = found or stored.topic
            if stored.topic != found:
                raise DynsplitError(f'{path} has images on {found} and {stored.topic}; name one with --image-topic')
            decoder = decoders.setdefault(stored.definition, Decoder(stored.type, stored.definition))
            try:
                values = decoder.decode(stored.data)
                kind = CompressedImage if stored.type.endswith('CompressedImage') else Image
                names = (
                    ('format', 'data')
                    if kind is CompressedImage
                    else ('height', 'width', 'encoding', 'is_bigendian', 'step', 'data')
                )
                fields = {name: getattr(values, name) for name in names}
                image = to_rgb(kind(**{**fields, 'data': array.array('B', bytes(fields['data']))}))
            except (DynsplitError, AttributeError, TypeError, ValueError, AssertionError, OverflowError) as error:
                why = ' '.join(str(error).split())[:200]
                continue
            read += 1
            yield image
    if not found:
        raise DynsplitError(
            f'{path} has no images{f" on {topic}" if topic else ""}; record the camera topic with '
            f'ros2 bag record. {" ".join(notes[:3])}'.rstrip()
        )
    if not read:
        raise DynsplitError(f'no image on {found} could be read from {path} ({why}); record the topic of a camera')
