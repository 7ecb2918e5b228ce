# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Reports: what is read of a recording, what is counted, and that nothing in a recording can do harm.

``run.mcap`` was recorded from real nodes, written by the MCAP project's own library with zstd.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
import json
import math
from pathlib import Path
import random
import re
import shutil
import sqlite3
import struct
from types import SimpleNamespace

import pytest
from worlds import DATA

from dynsplit_ros import protocol
from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.policies.records import FrameRecord, LATENCY_PARTS
from dynsplit_ros.report import bag
from dynsplit_ros.report.bag import _unpack_lz4, messages, Stored
from dynsplit_ros.report.cdr import Decoder
from dynsplit_ros.report.definitions import own_definition
from dynsplit_ros.report.figures import count
from dynsplit_ros.report.page import make_page
from dynsplit_ros.report.run import Audited, LinkSample, LoadSample, read_run, RecordedRobot, Recording
from dynsplit_ros.tools.report import main

RECORDING = DATA / 'run.mcap'
TYPES = [f'dynsplit_ros/msg/{name}' for name in ('Prediction', 'FrameTiming', 'LinkState', 'EdgeLoad', 'SplitDecision')]
MAGIC = b'\x89MCAP0\r\n'


def frame(sequence: int, **changes: object) -> FrameRecord:
    """Return a frame that the edge answered within 100 ms."""
    values = {
        'delivered_s': sequence / 10,
        'session': 1,
        'sequence': sequence,
        'outcome': 'answered',
        'split_index': 2,
        'split_name': 'features.2',
        'codec': 'raw',
        'payload_bytes': 1000,
        'latency_s': 0.1,
        **dict.fromkeys(LATENCY_PARTS, 0.01),
        **changes,
    }
    return FrameRecord(**values)  # type: ignore[arg-type]


def demo(**changes: object) -> dict[str, object]:
    """Return what a demonstration writes, in small."""
    frames = [
        {
            'session': 7,
            'sequence': number,
            'time_s': number / 10,
            'split_index': number % 3,
            'split_name': f'cut {number % 3}',
            'codec': 'raw',
            'outcome': ('answered', 'local', 'fell_back')[number % 3],
            'payload_bytes': 100,
            'latency_s': 0.05,
            **dict.fromkeys(LATENCY_PARTS, 0.005),
            'rate_true_bps': 1e7,
            'rate_estimated_bps': None if number == 5 else 9e6,
            'link_alive': number != 5,
            'round_trip_s': 0.004,
            'edge_queueing_s': 0.0,
            'probe_bytes_total': 100 * number,
            'edge_utilisation': 0.3,
        }
        for number in range(1, 41)
    ]
    return {
        'summary': {'frames_accepted': 40, 'mismatches': 0},
        'model': 'alexnet',
        'slowdown': 8,
        'seconds': 4.0,
        'steps': [{'name': 'fast', 'start_s': 0.0, 'end_s': 2.0}, {'name': 'slow', 'start_s': 2.0, 'end_s': 4.0}],
        'decisions': [{'time_s': 0.5, 'split_index': 1, 'split_name': 'cut 1', 'codec': 'raw', 'reason': 'because'}],
        'frames': frames,
        **changes,
    }


def written(tmp_path: Path, document: object) -> Path:
    path = tmp_path / 'demo.json'
    path.write_text(json.dumps(document))
    return path


def zstd(data: bytes) -> bytes:
    """Compress as rosbag2's plugin does."""
    library = ctypes.CDLL('libzstd.so.1')
    library.ZSTD_compressBound.restype = library.ZSTD_compress.restype = ctypes.c_size_t
    most = library.ZSTD_compressBound(ctypes.c_size_t(len(data)))
    packed = ctypes.create_string_buffer(most)
    size = library.ZSTD_compress(packed, ctypes.c_size_t(most), data, ctypes.c_size_t(len(data)), 3)
    return packed.raw[:size]


