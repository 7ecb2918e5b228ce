# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What happened in a run, robot by robot, from a rosbag2 recording or from the JSON of a demonstration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
import json
import math
from pathlib import Path
from typing import Any

from dynsplit_ros.errors import check_file, DynsplitError
from dynsplit_ros.protocol import check_version, VersionError
from dynsplit_ros.report.bag import files_of, messages
from dynsplit_ros.report.cdr import Decoder

#: Where a frame's time goes, in the order in which it does, as FrameTiming.msg names it.
PARTS = ('wait', 'resize', 'head', 'encode', 'link_wait', 'transfer', 'queueing', 'decode', 'tail', 'finish')
OUTCOMES = ('answered', 'local', 'fell back')
MOST_FRAMES = 1_000_000
MOST_ROBOTS = 16
MOST_JSON_BYTES = 2**28
_PACKAGE = 'dynsplit_ros/msg/'
_TYPES = tuple(_PACKAGE + name
               for name in ('Prediction', 'FrameTiming', 'LinkState', 'EdgeLoad', 'SplitDecision', 'Agreement'))
#: Most choices of split and codec whose agreement is kept; real runs have some.
MOST_AUDITED = 100
#: States of FrameTiming.msg that end a frame.
_STATES = {1: 'answered', 2: 'local', 3: 'fell back'}


@dataclass(frozen=True)
class Frame:
    """One prediction; ``time_s`` counts from the start of the run, ``parts_s`` is in the order of :data:`PARTS`."""

    time_s: float
    session: int
    sequence: int
    outcome: str
    split_index: int
    split_name: str
    codec: str
    payload_bytes: int
    latency_s: float
    parts_s: tuple[float, ...]


@dataclass(frozen=True)
class Link:
    """What was believed of the link at a time; rates in bit/s, ``true_bps`` only of an emulated link (else NaN)."""

    time_s: float
    alive: bool
    throughput_bps: float
    low_bps: float = math.nan
    high_bps: float = math.nan
    round_trip_s: float = math.nan
    queueing_s: float = math.nan
    probe_bytes: float = math.nan
    true_bps: float = math.nan


@dataclass(frozen=True)
class Load:
    """What the edge said of itself at a time."""

    time_s: float
    utilisation: float
    queue_length: float = math.nan
    robots: float = math.nan


@dataclass(frozen=True)
class Decision:
    """A change of the split, and why."""

    time_s: float
    split_index: int
    split_name: str
    codec: str
    reason: str


@dataclass(frozen=True)
class Audited:
    """The running agreement of a choice at a time, as the monitor said it."""

    time_s: float
    split_index: int
    codec: str
    audits: int
    agreement: float
    low: float
    high: float
    min_agreement: float
    reason: str


@dataclass
class Robot:
    """
    What was recorded of one robot, each list by time.

    ``audits`` has the latest of each choice. ``doubled`` are predictions of a frame that had one before.
    """

    name: str
    frames: list[Frame] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    audits: dict[tuple[int, str], Audited] = field(default_factory=dict)
    doubled: int = 0


