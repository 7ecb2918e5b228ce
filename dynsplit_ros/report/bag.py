# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Read rosbag2 recordings, MCAP and SQLite, on any machine: no ROS is needed, and nothing in a file is believed unchecked.

MCAP: https://mcap.dev/spec. A recording that breaks off, as when a robot loses power, is read up to there. All of
rosbag2's compression modes are read: file, message, and the chunks of MCAP. What is not read is named in the notes.

The package ``rosbags`` (0.11) was tried in the place of this module. It refuses a recording that breaks off as a whole,
unpacks without a limit of size, needs metadata.yaml, and executes code that it makes from the file's definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
import contextlib
import ctypes
import ctypes.util
from dataclasses import dataclass
import io
from pathlib import Path
import re
import shutil
import sqlite3
import struct
import tempfile

import yaml

from dynsplit_ros.errors import check_file, DynsplitError
from dynsplit_ros.report.definitions import own_definition

#: Returns so many bytes from where it is, fewer at the end.
_Read = Callable[[int], bytes]
_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
_MAGIC = b'\x89MCAP0\r\n'
#: Most that a chunk may hold once it is unpacked, and most that a wanted message or image may hold, in bytes.
MOST_CHUNK_BYTES = 2**28
MOST_MESSAGE_BYTES, MOST_IMAGE_BYTES = 2**20, 2**26
#: The types of messages that hold an image.
IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
#: Bounds on an SQLite file that is unpacked in the temporary folder: the ratio of its size to the compressed one, and
#: the share of the folder's free bytes. The ratio is 4 for this package's messages and 32000 for zeros (measured).
#: A higher bound lets a small file fill the disk; a lower one refuses recordings.
MOST_SQLITE_RATIO = 200
MOST_FREE_SHARE = 0.5
#: Most that a recording's metadata.yaml may hold, in bytes.
MOST_METADATA_BYTES = 2**20
#: Bytes that are read and unpacked at a time.
_PIECE = 2**17
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


def files_of(path: Path, notes: list[str]) -> list[Path]:
    """
    Return the storage files of a recording: of a folder as rosbag2 writes it, in order, or the file itself.

    Files that belong to the recording and are missing or cannot be read are named in ``notes``.
    """
    if not path.is_dir():
        return [path]
    storage = re.compile(r'\.(mcap|db3)(\.|$)')
    there = {file.name: file for file in path.iterdir() if file.is_file() and storage.search(file.name)}
    for name in list(there):
        plain = re.sub(r'\.zstd?$', '', name)
        if plain not in (name, *there):
            continue
        if plain != name:  # somebody has unpacked it already
            del there[name]
        elif not name.endswith(('.mcap', '.db3')):
            notes.append(f'{name} was dropped: it is compressed, but not with zstd; unpack it first.')
            del there[name]
    for name in _names_of_metadata(path):
        if name not in there and re.sub(r'\.zstd?$', '', name) not in there and f'{name}.zstd' not in there:
            notes.append(f'metadata.yaml names {name[:100]}, which is not in the folder.')
    if not there:
        raise DynsplitError(
            f'{path} holds no .mcap or .db3 file; give the folder that ros2 bag record has made, or the '
            'JSON file of a demo. '
            f'{" ".join(notes[:3])}'.rstrip()
        )
    return [there[name] for name in sorted(there, key=_natural)]


def _natural(name: str) -> list[int | str]:
    """Return a key that puts bag_10 behind bag_9."""
    return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name)]


def _names_of_metadata(folder: Path) -> list[str]:
    """Return the names of the files that a recording says it has; none where it does not say."""
    try:
        check_file(folder / 'metadata.yaml', 'the list of files')
        with (folder / 'metadata.yaml').open('rb') as file:
            document = yaml.safe_load(file.read(MOST_METADATA_BYTES))
        paths = document['rosbag2_bagfile_information']['relative_file_paths']
        return [Path(str(path)).name for path in paths]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError, RecursionError):
        return []


def messages(path: Path, types: Collection[str], notes: list[str]) -> Iterator[Stored]:
    """
    Yield the messages of these types in a storage file.

    ``notes`` names what was dropped, a sentence each. Raises DynsplitError for a file that is no recording.
    """
    check_file(path, 'the recording')
    try:
        with path.open('rb') as file:
            packed = file.read(4) == _ZSTD_MAGIC
            file.seek(0)
            read = _Unpacked(_zstd_pieces(file.read)).read if packed else file.read
            try:
                start = read(len(_MAGIC))
                if start == _MAGIC:
                    yield from _of_mcap(read, path.name, types, notes)
                    return
                start += read(16 - len(_MAGIC))
                if packed and start.startswith(b'SQLite format 3'):
                    yield from _of_packed_sqlite(start, read, path, types, notes)
                    return
            except _Cut:
                start = b''
    except OSError as error:
        raise DynsplitError(f'{path} cannot be read ({error.strerror}); name a recording') from error
    if not start.startswith(b'SQLite format 3'):
        raise DynsplitError(
            f'{path} is neither an MCAP nor an SQLite recording{", or is damaged" if packed else ""}; give what '
            'ros2 bag record has written, or the JSON of a demo'
        )
    yield from _of_sqlite(path, path.name, types, notes)