def recorded(packed: bool = False) -> list[Stored]:
    """Return the recording's messages, each compressed if wanted."""
    stored = list(messages(RECORDING, TYPES, []))
    return [replace(one, data=zstd(one.data)) for one in stored] if packed else stored


def to_mcap(path: Path, stored: list[Stored], encoding: str = 'ros2msg') -> Path:
    """Write messages as an MCAP without chunks and index."""
    topics = sorted({(one.topic, one.type, one.definition) for one in stored})
    data = MAGIC + record(1, text('ros2') + text('test'))
    for number, (topic, kind, definition) in enumerate(topics, 1):
        definition = definition if encoding == 'ros2msg' else ''
        data += record(3, struct.pack('<H', number) + text(kind) + text(encoding) + text(definition))
        data += record(4, struct.pack('<HH', number, number) + text(topic) + text('cdr') + text(''))
    numbers = {topic: number for number, (topic, *_) in enumerate(topics, 1)}
    for one in stored:
        data += record(5, struct.pack('<HIQQ', numbers[one.topic], 0, one.time_ns, one.time_ns) + one.data)
    path.write_bytes(data + record(15, bytes(4)) + record(2, bytes(20)) + MAGIC)
    return path


def to_sqlite(path: Path, statements: tuple[str, ...] = (), stored: list[Stored] | None = None) -> Path:
    """Write messages, else the recording's, as rosbag2's SQLite storage of Jazzy keeps them."""
    stored = recorded() if stored is None else stored
    topics = {topic: number for number, topic in enumerate(sorted({one.topic for one in stored}), 1)}
    database = sqlite3.connect(path)
    database.executescript("""
        CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
            serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL, type_description_hash TEXT NOT
            NULL);
        CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL, encoding TEXT NOT NULL,
            encoded_message_definition TEXT NOT NULL, type_description_hash TEXT NOT NULL);
        CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,
            data BLOB NOT NULL);
    """)
    kinds = {one.topic: one for one in stored}
    database.executemany(
        "INSERT INTO topics VALUES (?, ?, ?, 'cdr', '', '')",
        [(number, topic, kinds[topic].type) for topic, number in topics.items()],
    )
    database.executemany(
        'INSERT INTO message_definitions(topic_type, encoding, encoded_message_definition, '
        "type_description_hash) VALUES (?, 'ros2msg', ?, '')",
        {(one.type, one.definition) for one in stored},
    )
    database.executemany(
        'INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)',
        [(topics[one.topic], one.time_ns, one.data) for one in stored],
    )
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()
    return path


def test_a_recording_of_real_nodes_is_read() -> None:
    run = read_run(RECORDING)
    assert run.model == 'alexnet' and run.notes == [] and [robot.name for robot in run.robots] == ['robot1']
    robot = run.robots[0]
    assert (len(robot.frames), len(robot.links), len(robot.loads)) == (32, 60, 31)
    assert 5 < run.duration_s < 6.1
    sequences = [one.sequence for one in robot.frames]
    assert sequences == list(range(sequences[0], sequences[0] + 32))
    for one in robot.frames:
        assert one.outcome == 'answered' and one.payload_bytes > 1000 and one.codec in ('raw', 'blosc2')
        # Its parts add up to its latency but for what passes between them.
        assert 0.5 * one.latency_s < sum(getattr(one, part) for part in LATENCY_PARTS) <= one.latency_s * 1.01
    assert {decision.split_index for _, decision in robot.decisions} >= {one.split_index for one in robot.frames}
    assert all(
        3e5 < link.throughput_bps < 3e8 and link.throughput_low_bps < link.throughput_bps < link.throughput_high_bps
        for link in robot.links
    )


def test_sqlite_and_mcap_tell_the_same(tmp_path: Path) -> None:
    assert read_run(to_sqlite(tmp_path / 'bag_0.db3')).robots == read_run(RECORDING).robots