@dataclass
class Run:
    """
    A recorded run.

    ``accepted`` is how many frames the camera says that it took, ``mismatches`` how many predictions differ from the
    whole model's; both only where a demonstration has counted them. ``notes`` are sentences on what could not be
    read, ``phases`` the parts of a demonstration's script: start and end in seconds, and name.
    """

    source: str
    model: str = ''
    duration_s: float = 0.0
    began_s: float = math.nan
    robots: list[Robot] = field(default_factory=list)
    accepted: int | None = None
    mismatches: int | None = None
    phases: list[tuple[float, float, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_run(path: Path) -> Run:
    """Read what ``ros2 bag record`` made (folder or file) or the JSON of ``demo``; raises DynsplitError for others."""
    if not path.exists():
        raise DynsplitError(f'{path} does not exist; name the folder of a recording, or the JSON of a demo')
    run = _of_demo(path) if path.suffix == '.json' else _of_bag(path)
    run.robots = [robot for robot in run.robots if robot.frames]
    if not run.robots:
        raise DynsplitError(
            f'{path} holds no frame: record at least the topics prediction or frame_timing of a robot, '
            f'better all with ros2 bag record --all. {" ".join(run.notes[:3])}'.rstrip()
        )
    return run


# ---- from a recording ------------------------------------------------------------------------------------------------


class _Collector:
    """Sorts a recording's messages by robot."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._robots: dict[str, Robot] = {}
        self._decoders: dict[str, Decoder] = {}
        self._timings: dict[str, list[Frame]] = {}  # of FrameTiming, for recordings without predictions
        self._splits: dict[str, tuple[int, str]] = {}
        self._began_ns: int | None = None
        self._damaged = 0
        self._versions: dict[str, str] = {}  # by topic: why its messages are dropped
        self.count = 0

    def take(self, topic: str, kind: str, definition: str, time_ns: int, data: bytes) -> None:
        name = topic.rpartition('/')[0].strip('/') or '(no namespace)'
        if name not in self._robots:
            if len(self._robots) >= MOST_ROBOTS:
                return
            self._robots[name] = Robot(name)
        robot = self._robots[name]
        try:
            # Two files of a recording may describe a type differently.
            decoder = self._decoders.get(kind + definition) or Decoder(kind, definition)
            self._decoders[kind + definition] = decoder
            message = decoder.decode(data)
            check_version(getattr(message, 'protocol_version', 0), f'the recording of {topic}')
            if self._began_ns is None:
                self._began_ns = time_ns
                self._run.began_s = time_ns / 1e9
            time_s = (time_ns - self._began_ns) / 1e9
            getattr(self, '_on_' + kind.removeprefix(_PACKAGE))(robot, time_s, message)
            self._run.duration_s = max(self._run.duration_s, time_s)
        except VersionError as error:
            self._versions.setdefault(topic, str(error))
        except (DynsplitError, AttributeError, TypeError, ValueError, OverflowError):
            self._damaged += 1

    def _on_Prediction(self, robot: Robot, time_s: float, message: Any) -> None:
        self._run.model = self._run.model or _text(message.model)
        frame = _frame(time_s, message.timing)
        if frame is not None:
            robot.frames.append(frame)
            self.count += 1

    def _on_FrameTiming(self, robot: Robot, time_s: float, message: Any) -> None:
        frame = _frame(time_s, message)
        if frame is not None:
            self._timings.setdefault(robot.name, []).append(frame)
            self.count += 1

    def _on_LinkState(self, robot: Robot, time_s: float, message: Any) -> None:
        robot.links.append(
            Link(
                time_s,
                bool(message.alive),
                _number(message.throughput_bps),
                _number(message.throughput_low_bps),
                _number(message.throughput_high_bps),
                _number(message.round_trip_s),
                _number(message.edge_queueing_s),
                _number(message.probe_bytes_total),
            )
        )

    def _on_EdgeLoad(self, robot: Robot, time_s: float, message: Any) -> None:
        robot.loads.append(
            Load(time_s, _number(message.utilisation), _number(message.queue_length), _number(message.robots))
        )

    def _on_SplitDecision(self, robot: Robot, time_s: float, message: Any) -> None:
        choice = int(message.split_index), _text(message.codec)
        if self._splits.get(robot.name) != choice:
            self._splits[robot.name] = choice
            robot.decisions.append(
                Decision(
                    time_s, choice[0], _name(message.split_name, choice[1]), choice[1], _text(message.reason, 400)
                )
            )

    def _on_Agreement(self, robot: Robot, time_s: float, message: Any) -> None:
        choice = int(message.split_index), _text(message.codec)
        if choice in robot.audits or len(robot.audits) < MOST_AUDITED:
            robot.audits[choice] = Audited(
                time_s, *choice, int(message.audits), _number(message.agreement), _number(message.low),
                _number(message.high), _number(message.min_agreement), _text(message.reason, 400))

    def finish(self) -> None:
        for robot in self._robots.values():
            if not robot.frames and robot.name in self._timings:
                robot.frames = self._timings[robot.name]
                self._run.notes.append(
                    f'{robot.name}: no predictions were recorded; its frames are those of frame_timing.'
                )
            robot.frames, robot.doubled = _once(robot.frames)
        self._run.robots = sorted(self._robots.values(), key=lambda robot: robot.name)
        self._run.notes.extend(f'{fault}.' for fault in self._versions.values())
        if self._damaged:
            self._run.notes.append(f'{self._damaged} messages could not be decoded and were dropped.')


def _of_bag(path: Path) -> Run:
    run = Run(source=path.resolve().name)
    collector = _Collector(run)
    files = files_of(path, run.notes)
    for file in files:
        try:
            for stored in messages(file, _TYPES, run.notes):
                collector.take(stored.topic, stored.type, stored.definition, stored.time_ns, stored.data)
                if collector.count >= 2 * MOST_FRAMES:
                    run.notes.append(f'Only the first {MOST_FRAMES} frames were read.')
                    collector.finish()
                    return run
        except DynsplitError as error:
            if len(files) == 1:
                raise
            run.notes.append(f'{file.name} was dropped: {error}.')
    collector.finish()
    return run


def _frame(time_s: float, timing: Any) -> Frame | None:
    """Return a finished frame; None where the message tells of one that is under way, or of a late answer."""
    outcome = _STATES.get(timing.outcome)
    if outcome is None:
        return None
    return Frame(
        time_s,
        int(timing.session),
        int(timing.sequence),
        outcome,
        int(timing.split_index),
        _name(timing.split_name, timing.codec),
        _text(timing.codec),
        int(timing.payload_bytes),
        _number(timing.latency_s),
        tuple(_duration(getattr(timing, f'{part}_s')) for part in PARTS),
    )


def _once(frames: list[Frame]) -> tuple[list[Frame], int]:
    """Return the first prediction of each frame, and how many more there were."""
    first: dict[tuple[int, int], Frame] = {}
    for frame in frames:
        first.setdefault((frame.session, frame.sequence), frame)
    return list(first.values()), len(frames) - len(first)


# ---- from a demonstration --------------------------------------------------------------------------------------------


def _of_demo(path: Path) -> Run:
    check_file(path, 'the run')
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise DynsplitError(f'{path} has more than {MOST_JSON_BYTES} bytes; a demo writes less')
        document = json.loads(path.read_text(encoding='utf-8'))
        return _of_document(document, path.name)
    except (OSError, ValueError, RecursionError) as error:
        raise DynsplitError(
            f'{path} cannot be read as JSON ({" ".join(str(error).split())[:200]}); give what demo --json has written'
        ) from error
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DynsplitError(
            f'{path} is not what demo --json writes ({type(error).__name__}: {str(error)[:100]})'
        ) from error


def _of_document(document: Mapping[str, Any], source: str) -> Run:
    summary = document['summary']
    robot = Robot('robot1')
    frames = []
    for entry in document['frames'][:MOST_FRAMES]:
        time_s = _number(entry['time_s'])
        if entry['outcome'] not in OUTCOMES or not math.isfinite(time_s):
            raise TypeError(f'frame {str(entry["sequence"])[:20]}')
        parts = entry['parts_s']
        frames.append(
            Frame(
                time_s,
                int(entry.get('session', 0)),
                int(entry['sequence']),
                entry['outcome'],
                int(entry['split_index']),
                _name(entry['split_name'], entry['codec']),
                _text(entry['codec']),
                int(entry['payload_bytes']),
                _number(entry['latency_s']),
                tuple(_duration(parts.get(part)) for part in PARTS),
            )
        )
        robot.links.append(
            Link(
                time_s,
                bool(entry['link_alive']),
                _number(entry['rate_estimated_bps']),
                round_trip_s=_number(entry.get('round_trip_s')),
                probe_bytes=_number(entry.get('probe_bytes_total')),
                queueing_s=_number(entry.get('edge_queueing_s')),
                true_bps=_number(entry['rate_true_bps']),
            )
        )
        robot.loads.append(Load(time_s, _number(entry['edge_utilisation'])))
    for entry in document.get('decisions', ()):
        robot.decisions.append(
            Decision(
                _number(entry['time_s']),
                int(entry['split_index']),
                _name(entry['split_name'], entry['codec']),
                _text(entry['codec']),
                _text(entry['reason'], 400),
            )
        )
    robot.frames, robot.doubled = _once(frames)
    phases = [
        (_number(step['start_s']), _number(step['end_s']), _text(step['name'])) for step in document['steps'][:100]
    ]
    return Run(
        source,
        model=_text(document['model']),
        duration_s=max([_number(document['seconds']), *(f.time_s for f in frames)]),
        robots=[robot],
        accepted=int(summary['frames_accepted']),
        mismatches=int(summary['mismatches']),
        phases=phases,
    )


def _number(value: object) -> float:
    """Return a number as it is, and NaN for none."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f'{str(value)[:40]!r} is not a number')
    return float(value)


def _duration(value: object) -> float:
    """Return a duration in seconds, 0 where there is none."""
    seconds = _number(value)
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


def _name(split_name: object, codec: object) -> str:
    """Return the cut's name for a person: without a codec nothing is sent, whatever the model calls its end."""
    return _text(split_name) if codec else 'local inference'


def _text(value: object, most: int = 100) -> str:
    """Return a text, cut to what a page has room for."""
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + '…'
