# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Every profile of the middleware loads in the version that is installed, and only image nodes use shared memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
import subprocess
import sys
import time
from xml.etree import ElementTree

from ament_index_python.packages import get_package_share_directory
from conftest import DEADLINE_S
import pytest

rclpy = pytest.importorskip('rclpy', reason='the node tests need ROS 2')

from dynsplit_ros.nodes.processes import Processes  # noqa: E402
from dynsplit_ros.transport import adapted, defaults, environment, fast_dds_version, profile, PROFILES, TRANSPORTS  # noqa: E402

CONFIG = Path(get_package_share_directory('dynsplit_ros')) / 'config'
needs_fast_dds = pytest.mark.skipif(not fast_dds_version(), reason='the profiles are for Fast DDS')


def wait_for_node(watcher, name: str, processes: Processes) -> None:
    """Wait until a node on the graph has this name."""
    deadline_s = time.monotonic() + DEADLINE_S
    while name not in watcher.get_node_names():
        processes.check()
        assert time.monotonic() < deadline_s, f'{name} was not found within {DEADLINE_S:g} s'
        time.sleep(0.02)


def shared_memory_of(pid: int) -> set[str]:
    """Return the shared memory of Fast DDS that a process has mapped."""
    maps = Path(f'/proc/{pid}/maps').read_text().splitlines()
    return {
        path
        for line in maps
        if (path := line.rsplit(' ', 1)[-1]).startswith(('/dev/shm/fastrtps_', '/dev/shm/fastdds_'))
    }


@needs_fast_dds
@pytest.mark.parametrize('transport', TRANSPORTS)
@pytest.mark.parametrize('discovery_range', ['LOCALHOST', 'SUBNET'])
def test_a_profile_loads_and_only_image_nodes_use_shared_memory(
    processes, ros, monkeypatch, transport, discovery_range
) -> None:
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', discovery_range)
    watcher = ros(rclpy.create_node('watcher'))
    names = ('monitor_node', 'image_source')
    for name in names:
        processes.start(name, name, 'robot1', {}, env=environment(transport))
    for name in names:
        wait_for_node(watcher, name, processes)
    assert shared_memory_of(processes.pid('image_source'))
    assert not shared_memory_of(processes.pid('monitor_node'))
    for name in names:
        assert processes.stop(name) == 0
        log = processes.log(name).read_text()
        assert 'XML' not in log and 'Error' not in log, log


@needs_fast_dds
def test_a_serving_edge_uses_no_shared_memory(processes, ros, model_parameters) -> None:
    watcher = ros(rclpy.create_node('watcher'))
    processes.start('edge', 'edge_node', 'edge', model_parameters)
    wait_for_node(watcher, 'edge_node_downlink', processes)
    assert not shared_memory_of(processes.pid('edge'))


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_the_files_for_both_versions_differ_in_names_only(transport) -> None:
    second, third = (profile(transport, version).read_text() for version in PROFILES)
    assert third == second.replace('heartbeatPeriod', 'heartbeat_period')


@pytest.mark.parametrize('path', sorted(CONFIG.glob('fastdds*_*.xml')), ids=lambda path: path.stem)
def test_a_copy_without_shared_memory_has_the_rest_of_the_profile(path) -> None:
    def tags(text: str) -> list[tuple[str, str]]:
        return [
            (element.tag.split('}')[1], (element.text or '').strip()) for element in ElementTree.fromstring(text).iter()
        ]

    text = path.read_text()
    before, after = tags(text), tags(adapted(text, shared_memory=False, peers=[]))
    start = before.index(('transport_descriptor', ''))
    end = before.index(('transport_descriptor', ''), start + 1)
    assert ('type', 'SHM') in before[start:end]
    kept = before[:start] + before[end:]
    kept.remove(('transport_id', 'shared_memory'))
    assert after == kept
    assert tags(adapted(text, shared_memory=True, peers=[])) == before
    peers = tags(adapted(text, shared_memory=False, peers=['127.0.0.1', 'lidar']))
    assert [text for tag, text in peers if tag == 'address'] == ['127.0.0.1', 'lidar']


VARIABLES = [variable for variable, _ in PROFILES.values()]


def inside(*, shared_memory: bool = False) -> dict[str, str]:
    """Return which profiles the middleware would read, and where it would look for others."""
    with defaults(shared_memory=shared_memory):
        return {
            variable: value
            for variable, value in os.environ.items()
            if variable in (*VARIABLES, 'ROS_AUTOMATIC_DISCOVERY_RANGE')
        }


@pytest.mark.parametrize('version', PROFILES)
@pytest.mark.parametrize('variable', VARIABLES)
@pytest.mark.parametrize('shared_memory', [False, True])
def test_a_profile_of_the_users_own_stays_in_force(tmp_path, monkeypatch, version, variable, shared_memory) -> None:
    monkeypatch.setattr('dynsplit_ros.transport.fast_dds_version', lambda: version)
    own = tmp_path / 'fastdds_default.xml'
    own.write_text('<dds/>')
    monkeypatch.setenv(variable, str(own))
    assert inside(shared_memory=shared_memory) == {variable: str(own), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}


def test_another_middleware_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr('dynsplit_ros.transport.fast_dds_version', lambda: 0)
    assert inside() == {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    assert environment('wired') == {'RMW_FASTRTPS_PUBLICATION_MODE': 'ASYNCHRONOUS'}


@pytest.mark.parametrize('version', PROFILES)
@pytest.mark.parametrize('named', PROFILES)
def test_our_own_profile_of_either_version_is_read_by_the_version_in_use(monkeypatch, version, named) -> None:
    monkeypatch.setattr('dynsplit_ros.transport.fast_dds_version', lambda: version)
    monkeypatch.setenv(PROFILES[named][0], str(profile('wired', named)))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'SUBNET')
    with defaults(shared_memory=True):
        assert [variable for variable in VARIABLES if variable in os.environ] == [PROFILES[version][0]]
        copy = Path(os.environ[PROFILES[version][0]])
        assert ElementTree.canonicalize(copy.read_text()) == ElementTree.canonicalize(
            profile('wired', version).read_text()
        )
    assert not copy.exists()
    assert {variable: os.environ.get(variable) for variable in VARIABLES} == {
        **dict.fromkeys(VARIABLES),
        PROFILES[named][0]: str(profile('wired', named)),
    }


def test_the_benchmark_of_the_transport_gets_every_message_in_each_way(tmp_path) -> None:
    program = 'import sys; sys.path[:] = sys.argv.pop(1).split(":"); from bench.transport import main; sys.exit(main())'
    path, written = ':'.join([str(Path(__file__).resolve().parents[2]), *sys.path]), tmp_path / 'transport.json'
    ran = subprocess.run(
        [sys.executable, '-c', program, path, '--messages', '2', '--json', str(written)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert written.is_file(), ran.stdout + ran.stderr
    delays_s = json.loads(written.read_text())['delays_s']
    assert {way.split()[0]: len(delays) for way, delays in delays_s.items()} == {'tcp': 2, 'bare': 2, 'dds': 2}
