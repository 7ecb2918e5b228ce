# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What one machine needs for each cut of a model, as data: YAML, scaling, merging for a robot with an edge."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
import math
from pathlib import Path
from typing import Any, TypeVar

import yaml

from dynsplit_ros.agreement import Agreement
from dynsplit_ros.engine_names import EAGER, Engines, version_key
from dynsplit_ros.errors import check_file, DynsplitError
from dynsplit_ros.text import MOST_CHARACTERS, printable

#: Written at the head of each file; raised when a field changes its meaning.
FORMAT = 3

#: Most that a size (what a message's uint32 holds) and a time may be; a profile may come from a stranger.
MOST_BYTES = 2**32 - 1
MOST_S = 1e6
#: Most cuts, codecs of a cut and entries of ``measured`` in a profile; real ones have some ten of each.
MOST_ENTRIES = 1000
_Entry = TypeVar('_Entry')

#: A spread of the whole model's time above this share of it says more about the machine's other work than about it.
_DOUBTFUL = 0.5

#: In an agreement, the name of every lossless codec: they give the same tensors.
LOSSLESS = ''
#: Entries of ``measured`` that can change a result of an engine other than eager.
_MACHINE_KEYS = ('processor', 'instructions', 'device', 'channels_last')

#: The fields of a cut that hold seconds, and those that hold them by engine.
_TIMES = ('head_s', 'tail_s', 'head_spread_s', 'tail_spread_s')
_ENGINE_TIMES = ('engine_head_s', 'engine_tail_s')

Seconds = Mapping[int, float]
"""Seconds by batch size."""


@dataclass(frozen=True)
class CodecProfile:
    """
    One codec on one cut's tensors.

    ``payload_bytes``, ``encode_s`` and ``decode_s`` are by batch size (bytes of the whole batch, seconds, medians).
    ``lossless``: every bit comes back.
    """

    payload_bytes: Mapping[int, int]
    encode_s: Seconds
    decode_s: Seconds
    lossless: bool = True


@dataclass(frozen=True)
class AgreementRecord:
    """
    Agreement of heads on one engine, with a codec, and tails on another, with the unquantised model on the head's.

    ``task`` says what was compared, ``source`` which images. ``head`` and ``tail`` hold what can change an output
    there: engine and its version, torch, processor (:func:`dynsplit_ros.profile.measure.engine_of`). ``cuts`` holds the
    agreement by split index and codec; :data:`LOSSLESS` stands for all lossless codecs, and at the local index for the
    whole model on the head's engine. ``images`` is the largest number of images of any of them.
    """

    task: str
    source: str
    head: Mapping[str, str]
    tail: Mapping[str, str]
    cuts: Mapping[int, Mapping[str, Agreement]]

    @property
    def images(self) -> int:
        """Number of images; a codec that disagreed early was measured on fewer."""
        return max((found.images for cut in self.cuts.values() for found in cut.values()), default=0)

    @property
    def engines(self) -> Engines:
        """The engines of heads and tails."""
        return self.head.get('engine', EAGER), self.tail.get('engine', EAGER)

    def fits(self, robot: Mapping[str, str], edge: Mapping[str, str]) -> bool:
        """
        Return whether heads and tails of two profiles (their ``measured``) run as here.

        Results of eager differ between machines in the last bits at most. Another engine may choose other operations
        on another processor or in another version, so all of these must be equal.
        """
        return _runs_as(self.head, robot) and _runs_as(self.tail, edge)


def _runs_as(side: Mapping[str, str], measured: Mapping[str, str]) -> bool:
    engine = side.get('engine', EAGER)
    return engine == EAGER or (
        side.get('version') == measured.get(version_key(engine))
        and all(side.get(key) == measured.get(key) for key in _MACHINE_KEYS)
    )


