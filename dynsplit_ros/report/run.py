# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What happened in a run, robot by robot, from a rosbag2 recording or from the JSON of a demonstration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
import json
import math
from pathlib import Path
from typing import Any

from dynsplit_ros.errors import check_file, DynsplitError
from dynsplit_ros.policies.records import FrameRecord, LATENCY_PARTS, Outcome, SplitDecision
from dynsplit_ros.protocol import check_version, VersionError
from dynsplit_ros.report.bag import files_of, messages
from dynsplit_ros.report.cdr import Decoder
from dynsplit_ros.text import printable

#: Outcomes that end a frame.
OUTCOMES = (Outcome.ANSWERED, Outcome.LOCAL, Outcome.FELL_BACK)
MOST_FRAMES = 1_000_000
MOST_ROBOTS = 16
MOST_JSON_BYTES = 2**28
_PACKAGE = 'dynsplit_ros/msg/'
_TYPES = tuple(
    _PACKAGE + name for name in ('Prediction', 'FrameTiming', 'LinkState', 'EdgeLoad', 'SplitDecision', 'Agreement')
)
#: Most choices of split and codec whose agreement is kept; real runs have some.
MOST_AUDITED = 100
#: Outcomes by their numbers in FrameTiming.msg.
_OUTCOMES = dict(enumerate(Outcome))
#: The fields of LinkState.msg that hold a number.
_OF_LINK = (
    'throughput_bps',
    'throughput_low_bps',
    'throughput_high_bps',
    'round_trip_s',
    'edge_queueing_s',
    'probe_bytes_total',
)


@dataclass(frozen=True)
class LinkSample:
    """The fields of LinkState.msg at a time, NaN if unknown; ``true_bps`` is the rate of an emulated link, in bit/s."""

    time_s: float
    alive: bool
    throughput_bps: float
    throughput_low_bps: float = math.nan
    throughput_high_bps: float = math.nan
    round_trip_s: float = math.nan
    edge_queueing_s: float = math.nan
    probe_bytes_total: float = math.nan
    true_bps: float = math.nan


@dataclass(frozen=True)
class LoadSample:
    """The load that an edge reported at a time."""

    time_s: float
    utilisation: float
    edge: str = ''


@dataclass(frozen=True)
class Audited:
    """The running agreement of a choice, as the monitor said it."""

    split_index: int
    codec: str
    audits: int
    agreement: float
    low: float
    high: float
    min_agreement: float
    reason: str


@dataclass
class RecordedRobot:
    """
    What was recorded of one robot, each list by time.

    ``delivered_s`` of a frame is the instant of its prediction. All instants count from the start of the recording.
    ``audits`` has the latest of each choice. ``doubled`` is the number of predictions of a frame that had one before.
    """

    name: str
    frames: list[FrameRecord] = field(default_factory=list)
    links: list[LinkSample] = field(default_factory=list)
    loads: list[LoadSample] = field(default_factory=list)
    decisions: list[tuple[float, SplitDecision]] = field(default_factory=list)  # changes of the split, with their times
    audits: dict[tuple[int, str], Audited] = field(default_factory=dict)
    doubled: int = 0


