# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Read rosbag2 recordings, MCAP and SQLite, on any machine: no ROS is needed, and nothing in a file is believed unchecked.

MCAP: https://mcap.dev/spec. A recording that breaks off, as when a robot loses power, is read up to there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
import contextlib
import ctypes
import ctypes.util
from dataclasses import dataclass
from pathlib import Path
import re
import sqlite3
import struct
from typing import BinaryIO

from dynsplit_ros.errors import DynsplitError

_MAGIC = b'\x89MCAP0\r\n'
#: Most that a chunk may hold once it is unpacked, and most that a message that is wanted may hold, in bytes.
MOST_CHUNK_BYTES = 2**28
MOST_MESSAGE_BYTES = 2**20
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 3, 4, 5, 6, 15


@dataclass(frozen=True)
class Stored:
    """
    One message as it was recorded.

    ``definition`` is the text that the recording brings along for ``type`` (as ``package/msg/Type``), ``time_ns``
    when it was received, ``data`` its CDR bytes.
    """

    topic: str
    type: str
    definition: str
    time_ns: int
    data: bytes


def files_of(path: Path) -> list[Path]:
    """Return the storage files of a recording: of a folder as rosbag2 writes it, in order, or the file itself."""
    if not path.is_dir():
        return [path]
    files = [file for file in path.iterdir() if file.suffix in ('.mcap', '.db3') and file.is_file()]
    if not files and any(path.glob('*.zstd')):
        raise DynsplitError(f'the files in {path} are compressed as a whole; unpack them first: unzstd {path}/*.zstd')
    if not files:
        raise DynsplitError(f'{path} holds no .mcap or .db3 file; give the folder that ros2 bag record has made')
    return sorted(
        files, key=lambda file: [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', file.name)]
    )


def messages(path: Path, types: Collection[str], notes: list[str]) -> Iterator[Stored]:
    """
    Yield the messages of these types in a storage file.

    What was passed over is told in ``notes``, a sentence each. Raises DynsplitError for a file that is no recording.
    """
    try:
        with path.open('rb') as file:
            start = file.read(16)
            if start.startswith(_MAGIC):
                file.seek(len(_MAGIC))
                yield from _of_mcap(file, path, types, notes)
                return
    except OSError as error:
        raise DynsplitError(f'{path} cannot be read ({error.strerror}); name a recording') from error
    if not start.startswith(b'SQLite format 3'):
        raise DynsplitError(
            f'{path} is neither an MCAP nor an SQLite recording; give what ros2 bag record has written, or '
            'the JSON of a demo'
        )
    yield from _of_sqlite(path, types, notes)


# ---- MCAP ------------------------------------------------------------------------------------------------------------


class _Cut(Exception):
    """A record is longer than what there is."""


def _of_mcap(file: BinaryIO, path: Path, types: Collection[str], notes: list[str]) -> Iterator[Stored]:
    schemas: dict[int, tuple[str, str]] = {}
    channels: dict[int, tuple[str, str, str]] = {}
    try:
        for code, record in _records(file):
            if code == _CHUNK:
                try:
                    inner = _unpacked(record)
                except DynsplitError as error:
                    notes.append(f'A chunk of {path.name} was passed over: {error}.')
                    continue
                position = 0
                while position < len(inner):
                    code, record, position = _record(inner, position)
                    yield from _of_record(code, record, schemas, channels, types, notes)
            else:
                yield from _of_record(code, record, schemas, channels, types, notes)
    except (_Cut, struct.error):
        notes.append(f'{path.name} breaks off or is damaged; what comes before that place was read.')


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the records of a file; those that are of no interest here are passed over unread."""
    while True:
        head = file.read(9)
        if head.startswith(_MAGIC[:1]) or not head:
            return
        code, length = struct.unpack('<BQ', head) if len(head) == 9 else (0, 2**64)
        if code in (_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK):
            if length > MOST_CHUNK_BYTES:
                raise _Cut
            record = file.read(length)
            if len(record) < length:
                raise _Cut
            yield code, record
        elif code == _DATA_END:
            return
        elif length < 2**62:
            file.seek(length, 1)
        else:
            raise _Cut


def _record(data: bytes, position: int) -> tuple[int, bytes, int]:
    code, length = struct.unpack_from('<BQ', data, position)
    begin = position + 9
    if begin + length > len(data):
        raise _Cut
    return code, data[begin : begin + length], begin + length


def _of_record(
    code: int,
    record: bytes,
    schemas: dict[int, tuple[str, str]],
    channels: dict[int, tuple[str, str, str]],
    types: Collection[str],
    notes: list[str],
) -> Iterator[Stored]:
    if code == _SCHEMA:
        (number,) = struct.unpack_from('<H', record)
        name, position = _text(record, 2)
        encoding, position = _text(record, position)
        definition, _ = _text(record, position)
        if name in types and encoding != 'ros2msg':
            notes.append(f'{name} is described as {encoding[:40]!r}, which cannot be read here, and was passed over.')
        elif name in types:
            schemas[number] = name, definition
    elif code == _CHANNEL:
        number, schema = struct.unpack_from('<HH', record)
        topic, position = _text(record, 4)
        encoding, _ = _text(record, position)
        if schema in schemas and encoding == 'cdr':
            channels[number] = topic, *schemas[schema]
    elif code == _MESSAGE:
        number, _, time_ns, _ = struct.unpack_from('<HIQQ', record)
        if number in channels and len(record) <= MOST_MESSAGE_BYTES:
            yield Stored(*channels[number], time_ns, record[22:])


def _text(record: bytes, position: int) -> tuple[str, int]:
    (length,) = struct.unpack_from('<I', record, position)
    end = position + 4 + length
    if end > len(record):
        raise _Cut
    return record[position + 4 : end].decode(errors='replace'), end


def _unpacked(record: bytes) -> bytes:
    """Return the records of a chunk."""
    (size,) = struct.unpack_from('<Q', record, 16)
    compression, position = _text(record, 28)
    packed = record[position + 8 :]
    if size > MOST_CHUNK_BYTES:
        raise DynsplitError(f'it says that it holds {size} bytes, more than the {MOST_CHUNK_BYTES} that are read')
    if compression == '':
        return packed
    unpack = {'zstd': _unpack_zstd, 'lz4': _unpack_lz4}.get(compression)
    if unpack is None:
        raise DynsplitError(f'it is compressed with {compression[:40]!r}, not with zstd or lz4')
    data = unpack(packed, size)
    if len(data) != size:
        raise DynsplitError('its compressed data are damaged')
    return data


def _library(name: str) -> ctypes.CDLL:
    """Return a library that Debian and Ubuntu themselves are installed with."""
    try:
        return ctypes.CDLL(f'lib{name}.so.1')
    except OSError as error:
        raise DynsplitError(f'lib{name} is not on this machine (apt-get install lib{name}1)') from error


def _unpack_zstd(packed: bytes, size: int) -> bytes:
    library = _library('zstd')
    library.ZSTD_decompress.restype = ctypes.c_size_t
    buffer = ctypes.create_string_buffer(max(size, 1))
    written = library.ZSTD_decompress(buffer, ctypes.c_size_t(size), packed, ctypes.c_size_t(len(packed)))
    return buffer.raw[:written] if written <= size else b''  # an error is a huge number


def _unpack_lz4(packed: bytes, size: int) -> bytes:
    library = _library('lz4')
    library.LZ4F_createDecompressionContext.restype = library.LZ4F_decompress.restype = ctypes.c_size_t
    context = ctypes.c_void_p()
    if library.LZ4F_createDecompressionContext(ctypes.byref(context), 100):
        raise DynsplitError('liblz4 refuses to work')
    buffer = ctypes.create_string_buffer(max(size, 1))
    done = taken = 0
    try:
        while done < size and taken < len(packed):
            room, given = ctypes.c_size_t(size - done), ctypes.c_size_t(len(packed) - taken)
            left = library.LZ4F_decompress(
                context, ctypes.byref(buffer, done), ctypes.byref(room), packed[taken:], ctypes.byref(given), None
            )
            if left > 2**62 or not (room.value or given.value):  # an error, or no progress
                return b''
            done, taken = done + room.value, taken + given.value
    finally:
        library.LZ4F_freeDecompressionContext(context)
    return buffer.raw[:done]


# ---- SQLite ----------------------------------------------------------------------------------------------------------


def _of_sqlite(path: Path, types: Collection[str], notes: list[str]) -> Iterator[Stored]:
    with contextlib.closing(sqlite3.connect(f'{path.resolve().as_uri()}?mode=ro', uri=True)) as database:
        try:
            database.execute('PRAGMA trusted_schema = OFF')
            # Views could make a query do anything; rosbag2 has none.
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {'topics', 'messages'} <= tables:
                raise DynsplitError(f'{path} is an SQLite file without the tables of a recording')
            if 'message_definitions' not in tables:
                raise DynsplitError(
                    f'{path} does not say how its messages are made, as recordings do since ROS 2 Iron; '
                    'convert it with ros2 bag convert where the package is built'
                )
            definitions = {
                str(name): str(text)
                for name, encoding, text in database.execute(
                    'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions'
                )
                if encoding == 'ros2msg'
            }
            topics = {
                number: (str(name), str(kind), definitions[str(kind)])
                for number, name, kind, form in database.execute(
                    'SELECT id, name, type, serialization_format FROM topics'
                )
                if kind in types and form == 'cdr' and str(kind) in definitions
            }
            for number, time_ns, data in database.execute(
                'SELECT topic_id, timestamp, data FROM messages WHERE length(data) <= ? ORDER BY timestamp',
                (MOST_MESSAGE_BYTES,),
            ):
                if number in topics and isinstance(data, bytes) and isinstance(time_ns, int):
                    yield Stored(*topics[number], time_ns, data)
        except sqlite3.Error as error:
            notes.append(f'{path.name} breaks off or is damaged ({error}); what comes before that place was read.')