def _stored(
    topic: str, kind: str, definition: str, time_ns: int, data: bytes, name: str, notes: list[str]
) -> Iterator[Stored]:
    """Yield a message, unpacked if rosbag2's compression mode was MESSAGE: no CDR begins like zstd."""
    if data[:4] == _ZSTD_MAGIC:
        try:
            data = _unpack_zstd(data, _most_bytes(kind))
        except _Cut:
            note = f'Messages in {name} were dropped: their compressed data are damaged or too long.'
            if note not in notes:
                notes.append(note)
            return
    yield Stored(topic, kind, definition, time_ns, data)


def _most_bytes(kind: str) -> int:
    """Return the most bytes of a message of a type."""
    return MOST_IMAGE_BYTES if kind in IMAGE_TYPES else MOST_MESSAGE_BYTES


def _definition(kind: str, recorded: dict[str, str], name: str, notes: list[str]) -> str | None:
    """Return the recording's definition of a type, or, where it has none, this package's; None if there is neither."""
    if kind in recorded:
        return recorded[kind]
    own = own_definition(kind)
    notes.append(
        f'{name} does not define {kind}; it was read as this version of the package defines it.'
        if own
        else f'{name} does not define {kind}, and its definition is not installed here; its messages were dropped.'
    )
    return own


# ---- MCAP ------------------------------------------------------------------------------------------------------------


class _Cut(Exception):
    """A record is longer than what there is."""


def _of_mcap(read: _Read, name: str, types: Collection[str], notes: list[str]) -> Iterator[Stored]:
    recording = _Mcap(name, types, notes)
    try:
        for code, record in _records(read):
            if code != _CHUNK:
                yield from recording.messages(code, record)
                continue
            try:
                inner = _unpacked(record)
            except DynsplitError as error:
                notes.append(f'A chunk of {name} was dropped: {error}.')
                continue
            for inner_code, inner_record in _records(io.BytesIO(inner).read):
                yield from recording.messages(inner_code, inner_record)
    except (_Cut, struct.error):
        notes.append(f'{name} is cut off or damaged; the part before that place was read.')


def _records(read: _Read) -> Iterator[tuple[int, bytes]]:
    """Yield the records of a file or a chunk that are of interest here; the others are dropped."""
    while True:
        head = read(9)
        if head.startswith(_MAGIC[:1]) or not head:
            return
        if len(head) < 9:
            raise _Cut
        code, length = struct.unpack('<BQ', head)
        if code in (_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK):
            if length > MOST_CHUNK_BYTES:
                raise _Cut
            record = read(length)
            if len(record) < length:
                raise _Cut
            yield code, record
        elif code == _DATA_END:
            return
        else:
            while length and (dropped := len(read(min(length, _PIECE)))):
                length -= dropped
            if length:
                raise _Cut


class _Mcap:
    """The schemas and channels that the records so far have defined, by their numbers."""

    def __init__(self, name: str, types: Collection[str], notes: list[str]) -> None:
        self._name = name
        self._types = types
        self._notes = notes
        self._schemas: dict[int, tuple[str, str]] = {}
        self._channels: dict[int, tuple[str, str, str]] = {}

    def messages(self, code: int, record: bytes) -> Iterator[Stored]:
        """Yield the message that a record holds, if it is one that is wanted."""
        if code == _SCHEMA:
            (number,) = struct.unpack_from('<H', record)
            name, position = _text(record, 2)
            encoding, position = _text(record, position)
            definition, _ = _text(record, position)
            if name in self._types and number not in self._schemas:
                recorded = {name: definition} if encoding == 'ros2msg' and definition else {}
                known = _definition(name, recorded, self._name, self._notes)
                if known is not None:
                    self._schemas[number] = name, known
        elif code == _CHANNEL:
            number, schema = struct.unpack_from('<HH', record)
            topic, position = _text(record, 4)
            encoding, _ = _text(record, position)
            if schema in self._schemas and encoding == 'cdr':
                self._channels[number] = topic, *self._schemas[schema]
        elif code == _MESSAGE:
            number, _, time_ns, _ = struct.unpack_from('<HIQQ', record)
            if number in self._channels and len(record) <= _most_bytes(self._channels[number][1]):
                yield from _stored(*self._channels[number], time_ns, record[22:], self._name, self._notes)


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
        raise DynsplitError(f'it declares {size} bytes, but at most {MOST_CHUNK_BYTES} are read')
    if compression == '':
        return packed
    unpack = {'zstd': _unpack_zstd, 'lz4': _unpack_lz4}.get(compression)
    if unpack is None:
        raise DynsplitError(f'it is compressed with {compression[:40]!r}, not with zstd or lz4')
    try:
        data = unpack(packed, size)
    except _Cut:
        data = b''
    if len(data) != size:
        raise DynsplitError('its compressed data are damaged')
    return data