@pytest.mark.parametrize('mode', ['message', 'file'])
@pytest.mark.parametrize('storage', ['mcap', 'db3'])
def test_both_compression_modes_of_rosbag2_are_read_in_both_storages(storage: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / f'bag_0.{storage}'
    stored = recorded(packed=mode == 'message')
    if storage == 'mcap':
        to_mcap(path, stored)
    else:
        to_sqlite(path, stored=stored)
    if mode == 'file':
        (tmp_path / f'{path.name}.zstd').write_bytes(zstd(path.read_bytes()))
        path.unlink()
    expected = read_run(RECORDING).robots
    for place in (tmp_path, next(tmp_path.iterdir())):  # the folder, without metadata.yaml, and the file
        run = read_run(place)
        assert run.robots == expected and run.notes == []


def test_a_folder_of_compressed_open_and_damaged_files_is_read_and_what_is_missing_is_named(tmp_path: Path) -> None:
    stored = recorded()
    half = len(stored) // 2
    to_mcap(tmp_path / 'part', stored[:half])
    (tmp_path / 'bag_0.mcap.zstd').write_bytes(zstd((tmp_path / 'part').read_bytes()))
    to_sqlite(tmp_path / 'bag_1.db3', stored=stored[half:])
    (tmp_path / 'bag_2.mcap.lz4').write_bytes(b'\x04\x22\x4d\x18')
    (tmp_path / 'bag_3.mcap').write_bytes(b'nonsense')
    names = [f'bag_{number}.mcap' for number in range(5)]
    (tmp_path / 'metadata.yaml').write_text(
        json.dumps({'rosbag2_bagfile_information': {'relative_file_paths': [*names[2:], 'bag_0.mcap.zstd']}})
    )
    run = read_run(tmp_path)
    assert run.robots == read_run(RECORDING).robots
    for note, said in zip(
        run.notes,
        ('bag_2.mcap.lz4 was dropped', 'names bag_2.mcap,', 'names bag_4.mcap,', 'bag_3.mcap was dropped'),
        strict=True,
    ):
        assert said in note


def test_a_file_that_was_unpacked_beside_its_compressed_form_is_read_once(tmp_path: Path) -> None:
    shutil.copy(RECORDING, tmp_path / 'bag_0.mcap')
    (tmp_path / 'bag_0.mcap.zstd').write_bytes(zstd(RECORDING.read_bytes()))
    run = read_run(tmp_path)
    assert run.robots == read_run(RECORDING).robots and run.notes == []


@pytest.mark.parametrize('storage', ['mcap', 'db3'])
def test_a_recording_without_definitions_is_read_with_those_of_the_package(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written_now() -> Path:
        if storage == 'mcap':
            return to_mcap(tmp_path / 'bag.mcap', recorded(), encoding='ros2idl')
        (tmp_path / 'bag.db3').unlink(missing_ok=True)
        return to_sqlite(tmp_path / 'bag.db3', ('DROP TABLE message_definitions',))

    # The package's messages of today, and the recording as it would have been made with them.
    kinds = {one.type: one.definition for one in recorded()}
    monkeypatch.setattr('dynsplit_ros.report.bag.own_definition', kinds.get)
    run = read_run(written_now())
    assert run.robots == read_run(RECORDING).robots
    assert len(run.notes) == len(kinds)
    assert all('as this version of the package defines it' in note for note in run.notes)
    monkeypatch.setattr('dynsplit_ros.report.bag.own_definition', lambda kind: None)
    with pytest.raises(DynsplitError, match='does not define dynsplit_ros/msg/'):
        read_run(written_now())


@pytest.mark.parametrize('kind', TYPES)
def test_the_packages_own_definitions_are_whole(kind: str) -> None:
    definition = own_definition(kind)
    assert definition is not None
    Decoder(kind, definition)  # raises DynsplitError for a type that is missing
    with pytest.raises(DynsplitError, match='does not hold'):
        Decoder(kind, definition).decode(b'\0\1\0\0')


@pytest.mark.parametrize('kind', ['std_msgs/msg/String', 'dynsplit_ros/msg/../../x', 'dynsplit_ros/msg/None', ''])
def test_there_is_no_own_definition_of_a_strangers_type(kind: str) -> None:
    assert own_definition(kind) is None


def test_compressed_messages_that_are_damaged_or_grow_without_end_are_dropped_and_named(tmp_path: Path) -> None:
    whole = recorded(packed=True)
    bomb, damaged = zstd(bytes(2**26)), whole[1].data[:-5]
    assert len(bomb) < 10_000
    stored = [replace(whole[0], data=bomb), replace(whole[1], data=damaged), *whole[2:]]
    run = read_run(to_mcap(tmp_path / 'bag.mcap', stored))
    assert len(run.robots[0].frames) >= 30
    assert run.notes == ['Messages in bag.mcap were dropped: their compressed data are damaged or too long.']


@pytest.mark.parametrize('bound', ['ratio', 'free'])
def test_a_compressed_database_is_unpacked_within_a_ratio_and_a_share_of_the_free_disk(
    bound: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = to_sqlite(tmp_path / 'plain.db3').read_bytes()
    folder = tmp_path / 'bag'
    folder.mkdir()
    path = folder / 'bag_0.db3.zstd'
    path.write_bytes(zstd(plain + (bytes(2**26) if bound == 'ratio' else b'')))
    if bound == 'free':
        monkeypatch.setattr(bag.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=len(plain)))
    to_mcap(folder / 'bag_1.mcap', recorded())
    unpacked = []
    monkeypatch.setattr(bag, '_of_sqlite', lambda *arguments: unpacked.append(arguments) or iter(()))
    run = read_run(folder)
    assert len(run.robots[0].frames) == 32 and not unpacked
    (note,) = run.notes
    assert note.startswith('bag_0.db3.zstd was dropped: it unpacks to more than ') and 'unzstd bag_0.db3.zstd' in note


def test_a_compressed_file_that_breaks_off_is_read_up_to_there_or_refused(tmp_path: Path) -> None:
    plain = to_mcap(tmp_path / 'bag.mcap', recorded()).read_bytes()
    packed = zstd(plain[:100_000]) + zstd(plain[100_000:])
    path = tmp_path / 'bag.mcap.zstd'
    path.write_bytes(packed[:-100])
    run = read_run(path)
    assert 0 < len(run.robots[0].frames) <= 32 and 'is cut off' in run.notes[0]
    for content in (packed[:100], packed[:4], zstd(b'hello'), zstd(b'')):
        path.write_bytes(content)
        with pytest.raises(DynsplitError, match='neither'):
            read_run(path)


def test_the_files_of_a_folder_are_read_in_their_order(tmp_path: Path) -> None:
    data = RECORDING.read_bytes()
    for number in (10, 9, 2):
        (tmp_path / f'bag_{number}.mcap').write_bytes(data)
    (tmp_path / 'metadata.yaml').write_text('rosbag2_bagfile_information: {relative_file_paths: [/etc/passwd]}')
    robot = read_run(tmp_path).robots[0]
    assert len(robot.frames) == 32 and robot.doubled == 64


def test_a_recording_of_another_protocol_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, 'PROTOCOL_VERSION', 7)
    with pytest.raises(DynsplitError, match='has protocol version 1, but this program has 7'):
        read_run(RECORDING)


def test_a_recording_that_breaks_off_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / 'cut.mcap'
    path.write_bytes(RECORDING.read_bytes()[:25_000])
    run = read_run(path)
    assert 0 < len(run.robots[0].frames) < 32
    assert any('is cut off' in note for note in run.notes) and 'is cut off' in make_page(run)


def test_frames_come_from_frame_timing_where_predictions_were_not_recorded(tmp_path: Path) -> None:
    path = to_sqlite(tmp_path / 'bag.db3', ("DELETE FROM topics WHERE name LIKE '%prediction'",))
    run = read_run(path)
    assert len(run.robots[0].frames) > 25 and 'no predictions' in run.notes[0]
    assert {one.outcome for one in run.robots[0].frames} == {'answered'}


def test_lz4_is_unpacked() -> None:
    # A frame with one block of literals as the LZ4 frame format has it: magic, FLG (no checksums), BD, HC, block, end.
    text = b'dynsplit'
    block = bytes([len(text) << 4]) + text
    packed = bytes.fromhex('04224d18604082') + struct.pack('<I', len(block)) + block + bytes(4)
    assert _unpack_lz4(packed, len(text)) == text
    assert len(_unpack_lz4(packed[:-9], len(text))) < len(text) and _unpack_lz4(b'nonsense', 8) == b''


# ---- what is counted -------------------------------------------------------------------------------------------------


def test_lost_frames_and_disorder_are_counted() -> None:
    frames = [frame(1), frame(2), frame(5), frame(4), frame(7), *(frame(n, session=2) for n in (1, 2))]
    figures = count(RecordedRobot('robot1', frames, doubled=3), duration_s=2.0)
    assert (figures.frames, figures.lost, figures.doubled, figures.disordered) == (7, 2, 3, 1)
    assert figures.rate_hz == pytest.approx(3.5) and figures.payload_bps == pytest.approx(8 * 7000 / 2)
    assert count(RecordedRobot('robot1', frames), 2.0, accepted=10).lost == 3  # the camera's own word counts


def test_latencies_outcomes_splits_and_switches_are_counted() -> None:
    frames = [frame(n, latency_s=n / 1000) for n in range(1, 101)]
    frames += [frame(101, outcome='local', split_index=5, payload_bytes=0, codec=''), frame(102, outcome='fell_back')]
    figures = count(RecordedRobot('robot1', frames[:100]), 10.0)
    assert figures.mean_s == pytest.approx(0.0505) and figures.longest_s == 0.1
    assert figures.percentiles_s == pytest.approx((0.0505, 0.09505, 0.09901))
    figures = count(RecordedRobot('robot1', frames), 10.0)
    assert figures.outcomes == {'answered': 100, 'local': 1, 'fell_back': 1} and figures.switches == 2
    assert [(split.index, split.frames, split.codecs) for split in figures.splits] == [(2, 101, ('raw',)), (5, 1, ())]
    assert sum(split.share for split in figures.splits) == pytest.approx(1)


def test_the_page_shows_the_running_agreement_and_why_a_codec_was_taken_out() -> None:
    reason = 'split 2 with quant2-zstd is taken out: <b>0 of its last 50 audits agree'
    audited = Audited(2, 'quant2-zstd', 50, 0.5, 0.37, 0.63, 0.98, reason)
    page = make_page(
        Recording(
            'run', duration_s=10.0, robots=[RecordedRobot('robot1', [frame(1)], audits={(2, 'quant2-zstd'): audited})]
        )
    )
    assert '0.370 to 0.630' in page and 'taken out: &lt;b&gt;0 of its last 50' in page
    page = make_page(Recording('run', duration_s=10.0, robots=[RecordedRobot('r', [frame(1)])]))
    assert 'Agreement of lossy codecs' not in page


def test_the_page_shows_which_edge_answered_and_the_load_of_each() -> None:
    frames = [replace(frame(number), edge='<b>near' if number % 4 else 'far') for number in range(1, 41)]
    loads = [
        LoadSample(number / 10, share, edge=edge)
        for number in range(20)
        for edge, share in (('<b>near', 0.5), ('far', 0.1))
    ]
    robot = RecordedRobot('robot1', frames, loads=loads)
    edges = count(robot, 4.0).edges
    assert [(edge.name, edge.frames, edge.share) for edge in edges] == [('<b>near', 30, 0.75), ('far', 10, 0.25)]
    page = make_page(Recording('run', duration_s=4.0, robots=[robot]))
    assert 'Load of the edges' in page and '<td>&lt;b&gt;near</td><td class="n">30</td>' in page
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    series = json.loads(data[1])['charts']['chart-0-load']['series']
    assert {line['name']: set(line['y']) for line in series} == {'<b>near': {50}, 'far': {10}}
    robot = RecordedRobot('robot1', [replace(one, edge='far') for one in frames], loads=loads[1::2])
    page = make_page(Recording('run', duration_s=4.0, robots=[robot]))
    assert 'Load of the edge<' in page and 'Frames by the edge' not in page


def test_the_share_of_probes_is_that_of_the_estimated_capacity() -> None:
    links = [LinkSample(n, True, 8e6, probe_bytes_total=10_000.0 * n) for n in range(11)]  # 1 MB/s, 10 kB/s of probes
    assert count(RecordedRobot('robot1', [frame(1)], links), 10.0).probe_share == pytest.approx(0.01)
    restarted = [*links, LinkSample(11, True, 8e6, probe_bytes_total=0.0)]
    assert count(RecordedRobot('robot1', [frame(1)], restarted), 11.0).probe_share == pytest.approx(0.01)
    assert math.isnan(count(RecordedRobot('robot1', [frame(1)]), 10.0).probe_share)


def test_a_demonstration_is_read(tmp_path: Path) -> None:
    run = read_run(written(tmp_path, demo()))
    figures = count(run.robots[0], run.duration_s, run.accepted)
    assert (figures.frames, figures.lost, figures.switches) == (40, 0, 39) and run.mismatches == 0
    page = make_page(run)
    assert 'because' in page and 'alexnet' in page and '>differing outputs<' in page


def test_a_long_run_makes_a_page_of_bounded_size() -> None:
    frames = [frame(n, split_index=n % 7, latency_s=0.1 + (n == 33_333)) for n in range(1, 100_001)]
    links = [LinkSample(n / 10, n % 50 != 0, 1e7, 9e6, 1.1e7) for n in range(100_000)]
    page = make_page(Recording('long', duration_s=10_000.0, robots=[RecordedRobot('robot1', frames, links)]))
    assert len(page) < 1_500_000
    assert '1100.0' in page  # the slowest of all is drawn


# ---- nothing in a recording is trusted -------------------------------------------------------------------------------


EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&\u2028'


def test_texts_reach_the_page_as_texts_alone(tmp_path: Path) -> None:
    document = demo(
        model=EVIL,
        steps=[{'name': EVIL, 'start_s': 0, 'end_s': 4}],
        decisions=[{'time_s': 0, 'split_index': 0, 'split_name': EVIL, 'codec': EVIL, 'reason': EVIL}],
    )
    for one in document['frames']:  # type: ignore[attr-defined]
        one['split_name'] = one['codec'] = EVIL
    run = read_run(written(tmp_path, document))
    run.robots[0].name, run.source, run.phases = EVIL, EVIL, [(0.0, 4.0, EVIL)]  # unlike what a reader lets through
    run.notes.append(EVIL)
    page = make_page(run)
    assert page.count('<script') == 2 and page.count('</script>') == 2 and '<img' not in page
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None and '\u2028' not in data[1]
    assert json.loads(data[1])['charts']['chart-0-rate']['phases'][0][2] == EVIL


def test_a_page_needs_nothing_from_outside() -> None:
    page = make_page(read_run(RECORDING))
    assert "default-src 'none'" in page
    elsewhere = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', page) + re.findall(
        r'url\(|@import|https?://[^\s"\']*', page
    )
    assert set(elsewhere) <= {'data:,', 'http://www.w3.org/2000/svg'}


