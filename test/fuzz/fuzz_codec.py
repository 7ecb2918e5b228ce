# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Attack the codecs' decoding with hostile payloads: seeded mutations, or coverage-guided.

What must hold for every payload: decode returns exactly the declared tensors, or raises DynsplitError with
one short line; nothing else escapes, no memory beyond the limit is taken, and the process lives.

    python test/fuzz/fuzz_codec.py --cases 100000 --seed 0          # as the tests run it
    python test/fuzz/fuzz_codec.py --cases 1 --first 4711 --seed 0  # one case again
    python test/fuzz/fuzz_codec.py --coverage CORPUS -max_total_time=3600 -rss_limit_mb=2048  # the long run

``--coverage`` needs atheris (``pip install atheris``). It writes valid payloads to the folder CORPUS, if it
is empty, and hands what follows to libFuzzer, which writes a payload that fails to the file ``crash-…``;
``--coverage crash-…`` runs it again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
import faulthandler
import math
import os
from pathlib import Path
import random
import resource
import struct
import sys

import torch

from dynsplit_ros.codec import CODECS, decode, encode, EncodedTensor
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.tensors import ITEM_SIZES, TensorSpec

MAX_BATCH = 2
#: What all cases together may add to the process; each one's tensors take less than 1 MB.
MEMORY_LIMIT_BYTES = 512 << 20


@dataclass(frozen=True)
class Case:
    """One payload and the cut that it claims to be of; None for an answer whose shapes are free."""

    codec: str
    encoded: tuple[EncodedTensor, ...]
    expected: tuple[TensorSpec, ...] | None


