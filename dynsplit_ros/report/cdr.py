# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Decode recorded messages by the definitions that the recording brings along, so that older recordings stay readable.

Plain CDR as DDS middlewares write it (XCDR1, either byte order). Every length is checked against the bytes that are
there.
"""

from __future__ import annotations

from dataclasses import dataclass
import re
import struct
from types import SimpleNamespace
from typing import Any

from dynsplit_ros.errors import DynsplitError

_PRIMITIVES = {
    'bool': '?',
    'byte': 'B',
    'char': 'B',
    'int8': 'b',
    'uint8': 'B',
    'int16': 'h',
    'uint16': 'H',
    'int32': 'i',
    'uint32': 'I',
    'int64': 'q',
    'uint64': 'Q',
    'float32': 'f',
    'float64': 'd',
}
_FIELD = re.compile(r'(?P<type>[\w/]+)(?P<bound><=\d+)?(?P<array>\[(?:<=)?\d*\])?\s+(?P<name>[a-z]\w*)\s*(?P<rest>.*)')
#: Deeper nesting than this is no message of ours.
_DEEPEST = 8


@dataclass(frozen=True)
class _Field:
    name: str
    type: str  # a primitive, 'string', or the key of another type
    count: int | None  # elements of an array; -1 for a sequence, None for neither


class Decoder:
    """Decodes one type of message; raises DynsplitError for a definition that cannot be read."""

    def __init__(self, name: str, definition: str) -> None:
        self._types: dict[str, list[_Field]] = {}
        blocks = re.split(r'^=+$', definition, flags=re.MULTILINE)
        self._name = _key(name, '')
        self._types[self._name] = _fields(blocks[0], self._name)
        for block in blocks[1:]:
            head, _, body = block.strip().partition('\n')
            if head.startswith('MSG:'):
                key = _key(head.removeprefix('MSG:').strip(), '')
                self._types[key] = _fields(body, key)
        known = {*_PRIMITIVES, 'string', *self._types}
        missing = {field.type for fields in self._types.values() for field in fields} - known
        if missing:
            raise DynsplitError(f'the definition of {name} in the recording lacks {", ".join(sorted(missing))[:200]}')

    def decode(self, data: bytes) -> Any:
        """Return a message's fields as attributes; raises DynsplitError for bytes that are no such message."""
        if len(data) < 4 or data[0] != 0 or data[1] > 1:
            raise DynsplitError('a recorded message is not in plain CDR')
        reader = _Reader(data, '<' if data[1] else '>')
        try:
            return self._message(reader, self._name, 0)
        except (struct.error, UnicodeDecodeError) as error:
            raise DynsplitError(f'a recorded message does not hold what its definition says ({error})') from error

    def _message(self, reader: _Reader, name: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise DynsplitError(f'the definition of {name} contains itself')
        values: dict[str, Any] = {}
        for field in self._types[name]:
            if field.count is None:
                values[field.name] = self._one(reader, field.type, depth)
                continue
            count = reader.number('I') if field.count < 0 else field.count
            if field.type in _PRIMITIVES:
                values[field.name] = reader.numbers(_PRIMITIVES[field.type], count)
            else:
                # Each takes a byte at least, so a length that cannot be ends at the end of the data.
                values[field.name] = [self._one(reader, field.type, depth) for _ in range(reader.possible(count))]
        if not self._types[name]:
            reader.number('B')  # an empty message takes a byte
        return SimpleNamespace(**values)

    def _one(self, reader: _Reader, kind: str, depth: int) -> Any:
        if kind in _PRIMITIVES:
            return reader.number(_PRIMITIVES[kind])
        return reader.text() if kind == 'string' else self._message(reader, kind, depth + 1)


class _Reader:
    """Bytes that are read from front to back; what lies behind their end raises struct.error."""

    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._order = order
        self._at = 4  # behind the encapsulation's header, from which alignment counts

    def number(self, code: str) -> Any:
        return self.numbers(code, 1)[0]

    def numbers(self, code: str, count: int) -> tuple[Any, ...]:
        if count == 0:
            return ()
        size = struct.calcsize(code)
        self._at += -(self._at - 4) % size
        if count * size > len(self._data) - self._at:
            raise struct.error(f'a sequence of {count} elements in {len(self._data)} bytes')
        values = struct.unpack_from(f'{self._order}{count}{code}', self._data, self._at)
        self._at += count * size
        return values

    def text(self) -> str:
        length = self.possible(self.number('I'))
        value = self._data[self._at : self._at + length]
        self._at += length
        return value.rstrip(b'\0').decode()

    def possible(self, count: int) -> int:
        if count > len(self._data) - self._at:
            raise struct.error(f'{count} elements in {len(self._data)} bytes')
        return count


def _key(name: str, package: str) -> str:
    """Return a type's name as package/Type."""
    parts = [part for part in name.split('/') if part != 'msg']
    if len(parts) == 1 and parts[0] not in _PRIMITIVES and parts[0] != 'string':
        parts.insert(0, package)
    return '/'.join(parts)


def _fields(text: str, owner: str) -> list[_Field]:
    fields = []
    for line in text.splitlines():
        match = _FIELD.fullmatch(line.partition('#')[0].strip())
        if match is None or match['rest'].startswith('='):  # a comment, or a constant
            continue
        array = match['array']
        count = None if array is None else int(array[1:-1]) if array[1:-1].isdigit() else -1
        kind = _key(match['type'], owner.partition('/')[0])
        if kind == 'wstring':
            raise DynsplitError(f'{owner} has a wstring, which cannot be read here')
        fields.append(_Field(match['name'], kind, count))
    return fields