@pytest.mark.parametrize(
    'changes',
    [
        {'frames': []},
        {'frames': [{}]},
        {'frames': 3},
        {'frames': [None]},
        {'summary': None},
        {'steps': [[]]},
        {'seconds': 'x'},
        {'summary': {'frames_accepted': 'many', 'mismatches': 0}},
        {'decisions': [{'time_s': []}]},
    ],
)
def test_a_json_that_is_no_demo_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(DynsplitError, match='demo'):
        read_run(written(tmp_path, demo(**changes)))


@pytest.mark.parametrize(
    'field, value',
    [
        ('time_s', math.nan),
        ('latency_s', 'soon'),
        ('outcome', 'exploded'),
        ('split_index', math.inf),
        ('wait_s', [3]),
        ('payload_bytes', None),
        ('rate_true_bps', {}),
    ],
)
def test_a_frame_that_cannot_be_is_refused(field: str, value: object, tmp_path: Path) -> None:
    document = demo()
    document['frames'][3][field] = value  # type: ignore[index]
    with pytest.raises(DynsplitError):
        read_run(written(tmp_path, document))


def test_damaged_recordings_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    chance = random.Random(0)
    whole = {'mcap': RECORDING.read_bytes(), 'db3': to_sqlite(tmp_path / 'whole.db3').read_bytes()}
    whole['mcap.zstd'] = zstd(to_mcap(tmp_path / 'whole.mcap', recorded(packed=True)).read_bytes())
    refused = read = 0
    for number in range(150):
        suffix = chance.choice(sorted(whole))
        data = bytearray(whole[suffix])
        for _ in range(chance.choice([1, 3, 30])):
            at = chance.randrange(8, len(data))
            data[at : at + chance.choice([1, 4, 8])] = chance.choice([b'\xff' * 4, b'\0' * 8, chance.randbytes(4)])
        path = tmp_path / f'{number}.{suffix}'
        path.write_bytes(data)
        try:
            make_page(read_run(path))
            read += 1
        except DynsplitError:
            refused += 1
        path.unlink()
    assert read > 20 and read + refused == 150


