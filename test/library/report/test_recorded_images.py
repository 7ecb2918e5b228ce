# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The images of a recording's camera topic are read as they were published; what cannot be is named or dropped."""

from __future__ import annotations

from pathlib import Path
import sqlite3
import struct

import cv2
import numpy as np
import pytest

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.profile.profile import Profile
from dynsplit_ros.report.recorded_images import is_recording, recorded_images
from dynsplit_ros.tools import profile as profile_tool

HEADER = 'std_msgs/Header header\n'
LINE = '=' * 80 + '\n'
NESTED = (
    f'{LINE}MSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n'
    f'{LINE}MSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n'
)
DEFINITIONS = {
    'sensor_msgs/msg/Image': HEADER + 'uint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\n'
    'uint8[] data\n' + NESTED,
    'sensor_msgs/msg/CompressedImage': HEADER + 'string format\nuint8[] data\n' + NESTED,
}


def text(value: str) -> bytes:
    data = value.encode() + b'\0'
    return struct.pack('<I', len(data)) + data + bytes(-len(data) % 4)


def cdr(picture: np.ndarray, compressed: bool = False) -> bytes:
    """Return a picture, uint8 [H, W, 3], RGB, as the bytes of a message."""
    start = b'\0\1\0\0' + struct.pack('<iI', 1, 2) + text('cam')
    if compressed:
        data = cv2.imencode('.png', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
        return start + text('png') + struct.pack('<I', len(data)) + data
    height, width = picture.shape[:2]
    data = picture.tobytes()
    return (
        start
        + struct.pack('<II', height, width)
        + struct.pack('<I', 5)
        + b'rgb8\0'
        + b'\0'
        + bytes(2)
        + struct.pack('<II', 3 * width, len(data))
        + data
    )


def recording(path: Path, messages: list[tuple[str, str, bytes]]) -> Path:
    """Write (topic, type, bytes) as rosbag2's SQLite storage keeps them."""
    database = sqlite3.connect(path)
    database.executescript("""
        CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT);
        CREATE TABLE message_definitions(topic_type TEXT, encoding TEXT, encoded_message_definition TEXT);
        CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);
    """)
    topics = sorted({(topic, kind) for topic, kind, _ in messages})
    for number, (topic, kind) in enumerate(topics, 1):
        database.execute("INSERT INTO topics VALUES (?, ?, ?, 'cdr')", (number, topic, kind))
    for kind, definition in DEFINITIONS.items():
        database.execute("INSERT INTO message_definitions VALUES (?, 'ros2msg', ?)", (kind, definition))
    for time_ns, (topic, kind, data) in enumerate(messages):
        database.execute(
            'INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)',
            (topics.index((topic, kind)) + 1, time_ns, data),
        )
    database.commit()
    database.close()
    return path


def picture(number: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('size', [(48, 64), (1080, 1920)])  # the second holds more than a message of this package may
def test_images_come_back_as_they_were_published(compressed, size, tmp_path) -> None:
    kind = 'sensor_msgs/msg/CompressedImage' if compressed else 'sensor_msgs/msg/Image'
    path = recording(tmp_path / 'bag_0.db3', [('/camera', kind, cdr(picture(n, size), compressed)) for n in range(2)])
    found = list(recorded_images(path))
    assert len(found) == 2 and all(np.array_equal(image, picture(n, size)) for n, image in enumerate(found))


def test_a_topic_is_chosen_and_damaged_images_are_dropped(tmp_path) -> None:
    kind = 'sensor_msgs/msg/Image'
    path = recording(
        tmp_path / 'bag_0.db3',
        [
            ('/left', kind, cdr(picture(1))),
            ('/right', kind, cdr(picture(2))),
            ('/right', kind, cdr(picture(3))[:-9]),
            ('/right', kind, cdr(picture(4)).replace(b'rgb8', b'what')),
        ],
    )
    assert [image.tobytes() for image in recorded_images(path, '/right')] == [picture(2).tobytes()]
    with pytest.raises(DynsplitError, match='/left and /right; name one with --image-topic'):
        list(recorded_images(path))
    with pytest.raises(DynsplitError, match='no images on /none'):
        list(recorded_images(path, '/none'))
    broken = recording(tmp_path / 'broken.db3', [('/camera', kind, cdr(picture(3))[:-9])])
    with pytest.raises(DynsplitError, match='no image on /camera could be read'):
        list(recorded_images(broken))


def test_the_profile_measures_agreement_with_a_recording(tmp_path, capsys) -> None:
    folder = tmp_path / 'bag'
    folder.mkdir()
    recording(folder / 'bag_0.db3', [('/camera', 'sensor_msgs/msg/Image', cdr(picture(n))) for n in range(3)])
    assert is_recording(folder) and not is_recording(tmp_path / 'photograph.png')
    out = tmp_path / 'p.yaml'
    fast = ['squeezenet1_1', '--input-size', '64', '64', '--repeats', '1', '--warm-up', '0', '--output', str(out)]
    assert profile_tool.main([*fast, '--codec', 'raw', 'quant8-zstd', '--image', str(folder)]) == 0
    assert Profile.load(out).agreements[0].images == 3
    assert profile_tool.main([*fast, '--image', str(folder), '--image-topic', '/none']) == 2
    assert '/none' in capsys.readouterr().err