@dataclass(frozen=True)
class CutProfile:
    """
    One cut on one machine.

    ``nbytes`` is the raw size of its tensors for batch 1; ``macs_before`` the share (0..1) of the model's
    multiply-accumulates that its head does; ``head_s`` and ``tail_s`` are medians by batch size, with their
    spread (half the distance between the quartiles) beside them. ``codecs`` is empty at the local index,
    which sends nothing. These times are eager's; ``engine_head_s`` and ``engine_tail_s`` hold the medians of the parts
    that are ready on other engines, by engine.
    """

    index: int
    name: str
    natural: bool
    nbytes: int
    macs_before: float
    head_s: Seconds
    tail_s: Seconds
    codecs: Mapping[str, CodecProfile] = field(default_factory=dict)
    head_spread_s: Seconds = field(default_factory=dict)
    tail_spread_s: Seconds = field(default_factory=dict)
    engine_head_s: Mapping[str, Seconds] = field(default_factory=dict)
    engine_tail_s: Mapping[str, Seconds] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """
    A model's cuts as measured on one machine.

    ``cuts`` holds every index from 0 (the image) to the local index (the whole model), in order, each
    measured for the same batch sizes, 1 among them. ``answer_bytes`` is the size of an answer for batch 1, as sent.
    ``measured`` says on what machine and with which versions, for a person. ``agreements`` has an entry for each pair
    of engines that was measured with images. Raises DynsplitError when any of this does not hold.
    """

    model: str
    fingerprint: str
    device: str
    threads: int
    cuts: tuple[CutProfile, ...]
    answer_bytes: int = 0
    measured: Mapping[str, str] = field(default_factory=dict)
    agreements: tuple[AgreementRecord, ...] = ()

    def __post_init__(self) -> None:
        where = f'profile of {self.model!r}'
        indices = [cut.index for cut in self.cuts]
        if len(indices) < 2 or indices != list(range(len(indices))):
            raise DynsplitError(
                f'{where} has the cuts {indices}, but needs each one from 0 to the local index: measure it again'
            )
        _check(self.answer_bytes, f'{where}: answer_bytes', MOST_BYTES)
        batches = self.batches
        if 1 not in batches or min(batches) < 1:
            raise DynsplitError(f'{where} has the batch sizes {list(batches)}, but needs 1 and only positive ones')
        for cut in self.cuts:
            at = f'{where}, cut {cut.index} ({cut.name})'
            _check(cut.nbytes, f'{at}: raw_bytes', MOST_BYTES)
            if not 0 <= cut.macs_before <= 1:
                raise DynsplitError(f'{at}: macs_before is {cut.macs_before}, but must be between 0 and 1')
            for key in ('head_s', 'tail_s'):
                _check_batches(getattr(cut, key), batches, f'{at}: {key}', MOST_S)
            for key in _ENGINE_TIMES:
                for engine, seconds in getattr(cut, key).items():
                    _check_batches(seconds, batches, f'{at}: {key} of {engine!r}', MOST_S)
            if not cut.codecs and cut.index != self.local_index:
                raise DynsplitError(f"{at} has no codec, but needs at least one, such as 'raw': measure it again")
            for name, codec in cut.codecs.items():
                for key, most in (('payload_bytes', MOST_BYTES), ('encode_s', MOST_S), ('decode_s', MOST_S)):
                    _check_batches(getattr(codec, key), batches, f'{at}, codec {name!r}: {key}', most)
        for record in self.agreements:
            for index, codecs in record.cuts.items():
                if not 0 <= index <= self.local_index:
                    raise DynsplitError(
                        f'{where} has the agreement of cut {index}, but has the cuts 0 to '
                        f'{self.local_index}: measure it again'
                    )
                for name, found in codecs.items():
                    of = f'{where}, agreement of cut {index} with {name!r}'
                    _check(found.images, f'{of}: images', MOST_BYTES)
                    _check(found.agreeing, f'{of}: agreeing', found.images)
                    if not found.difference >= 0:
                        raise DynsplitError(f'{of}: difference is {found.difference}, but must be at least 0')

    @property
    def local_index(self) -> int:
        """Index of the choice that sends nothing."""
        return len(self.cuts) - 1

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes that every cut was measured for, ascending."""
        return tuple(sorted(self.cuts[0].head_s))

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines on which some part was ready, eager first."""
        others = {engine for cut in self.cuts for engine in (*cut.engine_head_s, *cut.engine_tail_s)}
        return EAGER, *sorted(others)

    @property
    def doubt(self) -> str:
        """A sentence where the whole model's time varied so much that the machine was busy meanwhile; else empty."""
        whole = self.cuts[-1]
        median_s, spread_s = whole.head_s[1], whole.head_spread_s.get(1, 0.0)
        if spread_s <= _DOUBTFUL * median_s:
            return ''
        return (
            f'this machine was busy with something else while it was profiled: the whole model took '
            f'{1e3 * median_s:.1f} ± {1e3 * spread_s:.1f} ms'
        )

    def scaled(self, factor: float) -> Profile:
        """Return the profile of an emulated machine that takes ``factor`` (> 0) times as long for everything."""
        if not (math.isfinite(factor) and factor > 0):
            raise DynsplitError(f'a profile cannot be scaled by {factor}: give a positive number')

        def times(seconds: Seconds) -> Seconds:
            return {batch: value * factor for batch, value in seconds.items()}

        cuts = tuple(
            replace(
                cut,
                codecs={
                    name: replace(codec, encode_s=times(codec.encode_s), decode_s=times(codec.decode_s))
                    for name, codec in cut.codecs.items()
                },
                **_each_time(cut, times),
            )
            for cut in self.cuts
        )
        return replace(self, cuts=cuts, measured={**self.measured, 'emulated': f'{factor:g} times as slow'})

    def to_document(self) -> dict[str, Any]:
        """Return the profile as plain values, units in the keys: what a YAML file and a message hold."""
        return {
            'dynsplit_profile': FORMAT,
            'model': self.model,
            'fingerprint': self.fingerprint,
            'measured': {str(key): str(value) for key, value in self.measured.items()},
            'device': self.device,
            'threads': self.threads,
            'answer_bytes': self.answer_bytes,
            'cuts': [
                {
                    'index': cut.index,
                    'name': cut.name,
                    'natural': bool(cut.natural),
                    'raw_bytes': int(cut.nbytes),
                    'macs_before': round(float(cut.macs_before), 6),
                    **{key: seconds for key, seconds in _each_time(cut, _rounded).items() if seconds},
                    **({'codecs': {k: _codec_document(v) for k, v in cut.codecs.items()}} if cut.codecs else {}),
                }
                for cut in self.cuts
            ],
            **({'agreements': [_agreement_document(record) for record in self.agreements]} if self.agreements else {}),
        }

    def save(self, path: str | Path) -> None:
        """Write the profile as YAML."""
        text = yaml.safe_dump(self.to_document(), sort_keys=False, default_flow_style=None, width=110)
        Path(path).write_text(text, encoding='utf-8')

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile; raises DynsplitError naming the file and what is wrong with it."""
        check_file(path, 'the profile')
        try:
            document = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or ' '.join(str(error).split())
            raise DynsplitError(
                f'the profile {path} cannot be read ({reason}): name a file that the profile command wrote'
            ) from error
        return cls.from_document(document, f'the profile {path}')

    @classmethod
    def from_document(cls, document: object, where: str) -> Profile:
        """Read what :meth:`to_document` made; ``where`` names it in the errors (DynsplitError)."""
        if not isinstance(document, dict) or document.get('dynsplit_profile') != FORMAT:
            raise DynsplitError(f'{where} is not of format {FORMAT}: make one with the profile command')
        try:
            return cls(
                model=_text(document['model'], 'the name of the model'),
                fingerprint=_text(document['fingerprint'], 'the fingerprint'),
                device=_text(document['device'], 'the device'),
                threads=int(document['threads']),
                cuts=tuple(_cut(entry) for entry in _few(document['cuts'], 'cuts')),
                answer_bytes=int(document.get('answer_bytes', 0)),
                measured=_texts(document.get('measured') or {}, 'measured'),
                agreements=tuple(_agreement(entry) for entry in _few(document.get('agreements') or [], 'agreements')),
            )
        except KeyError as error:
            raise DynsplitError(f'{where} lacks {error}: measure it again') from error
        except DynsplitError as error:
            raise DynsplitError(f'{where}: {error}') from error
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DynsplitError(f'{where} has a value of the wrong type ({error}): measure it again') from error


@dataclass(frozen=True)
class SystemCut:
    """
    One cut of a robot with an edge, all times in seconds by batch size.

    ``head_s`` and ``finish_s`` (the tail, when the robot finishes the frame itself) are the robot's,
    ``tail_s`` is the edge's. In ``codecs`` encode_s is the robot's and decode_s the edge's. These times are eager's;
    ``engine_head_s`` and ``engine_tail_s`` are those of parts that are ready on other engines. ``agreement`` is that of
    eager on both sides by codec; it lacks codecs that were not measured with images. ``engine_agreement`` is the same
    for other pairs of engines, with :data:`LOSSLESS` for all lossless codecs.
    """

    index: int
    name: str
    natural: bool
    head_s: Seconds
    finish_s: Seconds
    tail_s: Seconds
    codecs: Mapping[str, CodecProfile]
    agreement: Mapping[str, Agreement] = field(default_factory=dict)
    engine_head_s: Mapping[str, Seconds] = field(default_factory=dict)
    engine_tail_s: Mapping[str, Seconds] = field(default_factory=dict)
    engine_agreement: Mapping[Engines, Mapping[str, Agreement]] = field(default_factory=dict)

    def head_on(self, engine: str) -> Seconds:
        """Return the times of the head on an engine; those of eager where it is not ready on it."""
        return self.engine_head_s.get(engine, self.head_s)

    def tail_on(self, engine: str) -> Seconds:
        """Return the times of the edge's tail on an engine; those of eager where it is not ready on it."""
        return self.engine_tail_s.get(engine, self.tail_s)

    @property
    def pairs(self) -> list[Engines]:
        """The pairs of engines on which head and tail are ready, eager on both sides first."""
        return [(head, tail) for head in (EAGER, *self.engine_head_s) for tail in (EAGER, *self.engine_tail_s)]