def _library(name: str) -> ctypes.CDLL:
    """Return a library that Debian and Ubuntu themselves are installed with."""
    try:
        return ctypes.CDLL(f'lib{name}.so.1')
    except OSError as error:
        raise DynsplitError(f'lib{name} is not on this machine (apt-get install lib{name}1)') from error


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer."""

    _fields_ = (('data', ctypes.c_void_p), ('size', ctypes.c_size_t), ('at', ctypes.c_size_t))


def _zstd_pieces(read: _Read) -> Iterator[bytes]:
    """Yield the unpacked bytes of zstd frames piece by piece; raises _Cut where they are damaged or break off."""
    library = _library('zstd')
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    stream = ctypes.c_void_p(library.ZSTD_createDStream())
    out = ctypes.create_string_buffer(_PIECE)
    left = 0
    try:
        while packed := read(_PIECE):
            given = _Buffer(ctypes.cast(ctypes.c_char_p(packed), ctypes.c_void_p), len(packed), 0)
            full = True
            while given.at < given.size or full:
                room = _Buffer(ctypes.cast(out, ctypes.c_void_p), _PIECE, 0)
                left = library.ZSTD_decompressStream(stream, ctypes.byref(room), ctypes.byref(given))
                if library.ZSTD_isError(ctypes.c_size_t(left)):
                    raise _Cut
                yield out.raw[: room.at]
                if not left and given.at == given.size:  # a frame ended
                    break
                full = room.at == _PIECE
        if left:
            raise _Cut
    finally:
        library.ZSTD_freeDStream(stream)


def _unpack_zstd(packed: bytes, most: int) -> bytes:
    """Return what was packed; raises _Cut where it is damaged or has more than ``most`` bytes."""
    pieces, size = [], 0
    for piece in _zstd_pieces(io.BytesIO(packed).read):
        size += len(piece)
        if size > most:
            raise _Cut
        pieces.append(piece)
    return b''.join(pieces)


class _Unpacked:
    """Pieces, read like a file from front to back."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._held) < size and (piece := next(self._pieces, None)) is not None:
            self._held += piece
        data = bytes(self._held[:size])
        del self._held[:size]
        return data


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


def _of_packed_sqlite(
    start: bytes, read: _Read, path: Path, types: Collection[str], notes: list[str]
) -> Iterator[Stored]:
    """Unpack a file into the folder for temporary files and read it there."""
    with tempfile.NamedTemporaryFile(suffix='.db3') as file:
        most = int(
            min(
                MOST_SQLITE_RATIO * path.stat().st_size, MOST_FREE_SHARE * shutil.disk_usage(tempfile.gettempdir()).free
            )
        )
        size = file.write(start)
        try:
            while piece := read(_PIECE):
                size += len(piece)
                if size > most:
                    notes.append(
                        f'{path.name} was dropped: it unpacks to more than {most} bytes, {MOST_SQLITE_RATIO} '
                        f'times its size or {MOST_FREE_SHARE:.0%} of what is free in {tempfile.gettempdir()}; '
                        f'unpack it first: unzstd {path.name}'
                    )
                    return
                file.write(piece)
        except _Cut:
            notes.append(f'{path.name} is cut off or damaged; the part before that place was read.')
        file.flush()
        yield from _of_sqlite(Path(file.name), path.name, types, notes)


def _of_sqlite(path: Path, file_name: str, types: Collection[str], notes: list[str]) -> Iterator[Stored]:
    with contextlib.closing(sqlite3.connect(f'{path.resolve().as_uri()}?mode=ro', uri=True)) as database:
        try:
            database.execute('PRAGMA trusted_schema = OFF')
            # Views could make a query do anything; rosbag2 has none.
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {'topics', 'messages'} <= tables:
                raise DynsplitError(f'{file_name} is an SQLite file without the tables of a recording')
            recorded = {}
            if 'message_definitions' in tables:  # since ROS 2 Iron
                recorded = {
                    str(name): str(text)
                    for name, encoding, text in database.execute(
                        'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions'
                    )
                    if encoding == 'ros2msg' and text
                }
            wanted = [
                (number, str(name), str(kind))
                for number, name, kind, form in database.execute(
                    'SELECT id, name, type, serialization_format FROM topics'
                )
                if kind in types and form == 'cdr'
            ]
            kinds = {kind for *_, kind in wanted}
            definitions = {kind: _definition(kind, recorded, file_name, notes) for kind in sorted(kinds)}
            topics = {number: (name, kind, text) for number, name, kind in wanted if (text := definitions[kind])}
            for number, time_ns, data in database.execute(
                'SELECT topic_id, timestamp, data FROM messages WHERE length(data) <= ? ORDER BY timestamp',
                (max(_most_bytes(kind) for kind in types),),
            ):
                if number in topics and isinstance(data, bytes) and isinstance(time_ns, int):
                    yield from _stored(*topics[number], time_ns, data, file_name, notes)
        except sqlite3.Error as error:
            notes.append(f'{file_name} is cut off or damaged ({error}); the part before that place was read.')
