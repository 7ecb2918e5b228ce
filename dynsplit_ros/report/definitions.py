# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Find the definitions of this package's own messages, for recordings that bring none along."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import re
import sys

_PACKAGE = 'dynsplit_ros'
#: The only foreign types in this package's messages; both are the same in every ROS 2.
_FOREIGN = {
    'std_msgs/Header': 'builtin_interfaces/Time stamp\nstring frame_id\n',
    'builtin_interfaces/Time': 'int32 sec\nuint32 nanosec\n',
}


def own_definition(kind: str) -> str | None:
    """
    Return the text that a recording has for ``kind``, such as ``dynsplit_ros/msg/FrameTiming``; None for a stranger's.

    The files are where colcon installs them, where pip does, or in the folder of the sources.
    """
    package, _, name = kind.partition('/msg/')
    if package != _PACKAGE or not re.fullmatch(r'[A-Za-z0-9]+', name):
        return None
    texts: dict[str, str] = {}
    wanted = [f'{_PACKAGE}/{name}']
    while wanted:
        key = wanted.pop()
        text = _FOREIGN.get(key) or _own(key)
        if text is None:
            return None
        texts[key] = text
        for field in re.findall(r'^([A-Za-z]\w*(?:/\w+)?)(?:\[.*?\])?\s+[a-z]', text, re.MULTILINE):
            nested = field if '/' in field else f'{_PACKAGE}/{field}'
            if ('/' in field or field[0].isupper()) and nested not in texts:
                wanted.append(nested)
    (_, main), *nested_texts = texts.items()
    return ('=' * 80 + '\n').join([main, *(f'MSG: {key}\n{text}' for key, text in nested_texts)])


def _own(key: str) -> str | None:
    for folder in _folders():
        try:
            return (folder / f'{key.partition("/")[2]}.msg').read_text(encoding='utf-8').rstrip('\n') + '\n'
        except OSError:
            continue
    return None


def _folders() -> Iterator[Path]:
    for prefix in (*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix):
        if prefix:
            yield Path(prefix) / 'share' / _PACKAGE / 'msg'
    yield Path(__file__).resolve().parents[2] / 'msg'