@dataclass(frozen=True)
class SystemProfile:
    """
    A robot and an edge running the same model; the last cut is the robot alone.

    ``agreement_images`` is the number of images with which agreement was measured on their engines, 0 if it was not.
    """

    model: str
    fingerprint: str
    batches: tuple[int, ...]
    answer_bytes: int
    cuts: tuple[SystemCut, ...]
    agreement_images: int = 0

    @property
    def has_engines(self) -> bool:
        """Whether a part is ready on another engine than eager."""
        return any(cut.engine_head_s or cut.engine_tail_s for cut in self.cuts)

    @property
    def local_index(self) -> int:
        """Index of the choice that sends nothing."""
        return len(self.cuts) - 1


def merge(robot: Profile, edge: Profile) -> SystemProfile:
    """
    Join what was measured on the robot with what was measured on the edge.

    Batch sizes and codecs are those that both have. The agreement is what the robot or else the edge measured on
    engines like theirs. Raises DynsplitError when the two are of different models, or when a cut is left without a
    codec.
    """
    if robot.fingerprint != edge.fingerprint:
        raise DynsplitError(
            f"the robot's profile is of {robot.model!r} ({robot.fingerprint[:12]}) and the edge's of {edge.model!r} "
            f'({edge.fingerprint[:12]}): profile the same model on both'
        )
    if [cut.name for cut in robot.cuts] != [cut.name for cut in edge.cuts]:
        raise DynsplitError(
            f'the profiles of {robot.model!r} do not hold the same cuts ({len(robot.cuts)} on the robot, '
            f'{len(edge.cuts)} on the edge): profile both with the same version of this package'
        )
    batches = tuple(batch for batch in robot.batches if batch in edge.batches)
    records: dict[Engines, AgreementRecord] = {}
    for record in (*robot.agreements, *edge.agreements):
        if record.fits(robot.measured, edge.measured):
            records.setdefault(record.engines, record)
    cuts = []
    for here, there in zip(robot.cuts, edge.cuts):
        codecs = {
            name: replace(codec, decode_s=there.codecs[name].decode_s)
            for name, codec in here.codecs.items()
            if name in there.codecs
        }
        if not codecs and here.index != robot.local_index:
            raise DynsplitError(f'cut {here.index} ({here.name}) has no codec that both profiles measured')
        cuts.append(
            SystemCut(
                here.index,
                here.name,
                here.natural,
                here.head_s,
                here.tail_s,
                there.tail_s,
                codecs,
                records[EAGER, EAGER].cuts.get(here.index, {}) if (EAGER, EAGER) in records else {},
                here.engine_head_s,
                there.engine_tail_s,
                {
                    pair: record.cuts[here.index]
                    for pair, record in records.items()
                    if pair != (EAGER, EAGER) and here.index in record.cuts
                },
            )
        )
    return SystemProfile(
        robot.model,
        robot.fingerprint,
        batches,
        robot.answer_bytes,
        tuple(cuts),
        max((record.images for record in records.values()), default=0),
    )