@dataclass
class Recording:
    """
    A recorded run of a system.

    ``accepted`` is how many frames the camera says that it took, ``mismatches`` how many predictions differ from the
    whole model's; both only where a demonstration has counted them. ``notes`` are sentences on what could not be
    read, ``phases`` the parts of a demonstration's script: start and end in seconds, and name.
    """

    source: str
    model: str = ''
    duration_s: float = 0.0
    began_s: float = math.nan
    robots: list[RecordedRobot] = field(default_factory=list)
    accepted: int | None = None
    mismatches: int | None = None
    phases: list[tuple[float, float, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_run(path: Path) -> Recording:
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

    def __init__(self, run: Recording) -> None:
        self._run = run
        self._robots: dict[str, RecordedRobot] = {}
        self._decoders: dict[str, Decoder] = {}
        self._timings: dict[str, list[FrameRecord]] = {}  # of FrameTiming, for recordings without predictions
        self._followed: dict[str, tuple[str, int, str]] = {}  # edge, split and codec of each robot
        self._began_ns: int | None = None
        self._damaged = 0
        self._versions: dict[str, str] = {}  # by topic: why its messages are dropped
        self.count = 0

    def take(self, topic: str, kind: str, definition: str, time_ns: int, data: bytes) -> None:
        name = topic.rpartition('/')[0].strip('/') or '(no namespace)'
        if name not in self._robots:
            if len(self._robots) >= MOST_ROBOTS:
                return
            self._robots[name] = RecordedRobot(name)
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

    def _on_Prediction(self, robot: RecordedRobot, time_s: float, message: Any) -> None:
        self._run.model = self._run.model or _text(message.model)
        frame = _frame(time_s, message.timing)
        if frame is not None:
            robot.frames.append(frame)
            self.count += 1

    def _on_FrameTiming(self, robot: RecordedRobot, time_s: float, message: Any) -> None:
        frame = _frame(time_s, message)
        if frame is not None:
            self._timings.setdefault(robot.name, []).append(frame)
            self.count += 1

    def _on_LinkState(self, robot: RecordedRobot, time_s: float, message: Any) -> None:
        robot.links.append(
            LinkSample(time_s, bool(message.alive), **{name: _number(getattr(message, name)) for name in _OF_LINK})
        )

    def _on_EdgeLoad(self, robot: RecordedRobot, time_s: float, message: Any) -> None:
        robot.loads.append(LoadSample(time_s, _number(message.utilisation), _text(message.edge)))

    def _on_SplitDecision(self, robot: RecordedRobot, time_s: float, message: Any) -> None:
        choice = int(message.split_index), _text(message.codec)
        followed = _text(message.edge), *choice
        if self._followed.get(robot.name) != followed:
            self._followed[robot.name] = followed
            robot.decisions.append((time_s, _decision(choice, message.split_name, message.reason)))

    def _on_Agreement(self, robot: RecordedRobot, time_s: float, message: Any) -> None:
        choice = int(message.split_index), _text(message.codec)
        if choice in robot.audits or len(robot.audits) < MOST_AUDITED:
            robot.audits[choice] = Audited(
                *choice,
                int(message.audits),
                _number(message.agreement),
                _number(message.low),
                _number(message.high),
                _number(message.min_agreement),
                _text(message.reason, 400),
            )

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


def _of_bag(path: Path) -> Recording:
    run = Recording(source=path.resolve().name)
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


def _frame(time_s: float, timing: Any) -> FrameRecord | None:
    """Return a finished frame; None where the message tells of one that is under way, or of a late answer."""
    outcome = _OUTCOMES.get(timing.outcome)
    return _record(time_s, outcome, lambda name: getattr(timing, name)) if outcome in OUTCOMES else None


def _record(time_s: float, outcome: Outcome, value: Callable[[str], Any]) -> FrameRecord:
    """Return the record of a frame that was delivered at a time; ``value`` returns each of its fields by name."""
    codec = _text(value('codec'))
    return FrameRecord(
        session=int(value('session')),
        sequence=int(value('sequence')),
        outcome=outcome,
        delivered_s=time_s,
        split_index=int(value('split_index')),
        split_name=_name(value('split_name'), codec),
        codec=codec,
        edge=_text(value('edge') or ''),
        payload_bytes=int(value('payload_bytes')),
        latency_s=_number(value('latency_s')),
        **{part: _duration(value(part)) for part in LATENCY_PARTS},  # type: ignore[arg-type]
    )


def _decision(choice: tuple[int, str], split_name: object, reason: object) -> SplitDecision:
    """Return what a report shows of a decision."""
    return SplitDecision(*choice, math.nan, split_name=_name(split_name, choice[1]), reason=_text(reason, 400))


def _once(frames: list[FrameRecord]) -> tuple[list[FrameRecord], int]:
    """Return the first prediction of each frame, and how many more there were."""
    first: dict[tuple[int, int], FrameRecord] = {}
    for frame in frames:
        first.setdefault((frame.session, frame.sequence), frame)
    return list(first.values()), len(frames) - len(first)


# ---- from a demonstration --------------------------------------------------------------------------------------------


def _of_demo(path: Path) -> Recording:
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


def _of_document(document: Mapping[str, Any], source: str) -> Recording:
    summary = document['summary']
    robot = RecordedRobot('robot1')
    frames = []
    for entry in document['frames'][:MOST_FRAMES]:
        time_s = _number(entry['time_s'])
        outcome = Outcome(entry['outcome'])
        if outcome not in OUTCOMES or not math.isfinite(time_s):
            raise TypeError(f'frame {str(entry["sequence"])[:20]}')
        frames.append(_record(time_s, outcome, entry.get))
        robot.links.append(
            LinkSample(
                time_s,
                bool(entry['link_alive']),
                _number(entry['rate_estimated_bps']),
                true_bps=_number(entry['rate_true_bps']),
                **{name: _number(entry.get(name)) for name in ('round_trip_s', 'edge_queueing_s', 'probe_bytes_total')},
            )
        )
        robot.loads.append(LoadSample(time_s, _number(entry['edge_utilisation'])))
    for entry in document.get('decisions', ()):
        choice = int(entry['split_index']), _text(entry['codec'])
        robot.decisions.append((_number(entry['time_s']), _decision(choice, entry['split_name'], entry['reason'])))
    robot.frames, robot.doubled = _once(frames)
    phases = [
        (_number(step['start_s']), _number(step['end_s']), _text(step['name'])) for step in document['steps'][:100]
    ]
    return Recording(
        source,
        model=_text(document['model']),
        duration_s=max([_number(document['seconds']), *(frame.delivered_s for frame in frames)]),
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
    return printable(str(value), most)