def record(code: int, content: bytes) -> bytes:
    return struct.pack('<BQ', code, len(content)) + content


def text(value: str) -> bytes:
    return struct.pack('<I', len(value)) + value.encode()


@pytest.mark.parametrize(
    'content',
    [
        record(
            6, struct.pack('<QQQI', 0, 0, 2**60, 0) + text('zstd') + struct.pack('<Q', 4) + b'abcd'
        ),  # a chunk of 1 EB
        record(6, struct.pack('<QQQI', 0, 0, 2**20, 0) + text('zstd') + struct.pack('<Q', 4) + b'abcd'),
        record(6, struct.pack('<QQQI', 0, 0, 2**20, 0) + text('rot13') + struct.pack('<Q', 4) + b'abcd'),
        struct.pack('<BQ', 5, 2**63),
        struct.pack('<BQ', 9, 2**63),
        struct.pack('<BQ', 3, 2**27),
        b'\x05',
        record(3, b''),
        record(4, b'\0' * 4),
        record(5, b''),
        record(3, struct.pack('<HI', 1, 2**31)),
    ],
)
def test_sizes_that_cannot_be_allocate_nothing(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / 'evil.mcap'
    path.write_bytes(MAGIC + content)
    with pytest.raises(DynsplitError, match='no frame'):
        read_run(path)


def test_a_view_in_the_place_of_a_table_is_not_asked(tmp_path: Path) -> None:
    endless = (
        'DROP TABLE messages',
        'CREATE VIEW messages AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) '
        "SELECT 1 AS topic_id, x AS timestamp, x'00' AS data FROM n",
    )
    with pytest.raises(DynsplitError, match='without the tables'):
        read_run(to_sqlite(tmp_path / 'view.db3', endless))


@pytest.mark.parametrize(
    'definition, data, complaint',
    [
        ('float64[] x', b'\0\1\0\0' + struct.pack('<I', 2**32 - 1), 'does not hold'),
        ('pkg/Empty[] x\n===\nMSG: pkg/Empty\n', b'\0\1\0\0' + struct.pack('<I', 2**32 - 1), 'does not hold'),
        ('string x', b'\0\1\0\0' + struct.pack('<I', 100) + b'abc', 'does not hold'),
        ('string x', b'\0\1\0\0' + struct.pack('<I', 2) + b'\xff\xfe', 'does not hold'),
        ('uint64[1000000] x', b'\0\1\0\0', 'does not hold'),
        ('uint8 x', b'\0\7\0\0\1', 'plain CDR'),
        ('Node next\n===\nMSG: pkg/Node\nNode next', b'\0\1\0\0' + bytes(100), 'itself'),
        ('Other x', b'', 'lacks pkg/Other'),
        ('wstring x', b'', 'wstring'),
    ],
)
def test_messages_that_cannot_be_are_refused(definition: str, data: bytes, complaint: str) -> None:
    with pytest.raises(DynsplitError, match=complaint):
        Decoder('pkg/msg/Type', definition).decode(data)


def test_every_kind_of_field_is_decoded() -> None:
    definition = (
        '# a comment\nuint8 CONSTANT=3\nstring WORD = "a b"\nbool a\nfloat64 b 1.5\nint16[3] c\nuint32[<=4] d\n'
        'string<=10 e\nstring[] f\npkg/Inner[] g\nInner h\n' + '=' * 80 + '\nMSG: pkg/Inner\nuint8 x\nfloat32 y\n'
    )
    decoder = Decoder('pkg/msg/Type', definition)
    for order, flag in (('<', 1), ('>', 0)):
        data = (
            bytes([0, flag, 0, 0])
            + struct.pack(order + '?7xd', True, 2.5)
            + struct.pack(order + '3h2x', 1, -2, 3)
            + struct.pack(order + 'I2I', 2, 7, 8)
            + struct.pack(order + 'I4s', 4, b'abc\0')
            + struct.pack(order + 'II2s2xI1s3x', 2, 2, b'x\0', 1, b'\0')
            + struct.pack(order + 'IB3xfB3xf', 1, 5, 0.5, 6, 0.25)
        )
        message = decoder.decode(data)
        assert (message.a, message.b, message.c, message.d, message.e, message.f) == (
            True,
            2.5,
            (1, -2, 3),
            (7, 8),
            'abc',
            ['x', ''],
        )
        assert (message.g[0].x, message.g[0].y, message.h.x, message.h.y) == (5, 0.5, 6, 0.25)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / 'sub' / 'page.html'
    assert main([str(RECORDING), '--output', str(page)]) == 0
    assert '32 frames' in capsys.readouterr().out
    assert page.read_text().startswith('<!DOCTYPE html>')


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda folder: folder / 'none', 'does not exist'),
        (lambda folder: folder, 'ros2 bag record'),
        (lambda folder: _file(folder / 'a.json', b'{"frames"'), 'JSON'),
        (lambda folder: _file(folder / 'a.json', b'\xff\xfe'), 'JSON'),
        (lambda folder: _file(folder / 'a.json', b'[' * 100_000), 'JSON'),
        (lambda folder: _file(folder / 'a.txt', b'hello'), 'neither'),
        (lambda folder: _file(folder / 'a.mcap', b''), 'neither'),
        (lambda folder: _file(folder / 'a.db3', b'SQLite format 3\0' + bytes(5000)), 'a.db3'),
        (lambda folder: _file(folder / 'a_0.mcap.zstd', b'').parent, 'neither'),
        (lambda folder: _file(folder / 'a_0.mcap.lz4', b'').parent, 'unpack it first'),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(
    make, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(make(tmp_path)), '--output', str(tmp_path / 'page.html')]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith('report: ') and message in error and '\n' not in error


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_local_inference_is_called_so(tmp_path) -> None:
    document = demo()
    for one in document['frames'] + document['decisions']:  # type: ignore[operator]
        if one['split_index'] == 1:
            one.update(split_name='output', codec='')
    run = read_run(written(tmp_path, document))
    assert {frame.split_name for frame in run.robots[0].frames} == {'cut 0', 'local inference', 'cut 2'}
    assert run.robots[0].decisions[0][1].split_name == 'local inference'
    page = make_page(run)
    assert '<td>local inference</td>' in page and 'output</td>' not in page