def valid_cases() -> list[Case]:
    """Return one payload, as a robot sends it, for each codec and kind of content."""
    draw = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    steps = torch.arange(3 * 17 * 20).reshape(1, 3, 17, 20)
    contents: list[dict[str, torch.Tensor]] = [
        {'image': (steps * 7 // 5 % 256).to(torch.uint8)},
        {'relu': noise(1, 8, 6, 6).relu()},
        {'blocks': noise(1, 16, 48, 48).relu()},  # more bytes than one block of Blosc2 holds
        {'zeros': torch.zeros(1, 40, 5, 5)},
        {'half': noise(1, 9, 5, 5).to(torch.bfloat16), 'flags': noise(1, 33) > 0, 'count': torch.tensor(5)},
        {'tokens': noise(1, 7, 24).half(), 'nothing': torch.zeros(1, 0, 4), 'wide': noise(1, 3).double()},
    ]
    cases = []
    for codec, info in CODECS.items():
        for tensors in contents if info.is_installed() else ():
            if info.takes != 'image' or 'image' in tensors:
                expected = tuple(
                    TensorSpec(name, str(tensor.dtype).removeprefix('torch.'), tuple(tensor.shape))
                    for name, tensor in tensors.items()
                )
                encoded = (replace(tensor, data=bytes(tensor.data)) for tensor in encode(codec, tensors))
                cases.append(Case(codec, tuple(encoded), expected))
    answer = {'boxes.0': noise(3, 4), 'labels.0': torch.tensor([1, 2, 3]), 'masks.0': noise(3, 1, 40, 50) > 0}
    for codec in ('raw', 'blosc2'):
        encoded = (replace(tensor, data=bytes(tensor.data)) for tensor in encode(codec, answer))
        cases.append(Case(codec, tuple(encoded), None))
    return cases


def check(case: Case) -> bool:
    """Decode a payload; return whether it was accepted, and raise AssertionError if it was not dealt with properly."""
    try:
        decoded = decode(case.codec, case.encoded, case.expected, MAX_BATCH)
    except DynsplitError as error:
        assert 0 < len(str(error)) < 400 and '\n' not in str(error), f'no message for a person: {error}'
        return False
    if case.expected is None:
        assert [(name, f'torch.{sent.dtype}', tuple(sent.shape)) for name, sent in zip(decoded, case.encoded)] == [
            (sent.name, str(tensor.dtype), tuple(tensor.shape)) for tensor, sent in zip(decoded.values(), case.encoded)
        ]
        return True
    assert list(decoded) == [spec.name for spec in case.expected]
    for tensor, sent, spec in zip(decoded.values(), case.encoded, case.expected):
        assert str(tensor.dtype) == f'torch.{spec.dtype}' and tuple(tensor.shape) == tuple(sent.shape)
        assert tuple(tensor.shape[1:]) == spec.shape[1:]
        assert not spec.shape or tensor.shape[0] in range(spec.shape[0], MAX_BATCH * spec.shape[0] + 1)
    return True


# Mutations of data. ``chance`` is the case's own source of random numbers.

_EXTREMES = (0, 1, 2, 31, 32, 33, 127, 128, 255, 256, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def _flip_bits(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _flip_header_bits(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(min(len(data), 64))] ^= 1 << chance.randrange(8)


def _write_extreme(data: bytearray, chance: random.Random) -> None:
    at = 4 * chance.randrange(min(len(data), 160) // 4 + 1)
    data[at : at + 4] = struct.pack(chance.choice('<>') + 'I', chance.choice(_EXTREMES))


def _write_float(data: bytearray, chance: random.Random) -> None:
    at = 4 * chance.randrange(len(data) // 4 + 1)
    data[at : at + 4] = struct.pack('<f', chance.choice((math.nan, math.inf, -1.0, -0.0, 3e38, 1e-45)))


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _extend(data: bytearray, chance: random.Random) -> None:
    data += chance.randbytes(chance.choice((1, 4, 33, 4096)))


def _repeat_part(data: bytearray, chance: random.Random) -> None:
    start, at = chance.randrange(len(data)), chance.randrange(len(data))
    data[at:at] = data[start : start + chance.randrange(1, 64)]


def _drop_part(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.randrange(1, 64)]


def _scramble(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    end = min(len(data), start + chance.choice((4, 32, 512)))
    data[start:end] = chance.randbytes(end - start)


_MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip_bits,
    _flip_bits,
    _flip_header_bits,
    _write_extreme,
    _write_float,
    _truncate,
    _extend,
    _repeat_part,
    _drop_part,
    _scramble,
)


def _repair(data: bytearray, codec: str) -> None:
    """Correct the sizes on which a decoder would stop early, to get the damage further."""
    if data[:2] == b'\x05\x01' and len(data) >= 32:
        struct.pack_into('<i', data, 12, len(data))
    if data[:4] == b'RIFF' and len(data) >= 20:
        data += bytes(len(data) % 2)
        struct.pack_into('<I', data, 4, len(data) - 8)
        struct.pack_into('<I', data, 16, len(data) - 20)
    if codec.endswith('-jpegls') and data[-2:] != b'\xff\xd9':
        data += b'\xff\xd9'


def mutate(case: Case, other: Case, chance: random.Random) -> Case:
    """Return a payload that differs from a valid one in its data, its declaration, its codec, or several of these."""
    encoded = list(case.encoded)
    at = chance.randrange(len(encoded))
    data = bytearray(encoded[at].data)
    if chance.random() < 0.9:
        for _ in range(chance.choice((1, 1, 2, 4))):
            if data:
                chance.choice(_MUTATIONS)(data, chance)
        if chance.random() < 0.5:
            _repair(data, case.codec)
    tensor = replace(encoded[at], data=memoryview(bytes(data)))
    codec = case.codec
    if chance.random() < 0.15:
        shape = list(tensor.shape)
        if shape:
            where = chance.randrange(len(shape))
            shape[where] = chance.choice((shape[where] * 2, 0, 1, -1, 2**31, 2**62, shape[where] + 1))
        kind = chance.randrange(7)
        if kind == 0:
            tensor = replace(tensor, shape=tuple(shape))
        elif kind == 1:
            tensor = replace(tensor, shape=tensor.shape + (1,) * chance.choice((1, 100)))
        elif kind == 2:
            tensor = replace(tensor, dtype=chance.choice((*ITEM_SIZES, 'complex64', '', 'object')))
        elif kind == 3:
            tensor = replace(tensor, name=chance.choice(('', 'x' * 10000, '../a', other.encoded[0].name)))
        elif kind == 4:
            codec = chance.choice((other.codec, '', 'pickle', 'x' * 10000))
        elif kind == 5:
            tensor = replace(tensor, data=other.encoded[0].data)
        else:
            encoded = encoded[: chance.randrange(len(encoded))] + list(other.encoded)
    if at < len(encoded):
        encoded[at] = tensor
    return Case(codec, tuple(encoded), case.expected)


def run_mutations(seed: int, first: int, count: int, progress: Path | None) -> None:
    """Check ``count`` mutated payloads; each follows from the seed and its number alone."""
    valid = valid_cases()
    assert all(check(case) for case in valid), 'a valid payload was refused'
    taken = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_LIMIT_BYTES,) * 2)
    note = os.open(progress, os.O_WRONLY | os.O_CREAT, 0o600) if progress else None
    accepted = 0
    for number in range(first, first + count):
        if note is not None:
            os.pwrite(note, b'%12d' % number, 0)
        chance = random.Random(f'{seed}/{number}')
        case = mutate(chance.choice(valid), chance.choice(valid), chance)
        try:
            accepted += check(case)
        except BaseException:
            print(f'case {number} of seed {seed}: {case.codec[:40]!r}, {case.expected}', file=sys.stderr)
            raise
    print(f'{count} cases of seed {seed}: {accepted} accepted, {count - accepted} refused')


def run_coverage(corpus: Path, options: list[str]) -> None:
    """Let libFuzzer search: the first byte of an input chooses a valid case, the rest are its first tensor's data."""
    import atheris  # here, since nothing else needs it

    valid = valid_cases()
    if not corpus.exists():
        corpus.mkdir(parents=True)
        for number, case in enumerate(valid):
            (corpus / f'valid-{number}').write_bytes(bytes([number]) + bytes(case.encoded[0].data))

    def check_input(data: bytes) -> None:
        if data:
            case = valid[data[0] % len(valid)]
            first = replace(case.encoded[0], data=data[1:])
            check(replace(case, encoded=(first, *case.encoded[1:])))

    for module in [module for name, module in sys.modules.items() if name.startswith('dynsplit_ros.codec.')]:
        for function in list(vars(module).values()):
            if getattr(function, '__module__', None) == module.__name__ and hasattr(function, '__code__'):
                atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], str(corpus), '-max_len=200000', *options], check_input)
    atheris.Fuzz()


def main() -> None:
    """Run as the module's docstring says."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--cases', type=int, default=100_000, help='how many mutated payloads')
    parser.add_argument('--seed', type=int, default=0, help='of the mutations')
    parser.add_argument('--first', type=int, default=0, help='number of the first case')
    parser.add_argument('--progress', type=Path, metavar='FILE', help='keep the number of the case here')
    parser.add_argument('--coverage', type=Path, metavar='CORPUS', help='coverage-guided search')
    arguments, options = parser.parse_known_args()
    torch.set_num_threads(1)
    if arguments.coverage:
        run_coverage(arguments.coverage, options)
    elif options:
        parser.error(f'unknown: {" ".join(options)}')
    else:
        faulthandler.enable()
        run_mutations(arguments.seed, arguments.first, arguments.cases, arguments.progress)


if __name__ == '__main__':
    main()