def undominated(costs: Mapping[str, tuple[float, ...]]) -> list[str]:
    """Return the names whose costs no other name undercuts: the Pareto front; the first of equals stands for all."""
    front: list[str] = []
    for name, cost in costs.items():
        if not any(_undercuts(other, cost) for other in costs.values()) and cost not in (costs[kept] for kept in front):
            front.append(name)
    return front


def _undercuts(cost: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return cost != other and all(mine <= others for mine, others in zip(cost, other))


def _check(value: float, what: str, most: float) -> None:
    if not 0 <= value <= most:
        raise DynsplitError(f'{what} is {value}, but must be a number from 0 to {most:g}')


def _check_batches(values: Mapping[int, float], batches: tuple[int, ...], what: str, most: float) -> None:
    if tuple(sorted(values)) != batches:
        raise DynsplitError(f'{what} is given for the batch sizes {sorted(values)}, but {list(batches)} are needed')
    for batch, value in values.items():
        _check(value, f'{what} for batch {batch}', most)


def _text(value: object, what: str) -> str:
    """Return a text fit to be logged and shown; refuse one that is too long, for a profile may come from a peer."""
    text = str(value)
    if len(text) > MOST_CHARACTERS:
        raise DynsplitError(f'{what} has {len(text)} characters, but at most {MOST_CHARACTERS} are allowed')
    return printable(text)


def _few(entries: Collection[_Entry], what: str) -> Collection[_Entry]:
    if len(entries) > MOST_ENTRIES:
        raise DynsplitError(f'there are {len(entries)} {what}, but at most {MOST_ENTRIES} are allowed')
    return entries


def _each_time(cut: CutProfile, change: Callable[[Seconds], Seconds]) -> dict[str, Any]:
    """Return all fields of a cut that hold seconds, changed."""
    return {
        **{key: change(getattr(cut, key)) for key in _TIMES},
        **{key: {engine: change(seconds) for engine, seconds in getattr(cut, key).items()} for key in _ENGINE_TIMES},
    }


def _rounded(seconds: Seconds) -> dict[int, float]:
    return {int(batch): float(f'{value:.4g}') for batch, value in seconds.items()}


def _codec_document(codec: CodecProfile) -> dict[str, Any]:
    return {
        'lossless': bool(codec.lossless),
        'payload_bytes': {int(batch): int(value) for batch, value in codec.payload_bytes.items()},
        'encode_s': _rounded(codec.encode_s),
        'decode_s': _rounded(codec.decode_s),
    }


def _agreement_document(record: AgreementRecord) -> dict[str, Any]:
    """Return the record as plain values; an agreement is [agreeing, images], with the difference where it is known."""
    return {
        'task': record.task,
        'source': record.source,
        'head': {str(key): str(value) for key, value in record.head.items()},
        'tail': {str(key): str(value) for key, value in record.tail.items()},
        'cuts': {
            int(index): {name: _counts(found) for name, found in codecs.items()}
            for index, codecs in record.cuts.items()
        },
    }


def _counts(found: Agreement) -> list[float]:
    counts = [round(float(found.agreeing), 6), int(found.images)]
    return counts if math.isinf(found.difference) else [*counts, float(f'{found.difference:.4g}')]


def _agreement(entry: Mapping[str, Any]) -> AgreementRecord:
    return AgreementRecord(
        task=_text(entry['task'], 'the task of an agreement'),
        source=_text(entry['source'], 'the source of an agreement'),
        head=_texts(entry['head'], 'the head of an agreement'),
        tail=_texts(entry['tail'], 'the tail of an agreement'),
        cuts={
            int(index): {
                _text(name, 'the name of a codec'): Agreement(float(agreeing), int(images), *map(float, difference))
                for name, (agreeing, images, *difference) in _few(codecs.items(), 'codecs of an agreement')
            }
            for index, codecs in _few(entry['cuts'].items(), 'cuts of an agreement')
        },
    )


def _texts(entries: Mapping[Any, Any], what: str) -> dict[str, str]:
    return {
        _text(key, f'a key of {what}'): _text(value, f'{what}, {str(key)[:40]!r}')
        for key, value in _few(entries.items(), f'entries of {what}')
    }


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f'{str(value)[:40]!r} is not true or false')
    return value


