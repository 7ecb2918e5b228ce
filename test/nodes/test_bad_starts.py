# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A node that cannot start as it was told ends with one sentence and a code other than 0: each node, each kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, ExitStack
from pathlib import Path
import subprocess

from ament_index_python.packages import get_package_prefix
import pytest

from dynsplit_ros.errors import DynsplitError
from dynsplit_ros.transport import check_discovery_server, environment

pytestmark = pytest.mark.timeout(900)
#: Longest time of one start. A camera or an edge needs 5 s of a processor, nearly all of it to import torch; on a
#: machine with a load of 60 that took more than 120 s.
START_S = 400.0
PROGRAMS = Path(get_package_prefix('dynsplit_ros')) / 'lib' / 'dynsplit_ros'

#: By kind of fault: arguments after --ros-args, environment, and what the sentence says.
FAULTS = {
    'argument': (['-p', 'use_sim_time:=false', '--', '--modle'], {}, "'--modle' was given"),
    'arguments of ROS': (['--log-level', 'loud'], {}, 'log-level loud'),
    'parameter file': (['--params-file', '/tmp'], {}, 'params file'),
    "parameter of ROS's own": (['-p', 'use_sim_time:=maybe'], {}, "'use_sim_time' to 'maybe'"),
    'parameter': (['-p', 'remote_control:=3'], {}, "'remote_control' is 3, of type int"),
    'discovery server': ([], {'ROS_DISCOVERY_SERVER': '10.0.0.1:port'}, 'must be HOST:PORT'),
    'domain': ([], {'ROS_DOMAIN_ID': '9999'}, 'from 0 to 232'),
}
#: Faults of one node's own: its parameters.
OWN = {
    'camera_node': [('model:=json:loads', 'json:loads'), ('image_topics:=["a b"]', 'not a topic name')],
    'edge_node': [('model:=/no/such.pt2', '/no/such.pt2'), ('device:=hpu', "device 'hpu'")],
    'monitor_node': [
        ('qos_overrides./split.publisher.reliability:=perhaps', 'perhaps'),
        ('silence_s:=.nan', "'silence_s' is nan"),
    ],
    'image_source': [('path:=/no/such', '/no/such'), ('path:=/dev', '/dev'), ('rate_hz:=0.0', "'rate_hz' is 0.0")],
    'link_emulator': [('rates_mbps:=[1.0, 2.0]', 'rates_mbps has 2 entries')],
}
HEAVY = ('camera_node', 'edge_node')
QUICK = ['-p', 'weights:=none', '-p', 'model:=squeezenet1_1', '-p', 'input_size:=[64, 64]']


@contextmanager
def started(node: str, arguments: list[str], environ: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a node that must refuse what it is given; kill it if it still runs at the end."""
    ros, _, rest = ' '.join(arguments).partition(' -- ')
    given = ['--ros-args', *(arguments[: arguments.index('--')] if rest else arguments)]
    with subprocess.Popen(
        [
            'env',
            *(f'{name}={value}' for name, value in environ.items()),
            f'XDG_CACHE_HOME={folder}',
            str(PROGRAMS / node),
            *given,
            *(['--', rest] if rest else []),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def assert_one_sentence(process: subprocess.Popen[str], words: str) -> None:
    output, _ = process.communicate(timeout=START_S)
    assert process.returncode not in (0, None), output
    assert 'Traceback' not in output and words in output, output
    said = [line for line in output.splitlines() if '[FATAL]' in line]
    assert len(said) == 1 and len(said[0]) < 1000, output


@pytest.mark.parametrize('node', OWN)
def test_each_kind_of_fault_is_said_in_one_sentence(node: str, tmp_path: Path) -> None:
    # Of what all nodes do alike, those that load torch try two kinds: a start of theirs takes seconds.
    shared = [FAULTS[kind] for kind in (('argument', "parameter of ROS's own") if node in HEAVY else FAULTS)]
    tries = [
        *shared,
        *(([*QUICK, '-p', given] if node in HEAVY else ['-p', given], {}, words) for given, words in OWN[node]),
    ]
    # Two at a time: more starts than processors would only wait for each other.
    for number in range(0, len(tries), 2):
        with ExitStack() as running:
            pair = [
                (running.enter_context(started(node, arguments, environ, tmp_path)), words)
                for arguments, environ, words in tries[number : number + 2]
            ]
            for process, words in pair:
                assert_one_sentence(process, words)


@pytest.mark.parametrize(
    'value',
    [
        'nonsense',
        ';',
        ' ',
        'host',
        ':11811',
        'host:',
        'host:0',
        'host:65536',
        'host:-1',
        'host:1:2',
        'a b:1',
        'host:11811;x',
        'host:123456789',
        '/etc/passwd:1',
        'TCPv5:[1.2.3.4]:1',
        'host\n:1',
    ],
)
def test_no_discovery_server_is_refused(value: str) -> None:
    with pytest.raises(DynsplitError, match='discovery_server is .* but must be HOST:PORT'):
        environment('default', value)


@pytest.mark.parametrize(
    'value',
    [
        'localhost:11811',
        '192.168.1.5:11811',
        'edge-1.local:65535',
        '[::1]:11811',
        ';10.0.0.1:11811;10.0.0.2:11812',
        'TCPv4:[10.0.0.1]:42100',
    ],
)
def test_a_discovery_server_is_taken(value: str) -> None:
    assert environment('default', value)['ROS_DISCOVERY_SERVER'] == value


def test_a_port_may_be_left_out_where_fast_dds_has_one() -> None:
    check_discovery_server('ROS_DISCOVERY_SERVER', '10.0.0.1')


def test_an_edge_whose_replicas_lack_the_engine_ends_with_one_sentence(tmp_path: Path) -> None:
    with started('edge_node', [*QUICK, '-p', 'engine_pool:=ray', '-p', 'engine:=openvino'], {}, tmp_path) as process:
        assert_one_sentence(process, "'engine' is 'openvino', but with engine_pool 'ray' it must be 'eager'")