def _seconds(entry: Mapping[Any, Any]) -> dict[int, float]:
    return {int(batch): float(value) for batch, value in entry.items()}


def _cut(entry: Mapping[str, Any]) -> CutProfile:
    times: dict[str, Any] = {
        key: _seconds(entry[key] if key in ('head_s', 'tail_s') else entry.get(key) or {}) for key in _TIMES
    }
    for key in _ENGINE_TIMES:
        engines = _few((entry.get(key) or {}).items(), 'engines of a cut')
        times[key] = {_text(engine, 'the name of an engine'): _seconds(seconds) for engine, seconds in engines}
    return CutProfile(
        index=int(entry['index']),
        name=_text(entry['name'], 'the name of a cut'),
        natural=bool(entry['natural']),
        nbytes=int(entry['raw_bytes']),
        macs_before=float(entry['macs_before']),
        codecs={
            _text(name, 'the name of a codec'): CodecProfile(
                payload_bytes={int(b): int(v) for b, v in codec['payload_bytes'].items()},
                encode_s=_seconds(codec['encode_s']),
                decode_s=_seconds(codec['decode_s']),
                lossless=_flag(codec['lossless']),
            )
            for name, codec in _few((entry.get('codecs') or {}).items(), 'codecs of a cut')
        },
        **times,
    )
